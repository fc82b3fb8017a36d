"""Handwritten digits on a larger canvas, where a study wants them."""

from typing import Any

import numpy as np

from data import DATASETS
from experiments.studies.study import Examples


def splits() -> dict[str, Examples]:
    """Returns the digits' training, validation and test examples, 16x16 pixels from 0 to 1."""
    dataset = DATASETS["digits"]
    found: Any = dataset.load(None)
    low, high = dataset.stored_range
    return {
        name: ((np.asarray(part.images) - low) / (high - low), np.asarray(part.labels))
        for name, part in found.items()
    }


def on_canvas(examples: Examples, size: int, rng: np.random.Generator | None) -> Examples:
    """Puts each digit somewhere on a black canvas, or in its middle without a generator.

    Example:
        >>> images, _ = on_canvas((np.ones((2, 16, 16, 1)), np.zeros(2)), 24, None)
        >>> images[0, :, 12, 0].nonzero()[0][[0, -1]].tolist()
        [4, 19]
    """
    images, labels = examples
    count, height, width, channels = images.shape
    canvas = np.zeros((count, size, size, channels), "float32")
    for index in range(count):
        if rng is None:
            row, column = (size - height) // 2, (size - width) // 2
        else:
            row, column = rng.integers(size - height + 1), rng.integers(size - width + 1)
        canvas[index, row : row + height, column : column + width] = images[index]
    return canvas, labels


def few(examples: Examples, per_class: int, rng: np.random.Generator) -> Examples:
    """Returns so many examples of each class."""
    images, labels = examples
    chosen = np.concatenate(
        [
            rng.choice(np.flatnonzero(labels == one), per_class, replace=False)
            for one in np.unique(labels)
        ]
    )
    return images[chosen], labels[chosen]
