"""From the examples of a split to batches on JAX and PyTorch, by grain and without TensorFlow.

As in `pipeline`, the order of training examples, and everything random about each, depends only on
the seed, the epoch and the place in the epoch: a batch is a function of its number, so that an
interrupted run continues with exactly the batches that it has not seen. The orders are not those
of `pipeline`.
"""

import concurrent.futures
import dataclasses
import functools
import math
import os
import threading
from pathlib import Path
from typing import Any

import grain
import numpy as np

from .dataset import (
    MOST_PIXELS,
    Dataset,
    EncodedExamples,
    Examples,
    Split,
    require_batch,
    steps_per_epoch,
)
from .folder import ImageFiles
from .pillow_images import decode, evaluation_view, place_in_noise, training_view
from .unreadable import SCORED, TRAINED, UnreadableError

# Files read at a time, and batches kept ready.
AT_ONCE = max(os.cpu_count() or 1, 2)
AHEAD = 4
# Takes the place of the epoch's number in evaluation; training counts from 1.
EVALUATION = 0
# Tells what is drawn for a batch from what is drawn for its first image.
BATCH = 2
Batch = tuple[np.ndarray, np.ndarray]


def training_batches(
    dataset: Dataset,
    examples: Split,
    batch_size: int,
    epochs: int,
    seed: int,
    start: int = 0,
    skipped: str | Path | None = None,
) -> grain.IterDataset:
    """Returns shuffled batches of all remaining epochs.

    Every epoch has its own order. Examples that do not fill a last batch are left out of the
    epoch (different ones in each), so that all batches have the same shape. Images are changed
    according to the dataset's `augment`. In place of an encoded image that cannot be
    read the next readable one of the epoch is used.

    Args:
        dataset: The dataset, which determines how stored values become inputs.
        examples: The training split.
        batch_size: Examples per step.
        epochs: Total number of epochs.
        seed: Seed of the order, of the augmentations, and of the images' places if the dataset
            is translated.
        start: Steps already done; their batches are skipped.
        skipped: File to which the name of an unreadable image is added whenever it is skipped;
            `unreadable.skipped_images` reads it. None for no such file.

    Returns:
        A dataset of pairs of float32 images and integer labels (probabilities, if the dataset
        has `soft_labels`), with
        `epochs * steps_per_epoch(examples, batch_size) - start` elements.

    Raises:
        ValueError: If there are fewer examples than a batch needs.
    """
    require_batch(examples, batch_size)
    reader = _Reader(dataset, examples, seed, None if skipped is None else Path(skipped))
    change = _Change(dataset) if dataset.batch_changes else None
    return _read_ahead(_TrainingBatches(reader, batch_size, epochs, start, change))


def evaluation_batches(
    dataset: Dataset, examples: Split, batch_size: int, seed: int = 0
) -> grain.IterDataset:
    """Returns every example exactly once, in order; the last batch may be smaller.

    Encoded images are cropped according to the dataset's `eval_crop`, by default not at all.

    Args:
        dataset: The dataset, which determines how stored values become inputs.
        examples: The split to score.
        batch_size: Examples per step.
        seed: Seed of the images' places if the dataset is translated.

    Returns:
        A dataset of pairs of float32 images and integer labels, which raises an `UnreadableError`
        at an image that cannot be read.
    """
    return _read_ahead(_EvaluationBatches(_Reader(dataset, examples, seed), batch_size))


def unreadable_images(examples: EncodedExamples, max_pixels: int = MOST_PIXELS) -> list[str]:
    """Returns the names of the images that cannot be decoded, or are too large, in order."""
    files = _files(examples)

    def is_readable(index: int) -> bool:
        return _decoded(files, index, 3, max_pixels) is not None

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
        found = list(threads.map(is_readable, range(len(files))))
    return [files.name(index) for index, readable in enumerate(found) if not readable]


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads examples of a split as inputs.

    Args:
        dataset: Determines how stored values become inputs.
        examples: The split.
        seed: Seed of everything random.
        skipped: File for the names of images that cannot be read, or None.
    """

    dataset: Dataset
    examples: Split
    seed: int
    skipped: Path | None = None

    @property
    def at_rest(self) -> bool:
        """Whether an input follows from its example alone, of arrays in memory."""
        plain = self.dataset.canvas is None and not self.dataset.views
        return plain and isinstance(self.examples, Examples)

    def order(self, epoch: int) -> np.ndarray:
        """Returns the order of the examples in an epoch."""
        return _order(self.seed, epoch, len(self.examples))

    def batch(self, chosen: np.ndarray, epoch: int, first: int) -> Batch:
        """Returns these examples, the first of which has a place in the epoch."""
        if isinstance(self.examples, Examples) and self.at_rest:
            images = self.dataset.prepare(self.examples.images[chosen].astype("float32"))
            return images.astype("float32"), self.examples.labels[chosen]
        pairs = [self.pair(int(one), epoch, first + at) for at, one in enumerate(chosen)]
        images, labels = zip(*pairs, strict=True)
        return np.stack(images), np.asarray(labels, "int64")

    def pair(self, index: int, epoch: int, place: int) -> tuple[np.ndarray, int]:
        """Returns an example as an input and its label; in training another, if unreadable."""
        if isinstance(self.examples, Examples):
            image, label = self.examples.images[index], self.examples.labels[index]
        else:
            index, image = self._readable(index, epoch, place)
            label = _files(self.examples).labels[index]
        return self._input_of(image, epoch, place), int(label)

    def _readable(self, index: int, epoch: int, place: int) -> tuple[int, np.ndarray]:
        files = _files(self.examples)
        wanted = self.dataset.image_shape[-1], self.dataset.max_pixels
        image = _decoded(files, index, *wanted)
        if image is not None:
            return index, image
        if epoch == EVALUATION:
            raise UnreadableError(SCORED.format(files.name(index)))
        self._note(files.name(index))
        for following in np.roll(self.order(epoch), -place - 1)[:-1].tolist():
            image = _decoded(files, following, *wanted)
            if image is not None:
                return following, image
        raise UnreadableError(TRAINED.format(len(files)))

    def _note(self, name: str) -> None:
        if self.skipped is not None:
            with self.skipped.open("a", encoding="utf-8") as file:
                file.write(f"{name}\n")

    def _input_of(self, image: np.ndarray, epoch: int, place: int) -> np.ndarray:
        """Returns an image as an input; what is random about it depends on epoch and place."""
        dataset = self.dataset
        rng = np.random.default_rng([self.seed, epoch, place])
        if epoch != EVALUATION and dataset.views:
            image = training_view(image, dataset.sides, rng, augment=dataset.views)
        elif dataset.encoded:
            image = evaluation_view(
                image, dataset.sides, crop=dataset.eval_crop if epoch == EVALUATION else None
            )
        image = np.asarray(dataset.prepare(image.astype("float32")), "float32")
        if dataset.canvas is None:
            return image
        return place_in_noise(image, dataset.canvas, dataset.value_range, rng)


@dataclasses.dataclass(frozen=True)
class _TrainingBatches:
    """The batches of all remaining epochs, by number."""

    reader: _Reader
    batch_size: int
    epochs: int
    start: int
    change: "_Change | None"

    @property
    def steps(self) -> int:
        return steps_per_epoch(self.reader.examples, self.batch_size)

    def __len__(self) -> int:
        return max(self.epochs * self.steps - self.start, 0)

    def __getitem__(self, number: Any) -> Batch:
        before, step = divmod(self.start + int(number), self.steps)
        first, epoch = step * self.batch_size, before + 1
        chosen = self.reader.order(epoch)[first : first + self.batch_size]
        batch = self.reader.batch(chosen, epoch, first)
        if self.change is None:
            return batch
        rng = np.random.default_rng([self.reader.seed, epoch, first, BATCH])
        return self.change(*batch, rng)


class _Change:
    """Changes batches, one at a time: a layer draws for one batch."""

    def __init__(self, dataset: Dataset) -> None:
        from .batch_changes import BatchChanges

        self._classes, self._lock = dataset.num_classes, threading.Lock()
        self._change = BatchChanges(dataset)

    def __call__(
        self, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        if self._change.soft:
            labels = np.eye(self._classes, dtype="float32")[labels]
        with self._lock:
            return self._change.of_arrays(images, labels, rng)


@dataclasses.dataclass(frozen=True)
class _EvaluationBatches:
    """The batches of a split in its order, by number."""

    reader: _Reader
    batch_size: int

    def __len__(self) -> int:
        return math.ceil(len(self.reader.examples) / self.batch_size)

    def __getitem__(self, number: Any) -> Batch:
        first = int(number) * self.batch_size
        chosen = np.arange(first, min(first + self.batch_size, len(self.reader.examples)))
        return self.reader.batch(chosen, EVALUATION, first)


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


def _files(examples: Split) -> ImageFiles:
    if not isinstance(examples, ImageFiles):
        raise TypeError(f"Only files of images can be read without TensorFlow: {type(examples)}.")
    return examples


def _decoded(files: ImageFiles, index: int, channels: int, max_pixels: int) -> np.ndarray | None:
    """Returns an image of a split, or None if it cannot be read."""
    try:
        return decode(files.contents(index), channels, max_pixels)
    except (OSError, ValueError):
        return None


def _read_ahead(source: Any) -> grain.IterDataset:
    """Returns the batches of a source, read in order by threads."""
    threads = 0 if source.reader.at_rest else AT_ONCE
    return grain.MapDataset.source(source).to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=AHEAD if threads else 0)
    )
