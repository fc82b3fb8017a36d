"""Transposed convolution with a filter of its own at every input position: the adjoint of one.

A tensor's name ends in its axes; an axis in capitals stands for one axis per spatial dimension:

    b  batch              S  input positions, one axis per dimension
    c  input channel      O  output positions, one axis per dimension
    f  filter             W  all that windows write, of which `O` is a part
    p  input positions, flattened in row-major order
    r  what one position writes: taps, then filters, flattened
    q  what it writes through one slab of taps

A convolution collects patches and multiplies; here each position's numbers are multiplied, and the
products added up where the windows write them. One's gradient is the other.
"""

import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from low_rank_local_connectivity.ops.arguments import (
    boolean,
    instance_of,
    require_dimensions,
    require_length,
    tensors,
)
from low_rank_local_connectivity.ops.gradients import with_gradient
from low_rank_local_connectivity.ops.local_convolution import (
    SMALLEST_BATCH,
    gather_slabs,
    positions_of_rows,
    scatter_slabs,
    slab_rows,
)
from low_rank_local_connectivity.ops.padding import pad
from low_rank_local_connectivity.ops.precision import as_floats, matmul
from low_rank_local_connectivity.ops.transposed_windows import TransposedWindows


def local_convolution_transpose(
    inputs_bSc, kernel_prc, windows: TransposedWindows, training: bool = False
):
    """Spreads each input position over the outputs by the filter of that position.

    `outputs[b, s, f] = sum over p and t, p * stride + t * dilation - first = s, of
    sum_c inputs[b, p, c] * kernel[p, (t, f), c]`

    With the same kernel it is the adjoint of `local_convolution` from the outputs to the inputs.

    Args:
        inputs_bSc: Inputs of static spatial size.
        kernel_prc: Filters of every input position; `r` runs over taps, then filters.
        windows: Where the windows sit.
        training: Whether gradients will be asked for; decides how, not what is computed.

    Returns:
        Tensor of axes `bOf`.

    Raises:
        ValueError: If an argument is of another kind, or shapes do not fit together.

    Example:
        >>> windows = TransposedWindows((3, 3), (2, 2), (1, 1), "same")
        >>> kernel = ops.ones((4 * 5, 3 * 3 * 6, 7))
        >>> ops.shape(local_convolution_transpose(ops.ones((2, 4, 5, 7)), kernel, windows))
        (2, 8, 10, 6)
    """
    inputs_bSc, kernel_prc = tensors(inputs_bSc=inputs_bSc, kernel_prc=kernel_prc)
    windows, training = (
        instance_of("windows", windows, TransposedWindows),
        boolean("training", training),
    )
    require_dimensions(len(windows.sizes), "`windows`", inputs_bSc=inputs_bSc)
    sizes = tuple(inputs_bSc.shape[1:-1])
    windows.static_output_shape(sizes)
    require_length("kernel_prc", kernel_prc, "p", math.prod(sizes), "of all input positions")
    _require_filters(kernel_prc, windows)
    inputs_bSc, kernel_prc = as_floats(inputs_bSc, kernel_prc)
    rows = written_rows(windows, sizes, kernel_prc.shape[1] // windows.taps)
    batch = inputs_bSc.shape[0]
    # As `local_convolution`: splitting a variable copies it.
    if not training and (not isinstance(batch, int) or batch < SMALLEST_BATCH):
        rows = [(0, sizes[0])]
    slabs = len(rows)
    kernels_pqc = [ops.copy(kernel_prc)] if slabs == 1 else ops.split(kernel_prc, slabs, axis=1)
    return local_convolution_transpose_by_slabs(inputs_bSc, kernels_pqc, rows, windows)


def _require_filters(kernel_prc, windows: TransposedWindows) -> None:
    if kernel_prc.shape[1] % windows.taps:
        raise ValueError(
            "Axis 'r' of `kernel_prc` must hold as many filters for each of the taps of its "
            f"windows, {windows.taps}. Received: kernel_prc of shape {tuple(kernel_prc.shape)}."
        )


def written_rows(
    windows: TransposedWindows, sizes: Sequence[int], filters: int
) -> list[tuple[int, int]]:
    """Splits filters into slabs where that pays, as `slab_rows`.

    Args:
        windows: Where the windows sit.
        sizes: Spatial size of the inputs.
        filters: Number of filters.

    Example:
        >>> written_rows(TransposedWindows((3,), (1,), (1,), "same"), (7,), 200)
        [(0, 7), (0, 7), (0, 7)]
    """
    written: Any = windows.whole_shape(sizes)
    return slab_rows(windows.whole, (*written, filters), skip_padding=False)


def local_convolution_transpose_by_slabs(
    inputs_bSc, kernels_pqc: Sequence, rows: Sequence[tuple[int, int]], windows: TransposedWindows
):
    """As `local_convolution_transpose`, for filters given slab by slab.

    Args:
        inputs_bSc: Inputs of static spatial size.
        kernels_pqc: One slab of the filters each: tensors, not variables.
        rows: The rows of positions that each slab is given for, from `written_rows`.
        windows: Where the windows sit.

    Returns:
        Tensor of axes `bOf`.
    """
    *sizes, channels = inputs_bSc.shape[1:]
    positions = math.prod(sizes)
    writing = positions_of_rows(rows, sizes)
    written: Any = windows.whole_shape(sizes)

    def positions_first(inputs_bSc):
        inputs_bpc = ops.reshape(inputs_bSc, (-1, positions, channels))
        return ops.transpose(inputs_bpc, (1, 0, 2))

    def apply(inputs_bSc, *kernels_pqc):
        inputs_pbc = positions_first(inputs_bSc)
        slabs_pbq = [
            matmul(inputs_pbc[part], ops.transpose(kernel_pqc, (0, 2, 1)))
            for kernel_pqc, part in zip(kernels_pqc, writing, strict=True)
        ]
        return cut_outputs(scatter_slabs(slabs_pbq, windows.whole, rows, written), windows)

    def gradient(upstream, inputs_bSc, *kernels_pqc):
        upstream_bWf = _padded(upstream, windows)
        slabs_pbq = gather_slabs(upstream_bWf, windows.whole, rows)
        inputs_pbc = positions_first(inputs_bSc)
        products_pbc = [matmul(*pair) for pair in zip(slabs_pbq, kernels_pqc, strict=True)]
        inputs_gradient_bpc = ops.transpose(sum(products_pbc[1:], products_pbc[0]), (1, 0, 2))
        kernel_gradients_pqc = [
            matmul(ops.transpose(slab_pbq, (0, 2, 1)), inputs_pbc[part])
            for slab_pbq, part in zip(slabs_pbq, writing, strict=True)
        ]
        inputs_gradient_bSc = ops.reshape(inputs_gradient_bpc, (-1, *sizes, channels))
        return inputs_gradient_bSc, *kernel_gradients_pqc

    return with_gradient(apply, gradient, (ops.copy(inputs_bSc), *kernels_pqc))


def cut_outputs(written_bWf, windows: TransposedWindows):
    """Returns the outputs among all that windows write; sizes may be unknown.

    Example:
        >>> windows = TransposedWindows((4,), (2,), (1,), "same")
        >>> ops.shape(cut_outputs(ops.ones((2, 12, 6)), windows))
        (2, 10, 6)
    """
    cut = windows.cut()
    if not any(map(any, cut)):
        return written_bWf
    # An end counted from the back needs no length.
    inside = (slice(before, -after if after else None) for before, after in cut)
    return written_bWf[(slice(None), *inside)]


def _padded(outputs_bOf, windows: TransposedWindows):
    """Returns the outputs with zeros where windows write beyond them."""
    cut = windows.cut()
    if not any(map(any, cut)):
        return outputs_bOf
    return pad(outputs_bOf, ((0, 0), *cut, (0, 0)))
