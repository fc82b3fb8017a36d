"""Convolutions whose kernel is a sum of Kronecker products of a coarse and a fine kernel.

Axes: `b` example, `h` and `w` row and column of an image, `r` term of the sum. Of a coarse kernel:
`i` and `j` row and column of a tap, `c` block of input channels, `e` block of filters. Of a fine
kernel: `k` and `l` row and column of a tap, `d` channel within its block, `f` filter within its
block. A channel of the inputs is the pair `x = (c, d)`, a filter of the outputs `y = (e, f)`, and
`n` is the batch together with what is folded into it.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from low_rank_local_connectivity.ops.arguments import (
    is_symbol,
    items_of,
    pairs_of_pads,
    per_axis,
    positive_int,
    received,
    require_length,
    require_same_dtype,
    tensor,
    tensors,
)
from low_rank_local_connectivity.ops.convolution import channels_last_convolution
from low_rank_local_connectivity.ops.padding import pad
from low_rank_local_connectivity.ops.precision import as_floats, matmul

# (rows, columns, input channels, filters) of the coarse kernel, then of the fine one.
Factors = tuple[tuple[int, int, int, int], tuple[int, int, int, int]]


def checked_factors(factors: Any) -> Factors:
    """Returns the shapes of a coarse and a fine kernel as tuples."""
    shapes: Any = items_of(factors)
    try:
        coarse, fine = (per_axis("factors", items_of(shape) or (), 4) for shape in shapes)
    except (TypeError, ValueError):
        raise ValueError(
            "`factors` must be a pair of shapes (rows, columns, input channels, filters), each a "
            f"tuple of 4 integers of at least 1. Received: {received('factors', factors)}."
        ) from None
    return coarse, fine  # pyright: ignore[reportReturnType], of 4 each


def checked_rank(rank: Any, factors: Factors) -> int:
    """Returns a number of terms that is not above what any kernel needs."""
    value, most = positive_int("rank", rank), min(map(math.prod, factors))
    if value > most:
        raise ValueError(
            "`rank` must be at most the number of parameters in a term's smaller kernel, with "
            f"which every kernel can be written: {most} for factors={factors}. "
            f"Received: rank={rank}."
        )
    return value


def kronecker_kernel(coarse_rijce, fine_rkldf):
    """Returns the kernel that a sum of Kronecker products spells out.

    `kernel[i h2 + k, j w2 + l, c c2 + d, e o2 + f]
    = sum_r coarse[r, i, j, c, e] fine[r, k, l, d, f]`, where `(h2, w2, c2, o2)` is the shape of a
    term's fine kernel.

    Args:
        coarse_rijce: Tensor of shape `(rank, h1, w1, c1, o1)`.
        fine_rkldf: Tensor of shape `(rank, h2, w2, c2, o2)`.

    Returns:
        Tensor of shape `(h1 h2, w1 w2, c1 c2, o1 o2)`.

    Raises:
        ValueError: If an argument is of another kind, or the ranks differ.

    Example:
        >>> coarse, fine = np.ones((2, 3, 1, 2, 4)), np.ones((2, 2, 5, 3, 1))
        >>> ops.shape(kronecker_kernel(coarse, fine))
        (6, 5, 6, 4)
    """
    coarse_rijce, fine_rkldf = tensors(coarse_rijce=coarse_rijce, fine_rkldf=fine_rkldf)
    rank, *coarse = coarse_rijce.shape
    fine = fine_rkldf.shape[1:]
    matrix: Any = matmul(
        ops.transpose(ops.reshape(coarse_rijce, (rank, -1))), ops.reshape(fine_rkldf, (rank, -1))
    )
    apart: Any = ops.reshape(matrix, (*coarse, *fine))
    interleaved = ops.transpose(apart, (0, 4, 1, 5, 2, 6, 3, 7))
    return ops.reshape(interleaved, [one * other for one, other in zip(coarse, fine, strict=True)])


@dataclasses.dataclass(frozen=True)
class Steps:
    """Where the two steps of a factored convolution read, along one axis.

    The composite window at position `t` reads what the first step gives at `stride t + fine i`:
    only multiples of `gcd(stride, fine)`, or of `stride` if there is one coarse tap, so that the
    first step can have that stride.

    Args:
        coarse: Taps of the coarse kernel.
        fine: Taps of the fine kernel.
        stride: Stride of the composite kernel.
    """

    coarse: int
    fine: int
    stride: int

    @property
    def first_stride(self) -> int:
        """Stride of the first step, which applies the fine kernel."""
        return self.stride if self.coarse == 1 else math.gcd(self.stride, self.fine)

    @property
    def second_stride(self) -> int:
        """Stride of the second step, which applies the coarse kernel."""
        return self.stride // self.first_stride

    @property
    def dilation(self) -> int:
        """Dilation of the second step."""
        return 1 if self.coarse == 1 else self.fine // self.first_stride


def steps_of(factors: Any, strides: Sequence[int]) -> tuple[Steps, Steps]:
    """Returns the steps along the rows and along the columns."""
    coarse, fine = factors
    rows, columns = (Steps(coarse[axis], fine[axis], strides[axis]) for axis in (0, 1))
    return rows, columns


def must_subsample(steps: Sequence[Steps]) -> bool:
    """Whether the second step would need strides and dilation at once, which Keras refuses."""
    return max(s.second_stride for s in steps) > 1 and max(s.dilation for s in steps) > 1


def kronecker_convolution(
    inputs_bhwx,
    coarse_rijce,
    fine_rkldf,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
):
    """Convolves with a sum of Kronecker products, without spelling out its kernel.

    `outputs = convolve(inputs, kronecker_kernel(coarse, fine))`. Every block of input channels is
    convolved with the fine kernels of all terms; then every fine filter's responses, with the
    blocks and terms as channels, are convolved with the coarse kernels, whose taps lie `(h2, w2)`
    apart. The first step takes the part of a stride that the second one's dilation allows. Where
    stride and dilation of the second step remain both above 1, it is computed at stride 1 and
    its outputs are subsampled.

    Args:
        inputs_bhwx: Tensor of shape `(batch, height, width, c1 c2)`.
        coarse_rijce: Tensor of shape `(rank, h1, w1, c1, o1)`.
        fine_rkldf: Tensor of shape `(rank, h2, w2, c2, o2)`.
        strides: Steps between the composite kernel's windows.
        pads: Zeros before and after the rows and the columns. Both steps read the padded inputs:
            padding each would change the values at the border.

    Returns:
        Tensor of shape `(batch, out height, out width, o1 o2)`.

    Raises:
        ValueError: If an argument is of another kind, or shapes do not fit together.

    Example:
        >>> coarse, fine = np.ones((2, 3, 1, 2, 4)), np.ones((2, 2, 3, 3, 1))
        >>> ops.shape(kronecker_convolution(np.ones((1, 8, 9, 6)), coarse, fine))
        (1, 3, 7, 4)
    """
    inputs_bhwx, coarse_rijce, fine_rkldf = tensors(
        inputs_bhwx=inputs_bhwx, coarse_rijce=coarse_rijce, fine_rkldf=fine_rkldf
    )
    require_same_dtype(inputs_bhwx=inputs_bhwx, coarse_rijce=coarse_rijce, fine_rkldf=fine_rkldf)
    channels = coarse_rijce.shape[3] * fine_rkldf.shape[3]
    require_length("inputs_bhwx", inputs_bhwx, "x", channels, "of both kernels' channels, c1 c2")
    strides, pads = per_axis("strides", strides, 2), _checked_pads(pads)
    inputs_bhwx, coarse_rijce, fine_rkldf = as_floats(inputs_bhwx, coarse_rijce, fine_rkldf)
    steps = steps_of((coarse_rijce.shape[1:], fine_rkldf.shape[1:]), strides)
    _require_room(inputs_bhwx, steps, pads)
    if any(amount for pair in pads for amount in pair):
        inputs_bhwx = pad(inputs_bhwx, ((0, 0), *pads, (0, 0)))
    between = _apply_fine(inputs_bhwx, fine_rkldf, coarse_rijce.shape[3], steps)
    return _apply_coarse(between, coarse_rijce, steps)


def _checked_pads(pads: Any) -> list[tuple[int, int]]:
    found = pairs_of_pads(pads)
    if found is None:
        raise ValueError(
            "`pads` must be ((top, bottom), (left, right)), integers of at least 0. Received: "
            f"{received('pads', pads)}."
        )
    return found


def _require_room(inputs_bhwx, steps: Sequence[Steps], pads: Sequence[tuple[int, int]]) -> None:
    """Refuses inputs into which the kernel does not fit."""
    for size, step, around in zip(inputs_bhwx.shape[1:3], steps, pads, strict=True):
        if isinstance(size, int) and size + sum(around) < step.coarse * step.fine:
            taps = tuple(step.coarse * step.fine for step in steps)
            raise ValueError(
                f"The kernel must fit into the inputs: it has {taps} taps. Received: inputs_bhwx "
                f"of shape {tuple(inputs_bhwx.shape)} with pads={pads}."
            )


def _apply_fine(inputs_bhwx, fine_rkldf, blocks: int, steps: Sequence[Steps]):
    """Returns every block's responses to the fine kernels: `(b, f, h, w, r, c)`."""
    rank, rows, columns, channels, filters = fine_rkldf.shape
    height, width = _sizes(inputs_bhwx)
    inputs = ops.reshape(inputs_bhwx, (-1, height, width, blocks, channels))
    inputs_nhwd = ops.reshape(ops.transpose(inputs, (0, 3, 1, 2, 4)), (-1, height, width, channels))
    kernel = ops.reshape(
        ops.transpose(fine_rkldf, (1, 2, 3, 0, 4)), (rows, columns, channels, rank * filters)
    )
    strides = [step.first_stride for step in steps]
    responses = channels_last_convolution(inputs_nhwd, kernel, strides=strides)
    height, width = _sizes(responses)
    responses_bchwrf = ops.reshape(responses, (-1, blocks, height, width, rank, filters))
    return ops.transpose(responses_bchwrf, (0, 5, 2, 3, 4, 1))


def _apply_coarse(between_bfhwrc, coarse_rijce, steps: Sequence[Steps]):
    """Returns the outputs `(b, h, w, y)`, the terms summed up like channels."""
    rank, rows, columns, blocks, filters = coarse_rijce.shape
    fine_filters = between_bfhwrc.shape[1]
    height, width = _sizes(between_bfhwrc, 2)
    between = ops.reshape(between_bfhwrc, (-1, height, width, rank * blocks))
    kernel = ops.reshape(
        ops.transpose(coarse_rijce, (1, 2, 0, 3, 4)), (rows, columns, rank * blocks, filters)
    )
    strides = [s.second_stride for s in steps]
    subsampled = must_subsample(steps)
    outputs: Any = ops.conv(
        between,
        kernel,
        strides=1 if subsampled else strides,
        padding="valid",
        dilation_rate=[s.dilation for s in steps],
        data_format="channels_last",
    )
    if subsampled:
        outputs = _subsampled(outputs, strides)
    height, width = _sizes(outputs)
    outputs_bfhwe = ops.reshape(outputs, (-1, fine_filters, height, width, filters))
    outputs_bhwef = ops.transpose(outputs_bfhwe, (0, 2, 3, 4, 1))
    return ops.reshape(outputs_bhwef, (-1, height, width, filters * fine_filters))


def _subsampled(outputs_bhwy, strides: Sequence[int]):
    """Returns every so many rows and columns."""
    if not any(map(is_symbol, outputs_bhwy.shape[1:3])):
        return outputs_bhwy[:, :: strides[0], :: strides[1]]
    # JAX takes no slice of an axis that may be empty, as far as it knows of a symbol.
    return ops.max_pool(outputs_bhwy, 1, tuple(strides), "valid", "channels_last")


def _sizes(tensor, first: int = 1) -> tuple[Any, Any]:
    """Returns rows and columns of images, the rows at axis `first`; tensors where unknown."""
    shape: Any = ops.shape(tensor)
    return shape[first], shape[first + 1]


def rearrange_kernel(kernel: np.ndarray, factors: Factors) -> np.ndarray:
    """Returns a kernel as the matrix whose rank is the number of Kronecker products it needs.

    Row `(i, j, c, e)` and column `(k, l, d, f)` meet in
    `kernel[i h2 + k, j w2 + l, c c2 + d, e o2 + f]`, so that a Kronecker product becomes the outer
    product of its two kernels.

    Args:
        kernel: Array of shape `(h1 h2, w1 w2, c1 c2, o1 o2)`.
        factors: Shapes of a coarse and a fine kernel.

    Returns:
        Array with as many rows as the coarse kernel has numbers, and columns as the fine one has.

    Raises:
        ValueError: If the factors do not multiply to the kernel's shape.

    Reference:
        Van Loan and Pitsianis, "Approximation with Kronecker products", 1993.
    """
    coarse, fine = checked_factors(factors)
    kernel = np.asarray(tensor("kernel", kernel, "hwcf"))
    whole = tuple(one * other for one, other in zip(coarse, fine, strict=True))
    if kernel.shape != whole:
        raise ValueError(
            "`factors` must multiply to the kernel, axis by axis. Received: factors="
            f"{(coarse, fine)}, which multiply to {whole}, for a kernel of shape {kernel.shape}."
        )
    apart = kernel.reshape([size for pair in zip(coarse, fine, strict=True) for size in pair])
    return apart.transpose(0, 2, 4, 6, 1, 3, 5, 7).reshape(math.prod(coarse), math.prod(fine))


def nearest_kronecker_factors(
    kernel: np.ndarray, factors: Factors, rank: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the coarse and the fine kernels whose sum of products is nearest to a kernel.

    The first `rank` terms of the singular value decomposition of `rearrange_kernel`: the best in
    the sense of least squares. What is lost has the norm `sqrt(sum(singular_values[rank:] ** 2))`.

    Args:
        kernel: Array of shape `(h1 h2, w1 w2, c1 c2, o1 o2)`.
        factors: Shapes of a coarse and a fine kernel.
        rank: Number of terms, at most the numbers in the smaller of both kernels.

    Returns:
        Arrays of shapes `(rank, h1, w1, c1, o1)` and `(rank, h2, w2, c2, o2)`, in which a term's
        two kernels have equal norms, so that both learn at one pace.

    Raises:
        ValueError: If the factors do not multiply to the kernel's shape, the rank is out of range,
            or the kernel holds NaN or infinity.

    Example:
        >>> kernel = np.kron(np.eye(3), np.ones((2, 2)))[..., None, None]
        >>> coarse, fine = nearest_kronecker_factors(kernel, ((3, 3, 1, 1), (2, 2, 1, 1)), 1)
        >>> bool(np.allclose(ops.convert_to_numpy(kronecker_kernel(coarse, fine)), kernel))
        True
    """
    factors = checked_factors(factors)
    rank = checked_rank(rank, factors)
    matrix = rearrange_kernel(kernel, factors)
    if not np.isfinite(matrix).all():
        raise ValueError(
            "`kernel` must hold finite numbers. Received: a kernel with NaN or infinity."
        )
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    roots = np.sqrt(values[:rank])
    coarse = (left[:, :rank] * roots).T.reshape(rank, *factors[0])
    return coarse, (roots[:, None] * right[:rank]).reshape(rank, *factors[1])
