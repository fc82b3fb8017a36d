"""Batch normalisation that treats all orientations alike."""

from typing import Any, Unpack

import keras
from keras import ops

from low_rank_local_connectivity.layers.configured_layer import TakesAnyDtype
from low_rank_local_connectivity.layers.data_format import standardize_data_format
from low_rank_local_connectivity.layers.keras_arguments import BatchNormalizationArguments
from low_rank_local_connectivity.layers.turned.group_action import CommutesWithEveryGroup
from low_rank_local_connectivity.ops.arguments import number_above, received, sizes_of
from low_rank_local_connectivity.ops.operation_counts import numbers
from low_rank_local_connectivity.ops.precision import mean
from low_rank_local_connectivity.ops.windows import Windows


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
class GroupBatchNormalization(
    CommutesWithEveryGroup, TakesAnyDtype, keras.layers.BatchNormalization
):
    """Batch normalisation of maps with orientations: statistics and weights per channel only.

    `outputs[b, p, r, c] = (inputs[b, p, r, c] - mean[c]) / sqrt(variance[c] + epsilon) * gamma[c]
    + beta[c]`, mean and variance over examples, positions and orientations. It computes what
    `keras.layers.BatchNormalization` does along the channel axis of such maps; but that axis, not
    the usual one under `"channels_first"`, need not be known here, and maps without
    orientations, on which a value for each of `order * channels` would break equivariance, are
    refused.

    Args:
        momentum: Share of a moving average that stays at each step, from 0 to 1.
        epsilon: Added to the variance; above 0.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.
        **kwargs: Further arguments of `keras.layers.BatchNormalization`, but for `axis`.

    Input:
        `(batch, height, width, order, channels)`, or `(batch, order, channels, height, width)`
        under `"channels_first"`.

    Output:
        The same shape.

    Raises:
        ValueError: If an argument is out of range, or the input has another number of axes.

    Example:
        >>> layer = GroupBatchNormalization()
        >>> tuple(layer(keras.ops.ones((2, 9, 8, 4, 5))).shape), tuple(layer.gamma.shape)
        ((2, 9, 8, 4, 5), (5,))
    """

    def __init__(
        self,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        data_format: str | None = None,
        **kwargs: Unpack[BatchNormalizationArguments],
    ) -> None:
        data_format = standardize_data_format(data_format)
        axis = -1 if data_format == "channels_last" else 2
        momentum = number_above("momentum", momentum, 0, or_equal=True)
        if momentum > 1:
            raise ValueError(
                f"`momentum` must be a number from 0 to 1. Received: momentum={momentum}."
            )
        epsilon = number_above("epsilon", epsilon, 0)
        super().__init__(axis=axis, momentum=momentum, epsilon=epsilon, **kwargs)
        self.data_format = data_format
        # Keras's masks are of sequences.
        self.supports_masking = False

    def build(self, input_shape: Any) -> None:
        """Creates the weights for inputs of this shape."""
        self._require_orientations(input_shape)
        super().build(input_shape)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Returns the input's shape."""
        self._require_orientations(input_shape)
        return super().compute_output_shape(input_shape)

    def _require_orientations(self, input_shape: Any) -> None:
        if len(sizes_of(input_shape) or ()) != 5:
            raise ValueError(
                f"Layer {self.name!r} needs maps with orientations, (batch, height, width, order, "
                "channels) or (batch, order, channels, height, width). Received: "
                f"{received('input_shape', input_shape)}. Use keras.layers.BatchNormalization for "
                "others."
            )

    @property
    def windows(self) -> Windows:
        """Each position by itself."""
        return Windows.single(2)

    def operations(self, input_shape: Any) -> int:
        """Counts a product and a sum: fixed statistics make a factor and an addend."""
        return 2 * numbers(input_shape)

    def call(self, inputs, training=None, mask=None):
        """Normalises by the statistics of the batch while training, else by the moving ones."""
        # Keras normalises float64 in float32 on JAX and PyTorch.
        special = mask is not None or self.synchronized or getattr(self, "renorm", False)
        if self.compute_dtype != "float64" or special:
            return super().call(inputs, training=training, mask=mask)
        average, variance = self._statistics(inputs, training)
        shape = [-1 if axis == self.axis % 5 else 1 for axis in range(5)]
        scale = ops.reshape(ops.rsqrt(variance + self.epsilon), shape)
        outputs = (inputs - ops.reshape(average, shape)) * scale
        if self.gamma is not None:
            outputs = outputs * ops.reshape(self.gamma, shape)
        return outputs if self.beta is None else outputs + ops.reshape(self.beta, shape)

    def _statistics(self, inputs, training):
        """Returns the means and variances to normalise by; moves the moving ones in training."""
        if not (training and self.trainable):
            return ops.copy(self.moving_mean), ops.copy(self.moving_variance)
        average = mean(inputs, self._reduction_axes, keepdims=True)
        variance = mean(ops.square(inputs - average), self._reduction_axes)
        average = ops.reshape(average, (-1,))
        for moving, new in ((self.moving_mean, average), (self.moving_variance, variance)):
            old = ops.convert_to_tensor(moving)
            moving.assign(self.momentum * old + (1 - self.momentum) * new)
        return average, variance

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments as plain values."""
        config = super().get_config()
        del config["axis"]
        return {**config, "data_format": self.data_format}
