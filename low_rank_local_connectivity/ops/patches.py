"""What windows read, one tap at a time; sizes may be unknown.

A tensor's name ends in its axes; an axis in capitals stands for one axis per spatial dimension:

    b  batch              S  input positions, one axis per dimension
    c  input channel      O  output positions, one axis per dimension
"""

import itertools
from collections.abc import Sequence
from typing import Any

from low_rank_local_connectivity.ops.borders import pad_windows
from low_rank_local_connectivity.ops.local_convolution import spread
from low_rank_local_connectivity.ops.padding import pad
from low_rank_local_connectivity.ops.windows import Windows


def read_taps(inputs_bSc, windows: Windows) -> list:
    """Returns what all windows read through each tap.

    `taps[t][b, o, c] = inputs[b, stride * o + dilation * t - padding, c]`; outside of the inputs 0,
    or what `windows.padding` says.

    Args:
        inputs_bSc: Inputs; the spatial size may be unknown, except under strides and a padding that
            depends on it.
        windows: Where the windows sit.

    Returns:
        One tensor of axes `bOc` per tap, the taps in row-major order.

    Example:
        >>> from keras import ops
        >>> taps = read_taps(ops.ones((2, 8, 9, 4)), Windows((3, 2), (1, 1), (1, 1), "valid"))
        >>> len(taps), ops.shape(taps[0])
        (6, (2, 6, 8, 4))
    """
    padded_bSc = pad_windows(inputs_bSc, windows)
    axes = [
        # An end counted from the back needs no length.
        [slice(dilation * tap, dilation * tap - span + 1 or None, stride) for tap in range(size)]
        for size, stride, dilation, span in zip(
            windows.sizes, windows.strides, windows.dilations, windows.extents, strict=True
        )
    ]
    return [padded_bSc[(slice(None), *tap)] for tap in itertools.product(*axes)]


def scatter_taps(taps_bOc: Sequence, windows: Windows, sizes: Sequence[int]):
    """Adds what was read through each tap back to where it was read: adjoint to `read_taps`.

    Args:
        taps_bOc: One tensor per tap, the taps in row-major order.
        windows: Where the windows sit.
        sizes: Spatial size of the result.

    Returns:
        Tensor of axes `bSc`.

    Example:
        >>> from keras import ops
        >>> windows = Windows((2,), (1,), (1,), "valid")
        >>> taps = read_taps(ops.ones((1, 4, 1)), windows)
        >>> ops.convert_to_numpy(scatter_taps(taps, windows, (4,)))[0, :, 0].tolist()
        [1.0, 2.0, 2.0, 1.0]
    """
    amounts = windows.pad_amounts(sizes)
    total_bSc: Any = None
    for tap, values in zip(itertools.product(*map(range, windows.sizes)), taps_bOc, strict=True):
        wide_bSc = spread(values, (1, *windows.strides))
        around = [
            (dilation * index, before + size + after - dilation * index - length)
            for index, dilation, size, (before, after), length in zip(
                tap, windows.dilations, sizes, amounts, wide_bSc.shape[1:-1], strict=True
            )
        ]
        placed_bSc = pad(wide_bSc, ((0, 0), *around, (0, 0)))
        total_bSc = placed_bSc if total_bSc is None else total_bSc + placed_bSc
    inside = [
        slice(before, before + size) for size, (before, _) in zip(sizes, amounts, strict=True)
    ]
    return total_bSc[(slice(None), *inside)]
