"""A user's own arrays, in a file as Keras's datasets are: signals, images or volumes."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np

from low_rank_local_connectivity.untrusted.archives import read_arrays

from .dataset import SPLITS, Dataset, Examples, Split, fixed_choice

NEEDED = ("x_train", "y_train", "x_test", "y_test")
# Both or neither.
HELD = ("x_valid", "y_valid")
KNOWN = (*NEEDED, *HELD, "class_names")
# One of so many training examples is for validation if the file has no others for it.
HELD_OUT = 10
FORM = (
    "Save one with numpy.savez(file, x_train=..., y_train=..., x_test=..., y_test=...), and "
    "perhaps x_valid, y_valid and class_names."
)
UNCOMPRESSED = "Save it with numpy.savez, which does not compress."
# With three axes only, a second axis so many times as long as the third is a signal's.
LONG = 4
AXES = (
    "(examples, length, channels) of signals, (examples, height, width, channels) of images or "
    "(examples, depth, height, width, channels) of volumes; images of one channel may be without "
    f"the last, unless they are {LONG} times as high as wide"
)


def find_npz(data_dir: str | None) -> None:
    """Checks that there is a file.

    Raises:
        FileNotFoundError: If there is none.
    """
    if data_dir is None or not Path(data_dir).expanduser().is_file():
        raise FileNotFoundError(
            f"The dataset 'npz' needs a file of arrays. Received: data_dir={data_dir}. {FORM}"
        )


def complete_npz(dataset: Dataset, data_dir: str | None) -> Dataset:
    """Returns the dataset with the shapes, classes and sizes of a file.

    Whole numbers of 8 bits are taken for pixels, and mapped from 0 to 255 to -1 to 1; all other
    values are standardised: less the mean of the training examples, by their standard deviation.

    Args:
        dataset: The dataset, without classes.
        data_dir: The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If its arrays are missing or do not fit together.
    """
    find_npz(data_dir)
    splits, names = _read_now(data_dir)
    images = splits["train"].images
    return dataclasses.replace(
        dataset,
        image_shape=images.shape[1:],
        class_names=names,
        split_sizes=tuple(len(splits[name]) for name in SPLITS),
        stored_range=_stored_range(images),
        read=lambda _file, _download: dict(splits),
    )


def read_npz(data_dir: str | None, download: bool = False) -> dict[str, Split]:
    """Reads all splits of a file.

    Args:
        data_dir: The file.
        download: Not used.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If its arrays are missing or do not fit together.
    """
    del download
    find_npz(data_dir)
    return dict(_read_now(data_dir)[0])


def _read_now(data_dir: str | None) -> tuple[dict[str, Examples], tuple[str, ...]]:
    path = Path(data_dir or "").expanduser()
    return _read(str(path), path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _read(path: str, changed: int) -> tuple[dict[str, Examples], tuple[str, ...]]:
    """Returns the examples of each split, and the names of the classes.

    Args:
        path: The file.
        changed: When it was last changed, so that another file of its name is read anew.
    """
    del changed
    arrays = _arrays(path)
    names = arrays.pop("class_names", None)
    splits = {
        split: Examples(
            _checked_inputs(path, f"x_{split}", arrays[f"x_{split}"]),
            _checked_labels(path, split, arrays),
        )
        for split in SPLITS
        if f"x_{split}" in arrays
    }
    train = splits["train"]
    _check_alike(path, splits)
    if "valid" not in splits:
        held = fixed_choice(len(train), len(train) // HELD_OUT)
        kept = np.setdiff1d(np.arange(len(train)), held)
        splits["valid"] = Examples(train.images[held], train.labels[held])
        splits["train"] = Examples(train.images[kept], train.labels[kept])
    splits = {name: splits[name] for name in SPLITS}
    if not all(map(len, splits.values())):
        counts = ", ".join(f"{len(splits[name])} {name}" for name in SPLITS)
        raise _refused(path, "Every split must have examples", counts)
    return splits, _class_names(path, splits, names)


def _arrays(path: str) -> dict[str, np.ndarray]:
    try:
        arrays = read_arrays(Path(path), KNOWN, UNCOMPRESSED)
    except Exception as error:  # NumPy raises whatever a damaged file leads it to
        raise _refused(path, "A file of arrays must be a whole .npz file", str(error)) from error
    wanted = (*NEEDED, *HELD) if arrays.keys() & {*HELD} else NEEDED
    missing = [name for name in wanted if name not in arrays]
    if missing:
        found = ", ".join(arrays) or "none of these arrays"
        raise _refused(path, f"The file must have {', '.join(missing)}", f"{found}")
    return arrays


def _checked_inputs(path: str, name: str, array: np.ndarray) -> np.ndarray:
    """Returns examples with an axis of channels."""
    array = array[..., np.newaxis] if array.ndim == 3 and not _are_signals(array) else array
    if array.ndim not in (3, 4, 5) or 0 in array.shape[1:]:
        raise _refused(path, f"`{name}` must have the axes {AXES}", f"shape {array.shape}")
    if array.dtype.kind not in "uif" or not np.isfinite(array).all():
        kind = array.dtype if array.dtype.kind not in "uif" else "some that are not"
        raise _refused(path, f"`{name}` must be finite real numbers", str(kind))
    return array


def _are_signals(array: np.ndarray) -> bool:
    """Whether three axes are examples, length and channels, not examples, height and width."""
    _, length, channels = array.shape
    return LONG * channels <= length


def _checked_labels(path: str, split: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    labels, count = arrays[f"y_{split}"], len(arrays[f"x_{split}"])
    flat = labels.reshape(-1) if labels.shape in ((count,), (count, 1)) else None
    if flat is None or flat.dtype.kind not in "ui" or (count and flat.min() < 0):
        raise _refused(
            path,
            f"`y_{split}` must be a whole number from 0 for each of the {count} examples",
            f"shape {labels.shape} and dtype {labels.dtype}",
        )
    return flat.astype("int64")


def _check_alike(path: str, splits: dict[str, Examples]) -> None:
    shapes = {name: examples.images.shape[1:] for name, examples in splits.items()}
    if len(set(shapes.values())) > 1:
        shown = ", ".join(f"{shape} in {name}" for name, shape in shapes.items())
        raise _refused(path, "Examples of all splits must have one shape", shown)


def _class_names(path: str, splits: dict[str, Examples], names: Any) -> tuple[str, ...]:
    """Returns a name for each class, of which each must have training examples."""
    trained = np.unique(splits["train"].labels)
    count = 1 + max(int(examples.labels.max()) for examples in splits.values())
    if len(trained) < count or count < 2:
        absent = sorted(set(range(max(count, 2))) - set(trained.tolist()))
        raise _refused(path, "Every class must have training examples", f"none of {absent[0]}")
    named = tuple(map(str, range(count) if names is None else np.ravel(names)))
    if len(named) != count or len(set(named)) != count:
        raise _refused(path, f"`class_names` must be {count} different names", f"{named}")
    return named


def _stored_range(images: np.ndarray) -> tuple[float, float]:
    if images.dtype == np.uint8:
        return 0.0, 255.0
    mean, deviation = float(images.mean(dtype="float64")), float(images.std(dtype="float64"))
    return mean - (deviation or 1.0), mean + (deviation or 1.0)


def _refused(path: str, must: str, received: str) -> ValueError:
    return ValueError(f"{must}. Received: {received} in data_dir={path}. {FORM}")


NPZ = Dataset(
    name="npz",
    image_shape=(1, 1, 1),
    class_names=(),
    split_sizes=(0, 0, 0),
    value_range=(-1.0, 1.0),
    stored_range=(0.0, 255.0),
    read=read_npz,
    find=find_npz,
    source="the arrays x_train, y_train, x_test and y_test of a file; a tenth of the training "
    "examples for validation if there are no x_valid and y_valid",
    complete=complete_npz,
)
