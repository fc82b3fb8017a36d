"""Names of the values in an ONNX file."""

from collections.abc import Iterator, Sequence
from typing import Any


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
    for owner, field in list(_mentions(graph)):
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
