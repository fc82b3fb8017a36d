"""The graph of a functional or Sequential model: the calls of its layers and what each reads."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from low_rank_local_connectivity.ops.arguments import received


def require_model(function: str, model: Any) -> None:
    """Refuses what is no Keras model."""
    if isinstance(model, type) or not isinstance(model, keras.Model):
        raise ValueError(f"{function}() takes a Keras model. Received: {received('model', model)}.")


def has_graph(model: Any) -> bool:
    """Whether it is a model whose layers, and what it does with them, can be known."""
    # A subclass of a functional model may apply its layers in another way.
    return has_ends(model) and type(model).call.__module__.partition(".")[0] == "keras"


def has_ends(model: Any) -> bool:
    """Whether it is a model with symbolic inputs and outputs."""
    functional = isinstance(model, keras.Model) and hasattr(model, "operations")
    return functional or isinstance(model, keras.Sequential)


def require_graph(function: str, model: Any, opened: bool = True) -> None:
    """Refuses a model without a graph from inputs to outputs, or which has not got it yet.

    Args:
        function: Name of the function that asks, for its error.
        model: What should be a model.
        opened: Whether the function looks into the model, rather than at its two ends: what it
            does with its layers must then be known too.
    """
    if not isinstance(model, keras.Layer):
        require_model(function, model)
    if not (has_graph(model) if opened else has_ends(model)):
        raise ValueError(
            f"{function}() takes functional and Sequential models, whose layers it can see. "
            f"Received: {type(model).__name__}, which says in Python what it does. Make it "
            "functional: keras.Model(inputs, outputs)."
        )
    if not model.built:
        raise ValueError(not_built(function, model))


def opened_layers(model: keras.Model) -> Iterator[Any]:
    """Yields the layers of a model and of the models among them, in order."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from opened_layers(layer)
        else:
            yield layer


def not_built(function: str, layer: Any) -> str:
    """Returns the sentence for a layer or model without weights."""
    return (
        f"What {function}() is given must be built. Received: {layer.name!r}, which is not. Call "
        "it on inputs first, or its build(input_shape)."
    )


def calls_between(inputs: Sequence[Any], outputs: Sequence[Any]) -> list[Any]:
    """Returns the calls that compute symbolic outputs from symbolic inputs, in their order.

    Each is one of Keras's nodes: `operation`, `input_tensors` and `output_tensors`; a layer that
    is called twice has two. Models within the model are single calls.

    Args:
        inputs: Where the graph begins, such as `model.inputs`.
        outputs: Where it ends, such as `model.outputs`.

    Example:
        >>> model = keras.Sequential([keras.Input((8, 9, 2)), keras.layers.Flatten(name="flat")])
        >>> [call.operation.name for call in calls_between(model.inputs, model.outputs)]
        ['flat']
    """
    given = {id(tensor) for tensor in inputs}
    found, seen = [], set()
    # Not recursive: a deep network has more calls than Python allows frames.
    waiting = [(call, False) for call in _makers(outputs, given)]
    while waiting:
        call, complete = waiting.pop()
        if complete:
            found.append(call)
        elif id(call) not in seen:
            seen.add(id(call))
            waiting.append((call, True))
            waiting.extend((maker, False) for maker in _makers(call.input_tensors, given))
    return found


def _makers(tensors: Sequence[Any], given: set[int]) -> list[Any]:
    """Returns the calls that made tensors, the first last, except for tensors that are given."""
    histories = [tensor._keras_history for tensor in reversed(tensors) if id(tensor) not in given]
    return [history.operation._inbound_nodes[history.node_index] for history in histories]


def find_call(function: str, model: Any, name: str) -> Any:
    """Returns the only call of a layer within a model.

    Args:
        function: Name of the function that asks, for its error.
        model: Built functional or Sequential model.
        name: The layer's name.

    Raises:
        ValueError: If the model has no such layer, or calls it more than once.
    """
    calls = calls_between(model.inputs, model.outputs)
    found = [call for call in calls if call.operation.name == name]
    if not found:
        names = ", ".join(repr(call.operation.name) for call in calls)
        raise ValueError(
            f"{function}() finds no layer {name!r} between the inputs and outputs of model "
            f"{model.name!r}. Received: a model with the layers {names}. A layer of a model within "
            "it is named 'model/layer'."
        )
    if len(found) > 1:
        raise ValueError(
            f"Layer {name!r} has one output for each of its calls, so {function}() cannot tell "
            f"which is meant. Received: model {model.name!r}, which calls it {len(found)} times."
        )
    return found[0]


def submodel(function: str, model: Any, path: str) -> Any:
    """Returns a function from a model's inputs to the output of one of its layers.

    Args:
        function: Name of the function that asks, for its error.
        model: Built functional or Sequential model.
        path: The layer's name; `"block/conv"` for the layer `conv` of the model `block` within it.

    Returns:
        Function of the inputs, in inference.

    Raises:
        ValueError: If there is no such layer, or it is called more than once.

    Example:
        >>> block = keras.Sequential([keras.layers.ReLU(name="relu")], name="block")
        >>> model = keras.Sequential([keras.Input((2,)), block])
        >>> submodel("example", model, "block/relu")(keras.ops.ones((1, 2))).shape[1]
        2
    """
    require_graph(function, model)
    name, _, rest = path.partition("/")
    call = find_call(function, model, name)
    if not rest:
        upto: Any = keras.Model(_one_or_all(model.inputs), call.output_tensors[0])
        return lambda inputs: upto(inputs, training=False)
    inner = submodel(function, call.operation, rest)
    before: Any = keras.Model(_one_or_all(model.inputs), _one_or_all(call.input_tensors))
    return lambda inputs: inner(before(inputs, training=False))


def _one_or_all(tensors: Sequence[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else list(tensors)
