"""Local convolution whose filters mix `k` shared filter banks: two plans, the same numbers.

A tensor's name ends in its axes; an axis in capitals stands for one axis per spatial dimension:

    b  batch              S  input positions, one axis per dimension
    c  input channel      O  output positions, one axis per dimension (length 1: shared by all)
    f  filter             p  output positions, flattened in row-major order
    k  filter bank        T  kernel taps, one axis per dimension
    g  `k * f`, bank-major  r  taps, then channels, flattened; q those of one slab
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from low_rank_local_connectivity.ops.gradients import with_gradient
from low_rank_local_connectivity.ops.local_convolution import (
    after,
    local_convolution_by_slabs,
    pad_windows,
    positions_of_rows,
    slab_rows,
    spread,
)
from low_rank_local_connectivity.ops.windows import Windows

# Up to so many, gradients for combining weights multiply by the banks, above, the banks by them.
FEW_BANKS = 8


def convolve(inputs_bSc, kernel_Tcg, windows: Windows):
    """Convolves with one kernel for all positions, at any padding of `Windows`."""
    settings: dict[str, Any] = {
        "strides": windows.strides,
        "padding": windows.padding,
        "data_format": "channels_last",
        "dilation_rate": windows.dilations,
    }
    if windows.padding == "causal":
        inputs_bSc, settings["padding"] = pad_windows(inputs_bSc, windows), "valid"
    return ops.conv(inputs_bSc, kernel_Tcg, **settings)


def convolve_then_combine(
    inputs_bSc, kernel_Tcg, weights_bOk, windows: Windows, one_by_one: bool = False
):
    """Convolves with every bank, then mixes the `k` responses at each position.

    `outputs[b, O, f] = sum_k weights[b, O, k] * conv(inputs, bank_k)[b, O, f]`

    Costs `k` convolutions, and is the only plan for weights that differ between examples.

    Args:
        inputs_bSc: Inputs; spatial sizes may be unknown.
        kernel_Tcg: The banks side by side in the last axis, bank-major.
        weights_bOk: Combining weights; `b` and any of `O` may have length 1.
        windows: Where the windows sit.
        one_by_one: Whether to add one bank's response before convolving with the next, so that
            two responses are in memory instead of `k`; of use where no gradient needs them all.

    Returns:
        Tensor of axes `bOf`.

    Example:
        >>> windows = Windows((3, 3), (1, 1), (1, 1), "valid")
        >>> images, kernel = ops.ones((2, 8, 9, 4)), ops.ones((3, 3, 4, 6 * 5))
        >>> ops.shape(convolve_then_combine(images, kernel, ops.ones((1, 6, 7, 6)), windows))
        (2, 6, 7, 5)
    """
    rank = weights_bOk.shape[-1]
    if one_by_one:
        kernels_Tcf = ops.split(kernel_Tcg, rank, axis=-1)
        banks = [windows] * rank
        return convolve_then_combine_mixed(inputs_bSc, kernels_Tcf, weights_bOk, banks, True)
    responses_bOg = convolve(inputs_bSc, kernel_Tcg, windows)
    filters = kernel_Tcg.shape[-1] // rank
    responses_bOkf = ops.reshape(responses_bOg, (*ops.shape(responses_bOg)[:-1], rank, filters))
    return ops.sum(responses_bOkf * ops.expand_dims(weights_bOk, -1), axis=-2)


def convolve_then_combine_mixed(
    inputs_bSc,
    kernels_Tcf: Sequence,
    weights_bOk,
    windows: Sequence[Windows],
    one_by_one: bool = False,
):
    """As `convolve_then_combine`, with banks that differ in kernel size or dilation.

    Args:
        inputs_bSc: Inputs; spatial sizes may be unknown.
        kernels_Tcf: One kernel per bank.
        weights_bOk: Combining weights; `b` and any of `O` may have length 1.
        windows: Where each bank's windows sit; all have the same output shape.
        one_by_one: As for `convolve_then_combine`.

    Returns:
        Tensor of axes `bOf`.
    """
    total_bOf: Any = None
    for k, (kernel_Tcf, bank) in enumerate(zip(kernels_Tcf, windows, strict=True)):
        waits = one_by_one and total_bOf is not None
        ready_Tcf = after(total_bOf, kernel_Tcf) if waits else kernel_Tcf
        response_bOf = weights_bOk[..., k : k + 1] * convolve(inputs_bSc, ready_Tcf, bank)
        total_bOf = response_bOf if total_bOf is None else total_bOf + response_bOf
    return total_bOf


def combine_banks(kernel_Tcg, weights_Ok):
    """Mixes the banks into the local filter of each position.

    `local_kernel[O, T, c, f] = sum_k weights[O, k] * banks[T, c, k, f]`

    Args:
        kernel_Tcg: The banks side by side in the last axis, bank-major.
        weights_Ok: Combining weights of every position.

    Returns:
        Tensor of axes `OTcf`, in at least float32: in less, a mix of many banks loses digits.

    Example:
        >>> kernel, weights = ops.ones((3, 2, 4, 6 * 5)), ops.ones((7, 8, 6))
        >>> ops.shape(combine_banks(kernel, weights))
        (7, 8, 3, 2, 4, 5)
    """
    *positions, rank = weights_Ok.shape
    *taps, channels, stacked = kernel_Tcg.shape
    (local_prf,) = _combine_slabs(kernel_Tcg, weights_Ok, [slice(None)])
    return ops.reshape(local_prf, (*positions, *taps, channels, stacked // rank))


def _combine_slabs(kernel_Tcg, weights_Ok, positions: Sequence[slice]) -> list:
    """Mixes the banks slab by slab, each for its positions, into tensors of axes `pqf`."""
    rank = weights_Ok.shape[-1]
    filters = kernel_Tcg.shape[-1] // rank
    dtype = keras.backend.result_type(
        *(keras.backend.standardize_dtype(x.dtype) for x in (kernel_Tcg, weights_Ok)), "float32"
    )
    kernel_Tcg, weights_Ok = ops.cast(kernel_Tcg, dtype), ops.cast(weights_Ok, dtype)
    weights_pk = ops.reshape(weights_Ok, (-1, rank))
    kernels_qkf = ops.split(ops.reshape(kernel_Tcg, (-1, rank, filters)), len(positions))
    local = []
    for kernel_qkf, part in zip(kernels_qkf, positions, strict=True):
        # Banks first and everything else flat makes the mix one matrix product.
        banks_kq = ops.reshape(ops.transpose(kernel_qkf, (1, 0, 2)), (rank, -1))
        local_pq = _mix(weights_pk[part], banks_kq)
        local.append(ops.reshape(local_pq, (local_pq.shape[0], -1, filters)))
    return local


def _mix(weights_pk, banks_kq) -> Any:
    """Returns the matrix product, whose gradients are two passes over a large matrix.

    Of the two ways to multiply for the weights' gradient, TensorFlow and Eigen are up to twice
    as fast with the few rows of few banks first.
    """

    def gradient(upstream, weights_pk, banks_kq):
        if weights_pk.shape[1] <= FEW_BANKS:
            products_kp = ops.matmul(banks_kq, ops.transpose(upstream))
            weights_gradient_pk = ops.transpose(products_kp)
        else:
            weights_gradient_pk = ops.matmul(upstream, ops.transpose(banks_kq))
        return weights_gradient_pk, ops.matmul(ops.transpose(weights_pk), upstream)

    return with_gradient(ops.matmul, gradient, (ops.copy(weights_pk), ops.copy(banks_kq)))


def combine_then_convolve(inputs_bSc, kernel_Tcg, weights_Ok, windows: Windows):
    """Mixes the banks into one filter per position, then applies each where it belongs.

    Equals `convolve_then_combine`, since both steps are linear, at a cost that hardly depends
    on the number of banks: the banks are mixed once for the whole batch.

    Args:
        inputs_bSc: Inputs of static spatial size.
        kernel_Tcg: The banks side by side in the last axis, bank-major.
        weights_Ok: Combining weights of every position, the same for all examples.
        windows: Where the windows sit.

    Returns:
        Tensor of axes `bOf`, in the data type of the inputs.

    Example:
        >>> windows = Windows((3, 3), (1, 1), (1, 1), "valid")
        >>> images, kernel = ops.ones((2, 8, 9, 4)), ops.ones((3, 3, 4, 6 * 5))
        >>> ops.shape(combine_then_convolve(images, kernel, ops.ones((6, 7, 6)), windows))
        (2, 6, 7, 5)
    """
    rows = slab_rows(windows, inputs_bSc.shape[1:], skip_padding=True)
    positions = positions_of_rows(rows, weights_Ok.shape[:-1])
    kernels_pqf = [
        ops.cast(slab_pqf, inputs_bSc.dtype)
        for slab_pqf in _combine_slabs(kernel_Tcg, weights_Ok, positions)
    ]
    return local_convolution_by_slabs(inputs_bSc, kernels_pqf, rows, windows)


def embed_banks(kernels_Tcf: Sequence, windows: Sequence[Windows], shape: Sequence[int | None]):
    """Places banks of different structure where they sit in one box of taps of dilation 1.

    Under `"same"` padding every bank is padded for itself, so bank `k` starts at tap
    `pad_before(box) - pad_before(bank_k)` of the box: not always at its centre.

    Args:
        kernels_Tcf: One kernel per bank.
        windows: Where each bank's windows sit.
        shape: Spatial size of the input, which decides the padding of strided windows.

    Returns:
        `(kernel_Tcg, box)`: the banks in the box, bank-major, and the box's windows.

    Example:
        >>> banks = [ops.ones((1, 1, 1)), ops.ones((3, 1, 1))]
        >>> windows = [Windows((size,), (2,), (1,), "same") for size in (1, 3)]
        >>> kernel, box = embed_banks(banks, windows, [8])
        >>> ops.convert_to_numpy(kernel)[:, 0, 0].tolist()
        [1.0, 0.0, 0.0]
    """
    sizes = tuple(map(max, zip(*(bank.extents for bank in windows), strict=True)))
    box = Windows(sizes, windows[0].strides, (1,) * len(sizes), windows[0].padding)
    outer = box.pad_amounts(shape)
    embedded = []
    for kernel_Tcf, bank in zip(kernels_Tcf, windows, strict=True):
        starts = [
            before - inner
            for (before, _), (inner, _) in zip(outer, bank.pad_amounts(shape), strict=True)
        ]
        ends = [
            size - start - span
            for size, start, span in zip(sizes, starts, bank.extents, strict=True)
        ]
        around = (*zip(starts, ends, strict=True), (0, 0), (0, 0))
        embedded.append(ops.pad(spread(kernel_Tcf, bank.dilations), around))
    return ops.concatenate(embedded, axis=-1), box
