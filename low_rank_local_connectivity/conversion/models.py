"""Whole models, by a rule for their layers."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras

from low_rank_local_connectivity.conversion.checks import applied, require_visible
from low_rank_local_connectivity.conversion.factorization import to_locally_connected
from low_rank_local_connectivity.conversion.relaxation import to_convolution
from low_rank_local_connectivity.layers.low_rank_locally_connected import LowRankLocallyConnected

Rule = Callable[[Any], "keras.Layer | Sequence[keras.Layer] | None"]
# A mixed basis is left as it is if the box that holds its banks has more taps than so many times
# those of the banks: the converted layer would mostly multiply by zeros.
MOST_EMPTY = 4


def for_serving(layer: keras.Layer) -> keras.Layer | list[keras.Layer] | None:
    """Returns what a server should run in place of a low-rank layer; the rule of `convert`.

    A locally connected layer; of a layer with `K = 1` under softmax a convolution and a spatial
    bias. None, for no change, if the layer is of another kind, depends on its inputs, or is a mixed
    basis whose banks would fill less than a quarter of their box, of which it warns.

    Args:
        layer: Any layer.

    Example:
        >>> from low_rank_local_connectivity import LowRankLocallyConnected2D
        >>> low_rank = LowRankLocallyConnected2D(5, 3, spatial_rank=1)
        >>> low_rank.build((None, 8, 9, 2))
        >>> [type(layer).__name__ for layer in for_serving(low_rank)]
        ['Conv2D', 'SpatialBias']
    """
    if not isinstance(layer, LowRankLocallyConnected):
        return None
    if not layer.mixed and not layer.has_logits:
        return to_convolution(layer)
    if layer.input_dependent or None in layer.input_sizes:
        return None
    if layer.mixed:
        taps = sum(windows.taps for windows in layer.bank_windows)
        box = math.prod(map(max, zip(*(w.extents for w in layer.bank_windows), strict=True)))
        if box > MOST_EMPTY * taps:
            warnings.warn(
                f"Layer {layer.name!r} stays as it is: its banks have {taps} taps in all, and the "
                f"box that holds them has {box}.",
                stacklevel=2,
            )
            return None
    return to_locally_connected(layer)


def convert(model: keras.Model, rule: Rule = to_locally_connected) -> keras.Model:
    """Returns a copy of a model, some of its layers replaced.

    Names, shared layers, `trainable` flags and the weights of all other layers are kept; models
    within the model are converted too. The model itself stays as it was.

    Args:
        model: Functional or `Sequential` model, built.
        rule: Function of a layer to what replaces it: a built layer, a list of layers to be
            applied one after another (none of them: the layer is dropped), or None to keep it;
            a model within the model is looked into if it is kept. `to_locally_connected` stands for
            `for_serving`, which passes over what cannot be converted.

    Returns:
        Model of the same inputs and outputs.

    Raises:
        ValueError: If the model, or one within it, is a subclass whose layers cannot be known, or
            is not built.

    Example:
        >>> from low_rank_local_connectivity import LowRankLocallyConnected2D
        >>> from low_rank_local_connectivity.conversion import from_convolution
        >>> inputs = keras.Input((8, 9, 2))
        >>> x = LowRankLocallyConnected2D(5, 3, spatial_rank=4, name="third")(inputs)
        >>> model = keras.Model(inputs, keras.layers.Flatten()(x))
        >>> type(convert(model).get_layer("third")).__name__
        'LocallyConnected2D'

        Relaxing the last convolutions of a network:

        >>> def relax(layer):
        ...     if isinstance(layer, keras.layers.Conv2D) and layer.name.startswith("block5"):
        ...         return from_convolution(layer, spatial_rank=4)
        >>> model = keras.Sequential([inputs, keras.layers.Conv2D(5, 3, name="block5_conv")])
        >>> type(convert(model, relax).get_layer("block5_conv")).__name__
        'LowRankLocallyConnected2D'
    """
    require_visible("convert", model)
    return _Conversion(for_serving if rule is to_locally_connected else rule).model(model)


class _Conversion:
    """A rule, and what it has made of each layer so far, in a model and those within it."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.chains: dict[int, list[Any]] = {}
        # The layers that stand for chains, by their ids, and all originals: an id is its object's
        # only while the object lives.
        self.heads: dict[int, list[Any]] = {}
        self.originals: list[Any] = []
        self.kept: set[int] = set()

    def model(self, model: Any) -> Any:
        """Returns the converted copy of a model."""
        require_visible("convert", model)
        if isinstance(model, keras.Sequential):
            flat = [one for layer in model.layers for one in self.chain(layer)]
            found: Any = keras.Sequential([_input_like(model.inputs[0]), *flat], name=model.name)
            if model.compiled:  # as Keras does for functional models
                found.compile_from_config(model.get_compile_config())
        else:
            inputs = keras.tree.map_structure(_input_like, model.input)
            found = keras.models.clone_model(model, inputs, self.head, self.call)
        for layer in model.layers:
            if id(layer) in self.kept:
                self.copy(layer)
        return found

    def chain(self, layer: Any) -> list[Any]:
        """Returns the layers that replace a layer."""
        if id(layer) not in self.chains:
            self.originals.append(layer)
            self.chains[id(layer)] = self._replacement(layer)
        return self.chains[id(layer)]

    def _replacement(self, layer: Any) -> list[Any]:
        chain = applied(self.rule, layer)
        if isinstance(layer, keras.Model) and chain is None:
            return [self.model(layer)]
        if chain is None:
            self.kept.add(id(layer))
            return [type(layer).from_config(layer.get_config())]
        for one in chain:
            one.trainable = layer.trainable
        return chain

    def head(self, layer: Any) -> Any:
        """Returns what stands for a layer's chain while Keras runs through the graph."""
        if not isinstance(layer, keras.Layer):
            return layer  # an operation of keras.ops has no weights
        chain = self.chain(layer)
        head = chain[0] if chain else keras.layers.Identity(name=layer.name)
        self.heads[id(head)] = [head, chain]
        return head

    def call(self, head: Any, *arguments: Any, **options: Any) -> Any:
        """Applies the chain that a layer stands for."""
        _, chain = self.heads.get(id(head), (head, [head]))
        if not chain:
            return arguments[0]
        outputs = chain[0](*arguments, **options)
        for one in chain[1:]:
            outputs = one(outputs)
        return outputs

    def copy(self, layer: Any) -> None:
        """Gives a kept layer the variables and the `trainable` flags of its original."""
        (kept,) = self.chains[id(layer)]
        for one, other in zip(layer.variables, kept.variables, strict=True):
            other.assign(one)
        for one, other in zip(layer._flatten_layers(), kept._flatten_layers(), strict=True):
            other.trainable = one.trainable


def _input_like(symbolic: Any) -> Any:
    """Returns a new input of the shape, type and name of another."""
    name = symbolic._keras_history.operation.name
    return keras.Input(batch_shape=symbolic.shape, dtype=symbolic.dtype, name=name)
