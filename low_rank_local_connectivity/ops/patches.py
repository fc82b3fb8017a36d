"""What windows read, one tap at a time; sizes may be unknown.

A tensor's name ends in its axes; an axis in capitals stands for one axis per spatial dimension:

    b  batch              S  input positions, one axis per dimension
    c  input channel      O  output positions, one axis per dimension
"""

import itertools

from low_rank_local_connectivity.ops.borders import pad_windows
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
