"""A user's own images, in a folder per class."""

import dataclasses
import functools
import hashlib
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .dataset import SPLITS, Dataset, EncodedExamples, Split, fixed_choice
from .imagenet import STANDARD_RANGE

TIFF = (".tif", ".tiff")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", *TIFF)
LISTED = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
# Tenths of a folder that is not yet split; the rest is for training.
VALID_PART, TEST_PART, PARTS = 0, 1, 10
LAYOUTS = (
    "Give a folder of <class>/<image>, or of train/<class>/<image>, test/<class>/<image> and "
    f"perhaps valid/<class>/<image>, with images in {LISTED}."
)


@dataclasses.dataclass(frozen=True)
class ImageFiles(EncodedExamples):
    """The examples of one split, each in a file.

    Args:
        paths: The files.
        labels: Integer array of shape `(examples,)`.
    """

    paths: tuple[str, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, count: int) -> "ImageFiles":
        """Returns `count` of the examples, always the same, in the stored order."""
        chosen = fixed_choice(len(self), count)
        return ImageFiles(tuple(self.paths[index] for index in chosen), self.labels[chosen])

    def stream(self, key):
        """Returns all examples once; with a key, in an order drawn uniformly at random."""
        import tensorflow as tf

        random: Any = tf.random
        # Outside the graph of an epoch, which would otherwise contain a million paths.
        with tf.init_scope(), tf.device("CPU"):
            paths, names = map(tf.constant, self._paths_and_names)
            labels = tf.constant(self.labels, tf.int64)
        order = tf.range(len(self), dtype=tf.int64)
        if key is not None:
            order = random.experimental.stateless_shuffle(order, seed=key)
        return tf.data.Dataset.from_tensor_slices(order).map(
            lambda index: {
                "path": tf.gather(paths, index),
                "name": tf.gather(names, index),
                "label": tf.gather(labels, index),
            }
        )

    @functools.cached_property
    def _paths_and_names(self) -> tuple[list[bytes], list[str]]:
        """The paths as the file system spells them, and in readable form."""
        return [os.fsencode(path) for path in self.paths], [printable(path) for path in self.paths]

    def name(self, index: int) -> str:
        """Returns the file of an example in readable form."""
        return self._paths_and_names[1][index]

    def contents(self, index: int) -> bytes:
        """Returns the bytes of an example's file."""
        return Path(self.paths[index]).read_bytes()

    def encoded(self, example):
        """Reads the example's file."""
        import tensorflow as tf

        return tf.io.read_file(example["path"])


def printable(path: str) -> str:
    r"""Returns a path as one line that any terminal can show and any file can hold.

    Example:
        >>> print(printable("two" + chr(10) + "lines"))
        two\nlines
    """
    if path.isprintable():
        return path
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) == "Cc" else letter
        for letter in text
    )


def find_folder(data_dir: str | None) -> None:
    """Checks that there is a folder.

    Raises:
        FileNotFoundError: If there is none.
    """
    if data_dir is None or not Path(data_dir).expanduser().is_dir():
        raise FileNotFoundError(
            f"The dataset 'folder' needs a folder. Received: data_dir={data_dir}. {LAYOUTS}"
        )


def complete_folder(dataset: Dataset, data_dir: str | None) -> Dataset:
    """Returns the dataset with the classes and sizes of a folder, listed now and once.

    Args:
        dataset: The dataset, without classes.
        data_dir: The folder.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a class or a split has no images, or there are fewer than two classes.
    """
    find_folder(data_dir)
    class_names, splits = list_images(Path(data_dir or "").expanduser())
    train, valid, test = (len(splits[name]) for name in SPLITS)
    return dataclasses.replace(
        dataset,
        class_names=class_names,
        split_sizes=(train, valid, test),
        read=lambda _folder, _download: dict(splits),
    )


def read_folder(data_dir: str | None, download: bool = False) -> dict[str, Split]:
    """Lists the images of a folder.

    Args:
        data_dir: The folder.
        download: Not used.

    Returns:
        A dictionary from `"train"`, `"valid"` and `"test"` to encoded examples.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a class or a split has no images, or there are fewer than two classes.
    """
    del download
    find_folder(data_dir)
    return list_images(Path(data_dir or "").expanduser())[1]


def files_left_out(data_dir: str | None) -> list[str]:
    """Returns the files in a folder that are not examples, except hidden ones, in order.

    They are files of other formats, and those that are next to the classes or deeper within one.

    Args:
        data_dir: The folder.
    """
    root = Path(data_dir or "").expanduser()
    levels = 2 if _folders(root / "train") else 1
    return [printable(os.path.relpath(path, root)) for path in _left_out(root, levels)]


def _left_out(folder: str | Path, levels: int) -> Iterable[str]:
    """Yields the files that are not examples, in a folder some levels above the classes."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=levels > 0):
            yield from _left_out(entry.path, levels - 1)
        elif levels != 0 or not entry.name.lower().endswith(SUFFIXES):
            yield entry.path


def list_images(root: Path) -> tuple[tuple[str, ...], dict[str, Split]]:
    """Returns the names of the classes and the examples of each split.

    Args:
        root: A folder of classes, or of splits of classes.

    Raises:
        ValueError: If a class or a split has no images, or there are fewer than two classes.
    """
    divided = bool(_folders(root / "train"))
    classes = tuple(_folders(root / "train" if divided else root))
    if len(classes) < 2:
        raise ValueError(
            "The dataset 'folder' needs at least 2 classes, each in a folder. Received: "
            f"{len(classes)} in data_dir={root}. {LAYOUTS}"
        )
    listed = _listed_by_split(root, classes) if divided else _listed_by_hash(root, classes)
    _check_splits(root, classes, listed)
    splits: dict[str, Split] = {
        name: ImageFiles(tuple(paths), np.array(labels, "int64"))
        for name, (paths, labels) in listed.items()
    }
    return classes, splits


Listed = dict[str, tuple[list[str], list[int]]]


def split_of(relative_path: str) -> str:
    """Returns the split of an image, which depends only on its path and is the same everywhere.

    Args:
        relative_path: `<class>/<image>`.

    Example:
        >>> [split_of(f"cat/{number}.jpg") for number in (9, 10, 11)]
        ['train', 'train', 'test']
    """
    # File systems spell accented letters in several ways; this chooses one.
    spelled = unicodedata.normalize("NFC", relative_path).encode("utf-8", "surrogateescape")
    part = int.from_bytes(hashlib.sha256(spelled).digest()[:8], "big") % PARTS
    return {VALID_PART: "valid", TEST_PART: "test"}.get(part, "train")


def _listed_by_hash(root: Path, classes: tuple[str, ...]) -> Listed:
    """Lists a folder of classes, each image in the split determined by its path."""
    listed: Listed = {name: ([], []) for name in SPLITS}
    for label, path, relative_path in _images(root, classes):
        _append(listed[split_of(relative_path)], path, label)
    return listed


def _listed_by_split(root: Path, classes: tuple[str, ...]) -> Listed:
    """Lists a folder of splits; if valid is missing, a tenth of train takes its place."""
    unknown = sorted(set(_folders(root)) - set(SPLITS))
    if unknown:
        raise ValueError(
            f"A folder with train/ must have no folders but {', '.join(SPLITS)}. Received: "
            f"{unknown[0]!r} in data_dir={root}. Rename or move it."
        )
    listed: Listed = {name: ([], []) for name in SPLITS}
    hold_out = not _folders(root / "valid")
    for split in SPLITS:
        _refuse_unknown_classes(root / split, classes)
        for label, path, relative_path in _images(root / split, classes, required=split == "train"):
            held_out = hold_out and split == "train" and split_of(relative_path) == "valid"
            _append(listed["valid" if held_out else split], path, label)
    return listed


def _append(listed: tuple[list[str], list[int]], path: str, label: int) -> None:
    paths, labels = listed
    paths.append(path)
    labels.append(label)


def _images(
    root: Path, classes: tuple[str, ...], required: bool = True
) -> Iterable[tuple[int, str, str]]:
    """Yields the label, the path and `<class>/<image>` of every image, in order of their names."""
    folders = _folders(root)
    for label, class_name in enumerate(classes):
        folder = folders.get(class_name)
        names = [] if folder is None else _image_names(folder)
        if required and not names:
            raise ValueError(
                f"Every class must have images. Received: no {LISTED} in "
                f"{root / class_name}. Add some, or remove the folder."
            )
        for name in names:
            yield label, f"{folder}/{name}", f"{folders[class_name].name}/{name}"


def _folders(root: Path) -> dict[str, Path]:
    """Returns the visible folders in a folder, by name, in order; none if it does not exist.

    Raises:
        ValueError: If two have the same name.
    """
    if not root.is_dir():
        return {}
    visible = (path for path in root.iterdir() if not path.name.startswith("."))
    named: dict[str, Path] = {}
    for path in sorted(path for path in visible if path.is_dir()):
        name = _name_of(path)
        if name in named:
            raise ValueError(
                "Every class must have a name of its own. Received: two folders that spell "
                f"{name!r} in {root}. Rename one, or put their images together."
            )
        named[name] = path
    return dict(sorted(named.items()))


def _name_of(folder: Path) -> str:
    r"""Returns a folder's name as text, whatever its bytes are and however accents are spelled.

    Bytes that are not UTF-8 are written in hexadecimal, as in `caf\xe9`.
    """
    text = os.fsencode(folder.name).decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)


def _image_names(folder: Path) -> list[str]:
    """Returns the names of the images in a folder, in order, without hidden files."""
    names = [entry.name for entry in os.scandir(folder) if entry.is_file()]
    images = [name for name in names if name.lower().endswith(SUFFIXES) and name[0] != "."]
    return sorted(images, key=lambda name: unicodedata.normalize("NFC", name))


def _refuse_unknown_classes(root: Path, classes: tuple[str, ...]) -> None:
    unknown = sorted(set(_folders(root)) - set(classes))
    if unknown:
        raise ValueError(
            f"Every class must be in train. Received: {unknown[0]!r} in {root} alone. Add its "
            "training images, or remove the folder."
        )


def _check_splits(root: Path, classes: tuple[str, ...], listed: Listed) -> None:
    """Refuses a split without images, and a class without training images."""
    for split, (paths, _) in listed.items():
        if not paths:
            counts = ", ".join(f"{len(listed[name][0])} {name}" for name in SPLITS)
            raise ValueError(
                f"Every split must have images. Received: {counts} in data_dir={root}. Add "
                f"images, or put some into {split}/<class>/ yourself."
            )
    untrained = sorted(set(range(len(classes))) - set(listed["train"][1]))
    if untrained:
        raise ValueError(
            "Every class must have training images. Received: none for "
            f"{classes[untrained[0]]!r} in data_dir={root}. Add images to that class."
        )


FOLDER = Dataset(
    name="folder",
    image_shape=(224, 224, 3),
    class_names=(),
    split_sizes=(0, 0, 0),
    value_range=STANDARD_RANGE,
    stored_range=(0.0, 255.0),
    read=read_folder,
    find=find_folder,
    source="a folder of images per class; where it is not divided, a tenth each for validation "
    "and test, chosen by the hash of the path",
    resizable=True,
    encoded=True,
    left_out=files_left_out,
    complete=complete_folder,
)
