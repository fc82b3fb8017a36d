"""Convolution that is told where it is: coordinates as additional channels."""

from typing import Any, ClassVar, Literal, Unpack

import keras
from keras import layers, ops

from low_rank_local_connectivity.inspection.operation_rules import operations
from low_rank_local_connectivity.layers.arguments import arguments_of
from low_rank_local_connectivity.layers.base_local_conv import fitting_windows
from low_rank_local_connectivity.layers.configured_layer import ConfiguredLayer, TakesAnyDtype
from low_rank_local_connectivity.layers.data_format import (
    from_channels_last,
    join_shape,
    split_shape,
    standardize_data_format,
    to_channels_last,
)
from low_rank_local_connectivity.layers.documentation import documented_with
from low_rank_local_connectivity.layers.keras_arguments import (
    Conv2DTransposeArguments,
    RegularizedLayerArguments,
)
from low_rank_local_connectivity.ops.arguments import (
    boolean,
    one_of,
    one_of_any_case,
    per_axis,
    positive_int,
    received,
    sizes_of,
)
from low_rank_local_connectivity.ops.borders import pad_windows
from low_rank_local_connectivity.ops.operation_counts import convolution, numbers, per_output
from low_rank_local_connectivity.ops.precision import at_least_float32, maximum
from low_rank_local_connectivity.ops.transposed_windows import TransposedWindows
from low_rank_local_connectivity.ops.windows import READ_BORDERS, Windows, checked_padding

CoordinateOrder = Literal["row_first", "column_first"]


class AddCoordinates(ConfiguredLayer):
    """Appends each position's coordinates along the spatial axes, from -1 to 1, as channels.

    `row[i] = (2 i - (H - 1)) / (H - 1)` along an axis of length `H`, and likewise along the
    others; 0 along an axis of length 1. With the radius, one channel more,
    `sqrt(row ** 2 + col ** 2)`: the distance from the centre, as far in every corner, whether or
    not the image is square.

    Args:
        with_radius: Whether to append the radius.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.
        coordinate_order: `"row_first"` for the channels in the order of the axes, as the paper's
            release has them, or `"column_first"` for the opposite one, that of Uber's code.
        tile_to: Spatial size, an integer or a tuple, for inputs that have none: vectors, which then
            stand at every position, as where a picture is drawn from a few numbers.

    Input:
        `(batch, *spatial, channels)` or `(batch, channels, *spatial)`; any size. With `tile_to`,
        `(batch, channels)`.

    Output:
        The same, of size `tile_to` if given, with a channel more for each axis, and for the radius,
        behind the others.

    Raises:
        ValueError: If an argument is out of range, or the inputs have other axes.

    Reference:
        Liu et al., "An Intriguing Failing of Convolutional Neural Networks and the CoordConv
        Solution", NeurIPS 2018.
    """

    dimensions: ClassVar[int]

    def __init__(
        self,
        with_radius: bool = False,
        data_format: str | None = None,
        coordinate_order: CoordinateOrder = "row_first",
        tile_to: int | tuple[int, ...] | None = None,
        **kwargs: Unpack[RegularizedLayerArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.with_radius = boolean("with_radius", with_radius)
        self.data_format = standardize_data_format(data_format)
        self.coordinate_order: CoordinateOrder = checked_order(coordinate_order)
        self.tile_to = None if tile_to is None else per_axis("tile_to", tile_to, self.dimensions)
        self.input_spec = layers.InputSpec(ndim=self.dimensions + 2 if tile_to is None else 2)
        self._build_now(AddCoordinates)

    ARGUMENTS = arguments_of(__init__)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Returns the input's shape with the coordinates' channels added."""
        batch, sizes, channels = self._split(input_shape)
        added = self.dimensions + self.with_radius
        return join_shape(batch, sizes, channels + added, self.data_format)

    def _split(self, input_shape: Any) -> tuple[Any, tuple, int]:
        """Returns the batch, the size at which coordinates are appended, and the channels."""
        if self.tile_to is None:
            sizes, channels = split_shape(input_shape, self.data_format, self.dimensions)
            return input_shape[0], sizes, channels
        if len(sizes_of(input_shape) or ()) != 2:
            raise ValueError(
                f"Layer {self.name!r} tiles vectors, (batch, channels), to {self.tile_to}. "
                f"Received: {received('input_shape', input_shape)}. Leave `tile_to` out for inputs "
                "that have positions."
            )
        return input_shape[0], self.tile_to, input_shape[1]

    @property
    def windows(self) -> Windows | None:
        """Each position by itself; None if there are none before this layer."""
        return Windows.single(self.dimensions) if self.tile_to is None else None

    def operations(self, input_shape: Any) -> int:
        """Counts nothing: coordinates are constants."""
        del input_shape
        return 0

    def call(self, inputs):
        """Appends the coordinates."""
        inputs = self._positions(inputs)
        shape: Any = ops.shape(inputs)
        maps = coordinate_maps(
            shape[1:-1], at_least_float32(inputs), self.coordinate_order, self.with_radius
        )
        maps = [ops.broadcast_to(ops.cast(one, inputs.dtype), (*shape[:-1], 1)) for one in maps]
        return from_channels_last(ops.concatenate([inputs, *maps], axis=-1), self.data_format)

    def _positions(self, inputs):
        """Returns the inputs channels last, vectors at every position."""
        if self.tile_to is None:
            return to_channels_last(inputs, self.data_format)
        batch, channels = ops.shape(inputs)
        vectors = ops.reshape(inputs, (batch, *(1 for _ in self.tile_to), channels))
        return ops.broadcast_to(vectors, (batch, *self.tile_to, channels))


def checked_order(value: Any) -> CoordinateOrder:
    """Returns an order of coordinates."""
    return one_of("coordinate_order", value, ("row_first", "column_first"))


def coordinate_maps(sizes: Any, dtype: str, order: CoordinateOrder, with_radius: bool) -> list:
    """Returns the coordinates along each axis, and the radius, with axes of batch and channels.

    Those along an axis have length 1 along all others.
    """
    maps = []
    for axis, size in enumerate(sizes):
        shape = [1] * (len(sizes) + 2)
        shape[axis + 1] = -1
        maps.append(ops.reshape(_coordinates(size, dtype), shape))
    radius = [ops.sqrt(sum(map(ops.square, maps)))] if with_radius else []
    return [*(maps if order == "row_first" else maps[::-1]), *radius]


def _coordinates(length, dtype: str):
    """Returns `length` evenly spaced numbers from -1 to 1, or 0 alone."""
    last: Any = ops.cast(length - 1, dtype)
    indices: Any = ops.cast(ops.arange(length), dtype)
    return (2 * indices - last) / maximum(last, 1.0)


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(AddCoordinates)
class AddCoordinates1D(AddCoordinates):
    """Appends each position's coordinate, from -1 to 1, as a channel.

    Example:
        >>> outputs = AddCoordinates1D()(ops.zeros((1, 3, 1)))
        >>> ops.convert_to_numpy(outputs)[0].tolist()
        [[0.0, -1.0], [0.0, 0.0], [0.0, 1.0]]
    """

    dimensions = 1


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(AddCoordinates)
class AddCoordinates2D(AddCoordinates):
    """Appends each pixel's row and column, from -1 to 1, as channels.

    Example:
        >>> outputs = AddCoordinates2D()(ops.zeros((1, 3, 5, 1)))
        >>> ops.convert_to_numpy(outputs)[0, 0].tolist()[1]
        [0.0, -1.0, -0.5]
    """

    dimensions = 2


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(AddCoordinates)
class AddCoordinates3D(AddCoordinates):
    """Appends each voxel's depth, row and column, from -1 to 1, as channels.

    Example:
        >>> tuple(AddCoordinates3D(with_radius=True)(ops.zeros((1, 3, 5, 2, 4))).shape)
        (1, 3, 5, 2, 8)
    """

    dimensions = 3


class CoordConv(TakesAnyDtype):
    """A convolution over its input with coordinates appended.

    `outputs = convolution(concatenate([inputs, row, col]))`; see `AddCoordinates2D`.

    Args:
        filters: Number of filters.
        kernel_size: Taps per spatial axis: an integer or a tuple.
        with_radius: Whether to append the radius too.
        coordinate_order: As in `AddCoordinates2D`.
        tile_to: As in `AddCoordinates2D`: the size to which inputs that are vectors are tiled.
        **convolution_arguments: Any other argument of Keras's convolution, by name. `padding` may
            have the further values that `LocallyConnected2D` has, which Keras's has not; what then
            stands around the input stands around the coordinates too.

    Weights:
        `kernel` and `bias` of the convolution, `kernel` of shape
        `(*kernel_size, input channels + coordinates, filters)`.

    Input:
        As Keras's convolution; with `tile_to`, `(batch, channels)`.

    Output:
        As Keras's convolution.

    Reference:
        Liu et al., "An Intriguing Failing of Convolutional Neural Networks and the CoordConv
        Solution", NeurIPS 2018.
    """

    add_coordinates: ClassVar[Any]
    convolution_class: ClassVar[Any]
    # Those of Keras's convolution.
    paddings: ClassVar[tuple[str, ...]] = ("valid", "same")

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        with_radius: bool = False,
        *,
        coordinate_order: CoordinateOrder = "row_first",
        tile_to: int | tuple[int, ...] | None = None,
        **convolution_arguments: Unpack[Conv2DTransposeArguments],
    ) -> None:
        given: dict[str, Any] = {**convolution_arguments}
        own = {
            name: given.pop(name)
            for name in ("name", "dtype", "trainable", "activity_regularizer")
            if name in given
        }
        dimensions = self.add_coordinates.dimensions
        filters = positive_int("filters", filters)
        kernel_size = per_axis("kernel_size", kernel_size, dimensions)
        super().__init__(**own)
        self.with_radius = boolean("with_radius", with_radius)
        self.coordinate_order: CoordinateOrder = checked_order(coordinate_order)
        self.padding = self._checked_padding(given.pop("padding", "valid"))
        # Held rather than inherited: a Conv2D with more input channels than it is built for
        # saves but does not load.
        self.convolution = self.convolution_class(
            filters,
            kernel_size,
            **given,
            padding=self.padding if self.padding in self.paddings else "valid",
            dtype=self.dtype_policy,
            name="convolution",
        )
        self.coordinates = self.add_coordinates(
            with_radius,
            self.convolution.data_format,
            coordinate_order,
            tile_to,
            dtype=self.dtype_policy,
            name="coordinates",
        )
        self.input_spec = self.coordinates.input_spec

    def _checked_padding(self, value: Any) -> Any:
        dimensions = self.add_coordinates.dimensions
        return checked_padding(value, (*self.paddings, *READ_BORDERS), dimensions)

    def get_config(self) -> dict[str, Any]:
        """Returns the layer's arguments and those of its convolution."""
        own = super().get_config()
        convolution = self.convolution.get_config()
        rest = {name: value for name, value in convolution.items() if name not in own}
        rest.pop("activity_regularizer", None)
        coordinates = self.coordinates.get_config()
        names = ("with_radius", "coordinate_order", "tile_to")
        mine = {name: coordinates[name] for name in names}
        return {**rest, **own, **mine, "padding": self.padding}

    def build(self, input_shape: Any) -> None:
        """Creates the convolution's weights for inputs of this shape."""
        self.convolution.build(self._extended_shape(input_shape))

    def _extended_shape(self, input_shape: Any) -> tuple:
        """Returns the shape with coordinates; refuses too little to read for the border."""
        shape = self.coordinates.compute_output_shape(input_shape)
        if self.padding not in self.paddings:
            sizes, _ = split_shape(shape, self.data_format, self.add_coordinates.dimensions)
            fitting_windows(self, sizes)
        return shape

    @property
    def data_format(self) -> str:
        """Where inputs and outputs have their channels."""
        return self.convolution.data_format

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Returns the convolution's output shape."""
        shape = self._extended_shape(input_shape)
        if self.padding in self.paddings:
            return tuple(self.convolution.compute_output_shape(shape))
        sizes, _ = split_shape(shape, self.data_format)
        found = self.windows.output_shape(sizes)
        return join_shape(shape[0], found, self.convolution.filters, self.data_format)

    @property
    def windows(self) -> Windows:
        """Where the convolution's windows sit."""
        conv = self.convolution
        return Windows(conv.kernel_size, conv.strides, conv.dilation_rate, self.padding)

    def operations(self, input_shape: Any) -> int:
        """Counts the convolution; coordinates are constants."""
        conv: Any = self.convolution
        outputs = numbers(self.compute_output_shape(input_shape))
        after = per_output(conv.use_bias, conv.activation)
        return convolution(conv.kernel.shape, outputs) + after * outputs

    def call(self, inputs):
        """Appends the coordinates and convolves."""
        self._extended_shape(tuple(inputs.shape))
        extended = self.coordinates(inputs)
        if self.padding not in self.paddings:
            padded = pad_windows(to_channels_last(extended, self.data_format), self.windows)
            extended = from_channels_last(padded, self.data_format)
        return self.convolution(extended)


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(CoordConv)
class CoordConv1D(CoordConv):
    """A convolution over 1 axis of its input with each position's coordinate appended.

    Example:
        >>> layer = CoordConv1D(8, 3, padding="causal")
        >>> outputs = layer(ops.ones((2, 6, 4)))
        >>> tuple(outputs.shape), tuple(layer.convolution.kernel.shape)
        ((2, 6, 8), (3, 5, 8))
    """

    add_coordinates = AddCoordinates1D
    convolution_class = layers.Conv1D
    paddings = ("valid", "same", "causal")


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(CoordConv)
class CoordConv2D(CoordConv):
    """A convolution over images with coordinates appended.

    Example:
        >>> layer = CoordConv2D(8, 3, padding="same")
        >>> outputs = layer(ops.ones((2, 6, 5, 4)))
        >>> tuple(outputs.shape), tuple(layer.convolution.kernel.shape)
        ((2, 6, 5, 8), (3, 3, 6, 8))
    """

    add_coordinates = AddCoordinates2D
    convolution_class = layers.Conv2D


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(CoordConv)
class CoordConv3D(CoordConv):
    """A convolution over volumes or videos with coordinates appended.

    Example:
        >>> layer = CoordConv3D(8, (1, 3, 3), padding="circular")
        >>> tuple(layer(ops.ones((2, 5, 6, 7, 4))).shape)
        (2, 5, 6, 7, 8)
    """

    add_coordinates = AddCoordinates3D
    convolution_class = layers.Conv3D


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
@documented_with(CoordConv)
class CoordConv2DTranspose(CoordConv):
    """A transposed convolution over images with coordinates appended.

    Args:
        output_padding: As `keras.layers.Conv2DTranspose` has it, of whose paddings none but
            `"valid"` and `"same"` have a meaning here.

    Weights:
        `kernel` and `bias` of the convolution, `kernel` of shape
        `(*kernel_size, filters, input channels + 2 or 3)`.

    Example:
        >>> layer = CoordConv2DTranspose(8, 3, strides=2, padding="same")
        >>> outputs = layer(ops.ones((2, 6, 5, 4)))
        >>> tuple(outputs.shape), tuple(layer.convolution.kernel.shape)
        ((2, 12, 10, 8), (3, 3, 8, 6))
    """

    add_coordinates = AddCoordinates2D
    convolution_class = layers.Conv2DTranspose

    def _checked_padding(self, value: Any) -> Any:
        return one_of_any_case("padding", value, self.paddings)

    @property
    def windows(self) -> Any:
        """Where the convolution's windows sit."""
        conv: Any = self.convolution
        structure = (conv.kernel_size, conv.strides, conv.dilation_rate, conv.padding)
        return TransposedWindows(*structure, conv.output_padding)

    def operations(self, input_shape: Any) -> int:
        """Counts the convolution; coordinates are constants."""
        return operations(self.convolution, self.coordinates.compute_output_shape(input_shape))
