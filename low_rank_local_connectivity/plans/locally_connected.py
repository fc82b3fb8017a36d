"""Plans of locally connected layers, whose filters are given for every position.

Collecting patches writes them to memory and reads them again, which a kernel need not. Wherever
there is no kernel, how many channels a filter reads decides.
"""

from typing import Any

from keras import ops

from low_rank_local_connectivity.ops.depthwise_convolution import local_depthwise_convolution
from low_rank_local_connectivity.ops.local_convolution import local_convolution
from low_rank_local_connectivity.plans.fused import convolve_by_given, fused_work, may_fuse
from low_rank_local_connectivity.plans.plan import Plan
from low_rank_local_connectivity.plans.request import Request
from low_rank_local_connectivity.plans.work import Work


def _multiply_patches(request: Request, inputs_bSc: Any, kernel_prf: Any) -> Any:
    kernel_prf = ops.cast(kernel_prf, inputs_bSc.dtype)
    return local_convolution(
        inputs_bSc, kernel_prf, request.windows, request.training, request.groups
    )


def _sum_over_taps(request: Request, inputs_bSc: Any, kernel_prf: Any) -> Any:
    kernel_prf = ops.cast(kernel_prf, inputs_bSc.dtype)
    kernel_tpf = ops.transpose(kernel_prf, (1, 0, 2))
    return local_depthwise_convolution(inputs_bSc, kernel_tpf, request.windows)


def _patches_work(request: Request) -> Work:
    """Returns the work of writing patches and of reading them, and the filters, in each product."""
    numbers = 2 * request.patches + request.local_filters + request.outputs
    times = 3 if request.training else 1
    products = request.examples * request.local_filters
    return Work(times * request.itemsize * numbers, 2.0 * times * products)


# What they hold at once is not counted, and nothing has been measured: where a kernel may be taken
# no costs are known.
LOCALLY_CONNECTED = (
    Plan(
        name="multiply_patches",
        allowed=lambda request: not request.depthwise,
        terms=lambda _: {},
        memory=lambda _: 0,
        apply=_multiply_patches,
        work=_patches_work,
    ),
    Plan(
        name="sum_over_taps",
        allowed=lambda request: request.depthwise,
        terms=lambda _: {},
        memory=lambda _: 0,
        apply=_sum_over_taps,
        work=_patches_work,
    ),
    Plan(
        name="patches_on_chip",
        allowed=lambda request: may_fuse(request, "given"),
        terms=lambda _: {},
        memory=lambda _: 0,
        apply=convolve_by_given,
        work=lambda request: fused_work(request, "given"),
    ),
)
