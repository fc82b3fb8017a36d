"""Adapting layers to images of another size."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from low_rank_local_connectivity.conversion.checks import LOCAL, STORED, require_layer
from low_rank_local_connectivity.conversion.weights import positions, to_numpy
from low_rank_local_connectivity.layers.data_format import split_shape
from low_rank_local_connectivity.layers.local.spatial_bias import SpatialBias
from low_rank_local_connectivity.ops.resampling import resize_aligned


def resize(layer: Any, input_shape: Sequence[int | None]) -> Any:
    """Returns a layer for images of another size, with its values per position interpolated.

    Logits and spatial biases, or the filters and biases of a locally connected layer, are
    interpolated linearly, with the outermost positions kept. Banks, and the network that predicts
    input-dependent weights, do not change.

    Args:
        layer: Built low-rank or locally connected layer, or `SpatialBias`.
        input_shape: Shape of the new inputs with the batch, of the layer's data format and number
            of channels.

    Returns:
        Built layer of the same name and arguments.

    Raises:
        ValueError: If the layer is of another kind or not built, or the number of channels differs.

    Example:
        >>> from low_rank_local_connectivity import LowRankLocallyConnected2D
        >>> low_rank = LowRankLocallyConnected2D(5, 3, spatial_rank=4)
        >>> low_rank.build((None, 8, 9, 2))
        >>> tuple(resize(low_rank, (None, 16, 18, 2)).logits[0].shape)
        (14, 4)
    """
    require_layer("resize", layer, (*LOCAL, SpatialBias))
    found = type(layer).from_config(layer.get_config())
    split_shape(input_shape, layer.data_format, len(layer.get_build_config()["input_shape"]) - 2)
    found.build(tuple(input_shape))
    if len(found.weights) != len(layer.weights):
        raise ValueError(
            f"The network that predicts the weights of layer {layer.name!r} must have the same "
            f"branches at both sizes. Received: input_shape={tuple(input_shape)}, where it has "
            "others: a branch needs inputs that hold its dilated window. Resize the images."
        )
    for old, new in zip(layer.weights, found.weights, strict=True):
        new.assign(_resized(layer, found, old, new, input_shape).reshape(tuple(new.shape)))
    found.trainable = layer.trainable
    return found


def _resized(layer: Any, found: Any, old: Any, new: Any, input_shape: Any) -> np.ndarray:
    """Returns a weight of the layer at the size of the new layer's."""
    value = to_numpy(old)
    if isinstance(layer, STORED):
        if old is layer.kernel and value.shape[1:] != tuple(new.shape)[1:]:
            raise ValueError(_other_channels(layer, input_shape))
        # Positions are one axis in a kernel, and follow the filters in a channels-first bias.
        if old is layer.kernel:
            sizes: Any = layer.position_sizes
            return _interpolated(value.reshape(*sizes, -1), found.position_sizes)
        if layer.data_format == "channels_first":
            grid = value.reshape(layer.filters, *positions(layer))
            return np.moveaxis(_interpolated(np.moveaxis(grid, 0, -1), found.output_sizes), -1, 0)
        return _interpolated(value.reshape(*positions(layer), -1), found.output_sizes)
    if value.shape == tuple(new.shape):
        return value
    if value.shape[-1] != new.shape[-1] or old.name.startswith("kernel_bases"):
        raise ValueError(_other_channels(layer, input_shape))
    return _interpolated(value, tuple(new.shape)[:-1])


def _interpolated(grid: np.ndarray, sizes: Any) -> np.ndarray:
    """Returns values on a grid `(*sizes, values)` of another size."""
    return to_numpy(resize_aligned(grid[None].astype("float32"), sizes))[0]


def _other_channels(layer: Any, input_shape: Any) -> str:
    return (
        f"Resizing layer {layer.name!r} must keep the number of channels. Received: "
        f"input_shape={tuple(input_shape)} with data_format={layer.data_format!r}. Change the "
        "spatial size only."
    )
