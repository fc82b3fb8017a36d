"""MNIST with the paper's splits and range."""

import functools

from .dataset import Dataset
from .tfds_files import find_prepared, read_prepared

MNIST = Dataset(
    name="mnist",
    image_shape=(28, 28, 1),
    class_names=tuple("0123456789"),
    split_sizes=(55_200, 4_800, 10_000),
    value_range=(-1.0, 1.0),
    stored_range=(0.0, 255.0),
    read=functools.partial(read_prepared, "mnist", valid_percent=8),
    find=functools.partial(find_prepared, "mnist"),
    needs_tensorflow=True,
    source="MNIST as prepared by tensorflow-datasets, validation = first 8 % of train",
)
