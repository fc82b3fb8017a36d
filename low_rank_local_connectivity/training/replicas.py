"""What each replica of a model has of its own, read and set without changing it.

Replicas share weights. Moving statistics of batch normalisation that are not synchronised differ
between them, and so do the sums of metrics; a mean of either would be another state.
"""

import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np


def own_values(variables: Sequence[Any], strategy: Any) -> list[np.ndarray]:
    """Returns the values of variables on every replica; collective: every worker must call it.

    Args:
        variables: Keras's variables, made in the strategy's scope.
        strategy: TensorFlow's strategy.

    Returns:
        For each variable its values, of shape `(replicas, *shape)`.
    """
    if not variables:
        return []
    here = [[_number(part) for part in _parts(variable, strategy)] for variable in variables]
    per_replica = _gathered([*zip(*here, strict=True)], strategy)
    return [_split(per_replica, index, here) for index in range(len(variables))]


def set_own_values(variables: Sequence[Any], values: Sequence[np.ndarray], strategy: Any) -> None:
    """Gives the replicas of this worker the values that they had.

    Args:
        variables: Those of `own_values`.
        values: What it returned, by as many replicas.
        strategy: TensorFlow's strategy.
    """
    places = _places(strategy)
    for variable, rows in zip(variables, values, strict=True):
        for place, part in zip(places, _parts(variable, strategy), strict=True):
            part.assign(rows[place])


def add_own_values(variables: Sequence[Any], values: Sequence[np.ndarray], strategy: Any) -> None:
    """As `set_own_values`, but adds the values."""
    places = _places(strategy)
    for variable, rows in zip(variables, values, strict=True):
        for place, part in zip(places, _parts(variable, strategy), strict=True):
            part.assign_add(rows[place])


def from_every_replica(array: np.ndarray, strategy: Any) -> np.ndarray:
    """Returns an array of every replica's worker, stacked; collective: all workers must call it."""
    texts = _gathered([[array]] * len(_places(strategy)), strategy)
    return np.stack([np.frombuffer(text, array.dtype).reshape(array.shape) for text in texts])


def together(values: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Returns one value for those of all replicas: theirs if it is the same, or else the mean.

    Args:
        values: Of shape `(replicas, *shape)`.
        shared: What Keras reads of the variable.
    """
    same = (values == values[:1]).all()
    return values[0] if same else values.mean(0, dtype="float64").astype(shared.dtype)


def _parts(variable: Any, strategy: Any) -> tuple[Any, ...]:
    """Returns TensorFlow's variable on each replica of this worker."""
    return strategy.experimental_local_results(variable.value)


def _number(part: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(part))


def _places(strategy: Any) -> list[int]:
    """Returns the places of this worker's replicas among all."""
    found = strategy.experimental_distribute_values_from_function(
        lambda context: np.int32(context.replica_id_in_sync_group)
    )
    return [int(place) for place in strategy.experimental_local_results(found)]


def _gathered(here: Sequence[Sequence[np.ndarray]], strategy: Any) -> list[bytes]:
    """Returns the bytes of the values on every replica, in the order of replicas."""
    import tensorflow as tf

    packed = [b"".join(array.tobytes() for array in arrays) for arrays in here]
    if len(packed) == strategy.num_replicas_in_sync:
        return packed
    size = len(packed[0])
    first = _places(strategy)[0]

    def of_replica(context):
        text = packed[context.replica_id_in_sync_group - first]
        return tf.constant(np.frombuffer(text.ljust(-(-size // 8) * 8, b"\0"), "int64")[None])

    spread = strategy.experimental_distribute_values_from_function(of_replica)
    return [row.tobytes()[:size] for row in _gathering(strategy)(spread).numpy()]


@functools.cache
def _gathering(strategy: Any) -> Any:
    """Returns a function that gathers the rows of all replicas, traced once for each length."""
    import tensorflow as tf

    def on_each(own):
        return tf.distribute.get_replica_context().all_gather(tf.identity(own), axis=0)

    def gathered(spread):
        return strategy.experimental_local_results(strategy.run(on_each, args=(spread,)))[0]

    return tf.function(gathered, autograph=False)


def _split(per_replica: Sequence[bytes], index: int, here: Sequence[Any]) -> np.ndarray:
    """Returns the values of a variable on every replica from the bytes of all variables."""
    like = here[index][0]
    start = sum(arrays[0].nbytes for arrays in here[:index])
    parts = [text[start : start + like.nbytes] for text in per_replica]
    return np.stack([np.frombuffer(part, like.dtype).reshape(like.shape) for part in parts])
