"""Low-rank locally connected layers whose channels are each filtered by themselves."""

from typing import Any, Literal, Unpack

import keras
from keras import ops

from low_rank_local_connectivity.layers.arguments import arguments_of
from low_rank_local_connectivity.layers.documentation import documented_with
from low_rank_local_connectivity.layers.keras_arguments import LayerArguments
from low_rank_local_connectivity.layers.local.depthwise import (
    Depthwise,
    kernel_arguments,
    require_own_arguments,
)
from low_rank_local_connectivity.layers.local.low_rank_locally_connected import (
    LowRankLocallyConnected,
)
from low_rank_local_connectivity.ops.arguments import positive_int
from low_rank_local_connectivity.ops.windows import Padding

Implementation = Literal["auto", "convolve_then_combine", "combine_then_convolve"]


class DepthwiseLowRankLocallyConnected(Depthwise, LowRankLocallyConnected):
    """A depthwise convolution whose filter at each position mixes `K` shared filter banks.

    `filter[i, j, c] = sum_k w[i, j, k] * bank[k, c]`, where a bank is the kernel of a depthwise
    convolution, with `M` filters of each channel. The combining weights are those of
    `LowRankLocallyConnected`, of which this is the layer of as many groups as channels, with the
    arguments of Keras's depthwise convolutions.

    Args:
        kernel_size: Taps per spatial axis: an integer or a tuple. A *list* of `K` such values
            gives each bank its own size, as in `LowRankLocallyConnected`.
        spatial_rank: Number of filter banks, `K`, at least 1.
        strides: Step between windows per spatial axis, in input elements.
        padding: As in `LowRankLocallyConnected`.
        depth_multiplier: Number of filters of each channel, `M`.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.
        dilation_rate: Step between taps per spatial axis; a list of `K` for a mixed basis.
        activation: Name or callable.
        use_bias: Whether each output channel has a bias.
        additive_axes: As in `LowRankLocallyConnected`, and so are the next four.
        input_dependent: Whether the logits are predicted from the input, for each example.
        normalize_weights: `"softmax"`, `"norm"` or None.
        use_spatial_bias: True, `"per_filter"` or False.
        combining_weights_initializer: `"conv_init"` or any initializer.
        depthwise_initializer: Initializer of the banks, each drawn with the fans that Keras gives
            the kernel of a depthwise convolution.
        bias_initializer: Initializer of all biases.
        depthwise_regularizer: Regularizer of the banks.
        combining_weights_regularizer: Regularizer of the logits, or a `SpatialSmoothness`.
        bias_regularizer: Regularizer of the output channels' bias.
        spatial_bias_regularizer: Regularizer of the spatial bias's terms.
        activity_regularizer: Regularizer of the output.
        depthwise_constraint: Constraint on the banks.
        combining_weights_constraint: Constraint on the logits.
        bias_constraint: Constraint on the output channels' bias.
        spatial_bias_constraint: Constraint on the spatial bias's terms.
        preserve_variance: Under softmax, whether fresh banks are drawn `sqrt(K)` larger.
        implementation: `"convolve_then_combine"` mixes the responses of `K` depthwise
            convolutions, `"combine_then_convolve"` mixes the banks and sums the products of each
            position's filter over its taps. `"auto"` takes the one that is estimated to be faster.

    Weights, in this order:
        kernel_bases: `(*kernel_size, input channels, K * M)`, bank-major in the last axis; or
            `kernel_bases_0` to `kernel_bases_{K-1}` of a mixed basis.
        combining weights: As in `LowRankLocallyConnected`, and so is the spatial bias, per filter
            one for each output channel.
        bias: `(input channels * M,)`.

    Input:
        `(batch, *spatial, channels)` or `(batch, channels, *spatial)`.

    Output:
        The same with `M` channels for each channel, those of the first one first.

    Raises:
        ValueError: If arguments are out of range or contradict each other, or if a spatial size
            that the weights depend on is unknown.
    """

    def __init__(
        self,
        kernel_size: int | tuple[int, ...] | list,
        spatial_rank: int,
        strides: int | tuple[int, ...] = 1,
        padding: Padding = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: int | tuple[int, ...] | list = 1,
        activation: Any = None,
        use_bias: bool = True,
        *,
        additive_axes: tuple[int, ...] | None = None,
        input_dependent: bool = False,
        normalize_weights: Literal["softmax", "norm", ""] | None = "softmax",
        use_spatial_bias: bool | Literal["per_filter"] = True,
        combining_weights_initializer: Any = "conv_init",
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        combining_weights_regularizer: Any = None,
        bias_regularizer: Any = None,
        spatial_bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        combining_weights_constraint: Any = None,
        bias_constraint: Any = None,
        spatial_bias_constraint: Any = None,
        preserve_variance: bool = False,
        implementation: Implementation = "auto",
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        require_own_arguments(self, kwargs)
        self.depth_multiplier = positive_int("depth_multiplier", depth_multiplier)
        super().__init__(
            filters=self.depth_multiplier,
            kernel_size=kernel_size,
            spatial_rank=spatial_rank,
            strides=strides,
            padding=padding,
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
            **kernel_arguments(depthwise_initializer, depthwise_regularizer, depthwise_constraint),
            **kwargs,
        )

    ARGUMENTS = arguments_of(__init__)

    def _require_kernel(self) -> None:
        raise ValueError(
            f"No fused kernel filters each channel by itself, as layer {self.name!r} does. "
            "Received: implementation='fused'. Use implementation='auto'."
        )

    def _banks_in_groups(self) -> list:
        """Returns the banks as those of a layer in groups, `(*kernel_size, 1, K * C * M)`."""
        return list(map(self._in_groups, super()._banks_in_groups()))

    def _in_groups(self, banks):
        *taps, channels, _ = banks.shape
        banks = ops.reshape(banks, (*taps, channels, -1, self.depth_multiplier))
        return ops.reshape(ops.swapaxes(banks, -3, -2), (*taps, 1, -1))


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(DepthwiseLowRankLocallyConnected)
class DepthwiseLowRankLocallyConnected1D(DepthwiseLowRankLocallyConnected):
    """A depthwise low-rank locally connected layer over 1 axis, such as time.

    Example:
        >>> layer = DepthwiseLowRankLocallyConnected1D(3, spatial_rank=2, padding="causal")
        >>> tuple(layer(ops.ones((2, 10, 4))).shape)
        (2, 10, 4)
    """

    dimensions = 1


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(DepthwiseLowRankLocallyConnected)
class DepthwiseLowRankLocallyConnected2D(DepthwiseLowRankLocallyConnected):
    """A depthwise low-rank locally connected layer over 2 axes, such as those of images.

    Example:
        >>> layer = DepthwiseLowRankLocallyConnected2D((3, 2), spatial_rank=4, depth_multiplier=2)
        >>> tuple(layer(ops.ones((2, 9, 8, 3))).shape)
        (2, 7, 7, 6)
    """

    dimensions = 2
