"""Stored weights to the layers they belong to."""

import collections
import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity.layers.locally_connected import LocallyConnected
from low_rank_local_connectivity.legacy.kernels import kernel_by_position, stored_shapes
from low_rank_local_connectivity.legacy.reading import explained
from low_rank_local_connectivity.legacy.stored import LayerWeights, Stored, Weight

TWICE = "_layer_checkpoint_dependencies"
# Models by their identity, with their layers in the order of the file.
Order = Mapping[int, Sequence[Any]]


def assign(model: Any, stored: Stored, path: str, order: Order | None = None) -> None:
    """Gives a model its weights: all of them, or none and an error.

    Args:
        model: Built model.
        stored: What the file holds.
        path: Where it comes from, for errors.
        order: Layers of the model and of models within it in the order of the file, if it is known
            not to be that of `model.layers`.
    """
    matching = _Matching(model, path, order or {})
    if isinstance(stored, list):
        matching.layers(model, stored)
    else:
        matching.tree(model, stored)
    missing = [one for one in _weights(model) if id(one) not in matching.found]
    if missing:
        raise ValueError(
            f"{path!r} holds nothing for the weight {missing[0].path!r} of the model "
            f"{model.name!r}."
        )
    values = []
    with explained(path):
        for variable, weight in matching.found.values():
            values.append((variable, matching.value(variable, weight)))
    for variable, value in values:
        variable.assign(value)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def locally_connected(layer: Any) -> list[LocallyConnected]:
    """Returns the locally connected layers of a model: within models and wrappers too."""
    if isinstance(layer, LocallyConnected):
        return [layer]
    wrapped = [getattr(layer, name, None) for name in ("layer", "forward_layer", "backward_layer")]
    inner = [*getattr(layer, "layers", ()), *wrapped]
    return [one for part in inner if part is not None for one in locally_connected(part)]


def _weights(layer: Any) -> list[Any]:
    return [*layer.trainable_weights, *layer.non_trainable_weights]


class _Matching:
    """Which stored array each variable gets."""

    def __init__(self, model: Any, path: str, order: Order):
        self.path = path
        self.order = order
        self.found: dict[int, tuple[Any, Weight]] = {}
        self.local = {id(layer.kernel): layer for layer in locally_connected(model)}

    def value(self, variable: Any, weight: Weight) -> np.ndarray:
        """Returns the values of a variable, a kernel of any implementation as ours."""
        value = np.asarray(weight.read())
        if id(variable) in self.local and tuple(variable.shape) != value.shape:
            value = kernel_by_position(value, self.local[id(variable)])
        return value

    def layers(self, model: Any, stored: Sequence[LayerWeights]) -> None:
        """Matches layers by name if all names agree, in their order otherwise."""
        layers = [layer for layer in self._order(model) if _weights(layer)]
        by_name = {one.name: one for one in stored}
        if {layer.name for layer in layers} == set(by_name):
            stored = [by_name[layer.name] for layer in layers]
        if len(stored) != len(layers):
            raise ValueError(
                f"{self.path!r} holds weights of {len(stored)} layers "
                f"({', '.join(one.name for one in stored)}), and the model {model.name!r} has "
                f"{len(layers)} with weights ({', '.join(layer.name for layer in layers)})."
            )
        for layer, one in zip(layers, stored, strict=True):
            self._in_order(layer, _weights(layer), one.weights)

    def _in_order(self, layer: Any, variables: Sequence[Any], weights: Sequence[Weight]) -> None:
        if len(variables) != len(weights):
            raise ValueError(
                f"{self.path!r} holds {len(weights)} weights for the layer {layer.name!r}, which "
                f"has {len(variables)}."
            )
        for variable, weight in zip(variables, weights, strict=True):
            self._match(layer, variable, weight)

    def _match(self, layer: Any, variable: Any, weight: Weight) -> None:
        allowed = {tuple(variable.shape)}
        if id(variable) in self.local:
            allowed = stored_shapes(self.local[id(variable)])
        if weight.shape not in allowed:
            raise ValueError(
                f"{self.path!r} holds an array of shape {weight.shape} for {variable.name!r} of "
                f"the layer {layer.name!r}, whose shape is {tuple(variable.shape)}."
            )
        self.found[id(variable)] = variable, weight

    def tree(self, owner: Any, stored: Mapping[str, Any]) -> None:
        """Matches what an object holds by the names of its attributes."""
        if isinstance(owner, keras.Model):
            self._model(owner, stored)
            return
        inner = {name: one for name, one in stored.items() if name != "vars"}
        parts = {name: self._part(owner, name) for name in inner}
        for name, one in inner.items():
            if isinstance(one, Weight):
                self._match(owner, parts[name], one)
            else:
                self.tree(parts[name], one)
        if "vars" in stored:
            theirs = {id(one) for part in parts.values() for one in _weights(part)}
            own = [one for one in _weights(owner) if id(one) not in theirs]
            self._in_order(owner, own, stored["vars"])

    def _model(self, model: Any, stored: Mapping[str, Any]) -> None:
        layers = self._order(model)
        archived = stored.get("layers", stored.get(TWICE))
        if archived is None:
            # Checkpoints number the layers.
            named = {f"layer-{number}": layer for number, layer in enumerate(layers)}
            inner = {name: one for name, one in stored.items() if re.fullmatch(r"layer-\d+", name)}
        else:
            # Archives name them by their classes.
            named, inner = {}, archived
            before: collections.Counter[str] = collections.Counter()
            for layer in layers:
                kind = _snake_case(type(layer).__name__)
                named[f"{kind}_{before[kind]}" if before[kind] else kind] = layer
                # Keras 2.12 counted layers with weights twice.
                before[kind] += 2 if TWICE in stored and _weights(layer) else 1
        for name, one in inner.items():
            if name not in named:
                raise ValueError(
                    f"{self.path!r} holds a layer {name!r}, which the model {model.name!r} has not."
                )
            self.tree(named[name], one)

    def _part(self, owner: Any, name: str) -> Any:
        """Returns what an object has under a name, which may have had an underscore."""
        if isinstance(owner, list | tuple) and name.isdigit() and int(name) < len(owner):
            return owner[int(name)]
        # Normalization's mean is adapt_mean, DepthwiseConv2D's depthwise_kernel is kernel.
        bare = name.removeprefix("_")
        for one in (f"adapt_{name}", name, bare, f"_{bare}", bare.removeprefix("depthwise_")):
            part = getattr(owner, one, None)
            if part is not None:
                return part
        called = getattr(owner, "name", type(owner).__name__)
        raise ValueError(
            f"{self.path!r} holds {name!r} of the layer {called!r}, which has nothing of that name "
            "in Keras 3."
        )

    def _order(self, model: Any) -> Sequence[Any]:
        return self.order.get(id(model), model.layers)


def _snake_case(name: str) -> str:
    """Returns a class's name as archives spell it: LocallyConnected2D as locally_connected2d."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
