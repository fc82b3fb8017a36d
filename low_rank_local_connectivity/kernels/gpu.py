"""Kernels for NVIDIA's GPUs, in Triton: local convolutions that write no patches.

A program computes a block of one array from blocks of the others: windows are found by their
addresses, and what lies in the padding is masked. Each sum is that of one program, in one order, so
that results repeat bit for bit.

The arrays lie in memory as `Shape.array` says: `x` the inputs, `g` the outputs or numbers for them,
`w` filters that are given, `banks` side by side in their last axis, `mix` the combining weights of
each example. Capitals are constants: H and W the inputs' sizes, OH and OW the positions', T, S, D
and P before them the taps', the strides', the dilations' and the padding's; C channels, F filters,
K banks. BM, BC and BF are sizes of blocks: of examples, places or patches, of channels, of filters.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from low_rank_local_connectivity.kernels.gpu_shapes import Kind, Shape

# The least side of a block that a matrix unit takes.
LEAST = 16
# Rows of patches that one program adds up for the banks' gradient.
ROWS_ADDED_UP = 4096
SIZES = ("H", "W", "OH", "OW", "TH", "TW", "SH", "SW", "DH", "DW", "PH", "PW", "C", "F")


@triton.jit
def _reader(place, tap, D: tl.constexpr, S: tl.constexpr, P: tl.constexpr, OUTPUTS: tl.constexpr):
    """Along an axis, the position whose window reads a place by a tap, and whether there is one."""
    reach = place + P - tap * D
    position = reach // S
    return position, (reach >= 0) & (reach % S == 0) & (position < OUTPUTS)


@triton.jit
def given_outputs(
    x, w, out, batch,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr, TH: tl.constexpr,
    TW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, C: tl.constexpr, F: tl.constexpr,
    BM: tl.constexpr, BC: tl.constexpr, BF: tl.constexpr, EXACT: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Outputs of a block of examples and filters at one position."""
    blocks = tl.cdiv(batch, BM)
    position = tl.program_id(0) // blocks
    b = (tl.program_id(0) % blocks * BM + tl.arange(0, BM)).to(tl.int64)
    f = tl.program_id(1) * BF + tl.arange(0, BF)
    top, left = position // OW * SH - PH, position % OW * SW - PW
    total = tl.zeros((BM, BF), SUM)
    CUTS: tl.constexpr = (C + BC - 1) // BC
    for step in range(TH * TW * CUTS):
        tap, c = step // CUTS, step % CUTS * BC + tl.arange(0, BC)
        row, column = top + tap // TW * DH, left + tap % TW * DW
        inside = (row >= 0) & (row < H) & (column >= 0) & (column < W)
        at = ((b * H + row) * W + column)[:, None] * C + c[None, :]
        real = tl.where(inside, b, batch) < batch
        patch = tl.load(x + at, real[:, None] & (c < C)[None, :], 0.0)
        at = ((position * TH * TW + tap).to(tl.int64) * C + c)[:, None] * F + f[None, :]
        filters = tl.load(w + at, (c < C)[:, None] & (f < F)[None, :], 0.0)
        total = tl.dot(patch, filters.to(patch.dtype), total, input_precision=EXACT, out_dtype=SUM)
    at = (b * OH * OW + position)[:, None] * F + f[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), (b < batch)[:, None] & (f < F)[None, :])


@triton.jit
def given_inputs(
    g, w, out, batch,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr, TH: tl.constexpr,
    TW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, C: tl.constexpr, F: tl.constexpr,
    BM: tl.constexpr, BC: tl.constexpr, BF: tl.constexpr, EXACT: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """The inputs' gradient for a block of examples and channels at one place."""
    blocks = tl.cdiv(batch, BM)
    place = tl.program_id(0) // blocks
    b = (tl.program_id(0) % blocks * BM + tl.arange(0, BM)).to(tl.int64)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    total = tl.zeros((BM, BC), SUM)
    CUTS: tl.constexpr = (F + BF - 1) // BF
    for step in range(TH * TW * CUTS):
        tap, f = step // CUTS, step % CUTS * BF + tl.arange(0, BF)
        row, there = _reader(place // W, tap // TW, DH, SH, PH, OH)
        column, there_too = _reader(place % W, tap % TW, DW, SW, PW, OW)
        real = tl.where(there & there_too, b, batch) < batch
        channels = tl.where(there & there_too, C, 0)
        position = row * OW + column
        at = (b * OH * OW + position)[:, None] * F + f[None, :]
        upstream = tl.load(g + at, real[:, None] & (f < F)[None, :], 0.0)
        at = ((position * TH * TW + tap).to(tl.int64) * C + c)[None, :] * F + f[:, None]
        filters = tl.load(w + at, (c < channels)[None, :] & (f < F)[:, None], 0.0)
        filters = filters.to(upstream.dtype)
        total = tl.dot(upstream, filters, total, input_precision=EXACT, out_dtype=SUM)
    at = (b * H * W + place)[:, None] * C + c[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), (b < batch)[:, None] & (c < C)[None, :])


@triton.jit
def given_filters(
    x, g, out, batch,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr, TH: tl.constexpr,
    TW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, C: tl.constexpr, F: tl.constexpr,
    BM: tl.constexpr, BC: tl.constexpr, BF: tl.constexpr, EXACT: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """The filters' gradient for a block of channels and filters, at one position and tap."""
    position, tap = tl.program_id(0) // (TH * TW), tl.program_id(0) % (TH * TW)
    CUTS: tl.constexpr = (C + BC - 1) // BC
    c = tl.program_id(1) % CUTS * BC + tl.arange(0, BC)
    f = tl.program_id(1) // CUTS * BF + tl.arange(0, BF)
    row = position // OW * SH - PH + tap // TW * DH
    column = position % OW * SW - PW + tap % TW * DW
    inside = (row >= 0) & (row < H) & (column >= 0) & (column < W)
    total = tl.zeros((BC, BF), SUM)
    for first in range(0, batch, BM):
        b = (first + tl.arange(0, BM)).to(tl.int64)
        at = ((b * H + row) * W + column)[None, :] * C + c[:, None]
        real = tl.where(inside, b, batch) < batch
        patch = tl.load(x + at, real[None, :] & (c < C)[:, None], 0.0)
        at = (b * OH * OW + position)[:, None] * F + f[None, :]
        upstream = tl.load(g + at, (b < batch)[:, None] & (f < F)[None, :], 0.0)
        total = tl.dot(patch, upstream, total, input_precision=EXACT, out_dtype=SUM)
    at = (tl.program_id(0).to(tl.int64) * C + c)[:, None] * F + f[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), (c < C)[:, None] & (f < F)[None, :])


@triton.jit
def _responses(
    x, banks, b, position, real, f, k, total,
    H: tl.constexpr, W: tl.constexpr, OW: tl.constexpr, TH: tl.constexpr, TW: tl.constexpr,
    SH: tl.constexpr, SW: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr, PH: tl.constexpr,
    PW: tl.constexpr, C: tl.constexpr, F: tl.constexpr, K: tl.constexpr, BC: tl.constexpr,
    EXACT: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Adds to a total what one bank responds to a block of patches."""
    CUTS: tl.constexpr = (C + BC - 1) // BC
    for step in range(TH * TW * CUTS):
        tap, c = step // CUTS, step % CUTS * BC + tl.arange(0, BC)
        row = position // OW * SH - PH + tap // TW * DH
        column = position % OW * SW - PW + tap % TW * DW
        inside = real & (row >= 0) & (row < H) & (column >= 0) & (column < W)
        at = ((b * H + row) * W + column)[:, None] * C + c[None, :]
        patch = tl.load(x + at, inside[:, None] & (c < C)[None, :], 0.0)
        at = (tap * C + c)[:, None] * (K * F) + (k * F + f)[None, :]
        bank = tl.load(banks + at, (c < C)[:, None] & (f < F)[None, :], 0.0).to(patch.dtype)
        total = tl.dot(patch, bank, total, input_precision=EXACT, out_dtype=SUM)
    return total


@triton.jit
def mixed_outputs(
    x, banks, mix, out, batch,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr, TH: tl.constexpr,
    TW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, C: tl.constexpr, F: tl.constexpr, K: tl.constexpr,
    BM: tl.constexpr, BC: tl.constexpr, BF: tl.constexpr, EXACT: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Outputs of a block of patches and filters: the banks' responses, mixed in registers."""
    m = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    f = tl.program_id(1) * BF + tl.arange(0, BF)
    real = m < batch * OH * OW
    b, position = m // (OH * OW), m % (OH * OW)
    total = tl.zeros((BM, BF), SUM)
    for k in range(K):
        zeros = tl.zeros((BM, BF), SUM)
        responses = _responses(
            x, banks, b, position, real, f, k, zeros,
            H, W, OW, TH, TW, SH, SW, DH, DW, PH, PW, C, F, K, BC, EXACT, SUM,
        )  # fmt: skip
        total += tl.load(mix + m * K + k, real, 0.0).to(SUM)[:, None] * responses
    at = m[:, None] * F + f[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), real[:, None] & (f < F)[None, :])


@triton.jit
def mixed_inputs(
    g, banks, mix, out, batch,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr, TH: tl.constexpr,
    TW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, C: tl.constexpr, F: tl.constexpr, K: tl.constexpr,
    BM: tl.constexpr, BC: tl.constexpr, BF: tl.constexpr, EXACT: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """The inputs' gradient for a block of places and channels."""
    n = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    b, place = n // (H * W), n % (H * W)
    total = tl.zeros((BM, BC), SUM)
    CUTS: tl.constexpr = (F + BF - 1) // BF
    for tap in range(TH * TW):
        row, there = _reader(place // W, tap // TW, DH, SH, PH, OH)
        column, there_too = _reader(place % W, tap % TW, DW, SW, PW, OW)
        read = there & there_too & (n < batch * H * W)
        m = b * OH * OW + row * OW + column
        for step in range(CUTS * K):
            k, f = step % K, step // K * BF + tl.arange(0, BF)
            at = m[:, None] * F + f[None, :]
            upstream = tl.load(g + at, read[:, None] & (f < F)[None, :], 0.0)
            at = (tap * C + c)[None, :] * (K * F) + (k * F + f)[:, None]
            bank = tl.load(banks + at, (c < C)[None, :] & (f < F)[:, None], 0.0)
            share = tl.dot(upstream, bank.to(upstream.dtype), input_precision=EXACT, out_dtype=SUM)
            total += tl.load(mix + m * K + k, read, 0.0).to(SUM)[:, None] * share
    at = n[:, None] * C + c[None, :]
    real = (n < batch * H * W)[:, None] & (c < C)[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), real)


@triton.jit
def mixed_banks(
    x, g, mix, out, batch, rows,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr, TH: tl.constexpr,
    TW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, C: tl.constexpr, F: tl.constexpr, K: tl.constexpr,
    BM: tl.constexpr, BC: tl.constexpr, BF: tl.constexpr, EXACT: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """One part of the banks' gradient: what some rows of patches add for a tap of a bank."""
    part, tap, k = tl.program_id(0), tl.program_id(1) // K, tl.program_id(1) % K
    CUTS: tl.constexpr = (C + BC - 1) // BC
    c = tl.program_id(2) % CUTS * BC + tl.arange(0, BC)
    f = tl.program_id(2) // CUTS * BF + tl.arange(0, BF)
    total = tl.zeros((BC, BF), SUM)
    for first in range(0, rows, BM):
        m = part.to(tl.int64) * rows + first + tl.arange(0, BM)
        b, position = m // (OH * OW), m % (OH * OW)
        row = position // OW * SH - PH + tap // TW * DH
        column = position % OW * SW - PW + tap % TW * DW
        real = m < batch * OH * OW
        inside = real & (row >= 0) & (row < H) & (column >= 0) & (column < W)
        at = ((b * H + row) * W + column)[None, :] * C + c[:, None]
        patch = tl.load(x + at, inside[None, :] & (c < C)[:, None], 0.0)
        upstream = tl.load(g + m[:, None] * F + f[None, :], real[:, None] & (f < F)[None, :], 0.0)
        weights = tl.load(mix + m * K + k, real, 0.0).to(SUM)
        upstream = (weights[:, None] * upstream).to(patch.dtype)
        total = tl.dot(patch, upstream, total, input_precision=EXACT, out_dtype=SUM)
    at = (part * TH * TW + tap).to(tl.int64) * C + c
    at = at[:, None] * (K * F) + (k * F + f)[None, :]
    tl.store(out + at, total, (c < C)[:, None] & (f < F)[None, :])


@triton.jit
def mixed_weights(
    x, g, banks, out, batch,
    H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr, TH: tl.constexpr,
    TW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, C: tl.constexpr, F: tl.constexpr, K: tl.constexpr,
    BM: tl.constexpr, BC: tl.constexpr, BF: tl.constexpr, EXACT: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """The combining weights' gradient for a block of patches and one bank."""
    m = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    k = tl.program_id(1)
    real = m < batch * OH * OW
    b, position = m // (OH * OW), m % (OH * OW)
    total = tl.zeros((BM,), SUM)
    for first in range(0, F, BF):
        f = first + tl.arange(0, BF)
        zeros = tl.zeros((BM, BF), SUM)
        responses = _responses(
            x, banks, b, position, real, f, k, zeros,
            H, W, OW, TH, TW, SH, SW, DH, DW, PH, PW, C, F, K, BC, EXACT, SUM,
        )  # fmt: skip
        upstream = tl.load(g + m[:, None] * F + f[None, :], real[:, None] & (f < F)[None, :], 0.0)
        total += tl.sum(responses * upstream.to(SUM), 1)
    tl.store(out + m * K + k, total.to(out.dtype.element_ty), real)


def _side(size: int, most: int) -> int:
    return min(max(triton.next_power_of_2(size), LEAST), most)


def _most(dtype: torch.dtype, exact: bool) -> tuple[int, int]:
    """Returns the sides of blocks that registers hold: of rows, and of channels and filters."""
    if dtype.itemsize == 2:
        return 128, 64
    # Without the matrix units that take TF32, a thread holds more.
    return (64, 64) if dtype == torch.float32 and not exact else (32, 32)


def launch(kind: Kind, shape: Shape, rows: int, dtype: torch.dtype, exact: bool) -> dict[str, Any]:
    """Returns what a kernel is compiled for: its constants, and with how many threads.

    Args:
        kind: What the filters are. A mix holds what a bank responds beside their sum.
        shape: The sizes.
        rows: Examples, places or patches of which it takes blocks.
        dtype: Data type of the inputs.
        exact: Whether float32 is multiplied in all its digits, not in TF32.
    """
    pairs = (shape.sizes, shape.outputs, shape.taps, shape.strides, shape.dilations, shape.pads)
    numbers = [size for pair in pairs for size in pair] + [shape.channels, shape.filters]
    constants: dict[str, Any] = dict(zip(SIZES, numbers, strict=True))
    if kind == "per_example":
        constants["K"] = shape.rank
    most_rows, most = _most(dtype, exact)
    return {
        **constants,
        "BM": _side(rows, most_rows),
        "BC": _side(shape.channels, most),
        "BF": _side(shape.filters, most),
        "EXACT": "ieee" if exact or dtype == torch.float64 else "tf32",
        "SUM": tl.float64 if dtype == torch.float64 else tl.float32,
        "num_warps": 4 if kind == "given" else 8,
        # Blocks that are on their way while others are multiplied.
        "num_stages": 3 if dtype.itemsize == 2 else 2,
    }


def _launch(kind: Kind, shape: Shape, rows: int, one: torch.Tensor) -> dict[str, Any]:
    # In float32 as PyTorch's own convolutions do.
    return launch(kind, shape, rows, one.dtype, not torch.backends.cudnn.allow_tf32)


def outputs_of_given(shape: Shape, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Returns the outputs for filters that are given."""
    out = x.new_empty(shape.array("outputs"))
    told = _launch("given", shape, shape.batch, x)
    grid = (
        shape.positions * triton.cdiv(shape.batch, told["BM"]),
        triton.cdiv(shape.filters, told["BF"]),
    )
    given_outputs[grid](x, w, out, shape.batch, **told)
    return out


def inputs_of_given(shape: Shape, g: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Returns the inputs' gradient for filters that are given."""
    out = g.new_empty(shape.array("inputs"))
    told = _launch("given", shape, shape.batch, g)
    places = shape.sizes[0] * shape.sizes[1]
    grid = (places * triton.cdiv(shape.batch, told["BM"]), triton.cdiv(shape.channels, told["BC"]))
    given_inputs[grid](g, w, out, shape.batch, **told)
    return out


def filters_of_given(shape: Shape, x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Returns the gradient of filters that are given."""
    out = x.new_empty(shape.array("filters"))
    told = _launch("given", shape, shape.batch, x)
    blocks = triton.cdiv(shape.channels, told["BC"]) * triton.cdiv(shape.filters, told["BF"])
    grid = (shape.positions * shape.taps[0] * shape.taps[1], blocks)
    given_filters[grid](x, g, out, shape.batch, **told)
    return out


def outputs_of_mixed(
    shape: Shape, x: torch.Tensor, banks: torch.Tensor, mix: torch.Tensor
) -> torch.Tensor:
    """Returns the outputs for banks that each example mixes by weights of its own."""
    out = x.new_empty(shape.array("outputs"))
    patches = shape.batch * shape.positions
    told = _launch("per_example", shape, patches, x)
    grid = (triton.cdiv(patches, told["BM"]), triton.cdiv(shape.filters, told["BF"]))
    mixed_outputs[grid](x, banks, mix, out, shape.batch, **told)
    return out


def inputs_of_mixed(
    shape: Shape, g: torch.Tensor, banks: torch.Tensor, mix: torch.Tensor
) -> torch.Tensor:
    """Returns the inputs' gradient for banks that each example mixes."""
    out = g.new_empty(shape.array("inputs"))
    places = shape.batch * shape.sizes[0] * shape.sizes[1]
    told = _launch("per_example", shape, places, g)
    grid = (triton.cdiv(places, told["BM"]), triton.cdiv(shape.channels, told["BC"]))
    mixed_inputs[grid](g, banks, mix, out, shape.batch, **told)
    return out


def banks_of_mixed(
    shape: Shape, x: torch.Tensor, g: torch.Tensor, mix: torch.Tensor
) -> torch.Tensor:
    """Returns the gradient of banks that each example mixes."""
    patches = shape.batch * shape.positions
    told = _launch("per_example", shape, patches, x)
    rows = triton.cdiv(max(min(ROWS_ADDED_UP, patches), 1), told["BM"]) * told["BM"]
    parts = triton.cdiv(patches, rows)
    out = x.new_empty((parts, *shape.array("banks")), dtype=sum_dtype(x.dtype))
    blocks = triton.cdiv(shape.channels, told["BC"]) * triton.cdiv(shape.filters, told["BF"])
    grid = (parts, shape.taps[0] * shape.taps[1] * shape.rank, blocks)
    mixed_banks[grid](x, g, mix, out, shape.batch, rows, **told)
    return out.sum(0).to(x.dtype)


def weights_of_mixed(
    shape: Shape, x: torch.Tensor, g: torch.Tensor, banks: torch.Tensor
) -> torch.Tensor:
    """Returns the gradient of each example's combining weights, in the data type that sums have."""
    out = x.new_empty(shape.array("weights"), dtype=sum_dtype(x.dtype))
    patches = shape.batch * shape.positions
    told = _launch("per_example", shape, patches, x)
    grid = (triton.cdiv(patches, told["BM"]), shape.rank)
    mixed_weights[grid](x, g, banks, out, shape.batch, **told)
    return out


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """Returns the data type in which numbers of another are added up."""
    return torch.float64 if dtype == torch.float64 else torch.float32
