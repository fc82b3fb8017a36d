"""What a dataset is: where its examples come from, and how one becomes an input."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

SPLITS = ("train", "valid", "test")
# Subsets of a training split are drawn once and for all; a run's seed does not move them.
SUBSET_SEED = 0
# What training may do to an image at random; see `Dataset.augmented`.
AUGMENTATIONS = ("crop", "flip")
# Of an input or a stored value: one number, or one per channel.
Bound = float | tuple[float, ...]


def fixed_choice(total: int, count: int) -> np.ndarray:
    """Returns `count` of the numbers below `total`, always the same, in increasing order."""
    order = np.random.RandomState(SUBSET_SEED).permutation(total)
    return np.sort(order[:count])


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
        chosen = fixed_choice(len(self), count)
        return Examples(self.images[chosen], self.labels[chosen])


class EncodedExamples(abc.ABC):
    """The examples of one split, as JPEG or PNG files that are read when they are needed."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Returns how many examples there are, those with unreadable images among them."""

    @abc.abstractmethod
    def stream(self, key) -> Any:
        """Returns all examples once, as a `tf.data.Dataset` of dictionaries.

        Each has a `"label"`, an int64, and a `"name"`, a string by which a person finds the image;
        it may have more that `encoded` needs. Nothing that can fail for one image is done yet.

        Args:
            key: Two int64, a seed and an epoch, of which the order is a function; None for one
                fixed order.
        """

    @abc.abstractmethod
    def encoded(self, example: dict[str, Any]) -> Any:
        """Returns the bytes of an example's image, a string tensor."""

    def subset(self, count: int) -> "EncodedExamples":
        """Returns `count` of the examples, always the same.

        Raises:
            ValueError: If the examples can only be read one after the other.
        """
        raise ValueError(
            "A subset needs examples that can be read in any order, and these are a stream. "
            f"Received: {count} of {len(self)} examples. Train on all of them."
        )


Split = Examples | EncodedExamples


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A classification dataset with three fixed splits.

    Nothing is read until `load` is called, so flags can be checked against a dataset first.

    Args:
        name: Name on the command line.
        image_shape: `(height, width, channels)` of an input.
        class_names: One name per class, in the order of the labels.
        split_sizes: Number of examples in train, valid and test.
        value_range: Smallest and largest value of an input; one per channel where they differ.
            Noise is drawn from it.
        stored_range: Smallest and largest value as stored.
        read: Function of a folder (or None for the default one) and of whether it may download,
            to a dictionary from split names to examples.
        find: Function of such a folder that raises `FileNotFoundError` if `read` would have to
            download; it is fast and loads no framework.
        source: Where the data comes from and in which state, in a sentence.
        canvas: Rows and columns of a larger image of uniform noise in which each image is placed
            uniformly at random, or None to leave images where they are.
        resizable: Whether inputs may have any size.
        encoded: Whether examples are encoded images, each of a size of its own.
        augment: What training does to an image at random; see `augmented`.
        eval_crop: What evaluation sees of an image; see `cropped`.
        view: Function of the uint8 image of a file to an image as stored, where that is more than
            resizing it; for images that a server is sent.
        left_out: Function of a folder to the names of the files in it that are no examples, where
            there can be any.
        complete: Function of the dataset and a folder that returns the dataset with what only
            the folder can tell, or None if nothing is missing; it loads no framework.
    """

    name: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    split_sizes: tuple[int, int, int]
    value_range: tuple[Bound, Bound]
    stored_range: tuple[float, float]
    read: Callable[[str | None, bool], dict[str, Split]]
    source: str
    find: Callable[[str | None], None]
    canvas: tuple[int, int] | None = None
    resizable: bool = False
    encoded: bool = False
    augment: tuple[str, ...] = ()
    eval_crop: float | None = None
    view: Callable[[Any], Any] | None = None
    left_out: Callable[[str | None], list[str]] | None = None
    complete: Callable[["Dataset", str | None], "Dataset"] | None = None

    def at(self, data_dir: str | None = None, image_size: int | None = None) -> "Dataset":
        """Returns the dataset with its shapes, class names and sizes as they are in a folder.

        Args:
            data_dir: Folder to look in; the dataset's usual one if None.
            image_size: Pixels per side of an input; the dataset's own if None.

        Raises:
            ValueError: If images of this dataset have one size, or the folder cannot be used.
            FileNotFoundError: If the folder is needed and not there.
        """
        dataset = self if image_size is None else self._of_size(image_size)
        return dataset if self.complete is None else self.complete(dataset, data_dir)

    def _of_size(self, image_size: int) -> "Dataset":
        if not self.resizable:
            raise ValueError(
                f"`image_size` needs a dataset of any size; images of {self.name} have "
                f"{self.image_shape[:2]} pixels. Received: image_size={image_size}. Leave it out."
            )
        if image_size < 1:
            raise ValueError(f"`image_size` must be at least 1. Received: image_size={image_size}.")
        return dataclasses.replace(self, image_shape=(image_size, image_size, self.image_shape[2]))

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

    def augmented(self, augment: tuple[str, ...]) -> "Dataset":
        """Returns the dataset with its training images changed at random, anew in every epoch.

        Neither is done unless asked for: a crop moves and enlarges what is in an image, and a flip
        exchanges left and right, so a class that depends on either can no longer be learnt.

        Args:
            augment: Any of `"crop"`, which cuts out a part of 8 to 100 % of the area with sides
                from 3:4 to 4:3 and resizes it to the input's size, and `"flip"`, which mirrors
                every second image.

        Raises:
            ValueError: If there is another word among them.
        """
        if not set(augment) <= set(AUGMENTATIONS):
            raise ValueError(
                f"`augment` must be among {', '.join(map(repr, AUGMENTATIONS))}. Received: "
                f"augment={augment!r}."
            )
        return dataclasses.replace(self, augment=tuple(augment))

    def cropped(self, eval_crop: float | None) -> "Dataset":
        """Returns the dataset with evaluation images cut to their central square.

        Args:
            eval_crop: Side of the square, as a share of the image's shorter side; None for the
                whole image, whose sides are then resized to the input's, each by its own factor.

        Raises:
            ValueError: If images of this dataset have one size, or the share is not from above 0
                to 1.
        """
        if eval_crop is not None and not (self.encoded and 0 < eval_crop <= 1):
            raise ValueError(
                "`eval_crop` must be above 0 and at most 1, and needs images of sizes of their "
                f"own. Received: eval_crop={eval_crop} for {self.name}. Leave it out."
            )
        return dataclasses.replace(self, eval_crop=eval_crop)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def load(self, data_dir: str | None = None, download: bool = False) -> dict[str, Split]:
        """Reads all splits.

        Args:
            data_dir: Folder to look in; the dataset's usual one if None.
            download: Whether data that is not there may be fetched from the network.

        Returns:
            A dictionary from `"train"`, `"valid"` and `"test"` to `Examples` in memory, or
            to `EncodedExamples`.

        Raises:
            FileNotFoundError: If the data is not there and may not be downloaded.
        """
        return self.read(data_dir, download)

    def prepare(self, images):
        """Maps stored values to the range of inputs, as float32; works on any array or tensor."""
        low, high = (_per_channel(bound) for bound in self.value_range)
        stored_low, stored_high = self.stored_range
        scale = (high - low) / (stored_high - stored_low)
        return (images - stored_low) * scale + low


def _per_channel(bound: Bound) -> Any:
    """Returns a bound as what arithmetic takes; a lone number as it is, for the same bits."""
    return np.asarray(bound, "float32") if isinstance(bound, tuple) else bound
