"""Plans of transposed low-rank local convolution, whose filters mix shared banks.

With `P` input positions, filters that write `R` numbers for each of `C` channels, `K` banks, `b`
examples and `s` slabs, the time of

* weighing the inputs for every bank, then one transposed convolution of all, is
  `call + weight K R C + product K b P R C + weighed K b P C + written b W F`;
* mixing the banks, then spreading each position by its own filter, is
  `call + filter P R C + mixing K P R C + product b P R C + patch b P R / s + input s b P C`,

where `W` are the positions that windows write, with `F` filters each. As of the layers that are
not transposed, the first costs `K` convolutions, the second about one and a filter for every
position. Here the positions are those of the inputs, before the layer makes them more.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from keras import ops

from low_rank_local_connectivity.ops.arguments import boolean, instance_of, one_of
from low_rank_local_connectivity.ops.convolution_transpose import transposed_convolution
from low_rank_local_connectivity.ops.low_rank_local_convolution_transpose import (
    combine_then_spread,
    weigh_then_convolve,
)
from low_rank_local_connectivity.ops.transposed_windows import TransposedWindows
from low_rank_local_connectivity.plans.plan import Plan
from low_rank_local_connectivity.plans.request import Request
from low_rank_local_connectivity.plans.work import Work, bytes_in_memory

# How often a step reads or writes each tensor: counted from the operations, not measured.
PASSES = {"inference": 2, "training": 6}
# Banks and the filters that they are mixed into are float32, whatever the inputs are.
FLOAT32 = 4

# Function of whether an axis of examples is wanted in front to the normalised combining weights.
Weights = Callable[[bool], Any]


@dataclasses.dataclass(frozen=True)
class LowRankTransposeRequest(Request):
    """What a transposed low-rank layer is asked to compute, stated for its adjoint.

    The adjoint reads, by unpadded windows, all that the layer's windows write: `shape` is that of
    what is written, `filters` are the layer's input channels, and `positions` those of its inputs.

    Args:
        written: Where the layer's own windows sit.
        mixing: `"shared"` if all examples share the combining weights, `"per_example"` if each
            has its own, `"none"` if there is a single bank and nothing to mix.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> windows = TransposedWindows((3, 3), (2, 2), (1, 1), "same")
        >>> request = LowRankTransposeRequest.of(windows, (8, 4, 5, 7), filters=6, rank=2)
        >>> request.shape, request.positions, request.reads
        ((8, 9, 11, 6), 20, 54)
    """

    written: TransposedWindows | None = None
    mixing: Literal["none", "shared", "per_example"] = "shared"
    fixed_sizes: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        instance_of("written", self.written, TransposedWindows)
        one_of("mixing", self.mixing, ("none", "shared", "per_example"))
        boolean("fixed_sizes", self.fixed_sizes)

    @classmethod
    def of(
        cls, windows: TransposedWindows, shape: Any, filters: int, rank: int, **more: Any
    ) -> "LowRankTransposeRequest":
        """Returns the request of a layer for its inputs.

        Args:
            windows: Where the windows sit.
            shape: Shape of the inputs, channels last; None where unknown.
            filters: Number of filters.
            rank: Number of banks.
            **more: Further arguments of the class.
        """
        batch, *sizes, channels = shape
        known = [size if isinstance(size, int) else None for size in sizes]
        whole = (batch, *windows.whole_shape(known), filters)
        return cls(windows.whole, whole, channels, rank, written=windows, **more)


def _weighing_terms(request: LowRankTransposeRequest) -> dict[str, float]:
    rank = request.rank
    return {
        "call": 1,
        "weight": rank * request.reads * request.filters,
        "product": rank * request.examples * request.local_filters,
        "weighed": rank * request.outputs,
        "written": request.assumed_inputs,
    }


def _weighing_memory(request: LowRankTransposeRequest) -> int:
    """Returns the bytes of the weighed inputs, their gradient and a copy in training."""
    held = 3 if request.training else 1
    return held * request.rank * request.outputs * request.itemsize


def _weighing_work(request: LowRankTransposeRequest) -> Work:
    weighed = _in_memory(request, request.rank * request.assumed_outputs, request.filters)
    banks = request.rank * request.reads * request.filters * FLOAT32
    moved = weighed + _in_memory(request, request.assumed_inputs, request.channels) + banks
    return _work(request, moved, request.rank * request.reads * request.assumed_outputs)


def _in_memory(request: LowRankTransposeRequest, numbers: int, last: int) -> float:
    return bytes_in_memory(request.device, numbers, request.itemsize, request.examples, last)


def _work(request: LowRankTransposeRequest, moved: float, products: float) -> Work:
    """Returns the work of passes over tensors and of products, three times those in training."""
    often = PASSES["training" if request.training else "inference"]
    return Work(often * moved, 2.0 * products * (3 if request.training else 1))


def _weigh_then_convolve(
    request: LowRankTransposeRequest, inputs_bSc: Any, bases: Any, weights: Weights
) -> Any:
    kernel_Tfh, windows = ops.cast(bases, inputs_bSc.dtype), _windows(request)
    if request.mixing == "none":
        return transposed_convolution(inputs_bSc, kernel_Tfh, windows)
    weights_bSk = ops.cast(weights(True), inputs_bSc.dtype)
    return weigh_then_convolve(inputs_bSc, kernel_Tfh, weights_bSk, windows)


def _windows(request: LowRankTransposeRequest) -> TransposedWindows:
    assert request.written is not None
    return request.written


def _may_combine(request: LowRankTransposeRequest) -> bool:
    """Whether there is one filter to be made for each position, the same for all examples."""
    return request.fixed_sizes and None not in request.sizes and request.mixing == "shared"


def _combining_terms(request: LowRankTransposeRequest) -> dict[str, float]:
    examples, slabs = request.examples, request.slabs
    return {
        "call": 1,
        "filter": request.local_filters,
        "mixing": request.rank * request.local_filters,
        "product": examples * request.local_filters,
        "patch": examples * request.positions * request.reads / slabs,
        "input": slabs * request.outputs,
    }


def _combining_memory(request: LowRankTransposeRequest) -> int:
    """Returns the bytes of the filters and of the products that are added up."""
    patches = request.examples * request.positions * request.reads
    copies = 3 if request.training else 1
    return copies * (request.local_filters + patches) * request.itemsize


def _combining_work(request: LowRankTransposeRequest) -> Work:
    patches = request.examples * request.positions * request.reads
    filters = bytes_in_memory(
        request.device, request.local_filters, FLOAT32, request.filters, request.reads
    )
    moved = _in_memory(request, patches, request.reads // request.slabs) + filters
    products = (request.examples + request.rank) * request.local_filters
    return _work(request, moved, products)


def _combine_then_spread(
    request: LowRankTransposeRequest, inputs_bSc: Any, bases: Any, weights: Weights
) -> Any:
    sizes = tuple(inputs_bSc.shape[1:-1])
    weights_Sk = ops.broadcast_to(weights(False), (*sizes, request.rank))
    kernel_Tfh = ops.convert_to_tensor(bases)
    return combine_then_spread(inputs_bSc, kernel_Tfh, weights_Sk, _windows(request))


LOW_RANK_TRANSPOSE = (
    Plan(
        name="weigh_then_convolve",
        allowed=lambda _: True,
        terms=_weighing_terms,
        memory=_weighing_memory,
        apply=_weigh_then_convolve,
        work=_weighing_work,
    ),
    Plan(
        name="combine_then_spread",
        allowed=_may_combine,
        terms=_combining_terms,
        memory=_combining_memory,
        apply=_combine_then_spread,
        work=_combining_work,
    ),
)
