"""Layers that do not learn in the first epochs of a run."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import ops


@dataclasses.dataclass(frozen=True)
class Frozen:
    """Layers whose weights stay what they are in the first epochs of a run.

    Args:
        layers: The layers.
        epochs: How many epochs; 0 for none.
    """

    layers: Sequence[Any] = ()
    epochs: int = 0

    def last_of_phase(self, done: int, epochs: int) -> int:
        """Returns the last of some epochs in which the same layers learn as in the next one."""
        return min(epochs, self.epochs) if done < self.epochs else epochs

    def during(self, model: keras.Model, done: int) -> contextlib.AbstractContextManager[None]:
        """Returns the context in which to train a model after these many epochs."""
        return holding(model, self.layers) if done < self.epochs else contextlib.nullcontext()


NOTHING = Frozen()


@contextlib.contextmanager
def holding(model: keras.Model, layers: Sequence[Any]) -> Iterator[None]:
    """Returns a context in which the training of a compiled model leaves layers as they are.

    Their batch normalisation uses and keeps its moving statistics. The optimizer knows the same
    weights as outside, so that its state fits the same checkpoints, and their moments follow the
    gradients: Adam's would otherwise be far too small afterwards, since the step count that
    corrects them does not start again, and steps up to six times too large. Limits of gradients are
    of all gradients, as outside.

    Args:
        model: The model, on one replica if the backend is TensorFlow.
        layers: Some of its layers.
    """
    weights = [weight for layer in layers for weight in layer.trainable_variables]
    _set_trainable(layers, weights, False)
    # Of a loss that is scaled, as in float16, another optimizer makes the steps.
    optimizer: Any = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    # What changes weights, before the averages of the weights are updated.
    names = ("_apply_weight_decay", "_backend_update_step")
    for name in names:
        setattr(optimizer, name, _putting_back(getattr(optimizer, name), weights))
    model.train_function = None  # `fit` makes another, when it has built the metrics
    try:
        yield
    finally:
        for name in names:
            delattr(optimizer, name)
        _set_trainable(layers, weights, True)
        model.train_function = None


def _set_trainable(layers: Sequence[Any], weights: Sequence[Any], value: bool) -> None:
    """Makes layers compute as those that learn, or do not; all weights remain the optimizer's."""
    for layer in layers:
        layer.trainable = value
    for weight in weights:
        weight.trainable = True


def _putting_back(change: Callable[..., None], weights: Sequence[Any]) -> Callable[..., None]:
    """Returns a function that changes weights as another does, but for some."""

    def changed(*arguments: Any) -> None:
        before = [ops.copy(weight) for weight in weights]
        change(*arguments)
        for weight, value in zip(weights, before, strict=True):
            weight.assign(value)

    return changed
