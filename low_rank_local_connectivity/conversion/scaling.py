"""Scaling and shifting the inputs or outputs of layers, per channel."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from low_rank_local_connectivity.conversion import families
from low_rank_local_connectivity.conversion.weights import (
    position_biases,
    positions,
    stored_bias,
    to_numpy,
)
from low_rank_local_connectivity.layers.deformable.deformable_conv import DeformableConv2D
from low_rank_local_connectivity.layers.local.spatial_bias import SpatialBias
from low_rank_local_connectivity.layers.other.full_conv import FullConv1D, FullConv2D, FullConv3D
from low_rank_local_connectivity.ops.windows import READ_BORDERS

LOCAL_DEPTHWISE = tuple(families.DEPTHWISE.local.values())
LOCAL = (*families.PLAIN.local.values(), *LOCAL_DEPTHWISE)
LOCAL_TRANSPOSED = tuple(families.TRANSPOSED.local.values())
DEPTHWISE = tuple(families.DEPTHWISE.convolutions.values())
SEPARABLE = tuple(families.SEPARABLE.convolutions.values())
TRANSPOSED = tuple(families.TRANSPOSED.convolutions.values())
FULL = (FullConv1D, FullConv2D, FullConv3D, DeformableConv2D)
PADDED = (*families.PLAIN.convolutions.values(), *DEPTHWISE, *SEPARABLE, *LOCAL)
# Layers whose outputs, or inputs, can be scaled: these classes themselves, since a subclass may
# compute something else.
SCALED_OUTPUTS = (*PADDED, *TRANSPOSED, *LOCAL_TRANSPOSED, *FULL, layers.Dense)
SCALED_INPUTS = (*PADDED, layers.Dense)


def pads(layer: Any) -> bool:
    """Whether a layer reads zeros around its inputs."""
    if not isinstance(layer, PADDED) or layer.padding in ("valid", *READ_BORDERS):
        return False
    if not isinstance(layer.padding, str):
        return any(map(any, layer.padding))
    return math.prod(layer.kernel_size) > 1


def with_scaled_outputs(layer: Any, factor: np.ndarray, addend: Any) -> Any:
    """Returns a layer whose outputs are scaled and shifted before the activation.

    Args:
        layer: Built layer of one of `SCALED_OUTPUTS`.
        factor: Factor of each filter's outputs.
        addend: Number to add to them afterwards.
    """
    name, factors = "kernel", factor
    if isinstance(layer, DEPTHWISE):
        factors = factor.reshape(-1, layer.depth_multiplier)
    elif isinstance(layer, SEPARABLE):
        name = "pointwise_kernel"
    elif isinstance(layer, TRANSPOSED):
        factors = factor[:, None]
    elif isinstance(layer, LOCAL_TRANSPOSED):
        factors = _per_read(layer, factor)
    found = _with_bias(layer, lambda bias: bias * factor + addend)
    kernel = _in_groups(layer, to_numpy(getattr(layer, name)))
    getattr(found, name).assign(_stored(layer, kernel * factors))
    return found


def _in_groups(layer: Any, kernel: np.ndarray) -> np.ndarray:
    """Returns the kernel of a depthwise local layer with one axis of taps and one of filters."""
    if not isinstance(layer, LOCAL_DEPTHWISE):
        return kernel
    multiplier = kernel.shape[-1]
    if layer.data_format == "channels_first":
        kernel = kernel.reshape(len(kernel), layer.groups, -1, multiplier).swapaxes(1, 2)
    return kernel.reshape(len(kernel), -1, layer.groups * multiplier)


def _stored(layer: Any, kernel: np.ndarray) -> np.ndarray:
    """Returns the kernel as the layer has it: the opposite of `_in_groups`."""
    if not isinstance(layer, LOCAL_DEPTHWISE):
        return kernel
    kernel = kernel.reshape(*kernel.shape[:2], layer.groups, -1)
    if layer.data_format == "channels_first":
        kernel = kernel.swapaxes(1, 2)
    return kernel.reshape(len(kernel), -1, kernel.shape[-1])


def with_scaled_inputs(layer: Any, factor: np.ndarray, addend: np.ndarray) -> Any:
    """Returns a layer that first scales and shifts its inputs.

    Args:
        layer: Built layer of one of `SCALED_INPUTS`, which does not pad.
        factor: Factor of each input channel.
        addend: Number to add to it afterwards.
    """
    name = "depthwise_kernel" if isinstance(layer, SEPARABLE) else "kernel"
    kernel = _in_groups(layer, to_numpy(getattr(layer, name)))
    factors, addends = (_per_input(layer, values) for values in (factor, addend))
    # What the layer makes of the addend: the same at every position, but for local layers.
    response = (kernel * addends).sum(tuple(range(kernel.ndim - 2)))
    if isinstance(layer, LOCAL):
        response = (kernel * addends).sum(1).reshape(*positions(layer), -1)
    elif isinstance(layer, DEPTHWISE):
        response = response.reshape(-1)
    elif isinstance(layer, SEPARABLE):
        pointwise = to_numpy(layer.pointwise_kernel)
        response = response.reshape(-1) @ pointwise.reshape(pointwise.shape[-2:])
    else:
        response = response.sum(0)
    found = _with_bias(layer, lambda bias: bias + response)
    getattr(found, name).assign(_stored(layer, kernel * factors))
    return found


def _per_input(layer: Any, values: np.ndarray) -> np.ndarray:
    """Returns values per input channel in the shape that broadcasts with a layer's kernel."""
    groups = getattr(layer, "groups", 1)
    found = values.reshape(groups, -1).T
    if groups > 1:
        found = np.repeat(found, layer.filters // groups, axis=1)
    if not isinstance(layer, LOCAL):
        return found
    taps = math.prod(layer.kernel_size)
    if layer.data_format == "channels_first":
        return np.repeat(found, taps, axis=0)
    return np.tile(found, (taps, 1))


def _per_read(layer: Any, values: np.ndarray) -> np.ndarray:
    """Returns values per channel along the middle axis of stored filters, for all their taps."""
    taps = math.prod(layer.kernel_size)
    first = layer.data_format == "channels_first"
    return (np.repeat if first else np.tile)(values, taps)[:, None]


def _with_bias(layer: Any, new: Callable[[np.ndarray], np.ndarray]) -> Any:
    """Returns a copy of a layer that has a bias, a function of the layer's own, channels last."""
    found = type(layer).from_config({**layer.get_config(), "use_bias": True})
    found.build(layer.get_build_config()["input_shape"])
    kept = (weight for weight in layer.weights if weight is not layer.bias)
    copies = (weight for weight in found.weights if weight is not found.bias)
    for one, other in zip(kept, copies, strict=True):
        other.assign(one)
    if isinstance(layer, (*LOCAL, *LOCAL_TRANSPOSED)):
        bias = position_biases(layer)
        bias = np.zeros((*positions(layer), 1)) if bias is None else bias
        found.bias.assign(stored_bias(new(bias), layer.data_format))
    else:
        bias = np.zeros(found.bias.shape) if layer.bias is None else to_numpy(layer.bias)
        found.bias.assign(new(bias))
    return found


def with_scaled_spatial_bias(layer: SpatialBias, factor: np.ndarray, addend: Any) -> SpatialBias:
    """Returns a spatial bias for scaled inputs, with an addend per filter."""
    found = SpatialBias(
        per_filter=True, data_format=layer.data_format, dtype=layer.dtype_policy, name=layer.name
    )
    found.build(layer.get_build_config()["input_shape"])
    total = sum((to_numpy(term) for term in layer.terms), start=np.zeros(1))
    found.terms[0].assign(np.broadcast_to(total * factor + addend, tuple(found.terms[0].shape)))
    return found


def linear(layer: Any) -> bool:
    """Whether a layer has no activation, or the identity."""
    return getattr(layer, "activation", None) in (None, keras.activations.linear)
