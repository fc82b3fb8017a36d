"""Biases that depend on the position."""

from typing import Any, Unpack

import keras
from keras import constraints, initializers, regularizers

from low_rank_local_connectivity.layers.arguments import arguments_of, initializer_of
from low_rank_local_connectivity.layers.biases import with_biases
from low_rank_local_connectivity.layers.configured_layer import ConfiguredLayer
from low_rank_local_connectivity.layers.data_format import (
    from_channels_last,
    split_shape,
    standardize_data_format,
    to_channels_last,
)
from low_rank_local_connectivity.layers.filter_initialization import separate_clone
from low_rank_local_connectivity.layers.keras_arguments import RegularizedLayerArguments
from low_rank_local_connectivity.ops.arguments import boolean, spatial_axes
from low_rank_local_connectivity.ops.operation_counts import numbers
from low_rank_local_connectivity.ops.windows import Windows

# The word for each spatial axis in the names of weights, by number of axes.
AXIS_NAMES = {1: ("length",), 2: ("row", "col"), 3: ("depth", "row", "col")}


def add_spatial_bias(
    layer: keras.Layer,
    sizes: tuple[int | None, ...],
    axes: tuple[int, ...],
    filters: int | None = None,
    initializer: Any = None,
    regularizer: Any = None,
    constraint: Any = None,
) -> list:
    """Adds to a layer the weights of a spatial bias.

    Args:
        layer: The layer to which the weights belong.
        sizes: Number of positions along each spatial axis.
        axes: Axes with a term of their own; none for one map over all positions.
        filters: Length of the map's last axis, if not 1; only without `axes`.
        initializer: Initializer of each term.
        regularizer: Regularizer of each term.
        constraint: Constraint on each term.

    Returns:
        The weights; added up by broadcasting, they are the bias.
    """
    if axes:
        shapes = {}
        for axis in axes:
            along = (size if other == axis else 1 for other, size in enumerate(sizes))
            shapes[f"bias_{AXIS_NAMES[len(sizes)][axis]}"] = (*along, 1)
    else:
        shapes = {"spatial_bias": (*sizes, filters or 1)}
    for name, shape in shapes.items():
        if None in shape:
            raise ValueError(
                f"The weight {name!r} of layer {layer.name!r} has one value per position, so the "
                f"input's size along its axes must be known. Received: positions {sizes}. Give "
                "the input a static size, or leave that axis out of `additive_axes`."
            )
    return [
        layer.add_weight(
            shape=shape,
            initializer=separate_clone(initializer or initializers.Zeros(), index),
            name=name,
            regularizer=regularizer,
            constraint=constraint,
        )
        for index, (name, shape) in enumerate(shapes.items())
    ]


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
class SpatialBias(ConfiguredLayer):
    """Adds a learned bias that depends on the position.

    `outputs[b, i, j, c] = inputs[b, i, j, c] + bias_row[i] + bias_col[j]` (equation 5 of the
    paper without its channel term, which a convolution before it supplies), or a whole map
    `spatial_bias[i, j]`, or one value per position and channel. A convolution followed by it is
    a low-rank locally connected layer of rank 1.

    Args:
        additive_axes: Spatial axes with a term of their own, counted from 0: all if None,
            `()` for one map over all positions. An axis left out may have any size.
        per_filter: Whether each position has a bias per channel instead; then
            `additive_axes` must be None.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None.
        bias_initializer: Initializer of each term.
        bias_regularizer: Regularizer of each term.
        bias_constraint: Constraint on each term.

    Weights:
        `bias_length` in 1D, `bias_row` and `bias_col` in 2D, `bias_depth` too in 3D, each of
        length 1 along all axes but its own; or `spatial_bias` of shape `(*spatial, 1)` or
        `(*spatial, channels)`.

    Input:
        `(batch, *spatial, channels)` or `(batch, channels, *spatial)`, 1 to 3 spatial axes.

    Output:
        The same shape.

    Raises:
        ValueError: If the arguments contradict each other or a needed size is unknown.

    Example:
        >>> layer = SpatialBias()
        >>> outputs = layer(keras.ops.ones((2, 4, 5, 3)))
        >>> [(weight.name, tuple(weight.shape)) for weight in layer.weights]
        [('bias_row', (4, 1, 1)), ('bias_col', (1, 5, 1))]

    Reference:
        Elsayed et al., "Revisiting Spatial Invariance with Low-Rank Local Connectivity",
        ICML 2020, section 3.2.1.
    """

    def __init__(
        self,
        additive_axes: tuple[int, ...] | None = None,
        per_filter: bool = False,
        data_format: str | None = None,
        bias_initializer: Any = "zeros",
        bias_regularizer: Any = None,
        bias_constraint: Any = None,
        **kwargs: Unpack[RegularizedLayerArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.per_filter = boolean("per_filter", per_filter)
        if self.per_filter and additive_axes is not None:
            raise ValueError(
                "With `per_filter=True` every position has biases of its own, so `additive_axes` "
                f"must be None. Received: additive_axes={additive_axes!r}."
            )
        self.additive_axes = (
            None if additive_axes is None else spatial_axes("additive_axes", additive_axes, 3)
        )
        self.data_format = standardize_data_format(data_format)
        self.bias_initializer: Any = initializer_of(
            "bias_initializer", "zeros" if bias_initializer is None else bias_initializer
        )
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.bias_constraint = constraints.get(bias_constraint)

    ARGUMENTS = arguments_of(__init__)

    def build(self, input_shape: Any) -> None:
        """Creates the terms for inputs of this shape."""
        sizes, channels = split_shape(input_shape, self.data_format)
        if not 1 <= len(sizes) <= 3:
            raise ValueError(
                "SpatialBias needs inputs with 1 to 3 spatial axes. "
                f"Received: input_shape={tuple(input_shape)}."
            )
        if self.per_filter:
            axes = ()
        elif self.additive_axes is None:
            axes = tuple(range(len(sizes)))
        else:
            axes = spatial_axes("additive_axes", self.additive_axes, len(sizes))
        self.input_sizes = sizes
        self.fixed_axes = axes or tuple(range(len(sizes)))
        axis = -1 if self.data_format == "channels_last" else 1
        self.input_spec = keras.layers.InputSpec(
            ndim=len(input_shape), axes={axis: channels} if self.per_filter else None
        )
        self.terms = add_spatial_bias(
            self,
            sizes,
            axes,
            channels if self.per_filter else None,
            self.bias_initializer,
            self.bias_regularizer,
            self.bias_constraint,
        )

    def _check_sizes(self, input_shape: tuple) -> None:
        """Refuses inputs of another size than the one that the terms were made for."""
        sizes, _ = split_shape(input_shape, self.data_format)
        if any(sizes[axis] not in (None, self.input_sizes[axis]) for axis in self.fixed_axes):
            raise ValueError(
                f"Layer {self.name!r} has biases for inputs of spatial size {self.input_sizes}, "
                f"each position having its own. Received: inputs of shape {input_shape} with "
                f"data_format={self.data_format!r}. Resize the inputs, or the layer with "
                "conversion.resize(layer, input_shape)."
            )

    @property
    def windows(self) -> Windows:
        """Each position by itself."""
        self.require_built("windows")
        return Windows.single(len(self.input_sizes))

    def operations(self, input_shape: Any) -> int:
        """Counts one sum for each number; the terms are summed once for all examples."""
        return numbers(input_shape)

    def call(self, inputs):
        """Adds every term."""
        self._check_sizes(tuple(inputs.shape))
        outputs = to_channels_last(inputs, self.data_format)
        return from_channels_last(with_biases(outputs, *self.terms), self.data_format)

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """Returns the input's shape."""
        split_shape(input_shape, self.data_format)
        if self.built:
            self._check_sizes(tuple(input_shape))
        return tuple(input_shape)
