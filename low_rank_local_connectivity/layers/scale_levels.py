"""The two forms of a scale space: one tensor with an axis of scales, and a list of levels.

One tensor: `(batch, scales, height, width, channels)`, or `(batch, channels, scales, height,
width)` as Keras's layers of three axes have it. A pyramid: a list of maps, each as small as its
level is coarse.
"""

from typing import Any

import keras
from keras import ops

from low_rank_local_connectivity.layers.data_format import split_shape
from low_rank_local_connectivity.ops.arguments import number_above, received, sizes_of
from low_rank_local_connectivity.ops.constants import plain_number


def is_pyramid(given: Any) -> bool:
    """Whether inputs, or the shape of inputs, are a list of levels.

    Example:
        >>> is_pyramid((None, 4, 9, 8, 3)), is_pyramid([(None, 9, 8, 3), (None, 4, 4, 3)])
        (False, True)
    """
    if not isinstance(given, (list, tuple)) or not given:
        return False
    # A shape begins with the batch: a number, None or, where JAX exports, a symbol.
    first = given[0]
    of_shapes = isinstance(first, (list, tuple)) or hasattr(first, "as_list")
    # So is a number that PyTorch's older tracer has made a tensor of.
    return of_shapes or len(getattr(first, "shape", ())) > 0


def checked_base(value: Any) -> float:
    """Returns `base`, an integer if it is a whole number."""
    try:
        base = number_above("base", value, 1)
    except ValueError:
        raise ValueError(
            f"`base` must be a number above 1. Received: {received('base', value)}."
        ) from None
    return int(base) if base.is_integer() else base


def split_scale_space(
    input_shape: Any, data_format: str, name: str
) -> tuple[list[tuple[Any, Any]], int]:
    """Returns the spatial size of every level, and the number of channels.

    Args:
        input_shape: Shape of a tensor, or list of the shapes of a pyramid's levels.
        data_format: `"channels_last"` or `"channels_first"`.
        name: Name of the layer, for its errors.

    Raises:
        ValueError: If there is no axis of scales, the number of scales or of channels is not
            known, or a pyramid's levels do not have the same number of channels.
    """
    if not is_pyramid(input_shape):
        if len(sizes_of(input_shape) or ()) != 5:
            raise ValueError(
                f"Layer {name!r} takes a scale space: a tensor of 5 axes, {_axes(data_format)}, "
                "or a list of levels of 4. Received: "
                f"{received('input_shape', input_shape)}. Put a ScaleSpaceLifting2D before it."
            )
        (scales, *size), channels = split_shape(input_shape, data_format, 3)
        if scales is None:
            raise ValueError(
                f"Layer {name!r} must know the number of scales. Received: input_shape="
                f"{tuple(input_shape)} with data_format={data_format!r}."
            )
        return [(size[0], size[1])] * scales, channels
    shapes = [sizes_of(shape) or () for shape in input_shape]
    levels = [split_shape(shape, data_format, 2) for shape in shapes if len(shape) == 4]
    if len(levels) != len(shapes) or len({plain_number(channels) for _, channels in levels}) != 1:
        raise ValueError(
            f"The levels of a pyramid given to layer {name!r} must have 4 axes and the same number "
            f"of channels. Received: {received('input_shape', list(input_shape))}."
        )
    return [(size[0], size[1]) for size, _ in levels], levels[0][1]


def _axes(data_format: str) -> str:
    if data_format == "channels_last":
        return "(batch, scales, height, width, channels)"
    return "(batch, channels, scales, height, width)"


def input_spec(input_shape: Any, data_format: str, channels: int) -> Any:
    """Returns what Keras checks of the inputs of a layer that is built."""
    axes: Any = {-1 if data_format == "channels_last" else 1: channels}
    if not is_pyramid(input_shape):
        return keras.layers.InputSpec(ndim=5, axes=axes)
    return [keras.layers.InputSpec(ndim=4, axes=axes) for _ in input_shape]


def levels_of(inputs: Any, data_format: str) -> list[Any]:
    """Returns the levels of a scale space, their channels last."""
    if not is_pyramid(inputs):
        axis = 1 if data_format == "channels_last" else 2
        inputs = ops.unstack(inputs, axis=axis)
    if data_format == "channels_first":
        inputs = [ops.moveaxis(level, 1, -1) for level in inputs]
    return list(inputs)


def join_levels(levels: list[Any], data_format: str, pyramid: bool) -> Any:
    """Returns levels with their channels last as a scale space in a data format."""
    if data_format == "channels_first":
        levels = [ops.moveaxis(level, 3, 1) for level in levels]
    if pyramid:
        return levels
    return ops.stack(levels, axis=1 if data_format == "channels_last" else 2)
