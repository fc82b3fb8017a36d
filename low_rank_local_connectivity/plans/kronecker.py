"""Plans of convolution with a sum of Kronecker products.

The two steps have few channels each and reorder what lies between them: on two CPU cores, with
TensorFlow and PyTorch, they took 0.8 to 2.1 times as long as one convolution at savings of
multiply-adds from 6 to 8, and 0.4 to 1.0 times at 12 and 27. So one of theirs counts as much as 10
of a convolution's. On JAX, whose convolutions of few channels are slow, they took 0.9 to 3.0 times
as long at 12 and 27, so that the whole kernel is the safe choice: they have no costs there.
benchmarks/kronecker.py.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from low_rank_local_connectivity.ops.arguments import items_of, per_axis, positive_int, received
from low_rank_local_connectivity.ops.borders import pad_windows
from low_rank_local_connectivity.ops.convolution import windowed_convolution
from low_rank_local_connectivity.ops.kronecker import (
    Factors,
    Steps,
    checked_factors,
    kronecker_convolution,
    kronecker_kernel,
    must_subsample,
    steps_of,
)
from low_rank_local_connectivity.ops.windows import READ_BORDERS
from low_rank_local_connectivity.plans.plan import Plan
from low_rank_local_connectivity.plans.request import Request
from low_rank_local_connectivity.plans.work import Work, bytes_in_memory


@dataclasses.dataclass(frozen=True)
class KroneckerRequest(Request):
    """What a Kronecker convolution is asked to compute; its windows are the whole kernel's.

    Args:
        factors: Shapes of a term's coarse and fine kernel.

    Raises:
        ValueError: If an argument is out of range.
    """

    factors: Factors = dataclasses.field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_factors(self.factors)

    @property
    def multiply_adds(self) -> dict[str, float]:
        """What each plan costs per output pixel."""
        outputs = self.windows.output_shape(self.sizes)
        return multiply_adds(self.factors, self.rank, self.windows.strides, outputs)


def multiply_adds(
    factors: Factors,
    rank: int = 1,
    strides: Sequence[int] = (1, 1),
    output_sizes: Sequence[int | None] = (None, None),
) -> dict[str, float]:
    """Returns what each plan costs per output pixel.

    With `|A|` and `|B|` numbers in a term's coarse and fine kernel, shaped `(h1, w1, c1, o1)` and
    `(h2, w2, c2, o2)`, and `R` terms:

    * `"dense"`, one convolution with the whole kernel, needs `|A| |B|` multiply-adds;
    * `"factored"` needs `R (c1 |B| n + o2 |A| m)`, where `n` and `m` are the pixels of the first
      and of the second step per output pixel: 1 in a large image at stride 1. A small image has
      `n` above 1, since the first step's outputs span all that the coarse taps read; a stride
      that the first step cannot take leaves both above 1.

    Spelling out the kernel, `R |A| |B|` once for a whole batch, is left out.

    Args:
        factors: Shapes of a term's coarse and fine kernel.
        rank: Number of terms.
        strides: Steps between windows.
        output_sizes: Rows and columns of the outputs; as if there were very many where None.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> multiply_adds(((3, 3, 1, 1), (3, 3, 4, 4)))
        {'factored': 180.0, 'dense': 1296.0}
    """
    coarse, fine = factors = checked_factors(factors)
    rank, strides = positive_int("rank", rank), per_axis("strides", strides, 2)
    coarse_size, fine_size = math.prod(coarse), math.prod(fine)
    first, second = _pixels_of_steps(factors, strides, _checked_sizes(output_sizes))
    factored = rank * (coarse[2] * fine_size * first + fine[3] * coarse_size * second)
    return {"factored": factored, "dense": float(coarse_size * fine_size)}


def _pixels_of_steps(
    factors: Factors, strides: Sequence[int], output_sizes: Sequence[int | None]
) -> tuple[float, float]:
    """Returns the pixels of the first and of the second step for each output pixel."""
    steps = steps_of(factors, strides)
    subsampled = must_subsample(steps)
    first = second = 1.0
    for step, outputs in zip(steps, output_sizes, strict=True):
        first *= _first_pixels(step, outputs)
        second *= _strided_pixels(step.second_stride, outputs) if subsampled else 1.0
    return first, second


def _checked_sizes(output_sizes: Any) -> list[int | None]:
    sizes = items_of(output_sizes)
    if sizes is None or len(sizes) != 2:
        raise ValueError(
            "`output_sizes` must be the rows and columns of the outputs, each an integer of at "
            f"least 1 or None. Received: {received('output_sizes', output_sizes)}."
        )
    return [None if size is None else positive_int("output_sizes", size) for size in sizes]


def _first_pixels(step: Steps, outputs: int | None) -> float:
    """Returns the first step's pixels for each output pixel, along one axis."""
    if outputs is None:
        return step.second_stride
    last = step.second_stride * (outputs - 1) + step.dilation * (step.coarse - 1)
    return (last + 1) / outputs


def _strided_pixels(stride: int, outputs: int | None) -> float:
    """Returns the pixels that are computed for each that is kept, along one axis."""
    return stride if outputs is None else (stride * (outputs - 1) + 1) / outputs


def _is_padding_known(request: KroneckerRequest) -> bool:
    """Whether inputs can be padded before the first step, whatever their size."""
    follows = request.windows.padding in ("same", *READ_BORDERS)
    strided = follows and max(request.windows.strides) > 1
    return not (strided and None in request.sizes)


def _convolve_once(
    request: KroneckerRequest, inputs_bhwx: Any, coarse_rijce: Any, fine_rkldf: Any
) -> Any:
    kernel = ops.cast(kronecker_kernel(coarse_rijce, fine_rkldf), inputs_bhwx.dtype)
    return windowed_convolution(inputs_bhwx, kernel, request.windows)


def _convolve_twice(
    request: KroneckerRequest, inputs_bhwx: Any, coarse_rijce: Any, fine_rkldf: Any
) -> Any:
    # Both steps read one padded input.
    return kronecker_convolution(
        pad_windows(inputs_bhwx, request.windows),
        ops.cast(coarse_rijce, inputs_bhwx.dtype),
        ops.cast(fine_rkldf, inputs_bhwx.dtype),
        request.windows.strides,
    )


# How often a step reads or writes inputs and outputs, and what lies between its two steps, whose
# few channels are in the lanes: where XLA compiles for a TPU v5e, within a factor of two.
OUTER_PASSES = 3
INNER_PASSES = 4


def _work(request: KroneckerRequest, plan: str, between: float) -> Work:
    """Returns the work of a plan, with so many bytes between its steps."""
    outputs, axes = request.assumed_outputs, (request.examples, request.filters)
    moved = bytes_in_memory(request.device, outputs, request.itemsize, *axes)
    inputs, axes = request.assumed_inputs, (request.examples, request.channels)
    moved += bytes_in_memory(request.device, inputs, request.itemsize, *axes)
    products = request.multiply_adds[plan] * (outputs // request.filters)
    return Work(OUTER_PASSES * moved + INNER_PASSES * between, 2 * products)


def _factored_work(request: KroneckerRequest) -> Work:
    """Returns the work of both steps."""
    numbers, last = _numbers_between(request), request.factors[1][3]
    between = bytes_in_memory(request.device, numbers, request.itemsize, last)
    return _work(request, "factored", between)


def _numbers_between(request: KroneckerRequest) -> float:
    """Returns how many numbers lie between the two steps."""
    (*_, coarse_channels, _), (*_, fine_filters) = request.factors
    sizes = request.windows.output_shape(request.sizes)
    first, _ = _pixels_of_steps(request.factors, request.windows.strides, sizes)
    pixels = first * (request.assumed_outputs // request.filters)
    return request.rank * coarse_channels * fine_filters * pixels


def _dense_memory(request: KroneckerRequest) -> int:
    """Returns the bytes of the kernel that is spelled out, and of its gradient in training."""
    copies = 2 if request.training else 1
    return copies * math.prod(map(math.prod, request.factors)) * request.itemsize


def _factored_memory(request: KroneckerRequest) -> int:
    """Returns the bytes of what lies between the steps, in the orders that each of them wants.

    Training keeps both, and has the gradient of one of them at a time.
    """
    copies = 3 if request.training else 2
    return math.ceil(copies * _numbers_between(request) * request.itemsize)


KRONECKER = (
    Plan(
        name="dense",
        allowed=lambda _: True,
        terms=lambda request: {"multiply_add": request.multiply_adds["dense"]},
        memory=_dense_memory,
        apply=_convolve_once,
        work=lambda request: _work(request, "dense", 0),
    ),
    Plan(
        name="factored",
        allowed=_is_padding_known,
        terms=lambda request: {"multiply_add": request.multiply_adds["factored"]},
        memory=_factored_memory,
        apply=_convolve_twice,
        work=_factored_work,
    ),
)
