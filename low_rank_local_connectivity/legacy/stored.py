"""Weights as stored in a file, before it is known which layer each belongs to."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# Attributes of an object other than its own weights.
NOT_WEIGHTS = ("variables", "trainable_variables", "non_trainable_variables", "keras_api")
NOT_WEIGHTS = (*NOT_WEIGHTS, "regularization_losses", "optimizer", "signatures", "metrics")
NOT_WEIGHTS = (*NOT_WEIGHTS, "_random_generator", "random_generator")


@dataclasses.dataclass(frozen=True)
class Weight:
    """A stored array, not yet read.

    Args:
        shape: Its shape.
        read: Function that reads it.
        path: Its name in the file, such as `lstm/lstm_cell/kernel:0`; empty if the file stores
            weights by attributes.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    path: str = ""

    @property
    def scope(self) -> str:
        """The names of the layers that the weight is in."""
        return self.path.rpartition("/")[0]

    @property
    def own_name(self) -> str:
        """The weight's own name."""
        return self.path.rpartition("/")[2].partition(":")[0]


@dataclasses.dataclass(frozen=True)
class LayerWeights:
    """The weights of a layer, or of all layers of a model within the model, in order.

    Args:
        name: The layer's name.
        weights: The trainable ones first.
    """

    name: str
    weights: list[Weight]


@dataclasses.dataclass(frozen=True)
class Description:
    """Facts about a model's layers from the file that it was rebuilt from.

    Args:
        order: The layers of each model, by its identity, in the order of the file.
        kinds: The name of a layer's class in the file, by the layer's identity.
    """

    order: dict[int, Sequence[Any]] = dataclasses.field(default_factory=dict)
    kinds: dict[int, str] = dataclasses.field(default_factory=dict)


# A list of layers, as in HDF5 files, or a tree: the content of an object by the names of its
# attributes, with its own variables in order under "vars".
Stored = list[LayerWeights] | dict[str, Any]
