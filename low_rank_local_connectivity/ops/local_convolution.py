"""Convolution with a filter of its own at every position, in any number of dimensions.

A tensor's name ends in its axes; an axis in capitals stands for one axis per spatial dimension:

    b  batch              S  input positions, one axis per dimension
    c  input channel      O  output positions, one axis per dimension
    f  filter             p  output positions, flattened in row-major order
                          r  what one filter reads: its taps, then channels, flattened
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from keras import ops

from low_rank_local_connectivity.ops.windows import Windows


def local_convolution(inputs_bSc, kernel_prf, windows: Windows):
    """Applies to each position's patch the filter of that position.

    `outputs[b, p, f] = sum_r patches[p, b, r] * kernel[p, r, f]`

    With positions in front this is one batched matrix product, forward and in both gradients,
    and the graph grows with the number of taps, not of positions. The gradient gathers the
    patches anew instead of keeping them, `taps` times the size of the inputs.

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
    sizes = tuple(inputs_bSc.shape[1:-1])
    output_shape = windows.static_output_shape(sizes)

    @ops.custom_gradient
    def apply(inputs_bSc, kernel_prf):
        outputs_pbf = ops.matmul(gather_patches(inputs_bSc, windows), kernel_prf)
        outputs_bpf = ops.transpose(outputs_pbf, (1, 0, 2))
        outputs_bOf = ops.reshape(outputs_bpf, (-1, *output_shape, kernel_prf.shape[-1]))

        def gradient(*arguments, upstream=None):
            if upstream is None:
                (upstream,) = arguments
            upstream_bpf = ops.reshape(upstream, (-1, *kernel_prf.shape[::2]))
            upstream_pbf = ops.transpose(upstream_bpf, (1, 0, 2))
            patches_prb = ops.transpose(gather_patches(inputs_bSc, windows), (0, 2, 1))
            kernel_gradient_prf = ops.matmul(patches_prb, upstream_pbf)
            kernel_pfr = ops.transpose(kernel_prf, (0, 2, 1))
            patches_gradient_pbr = ops.matmul(upstream_pbf, kernel_pfr)
            return scatter_patches(patches_gradient_pbr, windows, sizes), kernel_gradient_prf

        return outputs_bOf, gradient

    # Copies, since the gradient of a variable itself is refused by TensorFlow and PyTorch.
    return apply(ops.copy(inputs_bSc), ops.copy(kernel_prf))


def gather_patches(inputs_bSc, windows: Windows):
    """Collects what each position's filter reads, position by position.

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
    sizes = tuple(inputs_bSc.shape[1:-1])
    positions = math.prod(windows.static_output_shape(sizes))
    dimensions = len(sizes)
    padded_bSc = pad_windows(inputs_bSc, windows)
    padded_Sbc = ops.transpose(padded_bSc, (*range(1, dimensions + 1), 0, dimensions + 1))
    patches_Obr = ops.concatenate([padded_Sbc[tap] for tap in _taps(windows, sizes)], axis=-1)
    return ops.reshape(patches_Obr, (positions, -1, windows.taps * inputs_bSc.shape[-1]))


def scatter_patches(patches_pbr, windows: Windows, sizes: tuple[int, ...]):
    """Adds every patch back to where it was read: the adjoint of `gather_patches`.

    Args:
        patches_pbr: One patch per position and example.
        windows: Where the windows sit.
        sizes: Spatial size of the result.

    Returns:
        Tensor of axes `bSc`.

    Example:
        >>> windows = Windows((2,), (1,), (1,), "valid")
        >>> patches = gather_patches(ops.ones((1, 4, 1)), windows)
        >>> ops.convert_to_numpy(scatter_patches(patches, windows, (4,)))[0, :, 0].tolist()
        [1.0, 2.0, 2.0, 1.0]
    """
    output_shape = windows.static_output_shape(sizes)
    dimensions = len(sizes)
    channels = patches_pbr.shape[-1] // windows.taps
    patches_Obr = ops.reshape(patches_pbr, (*output_shape, -1, patches_pbr.shape[-1]))
    amounts = windows.pad_amounts(sizes)
    padded = [size + before + after for size, (before, after) in zip(sizes, amounts, strict=True)]
    total_Sbc: Any = None
    for index, tap in enumerate(_taps(windows, sizes)):
        tap_Obc = patches_Obr[..., index * channels : (index + 1) * channels]
        placed_Sbc = spread(tap_Obc, windows.strides)
        around = [
            (place.start, length - place.stop) for place, length in zip(tap, padded, strict=True)
        ]
        placed_Sbc = ops.pad(placed_Sbc, (*around, (0, 0), (0, 0)))
        total_Sbc = placed_Sbc if total_Sbc is None else total_Sbc + placed_Sbc
    inside = tuple(
        slice(before, before + size) for size, (before, _) in zip(sizes, amounts, strict=True)
    )
    return ops.transpose(total_Sbc[inside], (dimensions, *range(dimensions), dimensions + 1))


def pad_windows(inputs_bSc, windows: Windows):
    """Adds the zeros that `windows.padding` asks for around the spatial axes."""
    amounts = windows.pad_amounts(inputs_bSc.shape[1:-1])
    if not any(map(any, amounts)):
        return inputs_bSc
    return ops.pad(inputs_bSc, ((0, 0), *amounts, (0, 0)))


def _taps(windows: Windows, sizes: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Yields for each tap where the padded input holds what the positions read through it."""
    lengths = windows.static_output_shape(sizes)
    for tap in itertools.product(*map(range, windows.sizes)):
        starts = (index * dilation for index, dilation in zip(tap, windows.dilations, strict=True))
        yield tuple(
            slice(start, start + (length - 1) * stride + 1, stride)
            for start, length, stride in zip(starts, lengths, windows.strides, strict=True)
        )


def spread(values, steps: Sequence[int]):
    """Puts `step - 1` zeros between neighbouring elements along the leading axes.

    Args:
        values: Tensor whose leading axes have static lengths.
        steps: Distance of former neighbours in the result, for each leading axis.

    Returns:
        Tensor of `(length - 1) * step + 1` elements along each of these axes.

    Example:
        >>> ops.convert_to_numpy(spread(ops.array([1.0, 2.0]), (3,))).tolist()
        [1.0, 0.0, 0.0, 2.0]
    """
    for axis, step in enumerate(steps):
        length = values.shape[axis]
        if step == 1 or length == 1:
            continue
        around = [(0, 0)] * (len(values.shape) + 1)
        around[axis + 1] = (0, step - 1)
        wide = ops.pad(ops.expand_dims(values, axis + 1), around)
        rest = [-1 if size is None else size for size in values.shape[axis + 1 :]]
        wide = ops.reshape(wide, (*values.shape[:axis], length * step, *rest))
        values = wide[(slice(None),) * axis + (slice(0, (length - 1) * step + 1),)]
    return values
