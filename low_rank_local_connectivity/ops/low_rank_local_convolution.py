"""Local convolution whose filters mix `k` shared filter banks: two ways, the same numbers.

A tensor's name ends in its axes; an axis in capitals stands for one axis per spatial dimension:

    b  batch              S  input positions, one axis per dimension
    c  input channel      O  output positions, one axis per dimension (length 1: shared by all)
    f  filter             p  output positions, flattened in row-major order
    k  filter bank        T  kernel taps, one axis per dimension
    g  `k * f`, bank-major  r  taps, then channels, flattened; q those of one slab
"""

import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from low_rank_local_connectivity.ops.arguments import (
    boolean,
    groups_of,
    instance_of,
    require_dimensions,
    require_each,
    require_length,
    require_same_dtype,
    sequence,
    tensor,
    tensors,
)
from low_rank_local_connectivity.ops.borders import with_border
from low_rank_local_connectivity.ops.constants import plain_number, plain_shape
from low_rank_local_connectivity.ops.convolution import windowed_convolution
from low_rank_local_connectivity.ops.depthwise_convolution import local_depthwise_convolution
from low_rank_local_connectivity.ops.gradients import with_gradient
from low_rank_local_connectivity.ops.local_convolution import (
    after,
    local_convolution_by_slabs,
    positions_of_rows,
    slab_rows,
    spread,
    with_groups,
    without_groups,
)
from low_rank_local_connectivity.ops.padding import pad
from low_rank_local_connectivity.ops.precision import as_floats, at_least_float32, matmul
from low_rank_local_connectivity.ops.windows import Windows

# Up to so many, gradients for combining weights multiply by the banks, above, the banks by them.
FEW_BANKS = 8


def _require_channels(name: str, inputs_bSc, kernel, filters: Any, groups: Any) -> int:
    """Returns the number of groups, if inputs and kernel can be divided into so many."""
    channels, read = plain_number(inputs_bSc.shape[-1]), plain_number(kernel.shape[-2])
    groups = groups_of(groups, filters, channels)
    if channels not in (None, read * groups):
        raise ValueError(
            f"`{name}` must read the channels of the inputs, each filter those of its group. "
            f"Received: {name} of shape {tuple(kernel.shape)} and inputs_bSc of shape "
            f"{tuple(inputs_bSc.shape)} with groups={groups}."
        )
    return groups


def _require_whole_banks(kernel_Tcg, rank: int) -> None:
    """Refuses a kernel that does not hold as many banks as there are combining weights."""
    if kernel_Tcg.shape[-1] % rank:
        raise ValueError(
            "`kernel_Tcg` must hold as many banks as there are combining weights, all with the "
            f"same number of filters. Received: kernel_Tcg of shape {tuple(kernel_Tcg.shape)} and "
            f"weights for {rank} banks."
        )


def _require_taps(name: str, kernel, windows: Any) -> None:
    """Refuses a kernel with other taps than its windows have."""
    instance_of("windows", windows, Windows)
    if tuple(kernel.shape[:-2]) != tuple(windows.sizes):
        raise ValueError(
            f"`{name}` must have the taps of its windows, {tuple(windows.sizes)}. Received: {name} "
            f"of shape {tuple(kernel.shape)}."
        )


def _require_positions(inputs_bSc, weights, windows: Windows) -> None:
    """Refuses combining weights that are neither for the output positions nor shared by them."""
    dimensions = len(windows.sizes)
    require_dimensions(dimensions, "`windows`", inputs_bSc=inputs_bSc)
    # An unknown size is None, or a symbol where JAX exports.
    sizes = [size if isinstance(size, int) else None for size in inputs_bSc.shape[1:-1]]
    expected, found = windows.output_shape(sizes), tuple(weights.shape)[-1 - dimensions : -1]
    pairs = [pair for pair in zip(found, expected, strict=True) if _are_known(*pair)]
    if any(length not in (outputs, 1) for length, outputs in pairs):
        raise ValueError(
            f"Combining weights must be given for the output positions, {expected}. Received: "
            f"weights of shape {tuple(weights.shape)} with windows={windows} over inputs_bSc of "
            f"shape {tuple(inputs_bSc.shape)}."
        )


def _are_known(*lengths: Any) -> bool:
    return all(isinstance(length, int) for length in lengths)


def _checked_banks(kernels: Any, windows: Any) -> tuple[list[Any], list[Windows]]:
    """Returns the kernels of banks as tensors, and their windows, one for each."""
    kernels = [
        tensor("kernels_Tcf", kernel, "Tcf")
        for kernel in sequence("kernels_Tcf", kernels, "tensors of axes Tcf")
    ]
    windows = sequence("windows", windows, "Windows")
    require_each("windows", windows, len(kernels), "the banks")
    if not kernels:
        raise ValueError("`kernels_Tcf` must hold at least one bank. Received: kernels_Tcf=[].")
    for kernel, bank in zip(kernels, windows, strict=True):
        _require_taps("kernels_Tcf", kernel, bank)
    if len({plain_shape(kernel.shape[-2:]) for kernel in kernels}) > 1:
        raise ValueError(
            "`kernels_Tcf` must have the same number of channels and of filters. Received: shapes "
            f"{[tuple(kernel.shape) for kernel in kernels]}."
        )
    return kernels, windows


def convolve_then_combine(
    inputs_bSc,
    kernel_Tcg,
    weights_bOk,
    windows: Windows,
    one_by_one: bool = False,
    groups: int = 1,
):
    """Convolves with every bank, then mixes the `k` responses at each position.

    `outputs[b, O, f] = sum_k weights[b, O, k] * conv(inputs, bank_k)[b, O, f]`

    Costs `k` convolutions, and is the only way for weights that differ between examples.

    Args:
        inputs_bSc: Inputs; spatial sizes may be unknown.
        kernel_Tcg: The banks side by side in the last axis, bank-major.
        weights_bOk: Combining weights; `b` and any of `O` may have length 1.
        windows: Where the windows sit.
        one_by_one: Whether to add one bank's response before convolving with the next, so that
            two responses are in memory instead of `k`; of use where no gradient needs them all.
        groups: Into how many groups of neighbours the channels, and each bank's filters, are
            divided; a filter reads the channels of its own group, over which `c` of the kernel
            runs.

    Returns:
        Tensor of axes `bOf`.

    Raises:
        ValueError: If an argument is of another kind, or shapes do not fit together.

    Example:
        >>> windows = Windows((3, 3), (1, 1), (1, 1), "valid")
        >>> images, kernel = ops.ones((2, 8, 9, 4)), ops.ones((3, 3, 4, 6 * 5))
        >>> ops.shape(convolve_then_combine(images, kernel, ops.ones((1, 6, 7, 6)), windows))
        (2, 6, 7, 5)
    """
    inputs_bSc, weights_bOk = tensors("b", inputs_bSc=inputs_bSc, weights_bOk=weights_bOk)
    kernel_Tcg = tensor("kernel_Tcg", kernel_Tcg, "Tcg")
    require_same_dtype(inputs_bSc=inputs_bSc, kernel_Tcg=kernel_Tcg)
    _require_taps("kernel_Tcg", kernel_Tcg, windows)
    _require_positions(inputs_bSc, weights_bOk, windows)
    inputs_bSc, kernel_Tcg, weights_bOk = as_floats(inputs_bSc, kernel_Tcg, weights_bOk)
    rank = plain_number(weights_bOk.shape[-1])
    _require_whole_banks(kernel_Tcg, rank)
    filters = kernel_Tcg.shape[-1] // rank
    groups = _require_channels("kernel_Tcg", inputs_bSc, kernel_Tcg, filters, groups)
    if boolean("one_by_one", one_by_one):
        kernels_Tcf = ops.split(kernel_Tcg, rank, axis=-1)
        banks = [windows] * rank
        return convolve_then_combine_mixed(
            inputs_bSc, kernels_Tcf, weights_bOk, banks, True, groups
        )
    kernel_Tcg = _groups_first(kernel_Tcg, rank, groups)
    responses_bOg = windowed_convolution(inputs_bSc, kernel_Tcg, windows, groups)
    in_groups = (groups, rank, filters // groups) if groups > 1 else (rank, filters)
    responses_bOkf = ops.reshape(responses_bOg, (*ops.shape(responses_bOg)[:-1], *in_groups))
    weights_bOkf = ops.expand_dims(weights_bOk, -1)
    if groups > 1:
        weights_bOkf = ops.expand_dims(weights_bOkf, -3)
    outputs_bOf = ops.sum(responses_bOkf * weights_bOkf, axis=-2)
    if groups == 1:
        return outputs_bOf
    return ops.reshape(outputs_bOf, (*ops.shape(outputs_bOf)[:-2], filters))


def _groups_first(kernel_Tcg, rank: int, groups: int):
    """Returns bank-major filters group by group, as a convolution in groups wants them."""
    if groups == 1 or rank == 1:
        return kernel_Tcg
    *reads, stacked = kernel_Tcg.shape
    banks = ops.reshape(kernel_Tcg, (*reads, rank, groups, -1))
    return ops.reshape(ops.swapaxes(banks, -3, -2), (*reads, stacked))


def convolve_then_combine_mixed(
    inputs_bSc,
    kernels_Tcf: Sequence,
    weights_bOk,
    windows: Sequence[Windows],
    one_by_one: bool = False,
    groups: int = 1,
):
    """As `convolve_then_combine`, with banks that differ in kernel size or dilation.

    Args:
        inputs_bSc: Inputs; spatial sizes may be unknown.
        kernels_Tcf: One kernel per bank.
        weights_bOk: Combining weights; `b` and any of `O` may have length 1.
        windows: Where each bank's windows sit; all have the same output shape.
        one_by_one: As for `convolve_then_combine`.
        groups: Likewise.

    Returns:
        Tensor of axes `bOf`.

    Raises:
        ValueError: If an argument is of another kind, or shapes do not fit together.
    """
    kernels_Tcf, windows = _checked_banks(kernels_Tcf, windows)
    inputs_bSc, weights_bOk = tensors("b", inputs_bSc=inputs_bSc, weights_bOk=weights_bOk)
    require_length("weights_bOk", weights_bOk, "k", len(kernels_Tcf), "of one for each bank")
    for kernel_Tcf, bank in zip(kernels_Tcf, windows, strict=True):
        filters = plain_number(kernel_Tcf.shape[-1])
        groups = _require_channels("kernels_Tcf", inputs_bSc, kernel_Tcf, filters, groups)
        require_same_dtype(inputs_bSc=inputs_bSc, kernels_Tcf=kernel_Tcf)
        _require_positions(inputs_bSc, weights_bOk, bank)
    one_by_one = boolean("one_by_one", one_by_one)
    inputs_bSc, weights_bOk, *kernels_Tcf = as_floats(inputs_bSc, weights_bOk, *kernels_Tcf)
    total_bOf: Any = None
    for k, (kernel_Tcf, bank) in enumerate(zip(kernels_Tcf, windows, strict=True)):
        waits = one_by_one and total_bOf is not None
        ready_Tcf = after(total_bOf, kernel_Tcf) if waits else kernel_Tcf
        response_bOf = weights_bOk[..., k : k + 1] * windowed_convolution(
            inputs_bSc, ready_Tcf, bank, groups
        )
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

    Raises:
        ValueError: If an argument is of another kind, or the weights are not for as many banks.

    Example:
        >>> kernel, weights = ops.ones((3, 2, 4, 6 * 5)), ops.ones((7, 8, 6))
        >>> ops.shape(combine_banks(kernel, weights))
        (7, 8, 3, 2, 4, 5)
    """
    kernel_Tcg, weights_Ok = tensors(kernel_Tcg=kernel_Tcg, weights_Ok=weights_Ok)
    require_dimensions(len(kernel_Tcg.shape) - 2, "`kernel_Tcg`", weights_Ok=weights_Ok)
    *positions, rank = weights_Ok.shape
    _require_whole_banks(kernel_Tcg, rank)
    *taps, channels, stacked = kernel_Tcg.shape
    (local_prf,) = combine_slabs(kernel_Tcg, weights_Ok, [slice(None)])
    return ops.reshape(local_prf, (*positions, *taps, channels, stacked // rank))


def combine_slabs(kernel_Tcg, weights_Ok, positions: Sequence[slice], groups: int = 1) -> list:
    """Mixes the banks slab by slab, each for its positions, into tensors of axes `pqf`.

    Each position's groups, of which a filter reads one, count as positions one behind the other.
    """
    rank = weights_Ok.shape[-1]
    filters = kernel_Tcg.shape[-1] // rank
    dtype = at_least_float32(kernel_Tcg, weights_Ok)
    kernel_Tcg, weights_Ok = ops.cast(kernel_Tcg, dtype), ops.cast(weights_Ok, dtype)
    weights_pk = ops.reshape(weights_Ok, (-1, rank))
    kernels_qkf = ops.split(ops.reshape(kernel_Tcg, (-1, rank, filters)), len(positions))
    local = []
    for kernel_qkf, part in zip(kernels_qkf, positions, strict=True):
        # Banks first and everything else flat makes the mix one matrix product.
        banks_kqf = ops.transpose(kernel_qkf, (1, 0, 2))
        if groups > 1:
            banks_kqgf = ops.reshape(banks_kqf, (*banks_kqf.shape[:2], groups, -1))
            banks_kqf = ops.transpose(banks_kqgf, (0, 2, 1, 3))
        local_pq = _mix(weights_pk[part], ops.reshape(banks_kqf, (rank, -1)))
        shape = (groups * local_pq.shape[0], -1, filters // groups)
        local.append(ops.reshape(local_pq, shape))
    return local


def _mix(weights_pk, banks_kq) -> Any:
    """Returns the matrix product, whose gradients are two passes over a large matrix.

    Of the two ways to multiply for the weights' gradient, TensorFlow and Eigen are up to twice
    as fast with the few rows of few banks first.
    """

    def gradient(upstream, weights_pk, banks_kq):
        if weights_pk.shape[1] <= FEW_BANKS:
            products_kp = matmul(banks_kq, ops.transpose(upstream))
            weights_gradient_pk = ops.transpose(products_kp)
        else:
            weights_gradient_pk = matmul(upstream, ops.transpose(banks_kq))
        return weights_gradient_pk, matmul(ops.transpose(weights_pk), upstream)

    return with_gradient(matmul, gradient, (ops.copy(weights_pk), ops.copy(banks_kq)))


def combine_then_convolve(inputs_bSc, kernel_Tcg, weights_Ok, windows: Windows, groups: int = 1):
    """Mixes the banks into one filter per position, then applies each where it belongs.

    Equals `convolve_then_combine`, since both steps are linear, at a cost that hardly depends
    on the number of banks: the banks are mixed once for the whole batch.

    Args:
        inputs_bSc: Inputs of static spatial size.
        kernel_Tcg: The banks side by side in the last axis, bank-major.
        weights_Ok: Combining weights of every position, the same for all examples.
        windows: Where the windows sit.
        groups: As for `convolve_then_combine`.

    Returns:
        Tensor of axes `bOf`, in the data type of the inputs.

    Raises:
        ValueError: If an argument is of another kind, or shapes do not fit together.

    Example:
        >>> windows = Windows((3, 3), (1, 1), (1, 1), "valid")
        >>> images, kernel = ops.ones((2, 8, 9, 4)), ops.ones((3, 3, 4, 6 * 5))
        >>> ops.shape(combine_then_convolve(images, kernel, ops.ones((6, 7, 6)), windows))
        (2, 6, 7, 5)
    """
    inputs_bSc, weights_Ok = tensors(inputs_bSc=inputs_bSc, weights_Ok=weights_Ok)
    kernel_Tcg = tensor("kernel_Tcg", kernel_Tcg, "Tcg")
    _require_taps("kernel_Tcg", kernel_Tcg, windows)
    require_dimensions(len(windows.sizes), "`windows`", inputs_bSc=inputs_bSc)
    if tuple(weights_Ok.shape[:-1]) != windows.static_output_shape(inputs_bSc.shape[1:-1]):
        raise ValueError(
            "`weights_Ok` must be given for every position; broadcast those that are shared. "
            f"Received: weights_Ok of shape {tuple(weights_Ok.shape)}."
        )
    rank = weights_Ok.shape[-1]
    _require_whole_banks(kernel_Tcg, rank)
    filters = kernel_Tcg.shape[-1] // rank
    groups = _require_channels("kernel_Tcg", inputs_bSc, kernel_Tcg, filters, groups)
    inputs_bSc, kernel_Tcg, weights_Ok = as_floats(inputs_bSc, kernel_Tcg, weights_Ok)
    inputs_bSc, windows = with_border(inputs_bSc, windows)
    if groups == inputs_bSc.shape[-1] > 1:
        kernel_tpf = ops.cast(_combine_taps(kernel_Tcg, weights_Ok), inputs_bSc.dtype)
        return local_depthwise_convolution(inputs_bSc, kernel_tpf, windows)
    if groups > 1:
        inputs_bSc, windows = with_groups(inputs_bSc, windows, groups)
    rows = slab_rows(windows, inputs_bSc.shape[1:], skip_padding=True)
    positions = positions_of_rows(rows, weights_Ok.shape[:-1])
    kernels_pqf = [
        ops.cast(slab_pqf, inputs_bSc.dtype)
        for slab_pqf in combine_slabs(kernel_Tcg, weights_Ok, positions, groups)
    ]
    outputs_bOf = local_convolution_by_slabs(inputs_bSc, kernels_pqf, rows, windows)
    return outputs_bOf if groups == 1 else without_groups(outputs_bOf)


def _combine_taps(kernel_Tcg, weights_Ok):
    """Mixes banks whose filters read one channel, tap by tap, into a tensor of axes `tpf`."""
    rank = weights_Ok.shape[-1]
    dtype = at_least_float32(kernel_Tcg, weights_Ok)
    weights_pk = ops.reshape(ops.cast(weights_Ok, dtype), (-1, rank))
    taps = math.prod(kernel_Tcg.shape[:-1])
    return matmul(weights_pk, ops.reshape(ops.cast(kernel_Tcg, dtype), (taps, rank, -1)))


def embed_banks(kernels_Tcf: Sequence, windows: Sequence[Windows], shape: Sequence[int | None]):
    """Places banks of different structure where they sit in one box of taps of dilation 1.

    Under padding that keeps the size every bank is padded for itself, so bank `k` starts at tap
    `pad_before(box) - pad_before(bank_k)` of the box: not always at its centre.

    Args:
        kernels_Tcf: One kernel per bank.
        windows: Where each bank's windows sit.
        shape: Spatial size of the input, which decides the padding of strided windows.

    Returns:
        `(kernel_Tcg, box)`: the banks in the box, bank-major, and the box's windows.

    Raises:
        ValueError: If there is no bank, or kernels, windows and shape do not fit together.

    Example:
        >>> banks = [ops.ones((1, 1, 1)), ops.ones((3, 1, 1))]
        >>> windows = [Windows((size,), (2,), (1,), "same") for size in (1, 3)]
        >>> kernel, box = embed_banks(banks, windows, [8])
        >>> ops.convert_to_numpy(kernel)[:, 0, 0].tolist()
        [1.0, 0.0, 0.0]
    """
    kernels_Tcf, windows = _checked_banks(kernels_Tcf, windows)
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
        embedded.append(pad(spread(kernel_Tcf, bank.dilations), around))
    return ops.concatenate(embedded, axis=-1), box
