"""What a dataset is: where its examples come from, and how one becomes an input."""

import dataclasses
from collections.abc import Callable

import numpy as np

SPLITS = ("train", "valid", "test")


@dataclasses.dataclass(frozen=True)
class Examples:
    """The examples of one split, in memory.

    Args:
        images: Array of shape `(examples, height, width, channels)`, as stored.
        labels: Integer array of shape `(examples,)`.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A classification dataset with three fixed splits.

    Nothing is read until `load` is called, so flags can be checked against a dataset first.

    Args:
        name: Name on the command line.
        image_shape: `(height, width, channels)` of an input.
        class_names: One name per class, in the order of the labels.
        split_sizes: Number of examples in train, valid and test.
        value_range: Smallest and largest value of an input.
        stored_range: Smallest and largest value as stored.
        read: Function of a folder (or None for the default one) and of whether it may download,
            to a dictionary from split names to examples.
        find: Function of such a folder that raises `FileNotFoundError` if `read` would have to
            download; it is fast and loads no framework.
        source: Where the data comes from and in which state, in a sentence.
    """

    name: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    split_sizes: tuple[int, int, int]
    value_range: tuple[float, float]
    stored_range: tuple[float, float]
    read: Callable[[str | None, bool], dict[str, Examples]]
    source: str
    find: Callable[[str | None], None]

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def load(self, data_dir: str | None = None, download: bool = False) -> dict[str, Examples]:
        """Reads all splits.

        Args:
            data_dir: Folder to look in; the dataset's usual one if None.
            download: Whether data that is not there may be fetched from the network.

        Returns:
            A dictionary from `"train"`, `"valid"` and `"test"` to `Examples`.

        Raises:
            FileNotFoundError: If the data is not there and may not be downloaded.
        """
        return self.read(data_dir, download)

    def prepare(self, images):
        """Maps stored values to the range of inputs, as float32; works on any array or tensor."""
        low, high = self.value_range
        stored_low, stored_high = self.stored_range
        scale = (high - low) / (stored_high - stored_low)
        return (images - stored_low) * scale + low
