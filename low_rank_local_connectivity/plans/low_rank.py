"""Plans of low-rank local convolution, whose filters mix shared filter banks.

With `P` positions, filters that read `R` numbers each, `F` filters, `K` banks, `b` examples and
`s` slabs (1, or the taps along the first axis), the time of

* convolving with every bank, then mixing the responses, is
  `call + bank K + weight K R F + product K b P R F + response K b P F`;
* mixing the banks, then applying each position's filter, is
  `call + filter P R F + mixing K P R F + product b P R F + patch b P R / s + output s b P F`.

So the first costs `K` convolutions; the second about one, and reading one filter for every
position, which a large batch shares: on a CPU it wins from `K` of about 3 on, at batch 1 from many
more. An accelerator multiplies so fast that it waits for memory, and there the second moves as much
as 10 convolutions do: on a TPU it wins from `K` of about 8 on, for several hundred examples.

Where filters read a single channel there are no products of matrices, and every number that is
multiplied is read for it. Of `T` taps the time of the first is

    call + product K b P T F + response K b P F

and of the second `call + mixing K P T F + product b P T F`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

from keras import ops

from low_rank_local_connectivity.ops.arguments import boolean, instance_of, one_of, sequence
from low_rank_local_connectivity.ops.convolution import windowed_convolution
from low_rank_local_connectivity.ops.low_rank_local_convolution import (
    combine_then_convolve,
    convolve_then_combine,
    convolve_then_combine_mixed,
)
from low_rank_local_connectivity.ops.windows import Windows
from low_rank_local_connectivity.plans.fused import convolve_by_mixed, fused_work, may_fuse
from low_rank_local_connectivity.plans.plan import Plan
from low_rank_local_connectivity.plans.request import Request
from low_rank_local_connectivity.plans.work import Work, bytes_in_memory

# Up to so many numbers (16 MB in float32), inference convolves with all banks at once; above, one
# after another, which takes as long on a large batch but some 0.1 ms for each bank on a small one.
MOST_RESPONSES = 2**22

# How often a step reads or writes each of a plan's tensors, gradients and copies in another layout
# included: fitted to the bytes of programs that XLA compiles for a TPU v5e (benchmarks.tpu), which
# they meet to about a fifth. A single example is the exception, for which XLA never writes the
# filters that it mixes.
CONVOLVING_PASSES = {
    "inference": {"outputs": 5, "responses": 3, "banks": 1},
    "training": {"outputs": 14, "responses": 7, "banks": 4},
}
COMBINING_PASSES = {
    "inference": {"patches": 2, "slabs": 10, "filters": 1.25, "banks": 5},
    "training": {"patches": 6, "slabs": 16, "filters": 4, "banks": 15},
}
# Banks and the filters that they are mixed into are float32, whatever the inputs are.
FLOAT32 = 4

# Function of whether an axis of examples is wanted in front to the normalised combining weights.
Weights = Callable[[bool], Any]


@dataclasses.dataclass(frozen=True)
class LowRankRequest(Request):
    """What a low-rank locally connected layer is asked to compute.

    Args:
        mixing: `"shared"` if all examples share the combining weights, `"per_example"` if each
            has its own, `"none"` if there is a single bank and nothing to mix.
        bank_windows: Where each bank's windows sit, of a mixed basis; None of any other.
        fixed_sizes: Whether the layer was built for inputs of one known size.

    Raises:
        ValueError: If an argument is out of range.
    """

    mixing: Literal["none", "shared", "per_example"] = "shared"
    bank_windows: Sequence[Windows] | None = None
    fixed_sizes: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("mixing", self.mixing, ("none", "shared", "per_example"))
        boolean("fixed_sizes", self.fixed_sizes)
        if self.bank_windows is not None:
            for windows in sequence("bank_windows", self.bank_windows, "Windows"):
                instance_of("bank_windows", windows, Windows)

    @property
    def one_by_one(self) -> bool:
        """Whether the responses of all banks should not be in memory together."""
        if self.training:
            return False
        if self.batch is None or None in self.sizes:
            return True
        return self.rank * self.outputs > MOST_RESPONSES


def _convolving_terms(request: LowRankRequest) -> dict[str, float]:
    rank = request.rank
    return {
        "call": 1,
        "bank": rank,
        "weight": rank * request.reads * request.filters,
        "product": rank * request.examples * request.local_filters,
        "response": rank * request.outputs,
    }


def _convolving_memory(request: LowRankRequest) -> int:
    """Returns the bytes of the responses: of all banks, or of two where none is kept.

    Training keeps what each step made, its gradient, and a third copy while one is computed.
    """
    held = 3 * request.rank if request.training else 2
    return held * request.outputs * request.itemsize


def _convolving_work(request: LowRankRequest) -> Work:
    """Returns the work of as many convolutions as banks, each of which reads all inputs."""
    inputs = _in_memory(request, request.assumed_inputs, request.channels)
    outputs = _in_memory(request, request.assumed_outputs, request.filters)
    sizes = {
        "outputs": outputs,
        "responses": request.rank * (inputs + outputs) / 2,
        "banks": _banks_in_memory(request),
    }
    products = request.rank * request.reads * request.assumed_outputs
    return _work(request, CONVOLVING_PASSES, sizes, products)


def _in_memory(request: LowRankRequest, numbers: int, last: int) -> float:
    """Returns the bytes of a tensor that has a part for each example."""
    return bytes_in_memory(request.device, numbers, request.itemsize, request.examples, last)


def _banks_in_memory(request: LowRankRequest) -> float:
    numbers = request.rank * request.reads * request.filters
    return bytes_in_memory(request.device, numbers, FLOAT32, request.filters)


def _work(request: LowRankRequest, passes: dict, sizes: dict[str, float], products: float) -> Work:
    """Returns the work of passes over tensors and of products, three times those in training."""
    often = passes["training" if request.training else "inference"]
    moved = sum(often[name] * size for name, size in sizes.items())
    return Work(moved, 2.0 * products * (3 if request.training else 1))


def _convolve_then_combine(
    request: LowRankRequest, inputs_bSc: Any, banks: Sequence[Any], weights: Weights
) -> Any:
    kernels = [ops.cast(bank, inputs_bSc.dtype) for bank in banks]
    if request.mixing == "none":
        return windowed_convolution(inputs_bSc, kernels[0], request.windows, request.groups)
    weights_bOk = ops.cast(weights(True), inputs_bSc.dtype)
    if request.bank_windows is None:
        arguments = (inputs_bSc, kernels[0], weights_bOk, request.windows)
        return convolve_then_combine(*arguments, request.one_by_one, request.groups)
    arguments = (inputs_bSc, kernels, weights_bOk, request.bank_windows)
    return convolve_then_combine_mixed(*arguments, request.one_by_one, request.groups)


def _may_combine(request: LowRankRequest) -> bool:
    """Whether there is one filter to be made for each position, the same for all examples."""
    known = request.fixed_sizes and None not in request.sizes
    return known and request.mixing == "shared" and request.bank_windows is None


def _combining_terms(request: LowRankRequest) -> dict[str, float]:
    examples, slabs = request.examples, request.slabs
    return {
        "call": 1,
        "filter": request.local_filters,
        "mixing": request.rank * request.local_filters,
        "product": examples * request.local_filters,
        "patch": request.patches / slabs,
        "output": slabs * request.outputs,
    }


def _combining_memory(request: LowRankRequest) -> int:
    """Returns the bytes of the filters and of the patches; copies as in `_convolving_memory`."""
    copies = 3 if request.training else 1
    numbers = request.local_filters + request.patches // request.slabs
    return copies * numbers * request.itemsize


def _combining_work(request: LowRankRequest) -> Work:
    """Returns the work of making a filter for each position and of multiplying it, slab by slab."""
    filters = request.local_filters
    sizes = {
        "patches": _in_memory(request, request.patches, request.reads // request.slabs),
        "slabs": request.slabs * _in_memory(request, request.outputs, request.filters),
        "filters": bytes_in_memory(request.device, filters, FLOAT32, request.filters),
        "banks": _banks_in_memory(request),
    }
    products = (request.examples + request.rank) * filters
    return _work(request, COMBINING_PASSES, sizes, products)


def _combine_then_convolve(
    request: LowRankRequest, inputs_bSc: Any, banks: Sequence[Any], weights: Weights
) -> Any:
    positions = request.windows.static_output_shape(request.sizes)
    weights_Ok = ops.broadcast_to(weights(False), (*positions, request.rank))
    kernel_Tcg = ops.convert_to_tensor(banks[0])
    arguments = (inputs_bSc, kernel_Tcg, weights_Ok, request.windows)
    return combine_then_convolve(*arguments, request.groups)


def _fused_kind(request: LowRankRequest) -> Literal["shared", "per_example"]:
    return "per_example" if request.mixing == "per_example" else "shared"


def _may_fuse(request: LowRankRequest) -> bool:
    """Whether there are banks to be mixed, all of one kernel size, and a kernel that may be taken.

    A single bank is a convolution, and has no need of it.
    """
    if request.mixing == "none" or request.bank_windows is not None:
        return False
    return request.fixed_sizes and may_fuse(request, _fused_kind(request))


def _mix_on_chip(
    request: LowRankRequest, inputs_bSc: Any, banks: Sequence[Any], weights: Weights
) -> Any:
    kind = _fused_kind(request)
    return convolve_by_mixed(request, kind, inputs_bSc, banks[0], weights(kind == "per_example"))


LOW_RANK = (
    Plan(
        name="convolve_then_combine",
        allowed=lambda _: True,
        terms=_convolving_terms,
        memory=_convolving_memory,
        apply=_convolve_then_combine,
        work=_convolving_work,
    ),
    Plan(
        name="combine_then_convolve",
        allowed=_may_combine,
        terms=_combining_terms,
        memory=_combining_memory,
        apply=_combine_then_convolve,
        work=_combining_work,
    ),
    Plan(
        name="fused",
        allowed=_may_fuse,
        # Nothing has been measured: no costs are known where it may be taken.
        terms=lambda _: {},
        # Filters and patches stay on the chip.
        memory=lambda _: 0,
        apply=_mix_on_chip,
        work=lambda request: fused_work(request, _fused_kind(request)),
    ),
)


def _depthwise_convolving_terms(request: LowRankRequest) -> dict[str, float]:
    rank = request.rank
    return {
        "call": 1,
        "product": rank * request.examples * request.local_filters,
        "response": rank * request.outputs,
    }


def _depthwise_combining_terms(request: LowRankRequest) -> dict[str, float]:
    return {
        "call": 1,
        "mixing": request.rank * request.local_filters,
        "product": request.examples * request.local_filters,
    }


def _depthwise_combining_memory(request: LowRankRequest) -> int:
    """Returns the bytes of the filters, a product and a sum; copies as in `_convolving_memory`."""
    copies = 3 if request.training else 1
    return copies * (request.local_filters + 2 * request.outputs) * request.itemsize


def _depthwise_combining_work(request: LowRankRequest) -> Work:
    """Returns the work of making a filter for each position and of a product for each tap."""
    filters, taps = request.local_filters, request.windows.taps
    sizes: dict[str, float] = {
        "outputs": 3 * taps * request.outputs * request.itemsize,
        "filters": filters * FLOAT32,
    }
    often = {"outputs": 1, "filters": 2}
    passes = {"inference": often, "training": {name: 3 * times for name, times in often.items()}}
    return _work(request, passes, sizes, (request.examples + request.rank) * filters)


_CONVOLVING, _COMBINING, _ = LOW_RANK
# The same for filters that read a single channel of several, by operations of their own.
DEPTHWISE_LOW_RANK = (
    dataclasses.replace(
        _CONVOLVING,
        terms=_depthwise_convolving_terms,
        measured_as="depthwise_convolve_then_combine",
    ),
    dataclasses.replace(
        _COMBINING,
        terms=_depthwise_combining_terms,
        memory=_depthwise_combining_memory,
        work=_depthwise_combining_work,
        measured_as="depthwise_combine_then_convolve",
    ),
)
