"""Correlations of scale spaces whose taps are moved, farther at coarser levels.

Axes in names: b batch, h and w rows and columns, c channels, f filters, l levels that a kernel
reads, i and j its taps, o what says where taps go: offset groups, taps and directions.
"""

from collections.abc import Sequence
from typing import Any

from keras import ops

from low_rank_local_connectivity.ops.deform_conv import deform_conv2d


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
        offsets_bhwo: For each level, as `deform_conv2d` takes them, in the level's pixels; the same
            for all levels that are read.
        dilations: Distance of taps at each level.
        strides: Distance of outputs along rows and columns.
        offset_groups: How many groups of channels have offsets of their own.

    Returns:
        One tensor `(batch, ceil(height / stride), ceil(width / stride), filters)` per level.

    Example:
        >>> levels, kernel = [ops.ones((2, 9, 8, 4))] * 3, ops.ones((2, 3, 3, 4, 5))
        >>> offsets = [ops.zeros((2, 9, 8, 18))] * 3
        >>> found = deformable_scale_correlation(levels, kernel, offsets, [1, 2, 4])
        >>> [tuple(level.shape) for level in found]
        [(2, 9, 8, 5), (2, 9, 8, 5), (2, 9, 8, 5)]
    """
    depth, rows, columns, channels, filters = kernel_lijcf.shape
    # A level is sampled once, with all that it reads side by side in the channels.
    kernel_ijlcf = ops.transpose(kernel_lijcf, (1, 2, 0, 3, 4))
    outputs = []
    for level, dilation in enumerate(dilations):
        read = levels_bhwc[level : level + depth]
        joined = read[0] if len(read) == 1 else ops.concatenate(read, axis=-1)
        part = ops.reshape(
            kernel_ijlcf[:, :, : len(read)], (rows, columns, len(read) * channels, filters)
        )
        offset, groups = offsets_bhwo[level], offset_groups
        if groups > 1 and len(read) > 1:
            # The groups of one level behind those of the other.
            offset = ops.concatenate([offset] * len(read), axis=-1)
            groups = groups * len(read)
        outputs.append(
            deform_conv2d(
                joined,
                part,
                offset,
                strides=strides,
                # Taps count from the middle one, at every level; Keras's "same" would move those
                # of an even number.
                padding=[
                    ((size - 1) // 2 * dilation, size // 2 * dilation) for size in (rows, columns)
                ],
                dilation_rate=dilation,
                offset_groups=groups,
                data_format="channels_last",
            )
        )
    return outputs
