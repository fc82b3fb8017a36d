"""Weights of layers as arrays, and layers built with given weights."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops


def to_numpy(tensor: Any) -> np.ndarray:
    """Returns a tensor or variable as an array of float64."""
    return np.array(ops.convert_to_numpy(tensor), "float64")


def as_matrix(kernel: np.ndarray, dimensions: int) -> np.ndarray:
    """Returns filters at all positions as a matrix with a row for each position."""
    return kernel.reshape(math.prod(kernel.shape[:dimensions]), -1)


def shared_arguments(
    layer: Any, also: Sequence[str] = (), activation: bool = True
) -> dict[str, Any]:
    """Returns the arguments that local layers and convolutions of all kinds have in common."""
    names = ("strides", "padding", "data_format", "activity_regularizer", *also)
    arguments = {name: getattr(layer, name) for name in names}
    if activation:
        arguments["activation"] = layer.activation
    return {**arguments, "dtype": layer.dtype_policy, "name": layer.name}


def positions(layer: Any) -> tuple[int, ...]:
    """Returns how many outputs a layer has along each axis."""
    return layer.windows.static_output_shape(layer.input_sizes)


def position_biases(layer: Any) -> np.ndarray | None:
    """Returns the bias of every position and filter, channels last; None if there is none."""
    terms = [to_numpy(term) for term in layer.output_biases()]
    if not terms:
        return None
    return np.broadcast_to(sum(terms, start=np.zeros(1)), (*layer.output_sizes, layer.filters))


def stored_bias(bias: np.ndarray, data_format: str) -> np.ndarray:
    """Returns a channels-last bias as a locally connected layer stores it."""
    if data_format == "channels_last":
        return bias
    return np.moveaxis(bias, -1, 0).reshape(bias.shape)


def stored_weights(
    kernel: np.ndarray, bias: np.ndarray | None, data_format: str
) -> list[np.ndarray]:
    """Returns filters `(*positions, *taps, channels, filters)` as a locally connected layer's."""
    dimensions = (kernel.ndim - 2) // 2
    flat = kernel.reshape(-1, *kernel.shape[dimensions:])
    if data_format == "channels_first":
        flat = np.moveaxis(flat, -2, 1)
    stored = flat.reshape(len(flat), -1, kernel.shape[-1])
    return [stored] + ([] if bias is None else [stored_bias(bias, data_format)])


def build_like(found: Any, layer: Any, sizes: tuple[int, ...], weights: list[np.ndarray]) -> None:
    """Builds a layer for the inputs of another, and gives it weights and `trainable` flag."""
    channels = (layer.input_channels,)
    last = layer.data_format == "channels_last"
    found.build((None, *sizes, *channels) if last else (None, *channels, *sizes))
    for variable, value in zip(found.weights, weights, strict=True):
        variable.assign(value)
    found.trainable = layer.trainable


def copy_variables(layer: Any, copy: Any) -> None:
    """Gives a copy of a layer or model its variables; what LoRA adds is in the copy's kernels.

    Args:
        layer: A layer or model.
        copy: One of the same configuration.

    Raises:
        ValueError: If they have different variables.
    """
    pairs = list(zip(layer._flatten_layers(), copy._flatten_layers(), strict=True))
    adapted = [pair for pair in pairs if getattr(pair[0], "lora_enabled", False)]
    for one, other in adapted:
        stored: dict[str, Any] = {}
        one.save_own_variables(stored)
        other.load_own_variables(stored)
    variables, copies = (
        _variables_but_of(whole, [pair[side] for pair in adapted])
        for side, whole in enumerate((layer, copy))
    )
    for variable, other in zip(variables, copies, strict=True):
        other.assign(variable)


def _variables_but_of(whole: Any, parts: list[Any]) -> list[Any]:
    """Returns the variables of a layer without those that some layers within it have."""
    without = {id(one) for part in parts for one in _own_variables(part)}
    return [one for one in whole.variables if id(one) not in without]


def _own_variables(layer: Any) -> list[Any]:
    return [*layer._trainable_variables, *layer._non_trainable_variables]
