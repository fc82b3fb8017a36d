"""Correlations of scale spaces whose taps are moved, farther at coarser levels.

Axes in names: b batch, h and w rows and columns, c channels, f filters, l levels that a kernel
reads, i and j its taps, o what says where taps go: offset groups, taps and directions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from low_rank_local_connectivity.ops.arguments import (
    positive_int,
    require_each,
    require_length,
    sequence,
    tensor,
)
from low_rank_local_connectivity.ops.constants import constant, plain_shape
from low_rank_local_connectivity.ops.deform_conv import deform_conv2d
from low_rank_local_connectivity.ops.precision import as_floats, at_least_float32
from low_rank_local_connectivity.ops.scale_space import checked_levels


def deformable_scale_correlation(
    levels_bhwc: Sequence[Any],
    kernel_lijcf,
    offsets_bhwo: Sequence[Any],
    dilations: Sequence[int],
    strides: tuple[int, ...] = (1, 1),
    offset_groups: int = 1,
) -> list[Any]:
    """Correlates every level of a scale space with a kernel as large as it is coarse, taps moved.

    `out[k][z] = sum_l sum_y kernel[l, y] levels[k + l](z + dilations[k] y + offsets[k][z, y])`
    with bilinear interpolation. Without offsets this is `scale_space.scale_correlation`.

    Args:
        levels_bhwc: The levels, finest first.
        kernel_lijcf: One kernel for all of them; all levels that it reads together, one size.
        offsets_bhwo: For each level that is computed, as `deform_conv2d` takes them, in the level's
            pixels; the same for all levels that are read.
        dilations: Distance of taps at each level that is computed, as in `scale_correlation`.
        strides: Distance of outputs along rows and columns.
        offset_groups: How many groups of channels have offsets of their own.

    Returns:
        One tensor `(batch, ceil(height / stride), ceil(width / stride), filters)` per level.

    Raises:
        ValueError: If an argument is of another kind, or shapes do not fit together.

    Example:
        >>> levels, kernel = [ops.ones((2, 9, 8, 4))] * 3, ops.ones((2, 3, 3, 4, 5))
        >>> offsets = [ops.zeros((2, 9, 8, 18))] * 3
        >>> found = deformable_scale_correlation(levels, kernel, offsets, [1, 2, 4])
        >>> [tuple(level.shape) for level in found]
        [(2, 9, 8, 5), (2, 9, 8, 5), (2, 9, 8, 5)]
    """
    levels_bhwc, kernel_lijcf, dilations, strides = checked_levels(
        levels_bhwc, kernel_lijcf, dilations, strides
    )
    offset_groups = positive_int("offset_groups", offset_groups)
    offsets_bhwo = sequence("offsets_bhwo", offsets_bhwo, "tensors, one for each level")
    require_each("offsets_bhwo", offsets_bhwo, len(dilations), "the levels that are computed")
    for offset in offsets_bhwo:
        tensor("offsets_bhwo", offset, "bhwo")
        count = 2 * offset_groups * kernel_lijcf.shape[1] * kernel_lijcf.shape[2]
        require_length("offsets_bhwo", offset, "o", count, "2 * offset_groups * taps")
    kernel_lijcf, *levels_bhwc = as_floats(kernel_lijcf, *levels_bhwc)
    depth = kernel_lijcf.shape[0]
    counts = [len(levels_bhwc[level : level + depth]) for level in range(len(dilations))]
    together = len({plain_shape(level.shape[1:]) for level in levels_bhwc}) == 1
    outputs: list[Any] = []
    for count in sorted(set(counts), reverse=True):
        chosen = [level for level, found in enumerate(counts) if found == count]
        for part in [chosen] if together else [[level] for level in chosen]:
            read = [_side_by_side(levels_bhwc[level : level + count]) for level in part]
            offsets = [
                _spread(offsets_bhwo[level], dilations[level], kernel_lijcf.shape[1:3])
                for level in part
            ]
            found = _deformed(read, kernel_lijcf[:count], offsets, strides, offset_groups)
            # The batch by name: an exporter of PyTorch cannot divide one that it does not know.
            batch, sizes = ops.shape(levels_bhwc[0])[0], ops.shape(found)[1:]
            outputs += ops.unstack(ops.reshape(found, (len(part), batch, *sizes)), axis=0)
    return outputs


def _side_by_side(levels_bhwc):
    return levels_bhwc[0] if len(levels_bhwc) == 1 else ops.concatenate(levels_bhwc, axis=-1)


def _spread(offset_bhwo, dilation: int, taps):
    """Moves taps that lie side by side, counted from the middle one, as far apart as dilated."""
    rows, columns = taps
    groups = offset_bhwo.shape[-1] // (2 * rows * columns)
    dtype = at_least_float32(offset_bhwo)
    return ops.cast(offset_bhwo, dtype) + _PLACES(dtype, dilation, rows, columns, groups)


def _places(dilation: int, rows: int, columns: int, groups: int) -> np.ndarray:
    """Returns how far dilation moves each tap, down and right, for each offset group."""
    row, column = (np.arange(size) - (size - 1) // 2 for size in (rows, columns))
    places = np.stack(np.meshgrid(row, column, indexing="ij"), axis=-1).ravel()
    return (dilation - 1) * np.tile(places, groups)


_PLACES = constant(_places)


def _deformed(levels_bhwc, kernel_lijcf, offsets_bhwo, strides, offset_groups: int):
    """Convolves levels of one size, one behind the other along the batch.

    A level is sampled once, with all that it reads side by side in the channels.
    """
    count, rows, columns, channels, filters = kernel_lijcf.shape
    kernel_ijlcf = ops.transpose(kernel_lijcf, (1, 2, 0, 3, 4))
    joined, offset = (
        parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=0)
        for parts in (levels_bhwc, offsets_bhwo)
    )
    if offset_groups > 1 and count > 1:
        # The groups of one level behind those of the other.
        offset = ops.concatenate([offset] * count, axis=-1)
        offset_groups *= count
    return deform_conv2d(
        joined,
        ops.reshape(kernel_ijlcf, (rows, columns, count * channels, filters)),
        offset,
        strides=strides,
        # Taps count from the middle one, at every level; Keras's "same" would move those of an
        # even number.
        padding=[((size - 1) // 2, size // 2) for size in (rows, columns)],
        offset_groups=offset_groups,
        data_format="channels_last",
    )
