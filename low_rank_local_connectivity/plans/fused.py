"""Where fused kernels exist, and what they move.

A kernel keeps patches on the chip, and on a TPU filters that it mixes, so it moves little more than
inputs and outputs whatever the number of banks. They exist over one or two axes for JAX, whose TPUs
`auto` takes them on, and for PyTorch on NVIDIA's GPUs, where a layer has to ask for them.
"""

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from low_rank_local_connectivity.kernels.chips import present_chip
from low_rank_local_connectivity.kernels.geometry import (
    WANTED,
    Geometry,
    Kind,
    best_tiles,
    fitting_geometry,
    moved_bytes,
)
from low_rank_local_connectivity.ops.borders import with_border
from low_rank_local_connectivity.ops.windows import Windows
from low_rank_local_connectivity.plans.machine import device_kind
from low_rank_local_connectivity.plans.request import Request
from low_rank_local_connectivity.plans.work import Work

# Data types of a TPU's kernels, by the bytes of a number; float16 is computed in float32.
ITEMSIZES = (2, 4)


def kernel_missing(backend: str, dimensions: int, groups: int = 1) -> str | None:
    """Returns why there is no fused kernel for a layer, None if there is one.

    Args:
        backend: Keras's name of a backend.
        dimensions: Number of spatial axes.
        groups: Number of groups of channels.

    Example:
        >>> kernel_missing("jax", 2) is None
        True
    """
    if backend not in ("jax", "torch"):
        return f"kernels are written for JAX and PyTorch and the backend is {backend!r}"
    if dimensions > 2:
        return f"kernels are written for one and two spatial axes and the layer has {dimensions}"
    if groups > 1:
        return f"kernels read all channels and the layer has groups={groups}"
    return _triton_missing() if backend == "torch" else None


def _triton_missing() -> str | None:
    """Returns why PyTorch's kernels cannot be compiled here, None if they can."""
    if importlib.util.find_spec("triton") is None:
        return "kernels on PyTorch are compiled by the package triton, which is not installed"
    # What Triton itself reads, to interpret kernels without a GPU.
    if device_kind() == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        return "kernels on PyTorch are written for GPUs and it computes on a CPU"
    return None


def require_kernel(name: str, backend: str, dimensions: int, groups: int = 1) -> None:
    """Refuses `implementation="fused"` where no kernel exists.

    Raises:
        ValueError: If there is none.
    """
    missing = kernel_missing(backend, dimensions, groups)
    if missing is not None:
        raise ValueError(
            f"implementation='fused' needs a kernel, which layer {name!r} has none of: {missing}. "
            "Leave `implementation` out."
        )


def geometry_of(request: Request, kind: Kind) -> Geometry | None:
    """Returns the shapes of a request's kernels, None if they do not fit into on-chip memory."""
    shape = (request.examples, *request.sizes, request.channels)
    numbers = (request.windows, request.filters, request.rank, request.itemsize)
    try:
        return fitting_geometry(kind, shape, *numbers, present_chip().budgets)
    except ValueError:
        return None


def may_fuse(request: Request, kind: Kind) -> bool:
    """Whether `auto` may take a fused kernel: on a TPU, for known shapes, where it fits.

    A compiler cannot cut a kernel's arrays, so that a distribution over devices has none.
    """
    return (
        request.device == "tpu"
        and kernel_missing(request.backend, len(request.windows.sizes), request.groups) is None
        and request.batch is not None
        and request.batch > 0
        and None not in request.sizes
        and request.itemsize in ITEMSIZES
        and keras.distribution.distribution() is None
        and geometry_of(request, kind) is not None
    )


def fused_work(request: Request, kind: Kind) -> Work:
    """Returns the work of a request's kernels, with that for all gradients if it is training."""
    geometry = geometry_of(request, kind)
    assert geometry is not None, request
    moved = [
        moved_bytes(tiles, wanted)
        for wanted in (WANTED if request.training else WANTED[:1])
        if (tiles := best_tiles(geometry, wanted)) is not None
    ]
    return Work(sum(moved), 2.0 * len(moved) * (geometry.products + geometry.mixing))


def _require_static(inputs_bSc: Any, windows: Windows) -> None:
    if not all(isinstance(size, int) for size in inputs_bSc.shape):
        raise ValueError(
            "A fused kernel is compiled for one shape of the inputs, so the batch and every "
            f"spatial size must be known. Received: inputs of shape {tuple(inputs_bSc.shape)} with "
            f"windows={windows}. Use implementation='auto'."
        )


def _kernels(inputs_bSc: Any, request: Request) -> Callable[..., Any]:
    """Returns the function that applies the backend's kernels."""
    if request.backend == "torch":
        from low_rank_local_connectivity.kernels.operators import convolve

        return convolve
    from low_rank_local_connectivity.kernels.layouts import convolve

    _require_static(inputs_bSc, request.windows)
    return convolve


def convolve_by_mixed(request: Request, kind: Kind, inputs_bSc: Any, banks: Any, weights: Any):
    """Applies filters that are mixed from banks within a kernel.

    Args:
        request: What is asked for.
        kind: Whether the combining weights are each example's own.
        inputs_bSc: Inputs of static shape.
        banks: The banks side by side in the last axis.
        weights: Combining weights, with an axis of examples if each has its own; an axis of length
            1 is shared.
    """
    convolve = _kernels(inputs_bSc, request)
    batch, *sizes, _ = inputs_bSc.shape
    positions = request.windows.static_output_shape(sizes)
    shape = (*positions, request.rank) if kind == "shared" else (batch, *positions, request.rank)
    made_of = (ops.convert_to_tensor(banks), ops.broadcast_to(weights, shape))
    inputs_bSc, windows = with_border(inputs_bSc, request.windows)
    return convolve(kind, inputs_bSc, made_of, windows, request.rank, request.filters)


def convolve_by_given(request: Request, inputs_bSc: Any, kernel_prf: Any):
    """Applies filters that are given for every position."""
    convolve = _kernels(inputs_bSc, request)
    made_of = (ops.convert_to_tensor(kernel_prf),)
    inputs_bSc, windows = with_border(inputs_bSc, request.windows)
    return convolve("given", inputs_bSc, made_of, windows, 1, request.filters)
