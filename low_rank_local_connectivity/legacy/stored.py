"""Weights as a file holds them, before it is known which layer each belongs to."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

# What an object holds beside weights of its own.
NOT_WEIGHTS = ("variables", "trainable_variables", "non_trainable_variables", "keras_api")
NOT_WEIGHTS = (*NOT_WEIGHTS, "regularization_losses", "optimizer", "signatures", "metrics")
NOT_WEIGHTS = (*NOT_WEIGHTS, "_random_generator", "random_generator")


@dataclasses.dataclass(frozen=True)
class Weight:
    """A stored array, not yet read.

    Args:
        shape: Its shape.
        read: Function that reads it.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class LayerWeights:
    """The weights of a layer, or of all layers of a model within the model, one after another.

    Args:
        name: The layer's name.
        weights: The trainable ones first.
    """

    name: str
    weights: list[Weight]


# Layers one after another, as HDF5 files have them, or a tree: what an object holds, by the name of
# the attribute, its own variables in order under "vars".
Stored = list[LayerWeights] | dict[str, Any]
