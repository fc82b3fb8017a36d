"""Keras 2's description of a model, as a model of Keras 3."""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from low_rank_local_connectivity.legacy.layer_configs import REBUILD, Config, LayerConfig, plain

CONTAINERS = {"Sequential", "Functional", "Model"}
REFUSALS = (ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError)


def rebuild(
    config: Config, custom_objects: Mapping[str, Any], path: str
) -> tuple[Any, dict[int, list[Any]]]:
    """Returns the model of Keras 3 that Keras 2 described, with fresh weights.

    With it, by the identity of each model, its layers in the order of the description.

    Args:
        config: `{"class_name": ..., "config": ...}`.
        custom_objects: Layers and functions by the name they have in the file.
        path: Where it comes from, for errors.

    Raises:
        ValueError: If a layer or its wiring cannot be rebuilt.
    """
    if not isinstance(config, dict) or not {"class_name", "config"} <= set(config):
        raise ValueError(f"{path!r} is damaged: it does not describe a model.")
    if not _is_container(config):
        raise ValueError(
            f"The model in {path!r} is a {config['class_name']}, which says in Python what it "
            f"does, and no code from a file is run. {REBUILD}."
        )
    rebuilding = _Rebuilding(custom_objects, path)
    return rebuilding.container(config), rebuilding.order


def _is_container(described: Config) -> bool:
    config = described["config"]
    lists = isinstance(config, list) or (isinstance(config, dict) and "layers" in config)
    return described["class_name"] in CONTAINERS and lists


class _Rebuilding:
    """One model being rebuilt."""

    def __init__(self, custom_objects: Mapping[str, Any], path: str):
        self.custom_objects = custom_objects
        self.path = path
        self.order: dict[int, list[Any]] = {}

    def container(self, described: Config) -> Any:
        """Returns a model, or a model within one."""
        config = plain(described["config"])
        try:
            if described["class_name"] == "Sequential":
                return self._sequential(config)
            return self._functional(config)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self.path!r} is damaged: it does not say how the layers of a model are wired "
                f"({type(error).__name__}: {error})."
            ) from error

    def _layer(self, described: Config) -> Any:
        if _is_container(described):
            return self.container(described)
        config = LayerConfig(described, self.custom_objects, self.path)
        return self._apply(described, config.layer)

    def _apply(self, described: Config, function: Callable[..., Any], *args: Any, **kwargs: Any):
        """Calls a function of a layer; what it refuses is said with the layer's name."""
        try:
            return function(*args, **kwargs)
        except REFUSALS as error:
            if f"in {self.path!r} cannot be loaded" in str(error):
                raise
            layer = LayerConfig(described, self.custom_objects, self.path)
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
        model = keras.Sequential(name=config.get("name"))
        for one in described:
            self._apply(one, model.add, self._layer(one))
        if not model.built and config.get("build_input_shape") is not None:
            model.build(tuple(config["build_input_shape"]))
        if not model.built:
            raise ValueError(
                f"The model {model.name!r} in {self.path!r} was saved before it was built, so it "
                "has no weights to load."
            )
        return model

    def _functional(self, config: Config) -> Any:
        described = {one.get("name") or one["config"]["name"]: one for one in config["layers"]}
        graph = _Graph({name: self._layer(one) for name, one in described.items()})
        waiting = {name: list(one.get("inbound_nodes", [])) for name, one in described.items()}
        while any(waiting.values()):
            before = sum(map(len, waiting.values()))
            for name, nodes in waiting.items():
                while nodes and graph.is_ready(nodes[0]):
                    self._apply(described[name], graph.call, name, nodes.pop(0))
            if sum(map(len, waiting.values())) == before:
                raise KeyError(", ".join(name for name, nodes in waiting.items() if nodes))
        inputs, outputs = (graph.tensors(config[key]) for key in ("input_layers", "output_layers"))
        model = keras.Model(_alone(inputs), _alone(outputs), name=config.get("name"))
        if config.get("trainable") is False:
            model.trainable = False
        self.order[id(model)] = list(graph.layers.values())
        return model


class _Graph:
    """The layers of a functional model, and what each of their calls returned.

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

    def is_ready(self, node: Any) -> bool:
        """Whether all that a call refers to has been computed."""
        return all(
            name in self.layers and call < len(self.returned[name])
            for name, call in _references(node)
        )

    def call(self, name: str, node: Any) -> None:
        """Calls a layer as a node says."""
        first = node
        while isinstance(first, list | dict) and first and not _is_reference(first):
            first = next(iter(first.values())) if isinstance(first, dict) else first[0]
        kwargs = self.tensors(first[3]) if isinstance(first, list) and len(first) == 4 else {}
        inputs = _alone(self.tensors([node] if _is_reference(node) else node))
        self.returned[name].append(self.layers[name](inputs, **kwargs))

    def tensors(self, value: Any) -> Any:
        """Returns a nest of references with tensors in their place."""
        if _is_reference(value):
            outputs = self.returned[value[0]][value[1]]
            return (outputs if isinstance(outputs, list | tuple) else [outputs])[value[2]]
        if isinstance(value, dict):
            return {key: self.tensors(one) for key, one in value.items()}
        return [self.tensors(one) for one in value] if isinstance(value, list) else value


def _is_reference(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and all(type(one) is int for one in value[1:3])
    )


def _references(node: Any) -> list[tuple[str, int]]:
    """Returns all tensors that a call refers to, by layer and number of its call."""
    if _is_reference(node):
        return [(node[0], node[1]), *(_references(node[3]) if len(node) == 4 else [])]
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [one for part in parts for one in _references(part)]


def _alone(value: Any) -> Any:
    """Returns the only element of a list."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value
