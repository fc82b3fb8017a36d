"""Datasets: where their examples come from, and how an example becomes an input."""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .augmentations import AUGMENTATIONS, MIXING, are_known, strengths_among, views_among

SPLITS = ("train", "valid", "test")
# Subsets of a training split are drawn once and for all; a run's seed does not change them.
SUBSET_SEED = 0
# Pixels that an image may have, and bytes that its file may: compressed, 50 kB can be gigabytes. A
# camera's photograph has up to 61 million pixels.
MOST_PIXELS, MOST_BYTES = 2**26, 2**28
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
    """The examples of one split, as encoded images that are read when they are needed."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Returns how many examples there are, including those with unreadable images."""

    @abc.abstractmethod
    def stream(self, key) -> Any:
        """Returns all examples once, as a `tf.data.Dataset` of dictionaries.

        Each has a `"label"`, an int64, a `"name"`, a string by which a person can find the image,
        and whatever else `encoded` needs. Nothing that can fail for one image is done yet.

        Args:
            key: Two int64, a seed and an epoch, which determine the order; None for one fixed
                order.
        """

    @abc.abstractmethod
    def encoded(self, example: dict[str, Any]) -> Any:
        """Returns the bytes of an example's image, a string tensor."""

    @property
    def image_files(self) -> Sequence[str]:
        """The files that are an image each; none if images are parts of other files."""
        return ()

    def subset(self, count: int) -> "EncodedExamples":
        """Returns `count` of the examples, always the same.

        Raises:
            ValueError: If the examples can only be read one after the other.
        """
        raise ValueError(
            "A subset needs examples that can be read in any order, but these are a stream. "
            f"Received: {count} of {len(self)} examples. Train on all of them."
        )


Split = Examples | EncodedExamples


def steps_per_epoch(examples: Split, batch_size: int) -> int:
    """Returns the number of whole batches in a pass over the examples."""
    return len(examples) // batch_size


def require_batch(examples: Split, batch_size: int) -> None:
    """Refuses batches that are larger than the training split."""
    if len(examples) < batch_size:
        raise ValueError(
            "A batch must not be larger than the training split. Received: "
            f"batch_size={batch_size} with {len(examples)} training examples."
        )


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A classification dataset with three fixed splits.

    Nothing is read until `load` is called, so flags can be checked against a dataset first.

    Args:
        name: Name on the command line.
        image_shape: `(height, width, channels)` of an input; `(length, channels)` of a signal,
            `(depth, height, width, channels)` of a volume.
        class_names: One name per class, in the order of the labels.
        split_sizes: Number of examples in train, valid and test.
        value_range: Smallest and largest value of an input; one per channel where they differ.
            Noise is drawn from it.
        stored_range: Smallest and largest value as stored.
        read: Function from a folder (or None for the default one) and whether it may download, to
            a dictionary from split names to examples.
        find: Function of such a folder that raises `FileNotFoundError` if `read` would have to
            download; it is fast and loads no framework.
        source: A phrase saying where the data comes from and how it was prepared.
        canvas: Rows and columns of a larger image of uniform noise in which each image is placed
            uniformly at random, or None to leave images where they are.
        resizable: Whether inputs may have any size.
        encoded: Whether examples are encoded images, of any size.
        augment: Random changes of training images; see `augmented`.
        eval_crop: The part of an image that evaluation uses; see `cropped`.
        view: Function from the uint8 image in a file to an image as stored, where that takes more
            than resizing; for images sent to a server.
        left_out: Function from a folder to the names of the files in it that are not examples,
            where there can be any.
        needs_tensorflow: Whether only TensorFlow can read it, whatever the backend.
        complete: Function of the dataset and a folder that fills in what depends on the folder,
            or None if nothing does; it loads no framework.
        max_pixels: Pixels that an image in a file may have; those with more are not decoded, and
            count as unreadable.
        packed: Function of a folder that says whether it holds the dataset in files for which
            TensorFlow is not needed; None where there are none of that kind.
    """

    name: str
    image_shape: tuple[int, ...]
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
    needs_tensorflow: bool = False
    complete: Callable[["Dataset", str | None], "Dataset"] | None = None
    max_pixels: int = MOST_PIXELS
    packed: Callable[[str | None], bool] | None = None

    def at(self, data_dir: str | None = None, image_size: int | None = None) -> "Dataset":
        """Returns the dataset with the shapes, class names and sizes found in a folder.

        Args:
            data_dir: Folder to look in; the dataset's usual one if None.
            image_size: Pixels per side of an input; the dataset's own if None.

        Raises:
            ValueError: If images of this dataset have one size, or the folder cannot be used.
            FileNotFoundError: If the folder is needed and does not exist.
        """
        dataset = self if image_size is None else self._of_size(image_size)
        if self.packed is not None and self.packed(data_dir):
            dataset = dataclasses.replace(dataset, needs_tensorflow=False)
        return dataset if self.complete is None else self.complete(dataset, data_dir)

    def _of_size(self, image_size: int) -> "Dataset":
        if not self.resizable:
            raise ValueError(
                f"`image_size` needs a dataset of any size; images of {self.name} have "
                f"{self.image_shape[:2]} pixels. Received: image_size={image_size}. Leave it out."
            )
        if image_size < 1:
            raise ValueError(f"`image_size` must be at least 1. Received: image_size={image_size}.")
        shape = (image_size, image_size, self.image_shape[-1])
        return dataclasses.replace(self, image_shape=shape)

    @property
    def dimensions(self) -> int:
        """How many spatial axes an input has, 1 of a signal, 2 of an image, 3 of a volume."""
        return len(self.image_shape) - 1

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns of an image."""
        height, width = self.image_shape[:-1]
        return height, width

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a network's input, such as `(height, width, channels)`."""
        return (*(self.canvas or self.image_shape[:-1]), self.image_shape[-1])

    def translated(self, canvas: tuple[int, int]) -> "Dataset":
        """Returns the dataset with its images placed at random in a canvas of noise.

        Training places an image anew in every epoch; in evaluation the seed determines the place
        of each example.

        Args:
            canvas: Rows and columns, at least those of the images.

        Raises:
            ValueError: If the images do not fit.
        """
        self._require_images("canvas", canvas)
        if any(large < small for large, small in zip(canvas, self.image_shape, strict=False)):
            raise ValueError(
                f"`canvas` must hold images of {self.image_shape[:2]} pixels. Received: "
                f"canvas={canvas}. Give at least the images' own size."
            )
        return dataclasses.replace(self, canvas=canvas)

    def augmented(self, augment: tuple[str, ...]) -> "Dataset":
        """Returns the dataset with its training images changed at random, anew in every epoch.

        By default images are not changed: a crop moves and enlarges what is in an image, and a
        flip exchanges left and right, so a class that depends on either can no longer be learnt.

        Args:
            augment: Any of `"crop"`, which cuts out 8 to 100 % of the area, with an aspect ratio
                from 3:4 to 4:3, and resizes it to the input's size; `"flip"`, which mirrors
                half of the images; and Keras's `"randaugment"`, `"erasing"`, `"mixup"` and
                `"cutmix"`, of whole batches, which may be followed by a strength, as in
                `"mixup:0.4"`. The last two mix labels too: they become probabilities.

        Raises:
            ValueError: If there is another word among them, or a strength that is not above 0 and
                at most 1.
        """
        if not are_known(augment):
            raise ValueError(
                f"`augment` must be among {', '.join(map(repr, AUGMENTATIONS))}, each once, the "
                "last four with a strength above 0 and up to 1 if wanted, as in 'mixup:0.4'. "
                f"Received: augment={augment!r}."
            )
        if augment:
            self._require_images("augment", augment)
        return dataclasses.replace(self, augment=tuple(augment))

    @property
    def views(self) -> tuple[str, ...]:
        """The random changes of one training image at a time."""
        return views_among(self.augment)

    @property
    def batch_changes(self) -> dict[str, float]:
        """The random changes of training batches, with their strengths."""
        return strengths_among(self.augment)

    @property
    def soft_labels(self) -> bool:
        """Whether training labels are probabilities, one for each class."""
        return any(name in MIXING for name in self.batch_changes)

    def _require_images(self, name: str, value: Any) -> None:
        if self.dimensions != 2:
            raise ValueError(
                f"`{name}` needs images. Received: {name}={value!r} for examples of "
                f"{self.dimensions} spatial axes in {self.name}. Leave it out."
            )

    def cropped(self, eval_crop: float | None) -> "Dataset":
        """Returns the dataset with evaluation images cropped to their central square.

        Args:
            eval_crop: Side of the square, as a fraction of the image's shorter side; None for the
                whole image, whose height and width are then resized independently.

        Raises:
            ValueError: If images of this dataset have one size, or the fraction is not above 0
                and at most 1.
        """
        if eval_crop is not None and not (self.encoded and 0 < eval_crop <= 1):
            raise ValueError(
                "`eval_crop` must be above 0 and at most 1, and needs a dataset of images of any "
                f"size. Received: eval_crop={eval_crop} for {self.name}. Leave it out."
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
            download: Whether missing data may be downloaded.

        Returns:
            A dictionary from `"train"`, `"valid"` and `"test"` to `Examples` in memory, or
            to `EncodedExamples`.

        Raises:
            FileNotFoundError: If the data is missing and may not be downloaded.
        """
        return self.read(data_dir, download)

    def prepare(self, images):
        """Maps stored values to the range of inputs, as float32; takes any array or tensor."""
        low, high = (_per_channel(bound) for bound in self.value_range)
        stored_low, stored_high = self.stored_range
        scale = (high - low) / (stored_high - stored_low)
        return (images - stored_low) * scale + low


def _per_channel(bound: Bound) -> Any:
    """Returns a bound for arithmetic; a single number stays as it is, for the same bits."""
    return np.asarray(bound, "float32") if isinstance(bound, tuple) else bound
