"""Plans of conditional convolution, whose kernels each example mixes from experts.

One product of matrices per example, which lacks a convolution's blocking, took 1.7 to 7 times a
convolution's time on two CPU cores, training included; mixing the responses of 8 experts mostly 5
to 9 times, of 3 experts 2.2. So the kernels are mixed from 4 experts on.
"""

from typing import Any

from low_rank_local_connectivity.ops.cond_conv import convolve_by_mixed_kernels, mix_responses
from low_rank_local_connectivity.plans.plan import Plan
from low_rank_local_connectivity.plans.request import Request
from low_rank_local_connectivity.plans.work import Work


def _mix_responses(request: Request, inputs_bSc: Any, kernels_nTcf: Any, routing_bn: Any) -> Any:
    return mix_responses(inputs_bSc, kernels_nTcf, routing_bn, request.windows)


def _mix_kernels(request: Request, inputs_bSc: Any, kernels_nTcf: Any, routing_bn: Any) -> Any:
    return convolve_by_mixed_kernels(inputs_bSc, kernels_nTcf, routing_bn, request.windows)


def _responses_work(request: Request) -> Work:
    """Returns the work of as many convolutions as experts, whose responses are read again."""
    outputs = request.assumed_outputs
    moved = request.assumed_inputs + (2 * request.rank + 1) * outputs
    return Work(request.itemsize * moved, 2.0 * request.rank * request.reads * outputs)


def _kernels_work(request: Request) -> Work:
    """Returns the work of one product for each example; patches and kernels are read again."""
    outputs = request.assumed_outputs
    patches = request.reads * (outputs // request.filters)
    kernels = request.examples * request.reads * request.filters
    moved = request.assumed_inputs + 2 * (patches + kernels) + outputs
    return Work(request.itemsize * moved, 2.0 * request.reads * outputs)


# What they hold at once is not counted.
CONDITIONAL = (
    Plan(
        name="mix_responses",
        allowed=lambda _: True,
        terms=lambda request: {"convolution": request.rank},
        memory=lambda _: 0,
        apply=_mix_responses,
        work=_responses_work,
    ),
    Plan(
        name="mix_kernels",
        # It lays positions one behind the other, and JAX multiplies no symbols less a number.
        allowed=lambda request: not request.symbolic,
        terms=lambda _: {"convolution": 1},
        memory=lambda _: 0,
        apply=_mix_kernels,
        work=_kernels_work,
    ),
)
