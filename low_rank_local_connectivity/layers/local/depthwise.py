"""Local layers whose channels are each filtered by themselves."""

from collections.abc import Mapping
from typing import Any, Literal, Unpack

import keras
from keras import ops

from low_rank_local_connectivity.layers.arguments import arguments_of, keras_argument
from low_rank_local_connectivity.layers.base_local_conv import BaseLocalConv
from low_rank_local_connectivity.layers.data_format import split_shape
from low_rank_local_connectivity.layers.documentation import documented_with
from low_rank_local_connectivity.layers.keras_arguments import LayerArguments
from low_rank_local_connectivity.layers.local.locally_connected import LocallyConnected
from low_rank_local_connectivity.ops.arguments import positive_int, received
from low_rank_local_connectivity.ops.windows import Padding


class Depthwise(BaseLocalConv):
    """Makes a local layer one of as many groups as channels, by the names of Keras's layers.

    Its kernel has Keras's axes, the channels and the filters of each; what is made of it for a plan
    has those of a layer in groups: one channel, and the filters of all.
    """

    depth_multiplier: int

    @property
    def depthwise_initializer(self) -> Any:
        """Initializer of the kernel."""
        return self.kernel_initializer

    @property
    def depthwise_regularizer(self) -> Any:
        """Regularizer of the kernel."""
        return self.kernel_regularizer

    @property
    def depthwise_constraint(self) -> Any:
        """Constraint on the kernel."""
        return self.kernel_constraint

    def output_channels(self, channels: int) -> int:
        """Returns the number of output channels for inputs of so many."""
        return channels * self.depth_multiplier

    @property
    def kernel_channels(self) -> int:
        """Length of the axis of channels of the kernel: all of them."""
        return self.input_channels

    @property
    def kernel_filters(self) -> int:
        """Length of the axis of filters of the kernel: those of a channel."""
        return self.depth_multiplier

    @property
    def step_filters(self) -> int:
        """Number of channels that the local filters make."""
        return self.input_channels * self.depth_multiplier

    def build(self, input_shape: Any) -> None:
        """Creates the weights for inputs of this shape."""
        _, channels = split_shape(input_shape, self.data_format, self.dimensions)
        self.groups = channels
        self.filters = self.output_channels(channels)
        super().build(input_shape)


def kernel_arguments(initializer: Any, regularizer: Any, constraint: Any) -> dict[str, Any]:
    """Returns the arguments of a kernel, given by Keras's names for one of a depthwise layer."""
    given = {"initializer": initializer, "regularizer": regularizer, "constraint": constraint}
    return {
        f"kernel_{kind}": keras_argument(f"depthwise_{kind}", value)
        for kind, value in given.items()
    }


def require_own_arguments(layer: Any, given: Mapping[str, Any]) -> None:
    """Refuses arguments of the layer in groups that a depthwise or separable layer derives from."""
    inherited = {name for base in type(layer).__mro__ for name in vars(base).get("ARGUMENTS", ())}
    for name in inherited.difference(layer.ARGUMENTS).intersection(given):
        raise ValueError(
            f"{type(layer).__name__} takes the arguments of Keras's layer of that kind, such as "
            f"`depthwise_initializer`. Received: {received(name, given[name])}. Leave it out."
        )


class DepthwiseLocallyConnected(Depthwise, LocallyConnected):
    """A depthwise convolution that shares nothing between positions.

    `outputs[b, p, c * M + m] = activation(sum_t patches[p, b, t, c] * kernel[p, t, c, m] + bias)`

    where `p` runs over output positions, `t` over the taps of a filter and `m` over the `M` filters
    that each channel has at each position. It is a `LocallyConnected` layer of as many groups as
    channels, with the arguments of Keras's depthwise convolutions.

    Args:
        kernel_size: Taps per spatial axis: an integer or a tuple.
        strides: Step between windows per spatial axis, in input elements.
        padding: As in `LocallyConnected`.
        depth_multiplier: Number of filters of each channel at each position, `M`.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.
        dilation_rate: Step between taps per spatial axis, in input elements.
        activation: Name or callable.
        use_bias: Whether each position and output channel has a bias.
        depthwise_initializer: Initializer of the kernel.
        bias_initializer: Initializer of the bias.
        depthwise_regularizer: Regularizer of the kernel.
        bias_regularizer: Regularizer of the bias.
        activity_regularizer: Regularizer of the output.
        depthwise_constraint: Constraint on the kernel.
        bias_constraint: Constraint on the bias.
        fan: As in `LocallyConnected`; `"position"` draws each position's filters with the fans
            that Keras gives a depthwise convolution.

    Weights:
        kernel: `(positions, kernel taps * input channels, M)`; positions in row-major order. With
            `channels_first` the middle axis runs over channels, then taps.
        bias: `(*output sizes, input channels * M)`. With `channels_first` its values are stored
            in the order `(output channels, *output sizes)`.

    Input:
        `(batch, *spatial, channels)` or `(batch, channels, *spatial)`; the spatial size must be
        known, the batch size need not be.

    Output:
        The same with `M` channels for each channel, those of the first one first.

    Raises:
        ValueError: If an argument is out of range, or the input's spatial size is unknown.
    """

    sharing = "DepthwiseLowRankLocallyConnected{}D"

    def __init__(
        self,
        kernel_size: int | tuple[int, ...],
        strides: int | tuple[int, ...] = 1,
        padding: Padding = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: int | tuple[int, ...] = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        bias_constraint: Any = None,
        *,
        fan: Literal["position", "kernel"] = "position",
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        require_own_arguments(self, kwargs)
        self.depth_multiplier = positive_int("depth_multiplier", depth_multiplier)
        super().__init__(
            filters=self.depth_multiplier,
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            activation=activation,
            use_bias=use_bias,
            bias_initializer=bias_initializer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            bias_constraint=bias_constraint,
            fan=fan,
            **kernel_arguments(depthwise_initializer, depthwise_regularizer, depthwise_constraint),
            **kwargs,
        )

    ARGUMENTS = arguments_of(__init__)

    def _kernel_taps_first(self, kernel):
        """Returns the kernel of a layer in groups, `(positions, taps, output channels)`."""
        kernel = super()._kernel_taps_first(kernel)
        return ops.reshape(kernel, (kernel.shape[0], self.windows.taps, self.step_filters))


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(DepthwiseLocallyConnected)
class DepthwiseLocallyConnected1D(DepthwiseLocallyConnected):
    """A depthwise locally connected layer over 1 axis, such as time.

    Example:
        >>> layer = DepthwiseLocallyConnected1D(3, depth_multiplier=2)
        >>> tuple(layer(ops.ones((2, 10, 4))).shape)
        (2, 8, 8)
    """

    dimensions = 1


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(DepthwiseLocallyConnected)
class DepthwiseLocallyConnected2D(DepthwiseLocallyConnected):
    """A depthwise locally connected layer over 2 axes, such as those of images.

    Example:
        >>> layer = DepthwiseLocallyConnected2D((3, 2))
        >>> tuple(layer(ops.ones((2, 9, 8, 3))).shape)
        (2, 7, 7, 3)
    """

    dimensions = 2
