"""Converting whole models, by a rule for their layers."""

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras

from low_rank_local_connectivity.conversion.checks import (
    LOW_RANK,
    TRANSPARENT,
    applied,
)
from low_rank_local_connectivity.conversion.factorization import to_locally_connected
from low_rank_local_connectivity.conversion.relaxation import to_convolution, to_steps
from low_rank_local_connectivity.conversion.report import ConversionReport, sizes
from low_rank_local_connectivity.conversion.weights import copy_variables
from low_rank_local_connectivity.inspection.graph import has_graph, require_graph
from low_rank_local_connectivity.layers.base_local_conv import why_not_keras
from low_rank_local_connectivity.layers.local.separable_low_rank import (
    SeparableLowRankLocallyConnected,
)
from low_rank_local_connectivity.ops.arguments import received

Rule = Callable[[Any], "keras.Layer | Sequence[keras.Layer] | None"]
# A mixed basis is kept if the box around its banks has more than this many times their taps: the
# converted layer would mostly multiply by zeros.
MOST_EMPTY = 4
# Packages whose layers contain others that no caller's rule concerns, such as an LSTM's cell.
OPAQUE = ("keras", "low_rank_local_connectivity")


def for_serving(layer: keras.Layer) -> keras.Layer | list[keras.Layer] | None:
    """Returns the layers for a server to run in place of a low-rank one; the rule of `convert`.

    That is a locally connected layer, or for `K = 1` under softmax a convolution and a spatial
    bias; a transposed one for a transposed one, and for a separable layer a depthwise one and what
    follows it. The layer is kept (None) if it is of another kind, depends on its inputs, is such a
    convolution with windows that Keras's have not, or, with a warning, if it is a mixed basis whose
    banks would fill less than a quarter of their box.

    Args:
        layer: Any layer.

    Example:
        >>> from low_rank_local_connectivity import LowRankLocallyConnected2D
        >>> low_rank = LowRankLocallyConnected2D(5, 3, spatial_rank=1)
        >>> low_rank.build((None, 8, 9, 2))
        >>> [type(layer).__name__ for layer in for_serving(low_rank)]
        ['Conv2D', 'SpatialBias']
    """
    if not isinstance(layer, LOW_RANK):
        return None
    if not layer.mixed and not layer.has_logits:
        return to_convolution(layer) if why_not_keras(layer) is None else None
    if layer.input_dependent or None in layer.input_sizes:
        return None
    if reason := _mostly_empty(layer):
        warnings.warn(f"Layer {layer.name!r} stays as it is: {reason}.", stacklevel=2)
        return None
    if isinstance(layer, SeparableLowRankLocallyConnected):
        first, *others = to_steps(layer)
        return [to_locally_connected(first), *others]
    return to_locally_connected(layer)


def _mostly_empty(layer: Any) -> str | None:
    """Returns why a mixed basis should not be converted, if so."""
    if not layer.mixed:
        return None
    taps = sum(windows.taps for windows in layer.bank_windows)
    box = math.prod(map(max, zip(*(w.extents for w in layer.bank_windows), strict=True)))
    if box <= MOST_EMPTY * taps:
        return None
    return f"its banks have {taps} taps in all, and the box that holds them has {box}"


def _why_not_for_serving(layer: Any) -> str:
    """Returns why `for_serving` keeps a low-rank layer."""
    if layer.input_dependent and layer.has_logits:
        return "its filters depend on the input"
    if None in layer.input_sizes:
        return f"it is built for inputs of unknown size, {layer.input_sizes}"
    if not layer.mixed and not layer.has_logits and (reason := why_not_keras(layer)):
        return f"it is a convolution, and {reason}"
    return _mostly_empty(layer) or "the rule keeps it"


def convert(
    model: keras.Model,
    rule: Rule = to_locally_connected,
    report: Callable[[ConversionReport], Any] | None = print,
) -> keras.Model:
    """Returns a copy of a model in which some layers are replaced.

    Names, shared layers, `trainable` flags and the weights of all other layers are kept. Models
    within the model are converted too, as are the layers within `TimeDistributed` and
    `OverLevels`. The model itself does not change.

    Layers inside a layer or model of any other class cannot be replaced, since that class applies
    them in Python: they are kept, and reported. A layer that cannot be copied because its class
    has no `get_config` is shared by both models, with a warning.

    The copy stores a low-rank layer's filters for every position, so its weights may take a
    hundred times the memory; the report says how much.

    Args:
        model: Functional or `Sequential` model, built.
        rule: Function from a layer to its replacement: a built layer, a list of layers to apply
            one after another (an empty one drops the layer), or None to keep it; the layers of a
            model within the model are converted if it is kept. `to_locally_connected` stands for
            `for_serving`, which keeps what it cannot convert.
        report: Function that receives a `ConversionReport`: what was replaced, what was kept and
            why, and the sizes before and after. `print` shows it, `list.append` collects it, None
            ignores it.

    Returns:
        Model of the same inputs and outputs.

    Raises:
        ValueError: If the model is a subclass whose layers cannot be known, or is not built.

    Example:
        >>> from low_rank_local_connectivity import LowRankLocallyConnected2D
        >>> from low_rank_local_connectivity.conversion import from_convolution
        >>> inputs = keras.Input((8, 9, 2))
        >>> x = LowRankLocallyConnected2D(5, 3, spatial_rank=4, name="third")(inputs)
        >>> model = keras.Model(inputs, keras.layers.Flatten()(x), name="small")
        >>> type(convert(model).get_layer("third")).__name__
        convert() replaced 1 of 1 low-rank layers of 'small'.
        Its weights took 1.68 KB and take 15.59 KB.
        'LocallyConnected2D'

        Relaxing the last convolutions of a network:

        >>> def relax(layer):
        ...     if isinstance(layer, keras.layers.Conv2D) and layer.name.startswith("block5"):
        ...         return from_convolution(layer, spatial_rank=4)
        >>> model = keras.Sequential([inputs, keras.layers.Conv2D(5, 3, name="block5_conv")])
        >>> type(convert(model, relax, report=None).get_layer("block5_conv")).__name__
        'LowRankLocallyConnected2D'
    """
    # Not `in`: an array would be compared element by element.
    by_default = rule is to_locally_connected or rule is for_serving
    return convert_and_report(
        "convert", model, for_serving if by_default else rule, SERVED if by_default else ANY, report
    )


@dataclasses.dataclass(frozen=True)
class Kind:
    """The layers that a rule concerns, in a report.

    Args:
        name: Their name, in the plural.
        includes: Function that recognises them.
        why_left: Function from one that was kept to the reason.
    """

    name: str
    includes: Callable[[Any], bool]
    why_left: Callable[[Any], str] | None = None


SERVED = Kind(
    "low-rank layers",
    lambda layer: isinstance(layer, LOW_RANK),
    _why_not_for_serving,
)
# Which layers a caller's rule concerns is unknown, and so is why it keeps one.
ANY = Kind("layers", lambda layer: bool(layer.weights))


def convert_and_report(
    function: str,
    model: Any,
    rule: Rule,
    kind: Kind,
    report: Callable[[ConversionReport], Any] | None,
) -> Any:
    """Returns the converted model; the report is about one kind of layer."""
    require_graph(function, model)
    if report is not None and not callable(report):
        raise ValueError(
            "`report` must be a function of a ConversionReport, or None. Received: "
            f"{received('report', report)}."
        )
    conversion = _Conversion(rule, kind)
    found = conversion.model(model)
    conversion.copy_weights()
    if report is not None:
        pairs = zip(sizes(model), sizes(found), strict=True)
        report(
            ConversionReport(
                function, model.name, kind.name, conversion.replaced, conversion.left, *pairs
            )
        )
    return found


class _Conversion:
    """A rule, and what it has made of each layer so far, in a model and those within it."""

    def __init__(self, rule: Rule, kind: Kind) -> None:
        self.rule = rule
        self.kind = kind
        self.chains: dict[int, list[Any]] = {}
        # The head of each chain with the chain, by the head's id; and all originals, since an id
        # identifies an object only while the object exists.
        self.heads: dict[int, list[Any]] = {}
        self.originals: list[Any] = []
        self.kept: dict[int, Any] = {}
        self.path: list[str] = []
        self.replaced: list[str] = []
        self.left: dict[str, str] = {}

    def model(self, model: Any) -> Any:
        """Returns the converted copy of a model, but for the weights of kept layers."""
        if isinstance(model, keras.Sequential):
            flat = [one for layer in model.layers for one in self.chain(layer)]
            found: Any = keras.Sequential([_input_like(model.inputs[0]), *flat], name=model.name)
            if model.compiled:  # as Keras does for functional models
                found.compile_from_config(model.get_compile_config())
        else:
            inputs = keras.tree.map_structure(_input_like, model.input)
            found = keras.models.clone_model(model, inputs, self.head, self.call)
        return found

    def chain(self, layer: Any) -> list[Any]:
        """Returns the layers that replace a layer."""
        if id(layer) not in self.chains:
            self.originals.append(layer)
            self.path.append(layer.name)
            self.chains[id(layer)] = self._replacement(layer)
            self.path.pop()
        return self.chains[id(layer)]

    def _replacement(self, layer: Any) -> list[Any]:
        chain = applied(self.rule, layer)
        if chain is None:
            return self._looked_into(layer)
        for one in chain:
            one.trainable = layer.trainable
        if self.kind.includes(layer):
            self.replaced.append("/".join(self.path))
        return chain

    def _looked_into(self, layer: Any) -> list[Any]:
        """Returns the replacement of a layer that the rule itself keeps."""
        if has_graph(layer):
            return [self.model(layer)]
        if type(layer) in TRANSPARENT:
            return _wrapped_alike(layer, self.chain(layer.layer))
        if self.kind.why_left and self.kind.includes(layer):
            self.left["/".join(self.path)] = self.kind.why_left(layer)
        self._report_hidden(layer)
        try:
            copy = type(layer).from_config(layer.get_config())
        except (NotImplementedError, TypeError):
            warnings.warn(
                f"Layer {layer.name!r} of class {type(layer).__name__} cannot be copied, so both "
                "models share it. Give the class a get_config() and a from_config().",
                stacklevel=2,
            )
            return [layer]
        self.kept[id(layer)] = layer
        return [copy]

    def _report_hidden(self, layer: Any) -> None:
        """Reports the layers of the rule's kind that a layer applies in Python."""
        if self.kind is ANY and type(layer).__module__.partition(".")[0] in OPAQUE:
            return
        for one in layer._flatten_layers(include_self=False):
            if self.kind.includes(one):
                path = "/".join([*self.path, one.name])
                self.left[path] = (
                    f"{type(layer).__name__} applies it in Python, where it cannot be replaced"
                )

    def head(self, layer: Any) -> Any:
        """Returns what takes the place of a layer while Keras runs through the graph."""
        if not isinstance(layer, keras.Layer):
            return layer  # an operation of keras.ops has no weights
        chain = self.chain(layer)
        head = chain[0] if chain else keras.layers.Identity(name=layer.name)
        self.heads[id(head)] = [head, chain]
        return head

    def call(self, head: Any, *arguments: Any, **options: Any) -> Any:
        """Applies the chain that replaces a layer."""
        _, chain = self.heads.get(id(head), (head, [head]))
        if not chain:
            return arguments[0]
        outputs = chain[0](*arguments, **options)
        for one in chain[1:]:
            outputs = one(outputs)
        return outputs

    def copy_weights(self) -> None:
        """Gives kept layers the variables and the `trainable` flags of their originals."""
        for layer in self.kept.values():
            (kept,) = self.chains[id(layer)]
            copy_variables(layer, kept)
            for one, other in zip(layer._flatten_layers(), kept._flatten_layers(), strict=True):
                other.trainable = one.trainable


def _wrapped_alike(wrapper: Any, chain: Sequence[Any]) -> list[Any]:
    """Returns wrappers like one, around other layers."""
    config = {key: value for key, value in wrapper.get_config().items() if key != "layer"}
    names = [wrapper.name, *(f"{wrapper.name}_{layer.name}" for layer in chain[1:])]
    return [
        type(wrapper)(layer, **{**config, "name": name})
        for layer, name in zip(chain, names, strict=False)
    ]


def _input_like(symbolic: Any) -> Any:
    """Returns a new input of the shape, type and name of another."""
    name = symbolic._keras_history.operation.name
    return keras.Input(batch_shape=symbolic.shape, dtype=symbolic.dtype, name=name)
