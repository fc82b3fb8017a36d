"""Folding batch normalisation into the layer before or after it."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import layers

from low_rank_local_connectivity.conversion.checks import (
    TRANSPARENT,
)
from low_rank_local_connectivity.conversion.models import Kind, convert_and_report
from low_rank_local_connectivity.conversion.report import ConversionReport
from low_rank_local_connectivity.conversion.scaling import (
    SCALED_INPUTS,
    SCALED_OUTPUTS,
    linear,
    pads,
    with_scaled_inputs,
    with_scaled_outputs,
    with_scaled_spatial_bias,
)
from low_rank_local_connectivity.conversion.weights import to_numpy
from low_rank_local_connectivity.inspection.graph import calls_between, has_graph, require_graph
from low_rank_local_connectivity.layers.local.spatial_bias import SpatialBias


def fold_batch_normalization(
    model: keras.Model, report: Callable[[ConversionReport], Any] | None = print
) -> keras.Model:
    """Returns a copy of a model with batch normalisations folded into neighbouring layers.

    At inference `y = (x - mean) / sqrt(variance + epsilon) * gamma + beta` is a factor and an
    addend per channel. The layer before can absorb them in its filters and biases, exactly, if it
    is linear and feeds nothing else: a convolution (also depthwise, separable or transposed), a
    locally connected or a dense layer. So can the layer after, if it alone reads the result and
    does not pad with zeros, which the normalisation would have changed.

    Args:
        model: Functional or `Sequential` model, built. The copy is for inference only, since its
            statistics no longer follow the data.
        report: Function that receives a `ConversionReport`: which batch normalisations were
            folded, which were kept and why, and the sizes before and after. `print` shows it,
            `list.append` collects it, None ignores it.

    Returns:
        Model with the same outputs, up to rounding, and fewer layers.

    Raises:
        ValueError: As `convert`.

    Example:
        >>> inputs = keras.Input((8, 9, 2))
        >>> x = keras.layers.DepthwiseConv2D(3)(inputs)
        >>> model = keras.Model(inputs, keras.layers.BatchNormalization()(x), name="two")
        >>> folded = fold_batch_normalization(model)
        fold_batch_normalization() replaced 1 of 1 batch normalisations of 'two'.
        Its weights took 112 B and take 80 B.
        >>> [type(layer).__name__ for layer in folded.layers]
        ['InputLayer', 'DepthwiseConv2D']
    """
    require_graph("fold_batch_normalization", model)
    folding = _Folding(model)
    kind = Kind("batch normalisations", _is_norm, folding.why_left)
    return convert_and_report("fold_batch_normalization", model, folding.rule, kind, report)


@dataclasses.dataclass(frozen=True)
class _Call:
    """A call of a layer, in the model or in a model within it.

    Args:
        layer: The layer or operation; for a wrapped layer, the innermost one.
        wrappers: The classes of those wrappers.
        node: Keras's node of the call.
    """

    layer: Any
    wrappers: tuple[type, ...]
    node: Any

    @property
    def words(self) -> str:
        """The layer's name and class, for sentences."""
        return f"{self.layer.name!r} ({type(self.layer).__name__})"


class _Folding:
    """What each layer of a model, and of those within it, becomes."""

    def __init__(self, model: Any) -> None:
        self.chains: dict[int, list[Any]] = {}
        self.left: dict[int, str] = {}
        self.models = [model]
        # Layers that some call makes use the batch's own statistics.
        self.in_training: set[int] = set()
        calls = list(self._calls())
        self.times = Counter(id(call.layer) for call in calls)
        self.makers = {id(one): call for call in calls for one in call.node.output_tensors}
        self.readers: dict[int, list[_Call]] = defaultdict(list)
        for call in calls:
            for one in call.node.input_tensors:
                self.readers[id(one)].append(call)
        self.outputs = {id(one) for model in self.models for one in model.outputs}
        for call in calls:
            if _is_norm(call.layer):
                self._fold(call)

    def _calls(self) -> Iterator[_Call]:
        """Yields the calls in every model whose layers can be known."""
        for model in self.models:  # which grows
            for node in calls_between(model.inputs, model.outputs):
                layer, wrappers = node.operation, ()
                if _in_training(node):
                    self.in_training |= {id(one) for one in layer._flatten_layers()}
                while type(layer) in TRANSPARENT:
                    layer, wrappers = layer.layer, (*wrappers, type(layer))
                inner = has_graph(layer)
                if inner and all(layer is not one for one in self.models):
                    self.models.append(layer)
                yield _Call(layer, wrappers, node)

    def rule(self, layer: Any) -> list[Any] | None:
        """Returns what replaces a layer; the rule of `convert`."""
        return self.chains.get(id(layer))

    def why_left(self, norm: Any) -> str:
        """Returns why a batch normalisation was not folded."""
        return self.left[id(norm)]

    def _fold(self, call: _Call) -> None:
        """Folds a batch normalisation into a neighbour, or returns why it cannot."""
        norm = call.layer
        if type(norm) is not layers.BatchNormalization:
            self.left[id(norm)] = f"a {type(norm).__name__} may compute something else"
        elif self.times[id(norm)] > 1:
            self.left[id(norm)] = "it is called more than once"
        elif id(norm) in self.in_training:
            self.left[id(norm)] = "it is called with training=True, for the statistics of the batch"
        else:
            before, after = self._why_not_before(call), None
            if before is None:
                self._fold_into_outputs(self.makers[id(call.node.input_tensors[0])], norm)
            elif (after := self._why_not_after(call)) is None:
                reader = self.readers[id(call.node.output_tensors[0])][0].layer
                self._replace(reader, with_scaled_inputs, norm)
            else:
                self.left[id(norm)] = f"{before}, and {after}"
                return
            self.chains[id(norm)] = []

    def _why_not_before(self, call: _Call) -> str | None:
        """Returns why the layer before a batch normalisation cannot take it up, if so."""
        before = self.makers.get(id(call.node.input_tensors[0]))
        if before is None:
            return "it reads an input of the model"
        if not self._feeds_once(before):
            return f"it is not alone in reading {before.words}"
        if type(before.layer) is SpatialBias:
            first = self.makers.get(id(before.node.input_tensors[0]))
            if first is None or not self._feeds_once(first) or first.wrappers != before.wrappers:
                return f"it reads {before.words}, which follows no filters of its own"
        else:
            first = before
        if type(first.layer) not in SCALED_OUTPUTS:
            return f"it reads {first.words}, which cannot take it up"
        if not linear(first.layer):
            return f"it reads {first.words}, which has an activation"
        return _why_not_at_all(first, call)

    def _why_not_after(self, call: _Call) -> str | None:
        """Returns why the layer after a batch normalisation cannot take it up, if so."""
        output, *more = call.node.output_tensors
        if more:
            return "its results are several"
        readers = self.readers[id(output)]
        if id(output) in self.outputs or len(readers) != 1:
            return "its result is an output or read by several layers"
        (after,) = readers
        if type(after.layer) not in SCALED_INPUTS:
            return f"its result is read by {after.words}, which cannot take it up"
        if self.times[id(after.layer)] > 1:
            return f"its result is read by {after.words}, which is called more than once"
        if pads(after.layer):
            return f"its result is read by {after.words}, which pads it with zeros"
        return _why_not_at_all(after, call)

    def _feeds_once(self, call: _Call) -> bool:
        """Whether a layer has one call, the result of which is read once."""
        read = [len(self.readers[id(one)]) for one in call.node.output_tensors]
        results = any(id(one) in self.outputs for one in call.node.output_tensors)
        return self.times[id(call.layer)] == 1 and read == [1] and not results

    def _fold_into_outputs(self, before: _Call, norm: Any) -> None:
        if type(before.layer) is not SpatialBias:
            self._replace(before.layer, with_scaled_outputs, norm)
            return
        first = self.makers[id(before.node.input_tensors[0])].layer
        self._replace(first, lambda one, factor, _: with_scaled_outputs(one, factor, 0.0), norm)
        self._replace(before.layer, with_scaled_spatial_bias, norm)

    def _replace(self, layer: Any, scale: Callable[..., Any], norm: Any) -> None:
        """Scales a layer, or the result of folding another batch normalisation into it."""
        (now,) = self.chains.get(id(layer), [layer])
        self.chains[id(layer)] = [scale(now, *_factor_and_addend(norm))]


def _is_norm(layer: Any) -> bool:
    return isinstance(layer, layers.BatchNormalization)


def _in_training(node: Any) -> bool:
    """Whether a layer is called with `training=True`, however the model is called."""
    arguments = node.arguments
    given = (arguments.kwargs.get("training"), *arguments.args[1:2])
    return isinstance(node.operation, keras.Layer) and any(one is True for one in given)


def _why_not_at_all(neighbour: _Call, call: _Call) -> str | None:
    """Returns why a layer can absorb no factor and addend, if so."""
    layer, norm = neighbour.layer, call.layer
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        return f"the kernel of {neighbour.words} is quantised or has a low-rank update"
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    dimensions = len(norm.get_build_config()["input_shape"])
    axis = norm.axis if norm.axis >= 0 else norm.axis + dimensions
    # A wrapper adds axes before the others, so the first one is another outside it.
    if (first and neighbour.wrappers != call.wrappers) or axis != (1 if first else dimensions - 1):
        return f"it normalises another axis than that of the channels of {neighbour.words}"
    return None


def _factor_and_addend(norm: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the factor and the addend of a normalisation at inference, per channel."""
    mean, variance = to_numpy(norm.moving_mean), to_numpy(norm.moving_variance)
    factor = 1 / np.sqrt(variance + norm.epsilon)
    factor = factor * to_numpy(norm.gamma) if norm.scale else factor
    return factor, (to_numpy(norm.beta) if norm.center else 0.0) - mean * factor
