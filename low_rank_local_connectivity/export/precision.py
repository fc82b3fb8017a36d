"""Models of any precision as the float32 models that servers run."""

from typing import Any

import keras

from low_rank_local_connectivity.conversion.weights import copy_variables
from low_rank_local_connectivity.export.signatures import served_dtype
from low_rank_local_connectivity.inspection.graph import has_ends

# Names of the policies and types that are replaced.
OTHERS = ("float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16")
# Where configurations keep them.
KEYS = ("dtype", "source_name", "default_policy")


def policies(model: Any) -> list[str]:
    """Returns the names of the dtype policies of a model's layers, and of models within it."""
    inputs = keras.layers.InputLayer
    layers = [
        one for one in model._flatten_layers(include_self=False) if not isinstance(one, inputs)
    ]
    return sorted({layer.dtype_policy.name for layer in layers})


def in_float32(model: Any) -> Any:
    """Returns a copy of a model that computes in float32, or the model itself if it does.

    Args:
        model: Built functional or `Sequential` model.

    Example:
        >>> layers = [keras.Input((3,)), keras.layers.Dense(2, dtype="mixed_bfloat16")]
        >>> model = keras.Sequential(layers)
        >>> policies(model), policies(in_float32(model))
        (['mixed_bfloat16'], ['float32'])
    """
    if _is_float32(model):
        return model
    copies: dict[int, tuple[Any, Any]] = {}
    found = _copied(model, copies)
    for original, copy in copies.values():
        _copy_weights(original, copy)
    return found


def _copy_weights(original: Any, copy: Any) -> None:
    if any(getattr(layer, "lora_enabled", False) for layer in original._flatten_layers()):
        copy_variables(original, copy)
        return
    shapes = [[tuple(one.shape) for one in layer.variables] for layer in (original, copy)]
    if shapes[0] != shapes[1]:
        raise ValueError(_no_copy(original, "a layer made from it has other weights"))
    for one, other in zip(original.variables, copy.variables, strict=True):
        other.assign(keras.ops.cast(one, other.dtype))


def _no_copy(layer: Any, reason: str) -> str:
    return (
        "A model of another precision is served as its float32 copy, so each layer must be what "
        f"its get_config() says. Received: layer {layer.name!r} of dtype policy "
        f"{layer.dtype_policy.name!r}: {reason}. Train and save it in float32, or mend its "
        "get_config()."
    )


def _is_float32(model: Any) -> bool:
    layers = model._flatten_layers()
    types = {layer.compute_dtype for layer in layers} | {one.dtype for one in model.variables}
    types |= {tensor.dtype for tensor in model.inputs}
    return all(served_dtype(dtype) == dtype for dtype in types if dtype is not None)


def _copied(model: Any, copies: dict[int, tuple[Any, Any]]) -> Any:
    """Returns a model of copied layers, whose weights are yet to be copied."""

    def copied(layer: Any) -> Any:
        if not isinstance(layer, keras.Layer):
            return _copied_operation(layer)
        if id(layer) not in copies:
            copies[id(layer)] = layer, _copied_layer(layer, copies)
        return copies[id(layer)][1]

    if isinstance(model, keras.Sequential):
        layers = [copied(layer) for layer in model.layers]
        return keras.Sequential([_float32_input(model.inputs[0]), *layers], name=model.name)
    inputs = keras.tree.map_structure(_float32_input, model.input)
    return keras.models.clone_model(model, inputs, clone_function=copied)


def _copied_layer(layer: Any, copies: dict[int, tuple[Any, Any]]) -> Any:
    if has_ends(layer):
        return _copied(layer, copies)
    try:
        return type(layer).from_config(_float32_config(layer.get_config()))
    except (NotImplementedError, TypeError, ValueError) as error:
        # Keras puts the layer's own words last.
        reason = str(error).rpartition("Exception encountered: ")[2].partition("\n")[0]
        raise ValueError(_no_copy(layer, reason.rstrip("."))) from error


def _copied_operation(operation: Any) -> Any:
    """Returns an operation of `keras.ops`, a new one if it casts to a type that is replaced."""
    if getattr(operation, "dtype", None) not in OTHERS:
        return operation
    return type(operation).from_config({**operation.get_config(), "dtype": "float32"})


def _float32_input(tensor: Any) -> Any:
    name = tensor._keras_history.operation.name
    return keras.Input(batch_shape=tensor.shape, dtype=served_dtype(tensor.dtype), name=name)


def _float32_config(config: Any) -> Any:
    """Returns a configuration with every floating type replaced, at any depth."""
    if isinstance(config, dict):
        # A policy's own configuration has nothing but its name.
        keys = KEYS if len(config) > 1 else (*KEYS, "name")
        replaced = {
            key for key in keys if isinstance(config.get(key), str) and config[key] in OTHERS
        }
        return {
            key: "float32" if key in replaced else _float32_config(value)
            for key, value in config.items()
        }
    if isinstance(config, (list, tuple)):
        return type(config)(_float32_config(value) for value in config)
    return config
