"""Arguments of layers: which they are, and how a configuration holds them."""

import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras import activations, constraints, initializers, regularizers

from low_rank_local_connectivity.ops.arguments import boolean, received


def arguments_of(constructor: Callable) -> tuple[str, ...]:
    """Returns the names of a layer's own arguments, in their order, from its constructor.

    Example:
        >>> def __init__(self, filters, *, activation=None, **kwargs): ...
        >>> arguments_of(__init__)
        ('filters', 'activation')
    """
    _, *parameters = inspect.signature(constructor).parameters.values()
    return tuple(one.name for one in parameters if one.kind is not one.VAR_KEYWORD)


def serialize_argument(name: str, value: Any) -> Any:
    """Returns an argument as JSON can hold it, by the kind of object its name announces."""
    if name == "activation":
        return activations.serialize(value)
    if name.endswith("_regularizer"):
        return regularizers.serialize(value)
    if name.endswith("_constraint"):
        return constraints.serialize(value)
    if name.endswith("_initializer") and not isinstance(value, str):
        return initializers.serialize(value)
    if isinstance(value, list):
        return [serialize_argument("", item) for item in value]
    return value


def initializer_of(name: str, value: Any) -> Any:
    """Returns the initializer that an argument names; for None the one that Keras's layers take."""
    found = initializers.get("glorot_uniform" if value is None else value)
    if not callable(found):
        raise ValueError(
            f"`{name}` must be an initializer: its name, its configuration, or a function of a "
            f"shape and a dtype. Received: {received(name, value)}."
        )
    return found


def keras_argument(name: str, value: Any) -> Any:
    """Returns an argument that Keras's layers have too, by the kind that its name announces.

    The opposite of `serialize_argument`.

    Raises:
        ValueError: If it is of another kind.

    Example:
        >>> keras_argument("kernel_regularizer", "l2").get_config()
        {'l2': 0.01}
    """
    if name == "activation":
        return activations.get(value)
    if name.endswith("_regularizer"):
        return regularizers.get(value)
    if name.endswith("_constraint"):
        return constraints.get(value)
    if name.endswith("_initializer"):
        return initializer_of(name, value)
    return boolean(name, value)


def layer_of(name: str, value: Any, what: str) -> keras.Layer:
    """Returns a layer or model, from its serialized configuration too."""
    if isinstance(value, dict):
        try:
            value = keras.saving.deserialize_keras_object(value)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"`{name}` must be {what}, or its serialized configuration. Received: "
                f"{received(name, value)}."
            ) from error
    if not isinstance(value, keras.Layer):
        raise ValueError(f"`{name}` must be {what}. Received: {received(name, value)}.")
    return value
