"""Matching stored weights with layers within a layer, by the names in the file.

An HDF5 file has the weights of a model within the model one after another, the trainable ones
first: which layers come first depends on what was frozen when the file was written.
"""

import collections
import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from low_rank_local_connectivity.legacy.names import stands_in
from low_rank_local_connectivity.legacy.stored import Weight

Pairs = list[tuple[Any, Weight]]


@dataclasses.dataclass(frozen=True)
class Part:
    """The variables that a layer within a layer itself owns.

    Args:
        names: The names of the layers it is in, without the outermost, and its own.
        variables: Its variables, the trainable ones first.
    """

    names: tuple[str, ...]
    variables: list[Any]


def weights_of(layer: Any) -> list[Any]:
    """Returns a layer's variables in Keras 2's order, the trainable ones first.

    Of a model that is frozen as a whole, those come first that its layers would train.
    """
    parts = layer.layers if isinstance(layer, keras.Model) else [layer]
    first = set().union(*map(_trained, parts))
    return sorted(layer.weights, key=lambda one: id(one) not in first)


def _trained(layer: Any) -> set[int]:
    """Returns which variables a layer trains, by what it and the layers within it say."""
    if not layer.trainable:
        return set()
    own = set(map(id, layer._trainable_variables))
    return own.union(*map(_trained, layers_in(layer)))


def layers_in(layer: Any) -> Sequence[Any]:
    """Returns the layers of a model, a wrapper or another layer that holds layers."""
    return layer.layers if isinstance(layer, keras.Model) else layer._layers


def pair(layer: Any, weights: Sequence[Weight], fits: Callable[..., bool]) -> Pairs | None:
    """Pairs a layer's variables with as many stored weights; None if it is not certain how.

    They are matched by names that are the same in the file, by names that differ only in the
    numbers that Keras appends, or in order. If the last two disagree, the one that fits is used.

    Args:
        layer: Layer, which may hold others.
        weights: As stored.
        fits: Whether a variable can hold a weight.
    """
    by_name = pair_by_name(layer, weights)
    if by_name is not None:
        return by_name
    in_order = pair_in_order(layer, weights)
    by_number = _by_number(list(_parts(layer)), weights)
    found = [one for one in (by_number, in_order) if one and all(fits(*both) for both in one)]
    if not found:
        return in_order
    if len(found) == 1:
        return None if by_number is None and _has_likes(layer) else found[0]
    return in_order if set(map(_ids, found[0])) == set(map(_ids, found[1])) else None


def pair_by_name(layer: Any, weights: Sequence[Weight]) -> Pairs | None:
    """Pairs variables with the weights whose paths hold the names of their layers, if all do."""
    parts = list(_parts(layer))
    if len(parts) == 1:
        return _within(parts[0].variables, weights)
    shares: list[list[Weight]] = [[] for _ in parts]
    for weight in weights:
        agreed = [_agreement(part, weight) for part in parts]
        best = max(agreed)
        if agreed.count(best) != 1 or not best[0]:
            return None
        shares[agreed.index(best)].append(weight)
    return _shared_out(parts, shares)


def pair_in_order(layer: Any, weights: Sequence[Weight]) -> Pairs:
    """Pairs variables with weights in order."""
    return list(zip(weights_of(layer), weights, strict=True))


def _parts(layer: Any) -> Iterator[Part]:
    """Yields the variables of a layer and of each layer within it, every variable once."""
    seen: set[int] = set()

    def walk(layer: Any, names: tuple[str, ...]) -> Iterator[Part]:
        inner = layers_in(layer)
        theirs = {id(one) for part in inner for one in weights_of(part)} | seen
        own = [one for one in weights_of(layer) if id(one) not in theirs]
        seen.update(map(id, own))
        if own:
            yield Part(names, own)
        for part in inner:
            yield from walk(part, (*names, part.name))

    return walk(layer, ())


def _agreement(part: Part, weight: Weight) -> tuple[list[bool], list[bool]]:
    """Returns which names of a part, the outermost first, are in a weight's path.

    Names that agree except for their numbers are returned too. For a layer within a layer the
    outer name says more: the inner one is usually Keras's own, with an arbitrary number.
    """
    scope = "/".join(_numbered(name)[0] for name in weight.scope.split("/"))
    exact = [stands_in(name, weight.scope) for name in part.names]
    alike = [stands_in(_numbered(name)[0], scope) for name in part.names]
    return _without_ending(exact), _without_ending(alike)


def _without_ending(found: list[bool]) -> list[bool]:
    """Returns a list up to its last True, so that deeper layers are not preferred."""
    return found[: len(found) - found[::-1].index(True)] if True in found else []


def _shared_out(parts: Sequence[Part], shares: Sequence[Sequence[Weight]]) -> Pairs | None:
    both = list(zip(parts, shares, strict=True))
    if any(len(part.variables) != len(share) for part, share in both):
        return None
    return [one for part, share in both for one in _within(part.variables, share)]


def _within(variables: Sequence[Any], weights: Sequence[Weight]) -> Pairs:
    """Pairs a layer's own variables with its weights: by name if the names are the same."""
    named = {weight.own_name: weight for weight in weights}
    if {variable.name for variable in variables} == set(named) and len(named) == len(weights):
        return [(variable, named[variable.name]) for variable in variables]
    return list(zip(variables, weights, strict=True))


def _by_number(parts: Sequence[Part], weights: Sequence[Weight]) -> Pairs | None:
    """Pairs layers of similar names in the order of the numbers that Keras appended to them."""
    scopes: dict[str, list[Weight]] = {}
    for weight in weights:
        scopes.setdefault(weight.scope, []).append(weight)
    ours, theirs = [part.names for part in parts], [scope.split("/") for scope in scopes]
    known = {_numbered(name)[0] for names in theirs for name in names}
    known &= {_numbered(name)[0] for names in ours for name in names}
    keys, other = ([_key(names, known) for names in both] for both in (ours, theirs))
    kinds = (collections.Counter(key[0] for key in both) for both in (keys, other))
    if len(set(keys)) < len(keys) or ((), ()) in keys or next(kinds) != next(kinds):
        return None
    ranked = sorted(range(len(keys)), key=keys.__getitem__)
    shares = [
        list(scopes.values())[one] for one in sorted(range(len(other)), key=other.__getitem__)
    ]
    return _shared_out([parts[one] for one in ranked], shares)


def _key(names: Sequence[str], known: set[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Returns those names that are known, without their numbers, and the numbers."""
    both = [_numbered(name) for name in names]
    both = [one for one in both if one[0] in known]
    return tuple(name for name, _ in both), tuple(number for _, number in both)


def _numbered(name: str) -> tuple[str, int]:
    found = re.fullmatch(r"(.+)_(\d+)", name)
    return (found[1], int(found[2])) if found else (name, 0)


def _has_likes(layer: Any) -> bool:
    """Whether two layers of a model within have weights of the same shapes."""
    if isinstance(layer, keras.Model):
        shapes = [tuple(tuple(one.shape) for one in weights_of(part)) for part in layer.layers]
        shapes = [one for one in shapes if one]
        if len(set(shapes)) < len(shapes):
            return True
    return any(_has_likes(part) for part in layers_in(layer))


def _ids(both: tuple[Any, Weight]) -> tuple[int, int]:
    return id(both[0]), id(both[1])
