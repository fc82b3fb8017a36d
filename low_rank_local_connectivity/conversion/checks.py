"""Checks that conversions have in common."""

import math
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity.conversion.weights import to_numpy
from low_rank_local_connectivity.inspection.graph import not_built
from low_rank_local_connectivity.layers.data_format import split_shape
from low_rank_local_connectivity.layers.local.locally_connected import LocallyConnected
from low_rank_local_connectivity.layers.local.locally_connected_transpose import (
    LocallyConnectedTranspose,
)
from low_rank_local_connectivity.layers.local.low_rank_locally_connected import (
    LowRankLocallyConnected,
)
from low_rank_local_connectivity.layers.local.low_rank_locally_connected_transpose import (
    LowRankLocallyConnectedTranspose,
)
from low_rank_local_connectivity.layers.scale.over_levels import OverLevels
from low_rank_local_connectivity.ops.arguments import positive_int, received

# Layers with different filters at every position, stored or mixed from banks.
Stored = LocallyConnected | LocallyConnectedTranspose
LowRank = LowRankLocallyConnected | LowRankLocallyConnectedTranspose
Local = Stored | LowRank
STORED = (LocallyConnected, LocallyConnectedTranspose)
LOW_RANK = (LowRankLocallyConnected, LowRankLocallyConnectedTranspose)
LOCAL = (*STORED, *LOW_RANK)

# Wrappers whose layer may be replaced by others that are wrapped alike, one after another: they
# apply it, and do nothing else, to each of the parts that they divide their inputs into.
TRANSPARENT = (keras.layers.TimeDistributed, OverLevels)

# Names in errors of the kinds of layers that a function takes.
NAMES = {
    "LocallyConnected": "locally connected",
    "LocallyConnectedTranspose": "locally connected",
    "LowRankLocallyConnected": "low-rank locally connected",
    "LowRankLocallyConnectedTranspose": "low-rank locally connected",
    "SpatialBias": "SpatialBias",
}


def require_layer(function: str, layer: Any, kind: Any) -> None:
    """Refuses a layer of another kind or one that is not built."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(layer, kinds):
        # Transposed layers have the names of others.
        names = " or ".join(dict.fromkeys(NAMES[one.__name__] for one in kinds))
        raise ValueError(
            f"{function}() takes a layer of the kind {names}. Received: {type(layer).__name__}."
        )
    if not layer.built:
        raise ValueError(not_built(function, layer))


def known_sizes(function: str, layer: Any) -> tuple[int, ...]:
    """Returns the shape of a layer's inputs; its filters must be the same for all inputs."""
    if getattr(layer, "input_dependent", False) and layer.has_logits:
        raise ValueError(
            f"{function}() needs filters that are the same for all inputs. Received: layer "
            f"{layer.name!r} with input_dependent=True. Serve it as it is."
        )
    if None in layer.input_sizes:
        raise ValueError(
            f"{function}() needs a layer built for inputs of known size. Received: layer "
            f"{layer.name!r}, built for {layer.input_sizes}. Build one for the size you need."
        )
    wrong = [weight.name for weight in layer.weights if not np.isfinite(to_numpy(weight)).all()]
    if wrong:
        raise ValueError(
            f"{function}() needs finite weights. Received: layer {layer.name!r}, whose "
            f"{wrong[0]!r} holds NaN or infinity. Take an earlier checkpoint."
        )
    return layer.input_sizes


def require_channels(layer: Any, input_shape: Any, channels: int) -> None:
    """Refuses a shape of inputs that a layer's filters do not fit."""
    _, given = split_shape(input_shape, layer.data_format, len(layer.kernel_size))
    if given != channels:
        raise ValueError(
            f"`input_shape` must have the channels of layer {layer.name!r}, {channels}. Received: "
            f"input_shape={tuple(input_shape)} with data_format={layer.data_format!r}."
        )


def applied(rule: Any, layer: Any) -> list[keras.Layer] | None:
    """Returns the layers that a rule puts in a layer's place; None if it keeps the layer."""
    if not callable(rule):
        raise ValueError(
            f"`rule` must be a function of a layer. Received: {received('rule', rule)}."
        )
    found = rule(layer)
    if found is None or found is layer:
        return None
    chain = list(found) if isinstance(found, (list, tuple)) else [found]
    if not all(isinstance(one, keras.Layer) for one in chain):
        raise ValueError(
            "`rule` must return a layer, a list of layers, or None to keep the one that it is "
            f"given. Received: {received('rule(layer)', found)} for layer {layer.name!r}."
        )
    return chain


def rank_in_range(layer: Any, spatial_rank: int) -> int:
    """Returns a rank after checking that a layer's filters can have it."""
    rank, positions = positive_int("spatial_rank", spatial_rank), math.prod(layer.position_sizes)
    if rank > positions:
        raise ValueError(
            f"`spatial_rank` must be at most the number of positions of layer {layer.name!r}, "
            f"{positions}. Received: spatial_rank={rank}."
        )
    return rank
