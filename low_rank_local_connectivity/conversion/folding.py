"""Batch normalisation as part of the layer before it."""

import itertools
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity.conversion.checks import require_visible
from low_rank_local_connectivity.conversion.factorization import LOCALLY_CONNECTED
from low_rank_local_connectivity.conversion.models import convert
from low_rank_local_connectivity.conversion.relaxation import CONVOLUTIONS
from low_rank_local_connectivity.conversion.weights import (
    position_biases,
    positions,
    stored_bias,
    to_numpy,
)
from low_rank_local_connectivity.layers.locally_connected import LocallyConnected
from low_rank_local_connectivity.layers.spatial_bias import SpatialBias


def fold_batch_normalization(model: keras.Model) -> keras.Model:
    """Returns a copy of a model whose batch normalisations are part of the layers before them.

    At inference `y = (x - mean) / sqrt(variance + epsilon) * gamma + beta` is a factor and an
    addend per filter, which the filters and biases before it can take up: exact where a
    convolution or locally connected layer without an activation feeds nothing else.

    Args:
        model: Functional or `Sequential` model, built; for inference, since the copy's statistics
            no longer follow the data.

    Returns:
        Model with the same outputs, up to rounding, and fewer layers.

    Raises:
        ValueError: As `convert`.

    Example:
        >>> inputs = keras.Input((8, 9, 2))
        >>> x = keras.layers.Conv2D(5, 3)(inputs)
        >>> model = keras.Model(inputs, keras.layers.BatchNormalization()(x))
        >>> [type(layer).__name__ for layer in fold_batch_normalization(model).layers]
        ['InputLayer', 'Conv2D']
    """
    require_visible("fold_batch_normalization", model)
    replaced: dict[int, list[keras.Layer]] = {}
    for layer, norm in _feeding(model, keras.layers.BatchNormalization):
        if not _along_channels(layer, norm):
            continue
        factor, addend = _factor_and_addend(norm)
        if isinstance(layer, SpatialBias):
            before = [one for one, other in _feeding(model, SpatialBias) if other is layer]
            if not before or not _is_linear(before[0]):
                continue
            replaced[id(before[0])] = [_scaled(before[0], factor, 0.0)]
            replaced[id(layer)] = [_scaled_bias(layer, factor, addend)]
        elif _is_linear(layer):
            replaced[id(layer)] = [_scaled(layer, factor, addend)]
        else:
            continue
        replaced[id(norm)] = []

    def rule(layer: keras.Layer) -> Any:
        if isinstance(layer, keras.Model):
            return fold_batch_normalization(layer)
        return replaced.get(id(layer))

    return convert(model, rule)


def _feeding(model: Any, kind: type) -> list[tuple[Any, Any]]:
    """Returns pairs of a layer and the only one that reads it, which is of this kind."""
    if isinstance(model, keras.Sequential):
        pairs = list(itertools.pairwise(model.layers))
    else:
        pairs = []
        for layer in model.layers:
            nodes = layer._inbound_nodes
            if isinstance(layer, kind) and len(nodes) == 1:
                pairs.append((nodes[0].input_tensors[0]._keras_history.operation, layer))
    results = {id(tensor._keras_history.operation) for tensor in model.outputs}
    return [
        (first, second)
        for first, second in pairs
        if isinstance(second, kind)
        and isinstance(model, keras.Sequential) | _feeds_once(first, id(first) in results)
    ]


def _feeds_once(layer: Any, is_output: bool) -> bool:
    return len(layer._inbound_nodes) == 1 == len(layer._outbound_nodes) and not is_output


def _is_linear(layer: Any) -> bool:
    kinds = (*CONVOLUTIONS, *LOCALLY_CONNECTED.values(), keras.layers.Dense)
    return type(layer) in kinds and layer.activation is keras.activations.linear


def _along_channels(layer: Any, norm: Any) -> bool:
    """Whether a normalisation runs along the axis that a layer's filters make."""
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    dimensions = len(norm.get_build_config()["input_shape"])
    axis = norm.axis if norm.axis >= 0 else norm.axis + dimensions
    return axis == (1 if first else dimensions - 1)


def _factor_and_addend(norm: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns what a normalisation multiplies by and adds at inference, per channel."""
    mean, variance = to_numpy(norm.moving_mean), to_numpy(norm.moving_variance)
    factor = 1 / np.sqrt(variance + norm.epsilon)
    factor = factor * to_numpy(norm.gamma) if norm.scale else factor
    return factor, (to_numpy(norm.beta) if norm.center else 0.0) - mean * factor


def _scaled(layer: Any, factor: np.ndarray, addend: Any) -> keras.Layer:
    """Returns a linear layer whose outputs are multiplied and added to, per filter."""
    found = type(layer).from_config({**layer.get_config(), "use_bias": True})
    found.build(layer.get_build_config()["input_shape"])
    if isinstance(layer, LocallyConnected):
        bias = position_biases(layer)
        bias = np.zeros((*positions(layer), 1)) if bias is None else bias
        values = stored_bias(bias * factor + addend, layer.data_format)
    else:
        values = (0.0 if layer.bias is None else to_numpy(layer.bias)) * factor + addend
    found.kernel.assign(to_numpy(layer.kernel) * factor)
    found.bias.assign(values)
    return found


def _scaled_bias(layer: SpatialBias, factor: np.ndarray, addend: np.ndarray) -> SpatialBias:
    """Returns a spatial bias for outputs that were multiplied, with an addend per filter."""
    found = SpatialBias(
        per_filter=True, data_format=layer.data_format, dtype=layer.dtype_policy, name=layer.name
    )
    found.build(layer.get_build_config()["input_shape"])
    total = sum((to_numpy(term) for term in layer.terms), start=np.zeros(1))
    found.terms[0].assign(np.broadcast_to(total * factor + addend, tuple(found.terms[0].shape)))
    return found
