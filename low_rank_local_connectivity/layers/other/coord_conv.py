"""Convolution that is told where it is: coordinates as additional channels."""

from typing import Any, Unpack

import keras
from keras import layers, ops

from low_rank_local_connectivity.layers.arguments import arguments_of
from low_rank_local_connectivity.layers.configured_layer import ConfiguredLayer, TakesAnyDtype
from low_rank_local_connectivity.layers.data_format import (
    from_channels_last,
    join_shape,
    split_shape,
    standardize_data_format,
    to_channels_last,
)
from low_rank_local_connectivity.layers.keras_arguments import (
    Conv2DArguments,
    RegularizedLayerArguments,
)
from low_rank_local_connectivity.ops.arguments import boolean, per_axis, positive_int
from low_rank_local_connectivity.ops.operation_counts import convolution, numbers, per_output
from low_rank_local_connectivity.ops.precision import at_least_float32, maximum
from low_rank_local_connectivity.ops.windows import Windows


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
class AddCoordinates2D(ConfiguredLayer):
    """Appends each pixel's row and column, from -1 to 1, as channels.

    `row[i] = (2 i - (H - 1)) / (H - 1)` and likewise the column with `W`; 0 along an axis of
    length 1. With the radius, a third channel `sqrt(row ** 2 + col ** 2)`: the distance from the
    centre, `sqrt(2)` in every corner, whether or not the image is square.

    Args:
        with_radius: Whether to append the radius.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.

    Input:
        `(batch, height, width, channels)` or `(batch, channels, height, width)`; any size.

    Output:
        The same with 2 or 3 channels more, behind the others.

    Example:
        >>> outputs = AddCoordinates2D()(ops.zeros((1, 3, 5, 1)))
        >>> ops.convert_to_numpy(outputs)[0, 0].tolist()[1]
        [0.0, -1.0, -0.5]

    Reference:
        Liu et al., "An Intriguing Failing of Convolutional Neural Networks and the CoordConv
        Solution", NeurIPS 2018.
    """

    def __init__(
        self,
        with_radius: bool = False,
        data_format: str | None = None,
        **kwargs: Unpack[RegularizedLayerArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.with_radius = boolean("with_radius", with_radius)
        self.data_format = standardize_data_format(data_format)
        self.input_spec = layers.InputSpec(ndim=4)
        self._build_now(AddCoordinates2D)

    ARGUMENTS = arguments_of(__init__)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Returns the input's shape with the coordinates' channels added."""
        sizes, channels = split_shape(input_shape, self.data_format, 2)
        added = 3 if self.with_radius else 2
        return join_shape(input_shape[0], sizes, channels + added, self.data_format)

    @property
    def windows(self) -> Windows:
        """Each position by itself."""
        return Windows.single(2)

    def operations(self, input_shape: Any) -> int:
        """Counts nothing: coordinates are constants."""
        del input_shape
        return 0

    def call(self, inputs):
        """Appends the coordinates."""
        inputs = to_channels_last(inputs, self.data_format)
        shape: Any = ops.shape(inputs)
        batch, height, width, _ = shape
        dtype = at_least_float32(inputs)
        rows = ops.reshape(_coordinates(height, dtype), (1, -1, 1, 1))
        columns = ops.reshape(_coordinates(width, dtype), (1, 1, -1, 1))
        channels = [rows, columns]
        if self.with_radius:
            channels.append(ops.sqrt(ops.square(rows) + ops.square(columns)))
        maps = [
            ops.broadcast_to(ops.cast(x, inputs.dtype), (batch, height, width, 1)) for x in channels
        ]
        return from_channels_last(ops.concatenate([inputs, *maps], axis=-1), self.data_format)


def _coordinates(length, dtype: str):
    """Returns `length` evenly spaced numbers from -1 to 1, or 0 alone."""
    last: Any = ops.cast(length - 1, dtype)
    indices: Any = ops.cast(ops.arange(length), dtype)
    return (2 * indices - last) / maximum(last, 1.0)


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
class CoordConv2D(TakesAnyDtype):
    """A convolution over its input with coordinates appended.

    `outputs = Conv2D(concatenate([inputs, row, col]))`; see `AddCoordinates2D`.

    Args:
        filters: Number of filters.
        kernel_size: Taps per spatial axis: an integer or a tuple of 2.
        with_radius: Whether to append the radius too.
        **conv2d_arguments: Any other argument of `keras.layers.Conv2D`, by name.

    Weights:
        `kernel` and `bias` of the convolution, `kernel` of shape
        `(*kernel_size, input channels + 2 or 3, filters)`.

    Input:
        As `keras.layers.Conv2D`.

    Output:
        As `keras.layers.Conv2D`.

    Example:
        >>> layer = CoordConv2D(8, 3, padding="same")
        >>> outputs = layer(ops.ones((2, 6, 5, 4)))
        >>> tuple(outputs.shape), tuple(layer.convolution.kernel.shape)
        ((2, 6, 5, 8), (3, 3, 6, 8))

    Reference:
        Liu et al., "An Intriguing Failing of Convolutional Neural Networks and the CoordConv
        Solution", NeurIPS 2018.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        with_radius: bool = False,
        **conv2d_arguments: Unpack[Conv2DArguments],
    ) -> None:
        given: dict[str, Any] = {**conv2d_arguments}
        own = {
            name: given.pop(name)
            for name in ("name", "dtype", "trainable", "activity_regularizer")
            if name in given
        }
        filters = positive_int("filters", filters)
        kernel_size = per_axis("kernel_size", kernel_size, 2)
        super().__init__(**own)
        self.with_radius = boolean("with_radius", with_radius)
        # Held rather than inherited: a Conv2D with more input channels than it is built for
        # saves but does not load.
        self.convolution = layers.Conv2D(
            filters, kernel_size, **given, dtype=self.dtype_policy, name="convolution"
        )
        self.coordinates = AddCoordinates2D(
            with_radius,
            self.convolution.data_format,
            dtype=self.dtype_policy,
            name="coordinates",
        )
        self.input_spec = layers.InputSpec(ndim=4)

    def get_config(self) -> dict[str, Any]:
        """Returns the layer's arguments and those of its convolution."""
        own = super().get_config()
        convolution = self.convolution.get_config()
        rest = {name: value for name, value in convolution.items() if name not in own}
        rest.pop("activity_regularizer", None)
        return {**rest, **own, "with_radius": self.with_radius}

    def build(self, input_shape: Any) -> None:
        """Creates the convolution's weights for inputs of this shape."""
        self.convolution.build(self.coordinates.compute_output_shape(input_shape))

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Returns the convolution's output shape."""
        shape = self.coordinates.compute_output_shape(input_shape)
        return self.convolution.compute_output_shape(shape)

    @property
    def windows(self) -> Windows:
        """Where the convolution's windows sit."""
        conv = self.convolution
        return Windows(conv.kernel_size, conv.strides, conv.dilation_rate, conv.padding)

    def operations(self, input_shape: Any) -> int:
        """Counts the convolution; coordinates are constants."""
        conv: Any = self.convolution
        outputs = numbers(self.compute_output_shape(input_shape))
        after = per_output(conv.use_bias, conv.activation)
        return convolution(conv.kernel.shape, outputs) + after * outputs

    def call(self, inputs):
        """Appends the coordinates and convolves."""
        return self.convolution(self.coordinates(inputs))
