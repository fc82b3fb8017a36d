"""Names and types of the values in an ONNX file."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np


def rename_values(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Renames a graph's inputs and outputs wherever it mentions them.

    Args:
        graph: An `onnx.GraphProto`.
        inputs: New names of its inputs, in their order.
        outputs: New names of its outputs; all names must be different.
    """
    old = [value.name for value in (*graph.input, *graph.output)]
    names = dict(zip(old, (*inputs, *outputs), strict=True))
    # What has one of the new names and is neither an input nor an output makes way.
    mentioned = {name for field in _mentions(graph) for name in _names(field)}
    names |= {name: f"{name}__inside" for name in {*names.values()} & mentioned - {*names}}
    _rename(list(_mentions(graph)), names)


def declare_input_types(graph: Any, dtypes: Sequence[str]) -> None:
    """Gives a graph's inputs their types, each cast to the one that it was written with.

    Keras holds some integers in larger ones on PyTorch, which has not all.

    Args:
        graph: An `onnx.GraphProto` whose inputs are named.
        dtypes: Types of its inputs, in their order.
    """
    from onnx import helper

    for value, dtype in zip(graph.input, dtypes, strict=True):
        declared = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        written = value.type.tensor_type.elem_type
        if written == declared:
            continue
        inside = f"{value.name}__cast"
        readers = [(owner, field) for owner, field in _mentions(graph) if field == "input"]
        _rename(readers, {value.name: inside})
        graph.node.insert(0, helper.make_node("Cast", [value.name], [inside], to=written))
        value.type.tensor_type.elem_type = declared


def _rename(mentions: Iterable[tuple[Any, str]], names: Mapping[str, str]) -> None:
    for owner, field in mentions:
        value = getattr(owner, field)
        if isinstance(value, str):
            setattr(owner, field, names.get(value, value))
        else:
            value[:] = [names.get(name, name) for name in value]


def _names(mention: tuple[Any, str]) -> list[str]:
    value = getattr(*mention)
    return [value] if isinstance(value, str) else list(value)


def _mentions(graph: Any) -> Iterator[tuple[Any, str]]:
    """Yields the objects, each with its field, that name a value: one name or several."""
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        yield value, "name"
    for node in graph.node:
        yield node, "input"
        yield node, "output"
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):  # of a loop or a condition
                yield from _mentions(inner)
