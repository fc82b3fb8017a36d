"""Plans of conditional convolution, whose kernels each example mixes from experts.

One product of matrices per example, which lacks a convolution's blocking, took 1.7 to 7 times a
convolution's time on two CPU cores, training included; mixing the responses of 8 experts mostly 5
to 9 times, of 3 experts 2.2. So the kernels are mixed from 4 experts on.
"""

from typing import Any

from low_rank_local_connectivity.ops.cond_conv import convolve_by_mixed_kernels, mix_responses
from low_rank_local_connectivity.plans.plan import Plan
from low_rank_local_connectivity.plans.request import Request
from low_rank_local_connectivity.plans.work import Work, bytes_in_memory


def _mix_responses(request: Request, inputs_bSc: Any, kernels_nTcf: Any, routing_bn: Any) -> Any:
    return mix_responses(inputs_bSc, kernels_nTcf, routing_bn, request.windows)


def _mix_kernels(request: Request, inputs_bSc: Any, kernels_nTcf: Any, routing_bn: Any) -> Any:
    return convolve_by_mixed_kernels(inputs_bSc, kernels_nTcf, routing_bn, request.windows)


# How often each tensor passes between memory and the cores where XLA compiles for a TPU v5e, within
# a tenth of its bytes on 28x28x64, 64 filters, 64 examples, 3 and 8 experts.
PASSES = {"inputs": 3, "outputs": 4, "responses": 3, "patches": 6, "kernels": 6}


def _work(request: Request, products: float, **sizes: float) -> Work:
    """Returns the work of so many products over inputs, outputs and other tensors."""
    device, itemsize, examples = request.device, request.itemsize, request.examples
    sizes |= {
        "inputs": bytes_in_memory(
            device, request.assumed_inputs, itemsize, examples, request.channels
        ),
        "outputs": _outputs_in_memory(request),
    }
    return Work(sum(PASSES[name] * size for name, size in sizes.items()), 2.0 * products)


def _outputs_in_memory(request: Request) -> float:
    numbers, axes = request.assumed_outputs, (request.examples, request.filters)
    return bytes_in_memory(request.device, numbers, request.itemsize, *axes)


def _responses_work(request: Request) -> Work:
    """Returns the work of as many convolutions as experts."""
    products = request.rank * request.reads * request.assumed_outputs
    return _work(request, products, responses=request.rank * _outputs_in_memory(request))


def _kernels_work(request: Request) -> Work:
    """Returns the work of one product of patches and a kernel for each example."""
    device, itemsize, reads = request.device, request.itemsize, request.reads
    outputs, kernels = request.assumed_outputs, request.examples * reads * request.filters
    return _work(
        request,
        reads * outputs,
        patches=bytes_in_memory(device, reads * (outputs // request.filters), itemsize, reads),
        kernels=bytes_in_memory(device, kernels, itemsize, reads, request.filters),
    )


def _responses_memory(request: Request) -> int:
    """Returns the bytes of all experts' responses.

    Training keeps what each step made, its gradient, and a third copy while one is computed.
    """
    copies = 3 if request.training else 1
    return copies * request.rank * request.assumed_outputs * request.itemsize


def _kernels_memory(request: Request) -> int:
    """Returns the bytes of each example's kernel and patches, in two orders, and of a gradient."""
    copies = 3 if request.training else 2
    kernels = request.examples * request.reads * request.filters
    patches = request.reads * (request.assumed_outputs // request.filters)
    return copies * (kernels + patches) * request.itemsize


CONDITIONAL = (
    Plan(
        name="mix_responses",
        allowed=lambda _: True,
        terms=lambda request: {"convolution": request.rank},
        memory=_responses_memory,
        apply=_mix_responses,
        work=_responses_work,
    ),
    Plan(
        name="mix_kernels",
        # It lays positions one behind the other, and JAX multiplies no symbols less a number.
        allowed=lambda request: not request.symbolic,
        terms=lambda _: {"convolution": 1},
        memory=_kernels_memory,
        apply=_mix_kernels,
        work=_kernels_work,
    ),
)
