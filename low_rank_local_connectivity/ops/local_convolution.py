"""Convolution with a filter of its own at every position, in any number of dimensions.

A tensor's name ends in its axes; an axis in capitals stands for one axis per spatial dimension:

    b  batch              S  input positions, one axis per dimension
    c  input channel      O  output positions, one axis per dimension
    f  filter             p  output positions, flattened in row-major order
                          r  what one filter reads: its taps, then channels, flattened
"""

import itertools
import math

from keras import ops

from low_rank_local_connectivity.ops.windows import Windows


def pad_windows(inputs_bSc, windows: Windows):
    """Adds the zeros that `windows.padding` asks for around the spatial axes."""
    amounts = windows.pad_amounts(inputs_bSc.shape[1:-1])
    if not any(map(any, amounts)):
        return inputs_bSc
    return ops.pad(inputs_bSc, ((0, 0), *amounts, (0, 0)))


def gather_patches(inputs_bSc, windows: Windows):
    """Collects what each position's filter reads, position by position.

    Position-major order makes the local convolution one batched matrix product. The graph
    grows with the number of taps, not with the number of positions.

    Args:
        inputs_bSc: Inputs of static spatial size.
        windows: Where the windows sit.

    Returns:
        Tensor of axes `pbr`.

    Example:
        >>> windows = Windows((3, 3), (1, 1), (1, 1), "valid")
        >>> ops.shape(gather_patches(ops.ones((2, 8, 9, 4)), windows))
        (42, 2, 36)
    """
    output_shape = windows.static_output_shape(inputs_bSc.shape[1:-1])
    channels = inputs_bSc.shape[-1]
    dimensions = len(output_shape)
    padded_bSc = pad_windows(inputs_bSc, windows)
    padded_Sbc = ops.transpose(padded_bSc, (*range(1, dimensions + 1), 0, dimensions + 1))
    taps_Obc = []
    for tap in itertools.product(*map(range, windows.sizes)):
        starts = [index * dilation for index, dilation in zip(tap, windows.dilations, strict=True)]
        window = tuple(
            slice(start, start + (length - 1) * stride + 1, stride)
            for start, length, stride in zip(starts, output_shape, windows.strides, strict=True)
        )
        taps_Obc.append(padded_Sbc[window])
    patches_Obr = ops.concatenate(taps_Obc, axis=-1)
    return ops.reshape(patches_Obr, (math.prod(output_shape), -1, windows.taps * channels))


def local_convolution(inputs_bSc, kernel_prf, windows: Windows):
    """Applies to each position's patch the filter of that position.

    `outputs[b, p, f] = sum_r patches[p, b, r] * kernel[p, r, f]`

    Args:
        inputs_bSc: Inputs of static spatial size.
        kernel_prf: Filters of every output position; `r` runs over taps, then channels.
        windows: Where the windows sit.

    Returns:
        Tensor of axes `bOf`.

    Example:
        >>> windows = Windows((3, 3), (1, 1), (1, 1), "valid")
        >>> kernel = ops.ones((6 * 7, 3 * 3 * 4, 5))
        >>> ops.shape(local_convolution(ops.ones((2, 8, 9, 4)), kernel, windows))
        (2, 6, 7, 5)
    """
    output_shape = windows.static_output_shape(inputs_bSc.shape[1:-1])
    outputs_pbf = ops.matmul(gather_patches(inputs_bSc, windows), kernel_prf)
    outputs_bpf = ops.transpose(outputs_pbf, (1, 0, 2))
    return ops.reshape(outputs_bpf, (-1, *output_shape, kernel_prf.shape[-1]))
