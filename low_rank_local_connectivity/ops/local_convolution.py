"""Convolution with a filter of its own at every position, in any number of dimensions.

A tensor's name ends in its axes; an axis in capitals stands for one axis per spatial dimension:

    b  batch              S  input positions, one axis per dimension
    c  input channel      O  output positions, one axis per dimension
    f  filter             p  output positions, flattened in row-major order
    r  what one filter reads: its taps, then channels, flattened
    q  what it reads through one slab of taps
    g  group of channels, each read by filters of its own

A *slab* is what a filter reads through one tap of the first axis, all taps of the others and all
channels. With positions in front, the slabs of all positions are one contiguous stretch of a
tensor that only the other axes' taps had to be collected for: of a 3x3 kernel a third of the
patches.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import ops

from low_rank_local_connectivity.ops.arguments import (
    boolean,
    groups_of,
    instance_of,
    require_dimensions,
    require_length,
    tensors,
)
from low_rank_local_connectivity.ops.borders import pad_windows, with_border
from low_rank_local_connectivity.ops.gradients import with_gradient
from low_rank_local_connectivity.ops.padding import pad
from low_rank_local_connectivity.ops.precision import as_floats, matmul
from low_rank_local_connectivity.ops.windows import Windows

# Matrix products over fewer numbers than this are slower than collecting whole patches.
SMALLEST_SLAB = 128
# Splitting a variable into slabs copies it: for fewer examples that takes longer than it saves.
# Measured on W1, 100 MB of filters, at inference: 28 ms in slabs against 6 ms in whole patches for
# a single example, 55 against 45 for 16, 237 against 263 for 128.
SMALLEST_BATCH = 64


def local_convolution(
    inputs_bSc, kernel_prf, windows: Windows, training: bool = False, groups: int = 1
):
    """Applies to each position's patch the filter of that position.

    `outputs[b, p, f] = sum_r patches[p, b, r] * kernel[p, r, f]`

    With positions in front this is a batched matrix product for every slab, forward and in both
    gradients, and the graph grows with the number of taps, not of positions.

    Args:
        inputs_bSc: Inputs of static spatial size.
        kernel_prf: Filters of every output position; `r` runs over taps, then channels, those of
            a filter's group alone.
        windows: Where the windows sit.
        training: Whether gradients will be asked for; decides how, not what is computed.
        groups: Into how many groups of neighbours channels and filters are divided; a filter reads
            the channels of its own group.

    Returns:
        Tensor of axes `bOf`.

    Raises:
        ValueError: If an argument is of another kind, or shapes do not fit together.

    Example:
        >>> windows = Windows((3, 3), (1, 1), (1, 1), "valid")
        >>> kernel = ops.ones((6 * 7, 3 * 3 * 4, 5))
        >>> ops.shape(local_convolution(ops.ones((2, 8, 9, 4)), kernel, windows))
        (2, 6, 7, 5)
    """
    inputs_bSc, kernel_prf = tensors(inputs_bSc=inputs_bSc, kernel_prf=kernel_prf)
    windows, training = instance_of("windows", windows, Windows), boolean("training", training)
    require_dimensions(len(windows.sizes), "`windows`", inputs_bSc=inputs_bSc)
    positions = math.prod(windows.static_output_shape(inputs_bSc.shape[1:-1]))
    require_length("kernel_prf", kernel_prf, "p", positions, "of all output positions")
    channels = inputs_bSc.shape[-1]
    groups = groups_of(groups, kernel_prf.shape[-1], channels)
    reads = windows.taps * channels // groups
    require_length("kernel_prf", kernel_prf, "r", reads, "of all taps and channels")
    inputs_bSc, kernel_prf = as_floats(inputs_bSc, kernel_prf)
    inputs_bSc, windows = with_border(inputs_bSc, windows)
    if groups == 1:
        return _by_patches(inputs_bSc, kernel_prf, windows, training)
    kernel_prgf = ops.reshape(kernel_prf, (positions, reads, groups, -1))
    kernel_pgrf = ops.transpose(kernel_prgf, (0, 2, 1, 3))
    kernel_prf = ops.reshape(kernel_pgrf, (positions * groups, reads, -1))
    inputs_bSgc, windows = with_groups(inputs_bSc, windows, groups)
    return without_groups(_by_patches(inputs_bSgc, kernel_prf, windows, training))


def with_groups(inputs_bSc, windows: Windows, groups: int) -> tuple[Any, Windows]:
    """Returns inputs with groups of channels as one more spatial axis, and windows over it.

    A group is a position along it: its filters are its own, and its windows have a single tap.

    Example:
        >>> windows = Windows((3,), (2,), (1,), "same")
        >>> inputs, windows = with_groups(ops.ones((2, 8, 6)), windows, 3)
        >>> ops.shape(inputs), windows.output_shape((8, 3))
        ((2, 8, 3, 2), (4, 3))
    """
    *sizes, channels = inputs_bSc.shape[1:]
    inputs_bSgc = ops.reshape(inputs_bSc, (-1, *sizes, groups, channels // groups))
    wider: dict[str, Any] = {
        name: (*getattr(windows, name), 1) for name in ("sizes", "strides", "dilations")
    }
    if not isinstance(windows.padding, str):
        wider["padding"] = (*windows.padding, (0, 0))
    return inputs_bSgc, dataclasses.replace(windows, **wider)


def without_groups(outputs_bOgf):
    """Returns outputs with the filters of all groups along one axis."""
    *positions, groups, filters = outputs_bOgf.shape[1:]
    return ops.reshape(outputs_bOgf, (-1, *positions, groups * filters))


def _by_patches(inputs_bSc, kernel_prf, windows: Windows, training: bool):
    """As `local_convolution`, of one group."""
    rows = slab_rows(windows, inputs_bSc.shape[1:], skip_padding=False)
    batch = inputs_bSc.shape[0]
    # An unknown batch is None, or a symbol where JAX exports.
    if not training and (not isinstance(batch, int) or batch < SMALLEST_BATCH):
        rows = [(0, windows.static_output_shape(inputs_bSc.shape[1:-1])[0])]
    slabs = len(rows)
    # A copy, since the gradient of a variable itself is refused by TensorFlow and PyTorch.
    kernels_pqf = [ops.copy(kernel_prf)] if slabs == 1 else ops.split(kernel_prf, slabs, axis=1)
    return local_convolution_by_slabs(inputs_bSc, kernels_pqf, rows, windows)


def slab_rows(windows: Windows, shape: Sequence[int], skip_padding: bool) -> list[tuple[int, int]]:
    """Splits filters into slabs where that pays, and says which positions need each slab.

    Args:
        windows: Where the windows sit.
        shape: Spatial size and channels of the inputs.
        skip_padding: Whether to leave out rows of positions that read nothing but padding by a
            slab. It saves work where filters are made for the purpose; of a variable it would
            have to copy the rest.

    Returns:
        For each slab the first row of positions, along the first axis, and the one after the
        last; a single slab is the whole patch.

    Example:
        >>> windows = Windows((3, 3), (1, 1), (1, 1), "same")
        >>> slab_rows(windows, (7, 10, 64), skip_padding=True)
        [(1, 7), (0, 7), (0, 6)]
    """
    *sizes, channels = shape
    rows = windows.static_output_shape(sizes)[0]
    taps = slab_count(windows, channels)
    if taps == 1 or not skip_padding:
        return [(0, rows)] * taps
    stride, dilation = windows.strides[0], windows.dilations[0]
    before, _ = windows.pad_amounts(sizes)[0]
    found = []
    for tap in range(taps):
        first = max(-((tap * dilation - before) // stride), 0)
        end = min((sizes[0] - 1 + before - tap * dilation) // stride + 1, rows)
        # One row of zeros where all is padding.
        found.append((first, end) if first < end else (0, 1))
    return found


def slab_count(windows: Windows, channels: int) -> int:
    """Returns into how many slabs filters are split: 1 if that does not pay."""
    rows, *others = windows.sizes
    splits = windows.strides[0] == 1 and channels * math.prod(others) >= SMALLEST_SLAB
    return rows if splits else 1


def local_convolution_by_slabs(
    inputs_bSc, kernels_pqf: Sequence, rows: Sequence[tuple[int, int]], windows: Windows
):
    """As `local_convolution`, for filters given slab by slab.

    Args:
        inputs_bSc: Inputs of static spatial size.
        kernels_pqf: One slab of the filters each: tensors, not variables.
        rows: The rows of positions that each slab is given for, from `slab_rows`.
        windows: Where the windows sit.

    Returns:
        Tensor of axes `bOf`.
    """
    sizes = tuple(inputs_bSc.shape[1:-1])
    output_shape = windows.static_output_shape(sizes)
    filters = kernels_pqf[0].shape[-1]
    positions = math.prod(output_shape)
    reading = positions_of_rows(rows, output_shape)

    def apply(inputs_bSc, *kernels_pqf):
        slabs_pbq = gather_slabs(inputs_bSc, windows, rows)
        products_pbf = [matmul(*pair) for pair in zip(slabs_pbq, kernels_pqf, strict=True)]
        outputs_pbf = _overlap_add(products_pbf, [part.start for part in reading], positions)
        outputs_bpf = ops.transpose(outputs_pbf, (1, 0, 2))
        return ops.reshape(outputs_bpf, (-1, *output_shape, filters))

    def gradient(upstream, inputs_bSc, *kernels_pqf):
        upstream_bpf = ops.reshape(upstream, (-1, positions, filters))
        upstream_pbf = ops.transpose(upstream_bpf, (1, 0, 2))
        slab_gradients_pbq = [
            matmul(upstream_pbf[part], ops.transpose(kernel_pqf, (0, 2, 1)))
            for kernel_pqf, part in zip(kernels_pqf, reading, strict=True)
        ]
        inputs_gradient_bSc = scatter_slabs(slab_gradients_pbq, windows, rows, sizes)
        # What the forward pass collected is collected again, and on TensorFlow not before the
        # slabs' gradients are gone: on W1 12 to 16 % less memory at the peak for 2 % of the time.
        later_bSc = after(inputs_gradient_bSc, inputs_bSc)
        kernel_gradients_pqf = [
            matmul(ops.transpose(slab_pbq, (0, 2, 1)), upstream_pbf[part])
            for slab_pbq, part in zip(gather_slabs(later_bSc, windows, rows), reading, strict=True)
        ]
        return inputs_gradient_bSc, *kernel_gradients_pqf

    return with_gradient(apply, gradient, (ops.copy(inputs_bSc), *kernels_pqf))


def after(first, then):
    """Returns `then`, not to be used before `first` is computed, so that both need not be held.

    TensorFlow starts whatever has its inputs, and compilers merge what is computed twice; PyTorch
    runs operations in the order they are written. Nothing is above infinity, not even NaN, but no
    compiler concludes that from the graph.
    """
    if keras.backend.backend() == "torch":
        return then
    never = ops.any(first[:1] > float("inf"))
    return then + ops.cast(never, then.dtype)


def positions_of_rows(rows: Sequence[tuple[int, int]], output_shape: Sequence[int]) -> list[slice]:
    """Returns where rows of positions are when positions are flattened in row-major order."""
    size = math.prod(output_shape[1:])
    return [slice(first * size, end * size) for first, end in rows]


def gather_slabs(inputs_bSc, windows: Windows, rows: Sequence[tuple[int, int]]) -> list:
    """Collects what each position's filter reads, slab by slab.

    Args:
        inputs_bSc: Inputs of static spatial size.
        windows: Where the windows sit.
        rows: The rows of positions for each tap of the first axis; a single one for patches.

    Returns:
        One tensor of axes `pbq` for each slab.

    Example:
        >>> windows, rows = Windows((3, 2), (1, 1), (1, 1), "valid"), [(0, 6)] * 3
        >>> [ops.shape(slab) for slab in gather_slabs(ops.ones((2, 8, 9, 4)), windows, rows)]
        [(48, 2, 8), (48, 2, 8), (48, 2, 8)]
    """
    sizes = tuple(inputs_bSc.shape[1:-1])
    dimensions = len(sizes)
    padded_bSc = pad_windows(inputs_bSc, windows)
    padded_Sbc = ops.transpose(padded_bSc, (*range(1, dimensions + 1), 0, dimensions + 1))
    taps, others = _split(windows, sizes, rows)
    read = [padded_Sbc[tap] for tap in others]
    read_Sbq = ops.concatenate(read, axis=-1) if len(read) > 1 else read[0]
    slabs_Obq = [read_Sbq[tap] for tap in taps] if len(rows) > 1 else [read_Sbq]
    return [
        ops.reshape(slab_Obq, (math.prod(slab_Obq.shape[:dimensions]), -1, slab_Obq.shape[-1]))
        for slab_Obq in slabs_Obq
    ]


def scatter_slabs(
    slabs_pbq: Sequence,
    windows: Windows,
    rows: Sequence[tuple[int, int]],
    sizes: tuple[int, ...],
):
    """Adds every slab back to where it was read: the adjoint of `gather_slabs`.

    Args:
        slabs_pbq: One tensor for each slab.
        windows: Where the windows sit.
        rows: The rows of positions of each slab.
        sizes: Spatial size of the result.

    Returns:
        Tensor of axes `bSc`.

    Example:
        >>> windows, rows = Windows((2,), (1,), (1,), "valid"), [(0, 3), (0, 3)]
        >>> slabs = gather_slabs(ops.ones((1, 4, 1)), windows, rows)
        >>> ops.convert_to_numpy(scatter_slabs(slabs, windows, rows, (4,)))[0, :, 0].tolist()
        [1.0, 2.0, 2.0, 1.0]
    """
    dimensions = len(sizes)
    amounts = windows.pad_amounts(sizes)
    padded = [size + before + after for size, (before, after) in zip(sizes, amounts, strict=True)]
    taps, others = _split(windows, sizes, rows)
    inner = windows.static_output_shape(sizes)[1:]
    reads = slabs_pbq[0].shape[-1]
    slabs_Obq = [
        ops.reshape(slab, (slab.shape[0] // math.prod(inner), *inner, -1, reads))
        for slab in slabs_pbq
    ]
    if len(rows) > 1:
        slabs_Obq = [spread(slab_Obq, windows.strides[:1]) for slab_Obq in slabs_Obq]
        read_Sbq = _overlap_add(slabs_Obq, [tap.start for tap in taps], padded[0])
    else:
        (read_Sbq,) = slabs_Obq
    channels = reads // len(others)
    placed = []
    for index, tap in enumerate(others):
        tap_Sbc = read_Sbq[..., index * channels : (index + 1) * channels]
        steps = [place.step for place in tap]
        around = [(place.start, end - place.stop) for place, end in zip(tap, padded, strict=True)]
        placed.append(pad(spread(tap_Sbc, steps), (*around, (0, 0), (0, 0))))
    inside = tuple(
        slice(before, before + size) for size, (before, _) in zip(sizes, amounts, strict=True)
    )
    total_Sbc = _sum(placed)[inside]
    return ops.transpose(total_Sbc, (dimensions, *range(dimensions), dimensions + 1))


def _split(windows: Windows, sizes: tuple[int, ...], rows: Sequence[tuple[int, int]]):
    """Returns what is read through each tap of the first axis, then through each of the others.

    With a single slab the second are all taps.
    """
    lengths = windows.static_output_shape(sizes)
    axes = [
        [
            slice(index * dilation, index * dilation + (length - 1) * stride + 1, stride)
            for index in range(size)
        ]
        for size, stride, dilation, length in zip(
            windows.sizes, windows.strides, windows.dilations, lengths, strict=True
        )
    ]
    if len(rows) == 1:
        return [slice(None)], list(itertools.product(*axes))
    (before, after) = windows.pad_amounts(sizes)[0]
    everything = slice(0, sizes[0] + before + after, 1)
    stride = windows.strides[0]
    taps = [
        slice(whole.start + first * stride, whole.start + (end - 1) * stride + 1, stride)
        for whole, (first, end) in zip(axes[0], rows, strict=True)
    ]
    return taps, list(itertools.product([everything], *axes[1:]))


def _overlap_add(parts: Sequence, starts: Sequence[int], length: int):
    """Adds tensors, each from its own start along the first axis, zeros elsewhere.

    Stretches between two starts or ends are added as contiguous slices, which TensorFlow need
    not copy.
    """
    ends = [start + part.shape[0] for part, start in zip(parts, starts, strict=True)]
    stretches = []
    for begin, end in itertools.pairwise(sorted({0, length, *starts, *ends})):
        within = [
            part[begin - start : end - start]
            for part, start, stop in zip(parts, starts, ends, strict=True)
            if start <= begin and end <= stop
        ]
        stretches.append(_sum(within) if within else ops.zeros_like(parts[0][: end - begin]))
    return ops.concatenate(stretches, axis=0) if len(stretches) > 1 else stretches[0]


def _sum(terms: Iterable):
    first, *rest = terms
    return sum(rest, start=first)


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
        wide = pad(ops.expand_dims(values, axis + 1), around)
        rest = [-1 if size is None else size for size in values.shape[axis + 1 :]]
        before = [-1 if size is None else size for size in values.shape[:axis]]
        wide = ops.reshape(wide, (*before, length * step, *rest))
        values = wide[(slice(None),) * axis + (slice(0, (length - 1) * step + 1),)]
    return values
