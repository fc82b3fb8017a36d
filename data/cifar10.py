"""CIFAR-10 with the paper's splits and range."""

import functools

from .dataset import Dataset
from .packed import find_packed_or_prepared, is_packed, read_packed_or_prepared

IMAGE_SHAPE = (32, 32, 3)

CIFAR10 = Dataset(
    name="cifar10",
    image_shape=IMAGE_SHAPE,
    class_names=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    split_sizes=(45_000, 5_000, 10_000),
    value_range=(0.0, 1.0),
    stored_range=(0.0, 255.0),
    read=functools.partial(
        read_packed_or_prepared, "cifar10", valid_percent=10, image_shape=IMAGE_SHAPE
    ),
    find=functools.partial(find_packed_or_prepared, "cifar10"),
    needs_tensorflow=True,
    packed=functools.partial(is_packed, "cifar10"),
    source="CIFAR-10 as prepared by tensorflow-datasets, validation = first 10 % of train",
)
