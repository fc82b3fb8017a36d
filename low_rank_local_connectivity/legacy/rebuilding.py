"""Rebuilding a model in Keras 3 from Keras 2's description."""

import collections
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from low_rank_local_connectivity.legacy.layer_configs import (
    CALLS,
    REBUILD,
    REFUSED,
    Config,
    Context,
    LayerConfig,
    is_container,
    plain,
)
from low_rank_local_connectivity.legacy.names import Names
from low_rank_local_connectivity.legacy.operators import constant, operator
from low_rank_local_connectivity.legacy.stored import Description

# In a call, marks a constant: it takes the place of a layer's name, before -1 and the value.
CONSTANT = "_CONSTANT_VALUE"
RECURRENT = (keras.layers.RNN, keras.layers.Bidirectional)


def rebuild(
    config: Config, custom_objects: Mapping[str, Any], path: str
) -> tuple[Any, Description]:
    """Returns the model that Keras 2 described, with new weights, and what is known of its layers.

    Args:
        config: `{"class_name": ..., "config": ...}`.
        custom_objects: Layers and functions by the name they have in the file.
        path: Where it comes from, for errors.

    Raises:
        ValueError: If a layer or its wiring cannot be rebuilt.
    """
    if not isinstance(config, dict) or not {"class_name", "config"} <= set(config):
        raise ValueError(f"{path!r} is damaged: it does not describe a model.")
    if not is_container(config):
        raise ValueError(
            f"The model in {path!r} is a {config['class_name']}, which says in Python what it "
            f"does, and no code from a file is run. {REBUILD}."
        )
    names = Names(config)
    rebuilding = _Rebuilding(custom_objects, path, names)
    model = rebuilding.container(config)
    if names.changed:
        warnings.warn(names.sentence(path), stacklevel=3)
    return model, rebuilding.described


def _freeze_alone(model: Any) -> None:
    """Freezes a model's weights; its layers keep saying of themselves what the file says.

    In Keras 2 a frozen model trains none of its layers' weights whatever they say, and a batch
    normalisation goes by what it says itself. In Keras 3 weights go by what they say themselves.
    """
    before = [(layer, layer.trainable) for layer in model._flatten_layers(include_self=False)]
    model.trainable = False
    for layer, trainable in before:
        layer._trainable = trainable  # the property would thaw its weights


def _require_built(model: Any, path: str) -> Any:
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} in {path!r} was saved before it was built, so it has no "
            "weights to load."
        )
    return model


class _Rebuilding:
    """One model being rebuilt."""

    def __init__(self, custom_objects: Mapping[str, Any], path: str, names: Names):
        self.path = path
        self.names = names
        self.context = Context(custom_objects, path, self._wrapped, names.new)
        self.described = Description()

    def container(self, described: Config) -> Any:
        """Returns a model, or a model within one."""
        config = plain(described["config"])
        try:
            return self._container(described["class_name"], config)
        except ValueError:
            raise
        except Exception as error:
            raise ValueError(
                f"{self.path!r} is damaged: it does not say how the layers of a model are wired "
                f"({type(error).__name__}: {error})."
            ) from error

    def _container(self, class_name: str, config: Any) -> Any:
        if class_name == "Sequential":
            return _require_built(self._sequential(config), self.path)
        return self._functional(config)

    def _wrapped(self, described: Config) -> Any:
        """Returns a model within a wrapper, which builds it if it is not."""
        config = plain(described["config"])
        if described["class_name"] == "Sequential":
            return self._sequential(config)
        return self._functional(config)

    def _layer(self, described: Config) -> Any:
        if is_container(described):
            return self.container(described)
        config = LayerConfig(described, self.context)
        if described["class_name"] in CALLS:
            return self._operator(config)
        layer = self._apply(described, config.layer)
        self.described.kinds[id(layer)] = described["class_name"].rpartition(">")[2]
        return layer

    def _operator(self, layer: LayerConfig) -> Callable[..., Any]:
        config = layer.described["config"]
        known = operator(self.names.new(config["name"]), config.get("function", ""))
        if known is None:
            raise layer.refusal(REFUSED[layer.described["class_name"]])
        return known

    def _apply(self, described: Config, function: Callable[..., Any], *args: Any, **kwargs: Any):
        """Calls a function of a layer; errors are raised again with the layer's name."""
        try:
            return function(*args, **kwargs)
        except Exception as error:  # Keras and its backends raise errors of many kinds
            if isinstance(error, ValueError) and repr(self.path) in str(error):
                raise
            layer = LayerConfig(described, self.context)
            raise layer.refusal(str(error)) from error

    def _sequential(self, config: Any) -> Any:
        # Before version 2.3 a Sequential model was the list of its layers.
        config = config if isinstance(config, dict) else {"layers": config}
        described = list(config["layers"])
        if described and described[0]["class_name"] != "InputLayer":
            shape = described[0]["config"].get("batch_input_shape")
            if shape is not None:
                inputs = {"class_name": "InputLayer", "config": {"batch_input_shape": shape}}
                described.insert(0, inputs)
        layers = [self._layer(one) for one in described]
        try:
            # At once: each layer that is added to a model has all of it built anew.
            model = keras.Sequential(layers, name=self._name(config))
        except Exception as error:
            if repr(self.path) not in str(error):
                self._blame(described, layers)
            raise
        if not model.built and config.get("build_input_shape") is not None:
            model.build(tuple(config["build_input_shape"]))
        return model

    def _blame(self, described: Sequence[Config], layers: Sequence[Any]) -> None:
        """Raises an error with the name of the first layer that cannot follow those before it."""
        x = None
        for one, layer in zip(described, layers, strict=True):
            if isinstance(layer, keras.layers.InputLayer):
                x = layer.output
            elif x is not None:
                x = self._apply(one, layer, x)

    def _name(self, config: Config) -> str | None:
        return self.names.new(config["name"]) if config.get("name") else None

    def _functional(self, config: Config) -> Any:
        described = {one.get("name") or one["config"]["name"]: one for one in config["layers"]}
        graph = _Graph({name: self._layer(one) for name, one in described.items()})
        self._call_all(graph, described)
        inputs, outputs = (graph.tensors(config[key]) for key in ("input_layers", "output_layers"))
        model = keras.Model(_alone(inputs), _alone(outputs), name=self._name(config))
        if config.get("trainable") is False:
            _freeze_alone(model)
        layers = [one for one in graph.layers.values() if isinstance(one, keras.layers.Layer)]
        self.described.order[id(model)] = layers
        return model

    def _call_all(self, graph: "_Graph", described: Mapping[str, Config]) -> None:
        """Calls layers as often as they are described to be, each when its inputs are there."""
        nodes = {name: list(one.get("inbound_nodes", []))[::-1] for name, one in described.items()}
        waiting: dict[str, list[str]] = collections.defaultdict(list)
        names = collections.deque(nodes)
        while names:
            name = names.popleft()
            while nodes[name] and (missing := graph.missing(nodes[name][-1])) is None:
                self._apply(described[name], graph.call, name, nodes[name].pop())
                names.extend(waiting.pop(name, ()))
            if nodes[name]:
                waiting[missing].append(name)
        if any(nodes.values()):
            raise KeyError(", ".join(name for name, left in nodes.items() if left))


class _Graph:
    """The layers of a functional model, and the results of each of their calls.

    A description refers to a tensor as `[layer's name, number of its call, number of the output]`;
    as an argument of a call it is followed by the call's arguments by keyword.
    """

    def __init__(self, layers: Mapping[str, Any]):
        self.layers = layers
        self.returned: dict[str, list[Any]] = {name: [] for name in layers}
        for name, layer in layers.items():
            if isinstance(layer, keras.layers.InputLayer):
                self.returned[name].append(layer.output)
            elif isinstance(layer, keras.Model):
                self.returned[name].append(None)  # Keras 2 counts a model's making as a call.

    def missing(self, node: Any) -> str | None:
        """Returns a layer whose result a call refers to before it is computed; None if none."""
        for name, call in _references(node):
            if name not in self.layers or call >= len(self.returned[name]):
                return name
        return None

    def call(self, name: str, node: Any) -> None:
        """Calls a layer as a node says."""
        first = node
        while isinstance(first, list | dict) and first and not _is_reference(first):
            first = next(iter(first.values())) if isinstance(first, dict) else first[0]
        kwargs = self.tensors(first[3]) if isinstance(first, list) and len(first) == 4 else {}
        inputs = _alone(self.tensors([node] if _is_reference(node) else node))
        layer = self.layers[name]
        if isinstance(layer, RECURRENT) and isinstance(inputs, list):
            # Keras 2 wrote the states into the list of inputs, with a note that there are no
            # constants.
            inputs, *states = inputs
            kwargs = {key: one for key, one in kwargs.items() if one is not None}
            kwargs["initial_state"] = states if len(states) > 1 else states[0]
        _require_symbolic(inputs, kwargs)
        self.returned[name].append(layer(inputs, **kwargs))

    def tensors(self, value: Any) -> Any:
        """Returns a nested structure of references with tensors in their place."""
        if _is_constant(value):
            return constant(value[2])
        if _is_reference(value):
            outputs = self.returned[value[0]][value[1]]
            return (outputs if isinstance(outputs, list | tuple) else [outputs])[value[2]]
        if isinstance(value, dict):
            return {key: self.tensors(one) for key, one in value.items()}
        return [self.tensors(one) for one in value] if isinstance(value, list) else value


def _require_symbolic(*arguments: Any) -> None:
    """Refuses to compute anything: a model is described by what it would compute."""
    if not any(isinstance(one, keras.KerasTensor) for one in keras.tree.flatten(arguments)):
        raise ValueError("it is called on numbers alone, not on the result of a layer")


def _is_constant(value: Any) -> bool:
    return isinstance(value, list) and len(value) in (3, 4) and value[:2] == [CONSTANT, -1]


def _is_reference(value: Any) -> bool:
    return _is_constant(value) or (
        isinstance(value, list)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and all(type(one) is int for one in value[1:3])
    )


def _references(node: Any) -> list[tuple[str, int]]:
    """Returns all tensors that a call refers to, by layer and number of its call."""
    if _is_reference(node):
        itself = [] if _is_constant(node) else [(node[0], node[1])]
        return itself + (_references(node[3]) if len(node) == 4 else [])
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [one for part in parts for one in _references(part)]


def _alone(value: Any) -> Any:
    """Returns the only element of a list."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value
