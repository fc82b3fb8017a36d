"""A model as a server sees it: named inputs and outputs with shapes and types."""

import dataclasses
import keyword
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

# Words that Python allows as no argument's name, which is what TensorFlow and LiteRT make of them.
RESERVED = {*keyword.kwlist, "self"}


@dataclasses.dataclass(frozen=True)
class Port:
    """An input or output.

    Args:
        name: Its name in requests and answers, in every format.
        model_name: Its name in the model.
        shape: Its shape, whose first axis is the batch, of any size.
        dtype: Its type; all floating types are served as float32.
    """

    name: str
    model_name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Served:
    """A model to export.

    Args:
        model: Built functional or `Sequential` model.
        inputs: The inputs, in the order of `model.inputs`.
        outputs: The outputs, in the order of `model.outputs`.
        warmup: Inputs by name, for the request that a server makes of itself while it starts.
        preprocess: Function of an encoded image, a scalar string tensor of TensorFlow, to the
            model's input; None if there is none.
        class_names: Name of each class, if the outputs are one number per class.
        representative: Inputs by name, to calibrate integers on; None if there are none.
    """

    model: Any
    inputs: Sequence[Port]
    outputs: Sequence[Port]
    warmup: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    preprocess: Callable[[Any], Any] | None = None
    class_names: Sequence[str] | None = None
    representative: dict[str, np.ndarray] | None = None

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Returns the model's outputs by name for inputs by name, at inference."""
        tensors = [inputs[port.name] for port in self.inputs]
        structure = input_structure(self.model)
        answer = self.model(keras.tree.pack_sequence_as(structure, tensors), training=False)
        names = [port.name for port in self.outputs]
        return dict(zip(names, keras.tree.flatten(answer), strict=True))


def ports(model: Any) -> tuple[list[Port], list[Port]]:
    """Returns a model's inputs and outputs, no two of which have the same name.

    The name of an entry of a dictionary is its key, after any outer keys, joined with `_`; any
    other is named after its `keras.Input` or the layer that returns it.

    Example:
        >>> image = keras.Input((8, 9, 2), name="my image")
        >>> flat = keras.layers.Flatten()(image)
        >>> inputs, outputs = ports(keras.Model(image, {"class": flat}))
        >>> inputs[0]
        Port(name='my_image', model_name='my image', shape=(None, 8, 9, 2), dtype='float32')
        >>> [port.name for port in outputs]
        ['class_']
    """
    taken: set[str] = set()
    inputs = _ports(input_structure(model), "input", taken)
    return inputs, _ports(output_structure(model), "output", taken)


def input_structure(model: Any) -> Any:
    """Returns a model's symbolic inputs as it takes them: one, or lists and dictionaries."""
    # Keras does not tell `input` of a Sequential model, as for any layer, before it is called.
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def output_structure(model: Any) -> Any:
    """Returns a model's symbolic outputs as it gives them."""
    if isinstance(model, keras.Sequential):
        return model.outputs[0] if len(model.outputs) == 1 else model.outputs
    return model.output


def _ports(structure: Any, kind: str, taken: set[str]) -> list[Port]:
    found = []
    for path, tensor in keras.tree.flatten_with_path(structure):
        keyed = bool(path) and isinstance(path[-1], str)
        model_name = "_".join(map(str, path)) if keyed else tensor._keras_history.operation.name
        name = _unused(valid_name(model_name, kind), taken)
        taken.add(name)
        shape = (None, *tensor.shape[1:])
        found.append(Port(name, model_name, shape, served_dtype(tensor.dtype)))
    return found


def valid_name(name: str, kind: str) -> str:
    """Returns the name if every format allows it, or else the nearest that all allow.

    Args:
        name: Any name.
        kind: Word to begin with if the name does not begin with a letter.

    Example:
        >>> [valid_name(name, "input") for name in ("image", "été:0", "class", "1st", "?")]
        ['image', 'ete_0', 'class_', 'input_1st', 'input']
    """
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    found = re.sub(r"\W+", "_", letters).strip("_")
    if not found:
        return kind
    if found[0].isdigit():
        return f"{kind}_{found}"
    return f"{found}_" if found in RESERVED else found


def _unused(name: str, taken: set[str]) -> str:
    """Returns the name, numbered if another input or output has it: ONNX has one set of names."""
    lower = {other.lower() for other in taken}
    found, count = name, 0
    while found.lower() in lower:
        count += 1
        found = f"{name}_{count}"
    return found


def served_dtype(dtype: str) -> str:
    """Returns the type in which values of a model's type are served."""
    return "float32" if keras.backend.is_float_dtype(dtype) else dtype
