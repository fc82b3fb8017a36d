"""Assigning stored weights to the layers they belong to."""

import collections
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity.layers.local.locally_connected import LocallyConnected
from low_rank_local_connectivity.legacy.kernels import kernel_by_position, stored_shapes
from low_rank_local_connectivity.legacy.names import allowed
from low_rank_local_connectivity.legacy.parts import (
    pair,
    pair_by_name,
    pair_in_order,
    weights_of,
)
from low_rank_local_connectivity.legacy.stored import Description, LayerWeights, Stored, Weight

# What has weights, or things that have.
PARTS = (keras.Layer, keras.Variable, list, tuple)
TWICE = "_layer_checkpoint_dependencies"


def assign(model: Any, stored: Stored, path: str, described: Description | None = None) -> None:
    """Assigns a model its weights: all of them, or none and an error.

    Args:
        model: Built model.
        stored: The weights in the file.
        path: Where they come from, for errors.
        described: The file's description of the layers, if the model was rebuilt from it.
    """
    matching = _Matching(model, path, described)
    if isinstance(stored, list):
        matching.layers(model, stored)
    else:
        matching.tree(model, stored)
    missing = [one for one in weights_of(model) if id(one) not in matching.found]
    if missing:
        raise ValueError(
            f"{path!r} holds nothing for the weight {missing[0].path!r} of the model "
            f"{model.name!r}."
        )
    values = [
        (variable, matching.value(variable, weight)) for variable, weight in matching.found.values()
    ]
    _warn_of_what_is_not_finite(model, values, path)
    with np.errstate(over="ignore"):  # of which the warning tells
        for variable, value in values:
            variable.assign(value)
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def _warn_of_what_is_not_finite(
    model: Any, values: Sequence[tuple[Any, np.ndarray]], path: str
) -> None:
    """Names the layers whose weights are infinite or not numbers, or become so in their dtype."""
    wrong = {
        id(variable): variable for variable, value in values if not _is_finite(value, variable)
    }
    if not wrong:
        return
    layers = model._flatten_layers(include_self=False, recursive=False)
    names = [one.name for one in layers if any(id(weight) in wrong for weight in one.weights)]
    named = ", ".join(map(repr, names))
    warnings.warn(
        f"Weights in {path!r} are infinite or not numbers, and so is what the model computes from "
        f"them: those of {named}.",
        stacklevel=4,
    )


def _is_finite(value: np.ndarray, variable: Any) -> bool:
    """Whether all numbers are finite in a variable's dtype; bfloat16 has float32's range."""
    if value.dtype.kind != "f" or value.size == 0:
        return True
    dtype = "float32" if variable.dtype == "bfloat16" else variable.dtype
    most = np.finfo(dtype).max if "float" in dtype else np.inf
    return bool(np.isfinite(value).all() and np.abs(value).max() <= most)


def locally_connected(layer: Any) -> list[LocallyConnected]:
    """Returns the locally connected layers of a model, also within models and wrappers."""
    if isinstance(layer, LocallyConnected):
        return [layer]
    wrapped = [getattr(layer, name, None) for name in ("layer", "forward_layer", "backward_layer")]
    inner = [*getattr(layer, "layers", ()), *wrapped]
    return [one for part in inner if part is not None for one in locally_connected(part)]


class _Matching:
    """Decides which stored array each variable gets."""

    def __init__(self, model: Any, path: str, described: Description | None):
        self.path = path
        # A model that the file describes has frozen what was frozen in the file.
        self.is_described = described is not None
        self.described = described or Description()
        self.visited: set[int] = set()
        self.matched: set[tuple[int, int]] = set()
        self.found: dict[int, tuple[Any, Weight]] = {}
        self.local = {id(layer.kernel): layer for layer in locally_connected(model)}

    def value(self, variable: Any, weight: Weight) -> np.ndarray:
        """Returns the values of a variable; a kernel of any implementation is rearranged."""
        value = np.asarray(weight.read())
        if id(variable) in self.local and tuple(variable.shape) != value.shape:
            value = kernel_by_position(value, self.local[id(variable)])
        return value

    def layers(self, model: Any, stored: Sequence[LayerWeights]) -> None:
        """Matches layers by name if all names agree, and in order otherwise."""
        layers = [layer for layer in self._order(model) if weights_of(layer)]
        by_name = {allowed(one.name): one for one in stored}
        if {layer.name for layer in layers} == set(by_name):
            stored = [by_name[layer.name] for layer in layers]
        if len(stored) != len(layers):
            raise ValueError(
                f"{self.path!r} holds weights of {len(stored)} layers "
                f"({', '.join(one.name for one in stored)}), and the model {model.name!r} has "
                f"{len(layers)} with weights ({', '.join(layer.name for layer in layers)})."
            )
        for layer, one in zip(layers, stored, strict=True):
            self._layer(layer, one.weights)

    def _layer(self, layer: Any, weights: Sequence[Weight]) -> None:
        """Matches a layer, and layers within it, with weights in order."""
        self._require_as_many(layer, weights_of(layer), weights)
        if self.is_described:
            pairs = pair_by_name(layer, weights) or pair_in_order(layer, weights)
        else:
            pairs = pair(layer, weights, self._fits)
        if pairs is None:
            raise ValueError(
                f"{self.path!r} holds weights of the layers within {layer.name!r} in an order that "
                "depends on which of them were frozen, and the model has layers of other names: "
                f"{', '.join(dict.fromkeys(one.scope for one in weights))} in the file. Name "
                "the layers of the model so."
            )
        for variable, weight in pairs:
            self._match(layer, variable, weight)

    def _in_order(self, layer: Any, variables: Sequence[Any], weights: Sequence[Weight]) -> None:
        self._require_as_many(layer, variables, weights)
        for variable, weight in zip(variables, weights, strict=True):
            self._match(layer, variable, weight)

    def _require_as_many(self, layer: Any, variables: Sequence[Any], weights: Any) -> None:
        if len(variables) != len(weights):
            raise ValueError(
                f"{self.path!r} holds {len(weights)} weights for the layer {layer.name!r}, which "
                f"has {len(variables)}."
            )

    def _fits(self, variable: Any, weight: Weight) -> bool:
        if id(variable) in self.local:
            return weight.shape in stored_shapes(self.local[id(variable)])
        return weight.shape == tuple(variable.shape)

    def _match(self, layer: Any, variable: Any, weight: Weight) -> None:
        if not self._fits(variable, weight):
            raise ValueError(
                f"{self.path!r} holds an array of shape {weight.shape} for {variable.name!r} of "
                f"the layer {layer.name!r}, whose shape is {tuple(variable.shape)}."
            )
        self.found[id(variable)] = variable, weight

    def tree(self, owner: Any, stored: Mapping[str, Any]) -> None:
        """Matches the weights of an object by the names of its attributes."""
        # What a file reaches by many names has not to be matched again by each.
        if (id(owner), id(stored)) in self.matched:
            return
        self.matched.add((id(owner), id(stored)))
        self.visited.add(id(owner))
        if isinstance(owner, keras.Model):
            self._model(owner, stored)
            return
        inner = {name: one for name, one in stored.items() if name != "vars"}
        parts = {name: self._part(owner, name) for name in inner}
        for name, one in inner.items():
            if isinstance(one, Weight):
                self._match(owner, parts[name], one)
            elif isinstance(parts[name], list | tuple) and not any(map(str.isdigit, one)):
                self._by_class(owner, parts[name], one)
            else:
                self.tree(parts[name], one)
        if "vars" in stored:
            theirs = {id(one) for part in parts.values() for one in weights_of(part)}
            own = [one for one in weights_of(owner) if id(one) not in theirs]
            self._in_order(owner, own, stored["vars"])

    def _model(self, model: Any, stored: Mapping[str, Any]) -> None:
        layers = self._order(model)
        if TWICE in stored or "layers" in stored:
            self._by_class(model, layers, stored.get("layers") or stored[TWICE], TWICE in stored)
            return
        # Checkpoints number the layers.
        weighty = [layer for layer in layers if weights_of(layer)]
        named = {f"layer-{number}": layer for number, layer in enumerate(layers)}
        named |= {f"layer_with_weights-{number}": one for number, one in enumerate(weighty)}
        for name, one in stored.items():
            if re.fullmatch(r"layer(_with_weights)?-\d+", name):
                self._require_known(model, name, named)
                self.tree(named[name], one)

    def _by_class(
        self, owner: Any, layers: Sequence[Any], stored: Mapping[str, Any], is_twice: bool = False
    ) -> None:
        """Matches layers by their names in archives, which come from their classes."""
        known = set()
        before: collections.Counter[str] = collections.Counter()
        for layer in layers:
            if id(layer) in self.visited:
                continue
            kind = _snake_case(self.described.kinds.get(id(layer), type(layer).__name__))
            name = f"{kind}_{before[kind]}" if before[kind] else kind
            # Keras 2.12 counted layers with weights twice.
            before[kind] += 2 if is_twice and weights_of(layer) else 1
            known.add(name)
            if name in stored:
                self.tree(layer, stored[name])
        for name in stored:
            self._require_known(owner, name, known)

    def _require_known(self, owner: Any, name: str, known: Collection[str]) -> None:
        if name not in known:
            kind = "model" if isinstance(owner, keras.Model) else "layer"
            raise ValueError(
                f"{self.path!r} holds a layer {name!r}, which the {kind} {owner.name!r} has not."
            )

    def _part(self, owner: Any, name: str) -> Any:
        """Returns the attribute of an object with a name, which may have had an underscore."""
        if isinstance(owner, list | tuple) and name.isdigit() and int(name) < len(owner):
            return owner[int(name)]
        # Normalization's mean is adapt_mean, DepthwiseConv2D's depthwise_kernel is kernel.
        bare = name.removeprefix("_")
        for one in (f"adapt_{name}", name, bare, f"_{bare}", bare.removeprefix("depthwise_")):
            part = getattr(owner, one, None)
            if isinstance(part, PARTS):
                return part
        called = getattr(owner, "name", type(owner).__name__)
        raise ValueError(
            f"{self.path!r} holds {name!r} of the layer {called!r}, which has nothing of that name "
            "in Keras 3."
        )

    def _order(self, model: Any) -> Sequence[Any]:
        return self.described.order.get(id(model)) or model.layers


def _snake_case(name: str) -> str:
    """Returns a class's name as archives spell it: LocallyConnected2D as locally_connected2d."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
