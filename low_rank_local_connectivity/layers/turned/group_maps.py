"""Where maps with orientations have what, and how they become plain maps and back.

Channels-last `(batch, height, width, order, channels)`, channels-first
`(batch, order, channels, height, width)`: in both the orientation is the slower index of plain maps
with `order * channels` channels.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from low_rank_local_connectivity.layers.data_format import require_shape


def plain_shape(shape: Any, data_format: str) -> tuple[tuple, int | None]:
    """Returns the shape without orientations, and how many these are.

    Example:
        >>> plain_shape((None, 9, 8, 4, 5), "channels_last")
        ((None, 9, 8, 5), 4)
    """
    last = data_format == "channels_last"
    layout = "height, width, order, channels" if last else "order, channels, height, width"
    shape = require_shape(shape, f"(batch, {layout})", 3)
    axis = 3 if last else 1
    return (*shape[:axis], *shape[axis + 1 :]), shape[axis]


def group_shape(shape: tuple, order: int, data_format: str) -> tuple:
    """Returns a plain shape with orientations; undoes `plain_shape`."""
    axis = 3 if data_format == "channels_last" else 1
    return (*shape[:axis], order, *shape[axis:])


def join_orientations(maps, data_format: str) -> Any:
    """Returns plain maps whose channel `r * channels + c` is channel `c` in orientation `r`."""
    shape: Any = ops.shape(maps)
    if data_format == "channels_last":
        return ops.reshape(maps, (-1, shape[1], shape[2], shape[3] * shape[4]))
    return ops.reshape(maps, (-1, shape[1] * shape[2], shape[3], shape[4]))


def split_orientations(maps, order: int, data_format: str) -> Any:
    """Undoes `join_orientations`."""
    shape: Any = ops.shape(maps)
    if data_format == "channels_last":
        return ops.reshape(maps, (-1, shape[1], shape[2], order, shape[3] // order))
    return ops.reshape(maps, (-1, order, shape[1] // order, shape[2], shape[3]))


def works_by_value(activation: Callable) -> bool:
    """Whether an activation reads no other value, so that it may see orientations as channels.

    Example:
        >>> works_by_value(ops.tanh), works_by_value(ops.softmax)
        (True, False)
    """
    values = np.linspace(-2, 2, 24, dtype="float32")
    apart, together = (activation(ops.reshape(values, shape)) for shape in ((2, 3, 4), (2, 12)))
    if tuple(apart.shape) != (2, 3, 4):
        return False
    return np.allclose(np.ravel(ops.convert_to_numpy(apart)), ops.convert_to_numpy(together).flat)
