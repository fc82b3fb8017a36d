"""Random images with random labels, for measuring speed: nothing to read and nothing to learn."""

import dataclasses
import functools

import numpy as np

from .dataset import SPLITS, Dataset, Examples, Split

# The images are the same in every run.
IMAGE_SEED = 0
SIZES = (512, 64, 64)
CLASSES = 1000
SHAPE = (224, 224, 3)


def draw_images(
    image_shape: tuple[int, ...], data_dir: str | None = None, download: bool = False
) -> dict[str, Split]:
    """Draws uint8 images and labels from a fixed seed, all values equally likely.

    Args:
        image_shape: `(height, width, channels)`.
        data_dir: Not used.
        download: Not used.

    Returns:
        A dictionary from `"train"`, `"valid"` and `"test"` to examples.
    """
    del data_dir, download
    generator = np.random.RandomState(IMAGE_SEED)
    return {
        split: Examples(
            generator.randint(0, 256, (size, *image_shape), "uint8"),
            generator.randint(0, CLASSES, size, "int64"),
        )
        for split, size in zip(SPLITS, SIZES, strict=True)
    }


def find_nothing(data_dir: str | None = None) -> None:
    """Does nothing: random images need no files."""
    del data_dir


def complete_images(dataset: Dataset, data_dir: str | None = None) -> Dataset:
    """Returns the dataset with images of its chosen size."""
    del data_dir
    return dataclasses.replace(dataset, read=functools.partial(draw_images, dataset.image_shape))


SYNTHETIC = Dataset(
    name="synthetic",
    image_shape=SHAPE,
    class_names=tuple(map(str, range(CLASSES))),
    split_sizes=SIZES,
    value_range=(-1.0, 1.0),
    stored_range=(0.0, 255.0),
    read=functools.partial(draw_images, SHAPE),
    find=find_nothing,
    source="random images and labels from a fixed seed",
    resizable=True,
    complete=complete_images,
)
