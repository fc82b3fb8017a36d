"""Fused local convolution as operators of PyTorch, which autograd and `torch.compile` see through.

Outputs are linear in the inputs and in everything that the filters are made of, so the sum of
outputs times numbers given for them is linear in each of these arrays. There is an operator for its
derivative by each array, the outputs among them; the derivative of one of them by another array is
the operator of that array, with what comes from above in the place of what the first one computes.
So gradients of gradients need nothing more. Forward-mode derivatives have no rule here.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from low_rank_local_connectivity.kernels import gpu
from low_rank_local_connectivity.kernels.gpu_shapes import ARRAYS, Kind, Shape, shape_of
from low_rank_local_connectivity.ops.windows import Windows

NAMESPACE = "low_rank_local_connectivity"
KERNELS: dict[tuple[Kind, str], Callable] = {
    ("given", "outputs"): gpu.outputs_of_given,
    ("given", "inputs"): gpu.inputs_of_given,
    ("given", "filters"): gpu.filters_of_given,
    ("per_example", "outputs"): gpu.outputs_of_mixed,
    ("per_example", "inputs"): gpu.inputs_of_mixed,
    ("per_example", "banks"): gpu.banks_of_mixed,
    ("per_example", "weights"): gpu.weights_of_mixed,
}
OPERATORS: dict[tuple[Kind, str], Any] = {}


def _read(kind: Kind, wanted: str) -> tuple[str, ...]:
    """Returns the names of the arrays that something is computed from, in their order."""
    return tuple(name for name in ARRAYS[kind] if name != wanted)


def _dtype(wanted: str, arrays: Sequence[torch.Tensor]) -> torch.dtype:
    # The first of them is the inputs, or the outputs. Combining weights come in more digits.
    dtype = arrays[0].dtype
    return gpu.sum_dtype(dtype) if wanted == "weights" else dtype


def _register(kind: Kind, wanted: str) -> Any:
    """Registers the operator of one array of one kind, and returns it."""
    names = _read(kind, wanted)
    tensors = ", ".join(f"Tensor {name}" for name in names)

    def compute(*arguments: Any) -> torch.Tensor:
        *arrays, numbers = arguments
        arrays = [one.contiguous() for one in arrays]
        return KERNELS[kind, wanted](Shape.from_numbers(numbers), *arrays)

    def abstract(*arguments: Any) -> torch.Tensor:
        *arrays, numbers = arguments
        shape = Shape.from_numbers(numbers).array(wanted)
        return arrays[0].new_empty(shape, dtype=_dtype(wanted, arrays))

    def keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        del output
        *arrays, ctx.numbers = inputs
        ctx.save_for_backward(*arrays)

    def derive(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        arrays = dict(zip(names, ctx.saved_tensors, strict=True))
        needed = zip(names, ctx.needs_input_grad, strict=False)
        gradients = [
            _gradient(kind, name, {**arrays, wanted: upstream}, ctx.numbers) if need else None
            for name, need in needed
        ]
        return (*gradients, None)

    operator = torch.library.custom_op(
        f"{NAMESPACE}::{kind}_{wanted}",
        compute,
        mutates_args=(),
        schema=f"({tensors}, SymInt[] numbers) -> Tensor",
    )
    operator.register_fake(abstract)
    operator.register_autograd(derive, setup_context=keep)
    return operator


def _gradient(
    kind: Kind, name: str, arrays: dict[str, torch.Tensor], numbers: Sequence[int]
) -> torch.Tensor:
    """Returns the derivative by an array, in its data type."""
    found = OPERATORS[kind, name](*(arrays[one] for one in _read(kind, name)), numbers)
    return found.to(arrays[name].dtype)


OPERATORS.update({key: _register(*key) for key in KERNELS})


def convolve(
    kind: Literal["given", "shared", "per_example"],
    inputs_bSc: Any,
    made_of: Sequence[Any],
    windows: Windows,
    rank: int,
    filters: int,
) -> Any:
    """Returns the outputs of a fused local convolution.

    Filters that all examples share are mixed by a matrix product before, in the inputs' data type:
    written once and read once they cost less than banks that every position's programs would read.

    Args:
        kind: What the filters are: `"given"`, `"shared"` or `"per_example"`.
        inputs_bSc: Inputs.
        made_of: `kernel_prf` if filters are given; or the banks, `kernel_Tcg`, and the combining
            weights, `weights_Ok` or `weights_bOk`.
        windows: Where the windows sit, over one or two axes.
        rank: Number of banks.
        filters: Filters at each position.

    Returns:
        Tensor of axes `bOf`, in the data type of the inputs.
    """
    if kind == "shared":
        kernel_Tcg, weights_Ok = (one.to(inputs_bSc.dtype) for one in made_of)
        made_of, rank = [_mixed(kernel_Tcg, weights_Ok, rank, filters)], 1
    shape = shape_of(tuple(inputs_bSc.shape), windows, filters, rank)
    kind = "per_example" if kind == "per_example" else "given"
    names = ARRAYS[kind][2:]
    arrays = [one.reshape(shape.array(name)) for name, one in zip(names, made_of, strict=True)]
    inputs = inputs_bSc.reshape(shape.array("inputs"))
    outputs = OPERATORS[kind, "outputs"](inputs, *arrays, shape.numbers())
    positions = windows.static_output_shape(inputs_bSc.shape[1:-1])
    return outputs.reshape(shape.batch, *positions, filters)


def _mixed(kernel_Tcg: Any, weights_Ok: Any, rank: int, filters: int) -> torch.Tensor:
    """Returns the filters of every position, `kernel_prf`."""
    kernel_rkf = kernel_Tcg.reshape(-1, rank, filters)
    kernel_krf = kernel_rkf.transpose(0, 1).reshape(rank, -1)
    return weights_Ok.reshape(-1, rank) @ kernel_krf
