"""Between the layers' arrays and those of fused kernels: axes, and what is filled up with zeros.

A tensor's name ends in its axes, as in `ops`: capitals stand for one axis per spatial dimension.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from low_rank_local_connectivity.kernels.chips import present_chip
from low_rank_local_connectivity.kernels.geometry import GROUP, Geometry, Kind, fitting_geometry
from low_rank_local_connectivity.kernels.multilinear import local
from low_rank_local_connectivity.kernels.tpu import sum_dtype
from low_rank_local_connectivity.ops.windows import Windows


def convolve(
    kind: Kind, inputs_bSc: Any, made_of: Sequence[Any], windows: Windows, rank: int, filters: int
) -> Any:
    """Returns the outputs of a fused local convolution.

    Args:
        kind: What the filters are.
        inputs_bSc: Inputs of static shape.
        made_of: `kernel_prf` if filters are given; or the banks, `kernel_Tcg`, and the combining
            weights, `weights_Ok` or `weights_bOk`.
        windows: Where the windows sit, over one or two axes.
        rank: Number of banks.
        filters: Filters at each position.

    Returns:
        Array of axes `bOf`, in the data type of the inputs.

    Raises:
        ValueError: If a kernel would need more than the memory on the chip.
    """
    dtype = inputs_bSc.dtype
    inputs_bSc = inputs_bSc.astype(jnp.float32) if dtype == jnp.float16 else inputs_bSc
    shape, itemsize = tuple(inputs_bSc.shape), inputs_bSc.dtype.itemsize
    geometry = fitting_geometry(
        kind, shape, windows, filters, rank, itemsize, present_chip().budgets
    )
    arrays = {"inputs": _inputs(geometry, inputs_bSc, windows)}
    made_of = [one.astype(sum_dtype(one.dtype)) for one in made_of]
    channels = shape[-1]
    if kind == "given":
        arrays["filters"] = _filters(geometry, made_of[0], channels)
    else:
        arrays["banks"] = _banks(geometry, made_of[0], channels, filters)
        arrays["weights"] = _weights(geometry, made_of[1])
    (outputs,) = local(geometry, ("outputs",), arrays)
    positions = windows.static_output_shape(shape[1:-1])
    outputs = jnp.transpose(outputs[:, :, :filters, : shape[0]], (3, 0, 1, 2))
    return outputs.reshape(shape[0], *positions, filters).astype(dtype)


def _inputs(geometry: Geometry, inputs_bSc: Any, windows: Windows) -> Any:
    """Returns the inputs with their axes in the kernels' order, filled up with zeros."""
    batch, *sizes, channels = inputs_bSc.shape
    before = [first for first, _ in windows.pad_amounts(sizes)]
    if len(sizes) == 1:
        axis = 0 if geometry.outputs[0] > 1 else 1
        sizes, before = ([one, 1] if axis == 0 else [1, one] for one in (*sizes, *before))
        before[1 - axis] = 0
    inputs = jnp.transpose(inputs_bSc.reshape(batch, *sizes, channels), (1, 2, 3, 0))
    around = [
        (first, whole - first - size, 0)
        for first, whole, size in zip(before, geometry.sizes, sizes, strict=True)
    ]
    around += [(0, geometry.channels - channels, 0), (0, geometry.batch - batch, 0)]
    return lax.pad(inputs, jnp.zeros((), inputs.dtype), around)


def _filled(array: Any, sizes: dict[int, int]) -> Any:
    """Appends zeros along axes up to their sizes."""
    around = [(0, 0)] * array.ndim
    for axis, size in sizes.items():
        around[axis] = (0, size - array.shape[axis])
    return jnp.pad(array, around)


def _filters(geometry: Geometry, kernel_prf: Any, channels: int) -> Any:
    kernel_pfr = jnp.swapaxes(kernel_prf, 1, 2)
    if channels != geometry.channels:
        # Only then: a compiler may not see that splitting the axis changes nothing.
        taps = math.prod(geometry.taps)
        kernel = kernel_pfr.reshape(*kernel_pfr.shape[:2], taps, channels)
        kernel = _filled(kernel, {3: geometry.channels})
        kernel_pfr = kernel.reshape(*kernel_pfr.shape[:2], geometry.reads)
    return _filled(kernel_pfr, {1: geometry.filters}).reshape(geometry.shape("filters"))


def _banks(geometry: Geometry, kernel_Tcg: Any, channels: int, filters: int) -> Any:
    taps = math.prod(geometry.taps)
    kernel = kernel_Tcg.reshape(taps, channels, geometry.rank, filters)
    kernel = _filled(kernel, {1: geometry.channels, 3: geometry.filters})
    if geometry.kind == "shared":
        kernel = kernel.reshape(*kernel.shape[:-1], geometry.groups, GROUP)
        kernel = jnp.transpose(kernel, (3, 2, 4, 0, 1))
    else:
        kernel = jnp.transpose(kernel, (2, 3, 0, 1))
    return kernel.reshape(geometry.shape("banks"))


def _weights(geometry: Geometry, weights: Any) -> Any:
    rows, columns = geometry.outputs
    if geometry.kind == "shared":
        weights = weights.reshape(rows, columns, geometry.rank)
        weights = _filled(weights, {1: geometry.chunks * geometry.together})
        return jnp.repeat(weights, GROUP, axis=-1).reshape(geometry.shape("weights"))
    weights = weights.reshape(-1, rows, columns, geometry.rank)
    return _filled(jnp.transpose(weights, (1, 2, 3, 0)), {3: geometry.batch})
