"""What a dataset is: where its examples come from, and how one becomes an input."""

import dataclasses
from collections.abc import Callable

import numpy as np

SPLITS = ("train", "valid", "test")
# Subsets of a training split are drawn once and for all; a run's seed does not move them.
SUBSET_SEED = 0


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

    def subset(self, count: int) -> "Examples":
        """Returns `count` of the examples, always the same, in the stored order."""
        order = np.random.RandomState(SUBSET_SEED).permutation(len(self))
        chosen = np.sort(order[:count])
        return Examples(self.images[chosen], self.labels[chosen])


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
        canvas: Rows and columns of a larger image of uniform noise in which each image is placed
            uniformly at random, or None to leave images where they are.
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
    canvas: tuple[int, int] | None = None

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of what a network gets."""
        height, width = self.canvas or self.image_shape[:2]
        return height, width, self.image_shape[2]

    def translated(self, canvas: tuple[int, int]) -> "Dataset":
        """Returns the dataset with its images placed at random in a canvas of noise.

        Training places an image elsewhere in every epoch; for evaluation the seed fixes the
        place of each example.

        Args:
            canvas: Rows and columns, at least those of the images.

        Raises:
            ValueError: If the images do not fit.
        """
        if any(large < small for large, small in zip(canvas, self.image_shape, strict=False)):
            raise ValueError(
                f"`canvas` must hold images of {self.image_shape[:2]} pixels. Received: "
                f"canvas={canvas}. Give at least the images' own size."
            )
        return dataclasses.replace(self, canvas=canvas)

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
