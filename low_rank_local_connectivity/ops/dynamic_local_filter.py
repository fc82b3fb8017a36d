"""Filtering with weights given for every example, position and tap.

A tensor's name ends in its axes; an axis in capitals stands for one axis per spatial dimension:

    b  batch              S  input positions, one axis per dimension
    c  channel            O  output positions, one axis per dimension
    t  taps, flattened in row-major order
"""

from typing import Any

from low_rank_local_connectivity.ops.patches import read_taps
from low_rank_local_connectivity.ops.windows import Windows


def dynamic_local_filter(inputs_bSc, filters_bOtc, windows: Windows):
    """Weighs, at each position, what its window reads by the filter given for that position.

    `outputs[b, o, c] = sum_t filters[b, o, t, c] * taps[t][b, o, c]`

    Args:
        inputs_bSc: Inputs; batch and spatial sizes may be unknown.
        filters_bOtc: Filters; `c` has length 1 if the channels share them.
        windows: Where the windows sit.

    Returns:
        Tensor of axes `bOc`.

    Example:
        >>> from keras import ops
        >>> windows = Windows((3, 2), (1, 1), (1, 1), "same")
        >>> filters = ops.ones((2, 8, 9, 6, 1))
        >>> ops.shape(dynamic_local_filter(ops.ones((2, 8, 9, 4)), filters, windows))
        (2, 8, 9, 4)
    """
    total_bOc: Any = None
    for tap, tap_bOc in enumerate(read_taps(inputs_bSc, windows)):
        term_bOc = filters_bOtc[..., tap, :] * tap_bOc
        total_bOc = term_bOc if total_bOc is None else total_bOc + term_bOc
    return total_bOc
