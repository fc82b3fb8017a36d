"""MNIST with the paper's splits and range."""

import functools

from .dataset import Dataset
from .packed import find_packed_or_prepared, is_packed, read_packed_or_prepared

IMAGE_SHAPE = (28, 28, 1)

MNIST = Dataset(
    name="mnist",
    image_shape=IMAGE_SHAPE,
    class_names=tuple("0123456789"),
    split_sizes=(55_200, 4_800, 10_000),
    value_range=(-1.0, 1.0),
    stored_range=(0.0, 255.0),
    read=functools.partial(
        read_packed_or_prepared, "mnist", valid_percent=8, image_shape=IMAGE_SHAPE
    ),
    find=functools.partial(find_packed_or_prepared, "mnist"),
    needs_tensorflow=True,
    packed=functools.partial(is_packed, "mnist"),
    source="MNIST as prepared by tensorflow-datasets, validation = first 8 % of train",
)
