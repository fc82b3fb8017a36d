"""The images that studies are made of, and how they are put on a larger canvas."""

import functools
from typing import Any

import numpy as np

from low_rank_local_connectivity.data import DATASETS
from low_rank_local_connectivity.experiments.studies.study import Examples, Options

# No more of each split, so that a study takes minutes; digits have fewer.
MOST = {"train": 2000, "valid": 500, "test": 1000}


def splits(options: Options) -> dict[str, Examples]:
    """Returns training, validation and test examples of the data set, with pixels from 0 to 1.

    Of a large data set there are 2,000, 500 and 1,000, always the same ones.
    """
    return _splits(options.dataset, options.data_dir)


@functools.cache
def _splits(name: str, data_dir: str | None) -> dict[str, Examples]:
    dataset = DATASETS[name]
    loaded: Any = dataset.load(data_dir)
    low, high = dataset.stored_range
    found = {}
    for split, whole in loaded.items():
        part = whole.subset(MOST[split]) if len(whole) > MOST[split] else whole
        images = (np.asarray(part.images, "float32") - low) / (high - low)
        found[split] = (images, np.asarray(part.labels))
    return found


def image_shape(options: Options) -> tuple[int, int, int]:
    """Returns the height, width and channels of an image of the data set."""
    height, width, channels = DATASETS[options.dataset].image_shape
    return height, width, channels


def on_canvas(examples: Examples, size: int, rng: np.random.Generator | None) -> Examples:
    """Puts each image somewhere on a black canvas, or in its middle without a generator.

    Args:
        examples: Images and labels.
        size: Rows and columns of the canvas.
        rng: Draws places.

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
