"""Inputs that exports are verified on."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity.export.signatures import Port, input_structure
from low_rank_local_connectivity.inspection.graph import calls_between, has_ends

# Examples for verifying an export if no sample is given, and the sizes of batches cut from them.
SAMPLES = 7
# Values of integers that no layer limits: those of an image's pixels.
PIXELS = 256


def sample_inputs(model: Any, inputs: Sequence[Port], sample: Any) -> list[np.ndarray]:
    """Returns inputs to verify on, in the order of `model.inputs`.

    Args:
        model: The model.
        inputs: Its inputs.
        sample: What the user gave, arranged as the model's inputs are; None for random values:
            floats in [-1, 1], integers that the layers behind the input have an entry for.
    """
    if sample is None:
        return _random(model, inputs)
    return given_inputs(model, inputs, sample, "sample")


def given_inputs(model: Any, inputs: Sequence[Port], given: Any, argument: str) -> list[np.ndarray]:
    """Returns the arrays in an argument, each of its input's shape and type.

    Raises:
        ValueError: If they are arranged differently, or differ in shape, type or number.
    """
    leaves = _leaves(model, given)
    if leaves is None:
        structure = keras.tree.pack_sequence_as(
            input_structure(model), [port.model_name for port in inputs]
        )
        raise ValueError(
            f"`{argument}` must be arranged as the model's inputs are: {structure!r}. Received: "
            f"{type(given).__name__} arranged otherwise."
        )
    arrays = [_as_input(leaf, port, argument) for leaf, port in zip(leaves, inputs, strict=True)]
    counts = [len(array) for array in arrays]
    if len(set(counts)) > 1:
        raise ValueError(
            f"`{argument}` must have as many examples for one input as for the others. Received: "
            f"{', '.join(map(str, counts))} examples."
        )
    return arrays


def _leaves(model: Any, given: Any) -> list[Any] | None:
    """Returns the value for each input; None if they are arranged differently."""
    if len(model.inputs) == 1 and not isinstance(given, (dict, list, tuple)):
        return [given]
    if not keras.tree.is_nested(input_structure(model)):
        return None if isinstance(given, dict) else [given]
    names = [tensor._keras_history.operation.name for tensor in model.inputs]
    if isinstance(given, dict) and set(given) == set(names):
        return [given[name] for name in names]
    found: list[Any] = []
    try:
        keras.tree.map_structure_up_to(input_structure(model), found.append, given)
    except (TypeError, ValueError):
        return None
    return found


def _as_input(value: Any, port: Port, argument: str) -> np.ndarray:
    array = np.asarray(value if isinstance(value, list) else keras.ops.convert_to_numpy(value))
    shape = port.shape[1:]
    fits = array.ndim == len(shape) + 1 and len(array) > 0
    if not fits or any(a not in (None, b) for a, b in zip(shape, array.shape[1:], strict=True)):
        raise ValueError(
            f"`{argument}` must be inputs of the model, of shape {(None, *shape)}. Received: shape "
            f"{array.shape}."
        )
    with np.errstate(invalid="ignore"):
        found = array.astype(port.dtype)
    if port.dtype != "float32" and not np.array_equal(found, array):
        raise ValueError(
            f"`{argument}` must hold values of the type of input {port.model_name!r}, "
            f"{port.dtype}. Received: {array.dtype} from {array.min()} to {array.max()}."
        )
    return found


def _random(model: Any, inputs: Sequence[Port]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    found = []
    for port, tensor in zip(inputs, model.inputs, strict=True):
        shape = tuple(size for size in port.shape[1:] if size is not None)
        if len(shape) < len(port.shape) - 1:
            raise ValueError(
                "A model for inputs of any size needs a `sample` to be verified on. Received: "
                f"sample=None for inputs of shape {port.shape}. Give a few inputs."
            )
        if port.dtype == "float32":
            values: np.ndarray = rng.uniform(-1, 1, (SAMPLES, *shape))
        else:
            values = rng.integers(0, _first_too_large(model, tensor, port), (SAMPLES, *shape))
        found.append(values.astype(port.dtype))
    return found


def _first_too_large(model: Any, tensor: Any, port: Port) -> int:
    """Returns the end of the range of integers that an input can take."""
    if port.dtype == "bool":
        return 2
    return min([np.iinfo(port.dtype).max + 1, *(_limits(model, tensor) or [PIXELS])])


def _limits(model: Any, tensor: Any) -> list[int]:
    """Returns the number of entries of the layers that look up an input's integers."""
    reached, found = {id(tensor)}, []
    for node in calls_between(model.inputs, model.outputs):
        read = [place for place, one in enumerate(node.input_tensors) if id(one) in reached]
        if not read:
            continue
        limits = _limits_within(node.operation, read)
        found += limits
        if not limits:  # a reshape, perhaps: the indices go on
            integers = [one for one in node.output_tensors if not _is_float(one)]
            reached |= {id(one) for one in integers}
    return found


def _limits_within(operation: Any, read: Sequence[int]) -> list[int]:
    if has_ends(operation):
        inner = [operation.inputs[place] for place in read]
        return [limit for tensor in inner for limit in _limits(operation, tensor)]
    if not isinstance(operation, keras.Layer):
        return []
    layers = operation._flatten_layers()
    return [
        layer.input_dim if isinstance(layer, keras.layers.Embedding) else layer.num_tokens
        for layer in layers
        if isinstance(layer, (keras.layers.Embedding, keras.layers.CategoryEncoding))
    ]


def _is_float(tensor: Any) -> bool:
    return keras.backend.is_float_dtype(tensor.dtype)
