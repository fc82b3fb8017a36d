"""Layers that act on each position alone, on all levels of a pyramid at once."""

from typing import Any, Unpack

import keras
from keras import layers, ops

from low_rank_local_connectivity.inspection.operation_rules import operations
from low_rank_local_connectivity.layers.arguments import layer_of
from low_rank_local_connectivity.layers.configured_layer import TakesAnyDtype
from low_rank_local_connectivity.layers.data_format import join_shape, standardize_data_format
from low_rank_local_connectivity.layers.keras_arguments import RegularizedLayerArguments
from low_rank_local_connectivity.layers.scale_levels import is_pyramid, split_scale_space
from low_rank_local_connectivity.ops.operation_counts import numbers
from low_rank_local_connectivity.ops.windows import Windows


@keras.saving.register_keras_serializable(package="low_rank_local_connectivity")
class OverLevels(TakesAnyDtype, layers.Wrapper):
    """Runs a layer on all positions of all levels of a pyramid, laid side by side.

    `outputs = split(layer(concatenate([flatten(level) for level in inputs])))`

    Made for batch normalisation. Called on one level after another it would have statistics of
    each level while training, and levels would no longer be treated alike; here all levels share
    them, every position counting once. A scale space in one tensor needs no wrapper: there
    `keras.layers.BatchNormalization` along the axis of channels averages over the scales too.

    Args:
        layer: A layer that keeps the positions and treats each alike: normalisation, activation,
            `Dense`, dropout.
        data_format: `"channels_last"` or `"channels_first"`; Keras's global setting if None. The
            layer gets `(batch, positions, channels)` or `(batch, channels, positions)`.

    Input:
        List of the levels of a pyramid, `(batch, height[k], width[k], channels)` or
        `(batch, channels, height[k], width[k])`; or a scale space in one tensor, which goes to
        the layer as it is.

    Output:
        As the input, with the layer's channels.

    Raises:
        ValueError: If the input is no scale space.

    Example:
        >>> layer = OverLevels(layers.BatchNormalization())
        >>> levels = [ops.zeros((1, 2, 2, 3)), ops.ones((1, 1, 1, 3))]
        >>> normalised = layer(levels, training=True)
        >>> [round(float(ops.convert_to_numpy(level).mean()), 2) for level in normalised]
        [-0.5, 1.99]
    """

    def __init__(
        self,
        layer: Any,
        data_format: str | None = None,
        **kwargs: Unpack[RegularizedLayerArguments],
    ) -> None:
        super().__init__(layer_of("layer", layer, "a layer"), **kwargs)
        self.data_format = standardize_data_format(data_format)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments as plain values."""
        return {**super().get_config(), "data_format": self.data_format}

    def build(self, input_shape: Any = None) -> None:
        """Builds the layer."""
        _, channels = split_scale_space(input_shape, self.data_format, self.name)
        flat = join_shape(None, (None,), channels, self.data_format)
        super().build(flat if is_pyramid(input_shape) else input_shape)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the input's shape with the layer's channels."""
        sizes, channels = split_scale_space(input_shape, self.data_format, self.name)
        if not is_pyramid(input_shape):
            return self.layer.compute_output_shape(input_shape)
        flat = join_shape(None, (None,), channels, self.data_format)
        shape = self.layer.compute_output_shape(flat)
        channels = shape[-1 if self.data_format == "channels_last" else 1]
        pairs = zip(input_shape, sizes, strict=True)
        return [join_shape(one[0], size, channels, self.data_format) for one, size in pairs]

    @property
    def windows(self) -> Windows:
        """Each position by itself."""
        return Windows.single(2)

    def operations(self, input_shape: Any) -> int:
        """Counts the layer on all positions."""
        if not is_pyramid(input_shape):
            return operations(self.layer, input_shape)
        sizes, channels = split_scale_space(input_shape, self.data_format, self.name)
        positions = sum(numbers((None, *size)) for size in sizes)
        flat = join_shape(None, (positions,), channels, self.data_format)
        return operations(self.layer, flat)

    def call(self, inputs):
        """Joins the levels, applies the layer and parts them."""
        if not is_pyramid(inputs):
            return self.layer(inputs)
        last = self.data_format == "channels_last"
        flat = []
        for level in inputs:
            channels = level.shape[-1 if last else 1]
            batch = ops.shape(level)[0]
            flat.append(
                ops.reshape(level, (batch, -1, channels) if last else (batch, channels, -1))
            )
        axis = 1 if last else 2
        # Keras gives the layer the value of `training` that this call has.
        joined = self.layer(ops.concatenate(flat, axis=axis))
        outputs, start = [], 0
        for level, one in zip(inputs, flat, strict=True):
            end = start + ops.shape(one)[axis]
            part = joined[:, start:end] if last else joined[:, :, start:end]
            batch, *_ = sizes = ops.shape(level)
            spatial = sizes[1:3] if last else sizes[2:]
            channels = joined.shape[-1 if last else 1]
            outputs.append(
                ops.reshape(part, join_shape(batch, spatial, channels, self.data_format))
            )
            start = end
        return outputs
