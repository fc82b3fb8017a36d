"""Random changes of whole batches, by Keras's own preprocessing layers.

A batch is changed as by layers that were just made with seeds that follow from the run's seed, the
epoch and the step: what happens to it does not depend on the batches before it.
"""

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from .augmentations import MIXING, strengths_among
from .dataset import Dataset

# Seeds are below this, so that every framework takes them and the sums that PyTorch makes of them.
SEEDS = 2**30


class StepSeeds(keras.random.SeedGenerator):
    """Gives the seeds that a new generator would give, whose seed may be a tensor.

    Args:
        paired: Function of a seed and the number of draws before that makes a seed of them.
    """

    def __init__(self, paired: Callable[[Any, int], Any]) -> None:
        super().__init__(seed=0)
        self.paired = paired
        self.begin(0)

    def begin(self, seed: Any) -> None:
        """Starts anew with a seed."""
        self.seed, self.draws = seed, 0

    def next(self, ordered: bool = True) -> Any:
        """Returns the next seed."""
        del ordered
        self.draws += 1
        return self.paired(self.seed, self.draws - 1)


def layer_of(name: str, strength: float) -> keras.layers.Layer:
    """Returns Keras's layer of an augmentation.

    Args:
        name: Its name.
        strength: Above 0 and up to 1. Of `"randaugment"`, how far each of two changes goes; of
            `"erasing"`, the probability that an image loses a rectangle; of `"mixup"` and
            `"cutmix"`, the parameter of the beta distribution of which shares are drawn.
    """
    of_all: dict[str, Any] = {"data_format": "channels_last", "dtype": "float32", "seed": 0}
    if name == "randaugment":
        return keras.layers.RandAugment(value_range=(0, 1), factor=strength, **of_all)
    # A range of one number, of which Keras would otherwise make one that starts at 0.
    exactly = (strength, strength)
    if name == "erasing":
        return keras.layers.RandomErasing(factor=exactly, value_range=(0, 1), **of_all)
    if name == "cutmix":
        return keras.layers.CutMix(factor=exactly, **of_all)
    return keras.layers.MixUp(alpha=strength, **of_all)


def paired_arrays(seed: int, draws: int) -> Any:
    """Returns a seed and the number of draws before as the backend's random functions take them."""
    kind = "uint32" if keras.backend.backend() == "jax" else "int64"
    return keras.ops.convert_to_tensor(np.array([seed, draws], kind))


class BatchChanges:
    """Changes batches of a dataset's inputs.

    Args:
        dataset: The dataset, whose `augment` says how.
        paired: As for `StepSeeds`; for numbers, if left out.

    Attributes:
        soft: Whether labels are probabilities, one per class, before and after.
    """

    def __init__(self, dataset: Dataset, paired: Callable[[Any, int], Any] = paired_arrays) -> None:
        self.seeds = StepSeeds(paired)
        strengths = strengths_among(dataset.augment)
        self.layers = {name: self._seeded(layer_of(name, strengths[name])) for name in strengths}
        self.soft = any(name in MIXING for name in strengths)
        self.low, self.high = (np.asarray(bound, "float32") for bound in dataset.value_range)
        # JAX has no 64-bit integers, and says so of every order that `MixUp` draws.
        warnings.filterwarnings("ignore", "Explicitly requested dtype int64", UserWarning)
        # Of Keras's own on PyTorch.
        warnings.filterwarnings("ignore", "Tensor.T is deprecated", UserWarning)

    def _seeded(self, layer: Any) -> Any:
        layer.generator = self.seeds
        # Where tf.data is read on another backend, a layer looks for its seeds here.
        layer._backend_generators = {"tensorflow": self.seeds}
        return layer

    def __call__(self, images: Any, labels: Any, seed: Any) -> tuple[Any, Any]:
        """Returns images and labels changed.

        Args:
            images: Batch of inputs, of shape `(batch, height, width, channels)`.
            labels: Integers; if `soft`, float32 probabilities of shape `(batch, classes)`.
            seed: From 0 to below `SEEDS`, a number or a tensor.
        """
        images = (images - self.low) / (self.high - self.low)
        for number, (name, layer) in enumerate(self.layers.items()):
            self.seeds.begin(seed + number)
            if name in MIXING:
                mixed = layer({"images": images, "labels": labels})
                images, labels = mixed["images"], mixed["labels"]
            else:
                images = layer(images)
        return images * (self.high - self.low) + self.low, labels

    def of_arrays(
        self, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns arrays changed, computed on the CPU, by a seed that is drawn from a generator."""
        with keras.device("cpu"):
            changed = self(images, labels, int(rng.integers(SEEDS)))
            images, labels = (np.array(keras.ops.convert_to_numpy(one)) for one in changed)
        return images, labels
