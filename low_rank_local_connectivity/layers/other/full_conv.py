"""Full convolution: every tap of a filter meets every pixel, so that no position is special."""

from typing import Any, Unpack

import keras
from keras import ops

from low_rank_local_connectivity.layers.arguments import arguments_of
from low_rank_local_connectivity.layers.base_local_conv import SharedFilterConv
from low_rank_local_connectivity.layers.documentation import documented_with
from low_rank_local_connectivity.layers.keras_arguments import LayerArguments
from low_rank_local_connectivity.ops.arguments import one_of
from low_rank_local_connectivity.ops.convolution import windowed_convolution
from low_rank_local_connectivity.ops.precision import matmul


class FullConv(SharedFilterConv):
    """A convolution that pads each side by all that a filter can reach over it.

    `outputs[b, p, f] = activation(sum_{t, c} padded[b, s p + d t, c] * kernel[t, c, f])`, with
    `d (k - 1)` values of padding on every side of an axis of `k` taps, dilation `d` and stride `s`;
    its output length is `floor((n + d (k - 1) - 1) / s) + 1`.

    Under `"same"` padding a filter's outer taps never meet the pixels of the opposite border, and
    under `"valid"` the border's pixels are met by few taps: from either, a network learns where
    things are. Here an object that moves finds the same responses moved. With zeros around it, no
    bias, an activation with `f(0) = 0` and global pooling, features are exactly those of the
    object anywhere, for shifts that are multiples of the product of all strides.

    Args:
        filters: Number of filters.
        kernel_size: Taps per spatial axis: an integer or a tuple.
        strides: Step between windows per spatial axis, in input elements.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.
        dilation_rate: Step between taps per spatial axis, in input elements.
        activation: Name or callable; with a value other than 0 at 0, such as a sigmoid, the
            background is no longer 0, as with a bias.
        use_bias: Whether each filter has a bias. False, since a bias makes the background of the
            next layer differ from its padding, so that the border shows.
        padding_value: `"zeros"`, or `"background"`: what the layer's input is where there is
            nothing. It is read from the last example of the batch, which `WithBackground` puts
            there; then biases, and batch normalisation at inference, leave invariance exact.
        kernel_initializer: Initializer of the kernel.
        bias_initializer: Initializer of the bias.
        kernel_regularizer: Regularizer of the kernel.
        bias_regularizer: Regularizer of the bias.
        activity_regularizer: Regularizer of the output.
        kernel_constraint: Constraint on the kernel.
        bias_constraint: Constraint on the bias.

    Weights:
        kernel: `(*kernel_size, input channels, filters)`.
        bias: `(filters,)`.

    Input:
        `(batch, *spatial, channels)` or `(batch, channels, *spatial)`; any size.

    Output:
        The same with `filters` channels, each axis `d (k - 1)` longer at stride 1: maps grow, and
        so does what later layers cost.

    Raises:
        ValueError: If an argument is out of range.

    Reference:
        Kayhan and van Gemert, "On Translation Invariance in CNNs: Convolutional Layers can Exploit
        Absolute Spatial Location", CVPR 2020.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        data_format: str | None = None,
        dilation_rate: int | tuple[int, ...] = 1,
        activation: Any = None,
        use_bias: bool = False,
        padding_value: str = "zeros",
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        super().__init__(
            filters=filters,
            kernel_size=kernel_size,
            strides=strides,
            padding="full",
            data_format=data_format,
            dilation_rate=dilation_rate,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            **kwargs,
        )
        self.padding_value = one_of("padding_value", padding_value, ("zeros", "background"))

    ARGUMENTS = arguments_of(__init__)

    def paddings(self) -> tuple[str, ...]:
        """Returns the one padding that the layer has."""
        return ("full",)

    def convolve(self, inputs, training: bool | None = None):
        """Pads channels-last inputs and convolves."""
        del training
        response = None
        if self.padding_value == "background":
            # The convolution is linear: that of what differs from the background, which is 0 in
            # the padding, and the background's own response, which is the same everywhere.
            background = inputs[-1:, *([slice(0, 1)] * self.dimensions), :]
            inputs = inputs - background
            taps = ops.sum(self.kernel, axis=tuple(range(self.dimensions)))
            response = matmul(background, ops.cast(taps, background.dtype))
        outputs = windowed_convolution(inputs, self.kernel, self.windows)
        return outputs if response is None else outputs + response


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(FullConv)
class FullConv1D(FullConv):
    """A full convolution over 1 axis, such as time.

    Example:
        >>> tuple(FullConv1D(6, 3)(ops.ones((2, 10, 4))).shape)
        (2, 12, 6)
    """

    dimensions = 1


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(FullConv)
class FullConv2D(FullConv):
    """A full convolution over 2 axes, such as those of images.

    Example:
        >>> layer = FullConv2D(6, (3, 5), strides=2)
        >>> tuple(layer(ops.ones((2, 8, 9, 4))).shape)
        (2, 5, 7, 6)
    """

    dimensions = 2


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(FullConv)
class FullConv3D(FullConv):
    """A full convolution over 3 axes, such as those of volumes or videos.

    Example:
        >>> tuple(FullConv3D(6, (2, 1, 3))(ops.ones((2, 5, 6, 7, 4))).shape)
        (2, 6, 6, 9, 6)
    """

    dimensions = 3
