"""Low-rank locally connected layers that are followed by a shared pointwise convolution."""

from typing import Any, Literal, Unpack

import keras
from keras import ops

from low_rank_local_connectivity.layers.arguments import arguments_of
from low_rank_local_connectivity.layers.documentation import documented_with
from low_rank_local_connectivity.layers.keras_arguments import LayerArguments
from low_rank_local_connectivity.layers.local.depthwise_low_rank import (
    DepthwiseLowRankLocallyConnected,
    Implementation,
)
from low_rank_local_connectivity.ops.arguments import positive_int
from low_rank_local_connectivity.ops.precision import at_least_float32, matmul
from low_rank_local_connectivity.ops.windows import Padding


class SeparableLowRankLocallyConnected(DepthwiseLowRankLocallyConnected):
    """A depthwise low-rank locally connected layer, then a pointwise convolution.

    `outputs[b, p, f] = activation(sum_g depthwise[b, p, g] * pointwise[g, f] + biases[p, f])`

    where `depthwise` are the `C * M` channels of a `DepthwiseLowRankLocallyConnected` layer without
    biases, whose filters depend on the position, and all positions share `pointwise`, as in Keras's
    separable convolutions. Biases and the activation come at the end.

    Args:
        filters: Number of output channels, `F`.
        kernel_size: As in `DepthwiseLowRankLocallyConnected`, and so is everything else that is
            not said here.
        spatial_rank: Number of filter banks, `K`, at least 1.
        strides: Step between windows per spatial axis, in input elements.
        padding: As in `LowRankLocallyConnected`.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.
        dilation_rate: Step between taps per spatial axis; a list of `K` for a mixed basis.
        depth_multiplier: Number of filters of each channel, `M`.
        activation: Name or callable.
        use_bias: Whether each output channel has a bias.
        additive_axes: As in `LowRankLocallyConnected`, and so are the next four.
        input_dependent: Whether the logits are predicted from the input, for each example.
        normalize_weights: `"softmax"`, `"norm"` or None.
        use_spatial_bias: True, `"per_filter"` or False.
        combining_weights_initializer: `"conv_init"` or any initializer.
        depthwise_initializer: Initializer of the banks.
        pointwise_initializer: Initializer of the pointwise kernel.
        bias_initializer: Initializer of all biases.
        depthwise_regularizer: Regularizer of the banks.
        pointwise_regularizer: Regularizer of the pointwise kernel.
        combining_weights_regularizer: Regularizer of the logits, or a `SpatialSmoothness`.
        bias_regularizer: Regularizer of the output channels' bias.
        spatial_bias_regularizer: Regularizer of the spatial bias's terms.
        activity_regularizer: Regularizer of the output.
        depthwise_constraint: Constraint on the banks.
        pointwise_constraint: Constraint on the pointwise kernel.
        combining_weights_constraint: Constraint on the logits.
        bias_constraint: Constraint on the output channels' bias.
        spatial_bias_constraint: Constraint on the spatial bias's terms.
        preserve_variance: Under softmax, whether fresh banks are drawn `sqrt(K)` larger.
        implementation: How the depthwise step is computed.

    Weights, in this order:
        kernel_bases: `(*kernel_size, input channels, K * M)`, bank-major in the last axis; or
            `kernel_bases_0` to `kernel_bases_{K-1}` of a mixed basis.
        pointwise_kernel: `(*1, input channels * M, F)`.
        combining weights: As in `LowRankLocallyConnected`, and so is the spatial bias.
        bias: `(F,)`.

    Input:
        `(batch, *spatial, channels)` or `(batch, channels, *spatial)`.

    Output:
        The same with `F` channels.

    Raises:
        ValueError: If arguments are out of range or contradict each other, or if a spatial size
            that the weights depend on is unknown.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, ...] | list,
        spatial_rank: int,
        strides: int | tuple[int, ...] = 1,
        padding: Padding = "valid",
        data_format: str | None = None,
        dilation_rate: int | tuple[int, ...] | list = 1,
        depth_multiplier: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        *,
        additive_axes: tuple[int, ...] | None = None,
        input_dependent: bool = False,
        normalize_weights: Literal["softmax", "norm", ""] | None = "softmax",
        use_spatial_bias: bool | Literal["per_filter"] = True,
        combining_weights_initializer: Any = "conv_init",
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
        combining_weights_regularizer: Any = None,
        bias_regularizer: Any = None,
        spatial_bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        pointwise_constraint: Any = None,
        combining_weights_constraint: Any = None,
        bias_constraint: Any = None,
        spatial_bias_constraint: Any = None,
        preserve_variance: bool = False,
        implementation: Implementation = "auto",
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        self.output_filters = positive_int("filters", filters)
        super().__init__(
            kernel_size=kernel_size,
            spatial_rank=spatial_rank,
            strides=strides,
            padding=padding,
            depth_multiplier=depth_multiplier,
            data_format=data_format,
            dilation_rate=dilation_rate,
            activation=activation,
            use_bias=use_bias,
            additive_axes=additive_axes,
            input_dependent=input_dependent,
            normalize_weights=normalize_weights,
            use_spatial_bias=use_spatial_bias,
            combining_weights_initializer=combining_weights_initializer,
            bias_initializer=bias_initializer,
            combining_weights_regularizer=combining_weights_regularizer,
            bias_regularizer=bias_regularizer,
            spatial_bias_regularizer=spatial_bias_regularizer,
            activity_regularizer=activity_regularizer,
            combining_weights_constraint=combining_weights_constraint,
            bias_constraint=bias_constraint,
            spatial_bias_constraint=spatial_bias_constraint,
            preserve_variance=preserve_variance,
            implementation=implementation,
            depthwise_initializer=depthwise_initializer,
            depthwise_regularizer=depthwise_regularizer,
            depthwise_constraint=depthwise_constraint,
            **kwargs,
        )
        self.filters = self.output_filters
        self.keep(
            pointwise_initializer=pointwise_initializer,
            pointwise_regularizer=pointwise_regularizer,
            pointwise_constraint=pointwise_constraint,
        )

    ARGUMENTS = arguments_of(__init__)

    def output_channels(self, channels: int) -> int:
        """Returns `filters`."""
        del channels
        return self.output_filters

    def build_banks(self, input_shape: Any) -> None:
        """Creates the banks and the pointwise kernel."""
        super().build_banks(input_shape)
        self.pointwise_kernel = self.add_weight(
            shape=(*(1,) * self.dimensions, self.step_filters, self.filters),
            initializer=self.pointwise_initializer,
            name="pointwise_kernel",
            regularizer=self.pointwise_regularizer,
            constraint=self.pointwise_constraint,
        )

    def convolve(self, inputs, training: bool | None = None):
        """Applies the local filters to channels-last inputs, then the pointwise kernel."""
        return matmul(super().convolve(inputs, training), self._pointwise_matrix())

    def _pointwise_matrix(self):
        return ops.reshape(self.pointwise_kernel, (self.step_filters, self.filters))

    def local_kernel(self):
        """Returns the filter at each position that the depthwise and the pointwise one make.

        Returns:
            Tensor of shape `(*output sizes, *kernel size, input channels, filters)`, length 1
            along an output axis of unknown size.

        Raises:
            ValueError: If the layer is not built, or the filters depend on the input.

        Example:
            >>> layer = SeparableLowRankLocallyConnected2D(5, 3, spatial_rank=4)
            >>> layer.build((None, 8, 9, 2))
            >>> ops.shape(layer.local_kernel())
            (6, 7, 3, 3, 2, 5)
        """
        kernel = super().local_kernel()
        matrix = ops.cast(self._pointwise_matrix(), at_least_float32(kernel))
        shape = (self.input_channels, self.depth_multiplier, self.filters)
        return ops.squeeze(matmul(ops.expand_dims(kernel, -2), ops.reshape(matrix, shape)), -2)

    def _operations_afterwards(self, outputs: int) -> int:
        """Counts the pointwise convolution too."""
        return 2 * self.step_filters * outputs + super()._operations_afterwards(outputs)


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(SeparableLowRankLocallyConnected)
class SeparableLowRankLocallyConnected1D(SeparableLowRankLocallyConnected):
    """A separable low-rank locally connected layer over 1 axis, such as time.

    Example:
        >>> layer = SeparableLowRankLocallyConnected1D(6, 3, spatial_rank=2)
        >>> tuple(layer(ops.ones((2, 10, 4))).shape)
        (2, 8, 6)
    """

    dimensions = 1


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(SeparableLowRankLocallyConnected)
class SeparableLowRankLocallyConnected2D(SeparableLowRankLocallyConnected):
    """A separable low-rank locally connected layer over 2 axes, such as those of images.

    Example:
        >>> layer = SeparableLowRankLocallyConnected2D(6, (3, 2), spatial_rank=4)
        >>> tuple(layer(ops.ones((2, 9, 8, 3))).shape)
        (2, 7, 7, 6)
    """

    dimensions = 2
