"""What a position of a layer's output reads of the model's input, by arithmetic."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
from keras import layers

from low_rank_local_connectivity.inspection.graph import calls_between, find_call, require_graph
from low_rank_local_connectivity.inspection.window_rules import (
    Rule,
    Spans,
    branches_through,
    reads_as,
)
from low_rank_local_connectivity.ops.arguments import mapping, received, text


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """What one position of a layer's output reads of the model's input.

    Along each spatial axis, output position `p` reads the input's elements from
    `start + stride * p` to `start + stride * p + size - 1`; near the border fewer, since those
    before 0 and beyond the end are padding, of the input or of a layer between.

    Args:
        layer: The layer's name, `"block/conv"` if it is `conv` of the model `block`.
        sizes: Elements read along each axis; None for the whole axis.
        strides: Input elements between neighbouring positions; None if they are not evenly spaced
            over the input any more, as behind a global pooling.
        starts: First element that position 0 reads; None with `sizes`.
    """

    layer: str
    sizes: tuple[int | None, ...]
    strides: tuple[int | None, ...]
    starts: tuple[int | None, ...]


class _Axis(NamedTuple):
    """The field along one axis: whole numbers or None."""

    size: Any = 1
    stride: Any = 1
    start: Any = 0

    def through(self, extent: int, stride: int, before: int) -> "_Axis":
        """Returns the field of windows over what has this field."""
        if self.stride is None:
            return self
        if self.size is None:
            return self._replace(stride=self.stride * stride)
        return _Axis(
            self.size + (extent - 1) * self.stride,
            self.stride * stride,
            self.start - before * self.stride,
        )


# Every position reads everything, and is nowhere.
SCATTERED = _Axis(None, None, None)
Field = tuple[_Axis, ...]


def receptive_field(
    model: keras.Model,
    output: str | None = None,
    rules: Mapping[type, Rule] | None = None,
) -> tuple[ReceptiveField, ...]:
    """Returns what every layer's positions read of a model's input, layer by layer.

    A window of extent `e = dilation * (taps - 1) + 1`, stride `s` and `p` elements of padding in
    front, over a layer whose positions read `size` elements from `start` on, every `stride`:

    `size' = size + (e - 1) * stride`, `stride' = s * stride`, `start' = start - p * stride`.

    Where branches meet, by addition or side by side, the field is the shortest interval that
    holds those of all branches. Behind `Flatten`, global pooling and what else mixes all positions,
    it is the whole input: None. Layers count as they work in inference.

    Args:
        model: Built functional or Sequential model with one input `(batch, *spatial, channels)`,
            or `(batch, channels, *spatial)`, of 1 to 3 spatial axes. It may hold convolutions,
            poolings, paddings, croppings, element-wise layers, normalisations, layers with an
            attribute `windows` (an `ops.Windows`, or None if they mix all positions), models of
            these, and anything behind a layer that mixes all positions. Of transposed convolutions
            it may hold those of stride 1: with others some positions read more than others, which
            three numbers for each axis cannot say. Every layer of this
            library has it; a scale space, whose levels are read at different distances, counts
            as mixed.
        output: Name of the last layer of interest, `"block/conv"` if it is in a model within the
            model; the model's output if None.
        rules: For further classes of layers, a function of the layer that returns its
            `ops.Windows`, or None if it mixes all positions. An element-wise layer has windows of
            size 1. They come before the rules for layers that are known.

    Returns:
        One row for each call of a layer on the way to the output, whose row is the last. Layers of
        a model within the model come before the row of that model.

    Raises:
        ValueError: If a layer on the way is of a kind that is not known, or the padding depends
            on a size that is unknown.

    Example:
        >>> model = keras.Sequential([
        ...     keras.Input((32, 32, 3)),
        ...     keras.layers.Conv2D(8, 5, padding="same", name="conv"),
        ...     keras.layers.MaxPooling2D(2, name="pool"),
        ...     keras.layers.Conv2D(8, 3, name="last"),
        ... ])
        >>> for row in receptive_field(model):
        ...     print(row.layer, row.sizes, row.strides, row.starts)
        conv (5, 5) (1, 1) (-2, -2)
        pool (6, 6) (2, 2) (-2, -2)
        last (10, 10) (2, 2) (-2, -2)
    """
    require_graph("receptive_field", model)
    output = None if output is None else text("output", output)
    rules = {} if rules is None else _checked_rules(rules)
    if len(model.inputs) != 1 or (output is None and len(model.outputs) != 1):
        raise ValueError(
            "receptive_field() follows one input to one output. Received: model "
            f"{model.name!r} with {len(model.inputs)} inputs and {len(model.outputs)} outputs. "
            "Name a layer as `output`, or take a model of one input."
        )
    dimensions = len(model.inputs[0].shape) - 2
    if not 1 <= dimensions <= 3:
        raise ValueError(
            "receptive_field() needs a model whose input has 1 to 3 spatial axes. Received: "
            f"model {model.name!r} with an input of shape {model.inputs[0].shape}."
        )
    walk = _Walk(rules, _data_format_of(model), dimensions)
    walk.through(model, [(_Axis(),) * dimensions], output or "", "")
    return tuple(walk.rows)


def _checked_rules(rules: Any) -> Mapping[type, Rule]:
    for kind, rule in mapping("rules", rules, "classes of layers to functions").items():
        if not isinstance(kind, type) or not callable(rule):
            raise ValueError(
                "`rules` must be a dictionary of classes of layers to functions of such a layer. "
                f"Received: {received('rules', rules)}."
            )
    return rules


def _data_format_of(model: Any) -> str:
    """Returns the data format of the first layer that has one."""
    for layer in model._flatten_layers(include_self=False):
        if getattr(layer, "data_format", None) is not None:
            return layer.data_format
    return keras.config.image_data_format()


class _Walk:
    """The rows so far, of a model and those within it."""

    def __init__(self, rules: Mapping[type, Rule], data_format: str, dimensions: int) -> None:
        self.rules = rules
        self.dimensions = dimensions
        self.data_format = data_format
        self.rows: list[ReceptiveField] = []

    def through(self, model: Any, inputs: list[Field], output: str, prefix: str) -> list[Field]:
        """Follows a model's calls, up to one of its layers if `output` names it."""
        require_graph("receptive_field", model)
        name, _, rest = output.partition("/")
        last = find_call("receptive_field", model, name) if name else None
        ends = last.output_tensors if last else model.outputs
        fields = {id(tensor): field for tensor, field in zip(model.inputs, inputs, strict=True)}
        for call in calls_between(model.inputs, ends):
            read = [fields[id(tensor)] for tensor in call.input_tensors]
            path, layer = prefix + call.operation.name, reads_as(call.operation)
            if isinstance(layer, keras.Model):
                inside = rest if call is last else ""
                found = self.through(layer, read, inside, path + "/")
                if inside:
                    break
            else:
                found = [self.of_call(layer, call, read)] * len(call.output_tensors)
            for tensor, field in zip(call.output_tensors, found, strict=True):
                fields[id(tensor)] = field
            if not isinstance(call.operation, layers.InputLayer):
                self.rows.append(ReceptiveField(path, *zip(*found[0], strict=True)))
        return [fields.get(id(tensor), ()) for tensor in model.outputs]

    def of_call(self, layer: Any, call: Any, read: list[Field]) -> Field:
        """Returns the field of what a call of a layer or operation returns."""
        shapes = [self.sizes(tensor) for tensor in call.input_tensors]
        if all(axis == SCATTERED for field in read for axis in field):
            return read[0]
        field = _union(layer, read, shapes)
        branches = branches_through(layer, shapes[0], self.data_format, self.rules)
        return _union(layer, [_through(field, spans) for spans in branches])

    def sizes(self, tensor: Any) -> tuple[int | None, ...]:
        """Returns the spatial part of a tensor's shape, without orientations if it has them."""
        last = self.data_format == "channels_last"
        sizes = tuple(tensor.shape[1:-1] if last else tensor.shape[2:])
        extra = max(len(sizes) - self.dimensions, 0)
        return sizes[: len(sizes) - extra] if last else sizes[extra:]


def _through(field: Field, spans: Spans | None) -> Field:
    """Returns the field of windows over what has this field; of all positions if None."""
    if spans is None:
        return (SCATTERED,) * len(field)
    return tuple(axis.through(*span) for axis, span in zip(field, spans, strict=True))


def _union(layer: Any, fields: Sequence[Field], shapes: Sequence[tuple] = ()) -> Field:
    """Returns the shortest intervals that hold all fields."""
    found = []
    for axis, along in enumerate(zip(*fields, strict=True)):
        lengths = [shape[axis] for shape in shapes if len(shape) > axis]
        stretched = 1 in lengths and set(lengths) != {1}
        one = [
            SCATTERED if stretched and lengths[index] == 1 else field
            for index, field in enumerate(along)
        ]
        strides = {field.stride for field in one} - {None}
        if len(strides) > 1:
            raise ValueError(
                f"Layer {layer.name!r} joins branches whose positions are not equally far apart. "
                f"Received: strides {sorted(strides)} along spatial axis {axis}."
            )
        stride = strides.pop() if strides else None
        if any(field.size is None for field in one):
            found.append(_Axis(None, stride, None))
            continue
        start = min(field.start for field in one)
        end = max(field.start + field.size for field in one)
        found.append(_Axis(end - start, stride, start))
    return tuple(found)
