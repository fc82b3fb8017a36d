"""Datasets as arrays in files of Keras's form, which are read without TensorFlow."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from low_rank_local_connectivity.untrusted.archives import read_arrays

from .dataset import Dataset, Examples, Split
from .tfds_files import default_data_dir, find_prepared, read_prepared
from .unreadable import UnreadableError

NAMES = ("x_train", "y_train", "x_test", "y_test")
# Of each dataset that is packed.
CLASSES = 10
# Bytes of the arrays of one file.
MOST_IN_A_FILE = 56_000_000


def packed_files(name: str, data_dir: str | None) -> list[Path]:
    """Returns the files of a folder that hold a dataset's arrays: `NAME.npz`, or all its parts.

    The parts are `NAME-1-of-4.npz` to `NAME-4-of-4.npz`.

    Args:
        name: Name of the dataset.
        data_dir: Folder to look in; that of tensorflow-datasets if None.

    Raises:
        UnreadableError: If some parts are there and others are not.
    """
    folder = Path(data_dir or default_data_dir()).expanduser()
    whole = folder / f"{name}.npz"
    if whole.is_file():
        return [whole]
    parts = sorted(folder.glob(f"{name}-*-of-*.npz"))
    counts = {match[1] for path in parts if (match := re.search(r"-of-(\d+)\.npz$", path.name))}
    if not counts:
        return []
    count = max(map(int, counts))
    wanted = [folder / f"{name}-{number}-of-{count}.npz" for number in range(1, count + 1)]
    missing = [path.name for path in wanted if path not in parts]
    if missing or len(counts) > 1:
        raise UnreadableError(
            f"All parts of {name} must be in one folder, and no others. Received: {len(parts)} "
            f"files in {folder}, without {', '.join(missing) or 'one count of parts'}. Copy all "
            "that were written together."
        )
    return wanted


def find_packed_or_prepared(name: str, data_dir: str | None) -> None:
    """Checks that a dataset is in a folder, in either form.

    Raises:
        FileNotFoundError: If it is not.
    """
    if not packed_files(name, data_dir):
        find_prepared(name, data_dir)


def is_packed(name: str, data_dir: str | None) -> bool:
    """Whether a folder holds a dataset's arrays, for which TensorFlow is not needed."""
    return bool(packed_files(name, data_dir))


def read_packed_or_prepared(
    name: str,
    data_dir: str | None,
    download: bool,
    valid_percent: int,
    image_shape: tuple[int, ...],
) -> dict[str, Split]:
    """Reads a dataset's splits, from its arrays if there are any, the start of train as validation.

    Args:
        name: Name of the dataset.
        data_dir: Folder to look in; that of tensorflow-datasets if None.
        download: Whether tensorflow-datasets may download what is missing.
        valid_percent: Share of the training images, from their start, to hold out.
        image_shape: What an image has; that of tensorflow-datasets is known to be right.

    Raises:
        FileNotFoundError: If the data is missing and may not be downloaded.
        UnreadableError: If a file is damaged, or holds other arrays.
    """
    files = packed_files(name, data_dir)
    if not files:
        return read_prepared(name, data_dir, download, valid_percent)
    parts = [_read_part(path, image_shape) for path in files]
    arrays = {one: np.concatenate([part[one] for part in parts]) for one in NAMES}
    held = len(arrays["x_train"]) * valid_percent // 100
    train, test = (Examples(arrays[f"x_{one}"], arrays[f"y_{one}"]) for one in ("train", "test"))
    return {
        "train": Examples(train.images[held:], train.labels[held:]),
        "valid": Examples(train.images[:held], train.labels[:held]),
        "test": test,
    }


def _read_part(path: Path, image_shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Returns images with an axis of channels, and labels along one axis."""
    try:
        arrays = read_arrays(path, NAMES)
    except Exception as error:  # NumPy raises whatever a damaged file leads it to
        raise _refused(path, f"cannot be read ({error})") from error
    missing = [name for name in NAMES if name not in arrays]
    if missing:
        raise _refused(path, f"has no {', '.join(missing)}")
    for split in ("train", "test"):
        images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"]
        images = images[..., np.newaxis] if images.ndim == 3 else images
        alike = images.dtype == np.uint8 and images.shape[1:] == image_shape
        classed = labels.dtype.kind in "ui" and set(np.unique(labels)) <= set(range(CLASSES))
        if not alike or labels.size != len(images) or not classed:
            shapes = f"x_{split} {images.shape} of {images.dtype} and y_{split} {labels.shape}"
            raise _refused(path, f"has {shapes}")
        arrays[f"x_{split}"] = images
        arrays[f"y_{split}"] = labels.reshape(-1).astype("int64")
    return arrays


def _refused(path: Path, received: str) -> UnreadableError:
    return UnreadableError(
        f"A file of a dataset must have {', '.join(NAMES)}: its images, of 8 bits, and a class "
        f"from 0 to {CLASSES - 1} for each. Received: {path}, which {received}. Write it again, or "
        "remove it."
    )


def pack(dataset: Dataset, data_dir: str | None, folder: str) -> list[Path]:
    """Writes a prepared dataset's arrays to files that are read without TensorFlow.

    Args:
        dataset: MNIST or CIFAR-10, whose validation images are the first of train.
        data_dir: Folder in which it is prepared.
        folder: Folder to write to, which is made.

    Returns:
        The files, each with at most 56 MB of numbers, compressed.

    Raises:
        ValueError: If the folder has files of this dataset.
        FileNotFoundError: If the dataset is not prepared.
    """
    there = packed_files(dataset.name, folder)
    if there:
        raise ValueError(
            f"Nothing is overwritten. Received: the folder {folder} with {there[0].name}. Remove "
            "it, or give another folder."
        )
    splits: dict[str, Any] = dataset.load(data_dir)
    train = [splits[name] for name in ("valid", "train")]
    arrays = {
        "x_train": np.concatenate([one.images for one in train]),
        "y_train": np.concatenate([one.labels for one in train]).astype("uint8"),
        "x_test": splits["test"].images,
        "y_test": splits["test"].labels.astype("uint8"),
    }
    count = math.ceil(sum(array.nbytes for array in arrays.values()) / MOST_IN_A_FILE)
    where = Path(folder).expanduser()
    where.mkdir(parents=True, exist_ok=True)
    parts = {name: np.array_split(array, count) for name, array in arrays.items()}
    ends = [f"-{number}-of-{count}" for number in range(1, count + 1)] if count > 1 else [""]
    files = []
    for number, end in enumerate(ends):
        path = where / f"{dataset.name}{end}.npz"
        written: dict[str, Any] = {name: split[number] for name, split in parts.items()}
        _write(path, written)
        files.append(path)
    return files


def _write(path: Path, arrays: dict[str, Any]) -> None:
    """Writes a file that is whole as soon as it has its name."""
    temporary = path.with_name(f".{path.name}")
    try:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
