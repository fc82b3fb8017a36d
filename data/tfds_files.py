"""Image datasets prepared by tensorflow-datasets, read from disk."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .dataset import Examples, Split

# Examples decoded at a time.
READ_BATCH = 1024


def default_data_dir() -> str:
    """Returns the folder that tensorflow-datasets uses by default."""
    return os.environ.get("TFDS_DATA_DIR", str(Path("~/tensorflow_datasets").expanduser()))


def find_prepared(name: str, data_dir: str | None) -> None:
    """Checks that a dataset has been prepared, without importing anything slow.

    Without this check tensorflow-datasets may spend minutes trying to reach the network.

    Args:
        name: Name of the dataset in tensorflow-datasets.
        data_dir: Folder to look in; tensorflow-datasets' own if None.

    Raises:
        FileNotFoundError: If it has not.
    """
    folder = Path(data_dir or default_data_dir()).expanduser()
    if not any(folder.glob(f"{name}/*/dataset_info.json")):
        raise FileNotFoundError(
            f"The dataset {name!r} must be prepared in `data_dir`. Looked for "
            f"{folder / name}/<version>/dataset_info.json and found none. Add `download` to fetch "
            "it there, or give the folder that holds it with `data_dir`."
        )


def open_prepared(name: str, data_dir: str | None, download: bool) -> Any:
    """Returns tensorflow-datasets' builder of a dataset that is on disk.

    Args:
        name: Name of the dataset in tensorflow-datasets.
        data_dir: Folder to look in; tensorflow-datasets' own if None.
        download: Whether the dataset may be downloaded and prepared there.

    Raises:
        FileNotFoundError: If the data has not been prepared and may not be downloaded.
    """
    if not download:
        find_prepared(name, data_dir)
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=str(Path(data_dir or default_data_dir()).expanduser()))
    if download:
        builder.download_and_prepare()
    return builder


def read_prepared(
    name: str, data_dir: str | None, download: bool, valid_percent: int
) -> dict[str, Split]:
    """Reads a dataset's train and test splits, the first part of train as validation.

    Args:
        name: Name of the dataset in tensorflow-datasets.
        data_dir: Folder to look in; tensorflow-datasets' own if None.
        download: Whether the dataset may be downloaded and prepared there.
        valid_percent: Share of the training split, from its start, to hold out.

    Returns:
        A dictionary from `"train"`, `"valid"` and `"test"` to examples with uint8 images.

    Raises:
        FileNotFoundError: If the data has not been prepared and may not be downloaded.
        UnreadableError: If a file is damaged or truncated.
    """
    splits = {
        "train": f"train[{valid_percent}%:]",
        "valid": f"train[:{valid_percent}%]",
        "test": "test",
    }
    return collect_splits(open_prepared(name, data_dir, download), splits)


def collect_splits(
    builder: Any, instructions: dict[str, str], change: Callable[[Any], Any] | None = None
) -> dict[str, Split]:
    """Puts all examples of some splits into arrays.

    Args:
        builder: tensorflow-datasets' builder of a prepared dataset.
        instructions: From the name of a split here to a split, or part of one, of the builder.
        change: Function from an example to a dictionary of an `"image"` and a `"label"`, if they
            are not as stored.

    Raises:
        UnreadableError: If a file is damaged or truncated; the error names it.
    """
    import tensorflow as tf

    from .unreadable import WHOLE, UnreadableError

    splits: dict[str, Split] = {}
    for split, examples in builder.as_dataset(split=instructions).items():
        if change is not None:
            examples = examples.map(change, num_parallel_calls=tf.data.AUTOTUNE)  # noqa: PLW2901
        try:
            splits[split] = collect(examples)
        except tf.errors.OpError:
            damaged = _damaged_file(builder, instructions[split])
            if damaged is None:
                raise
            raise UnreadableError(WHOLE.format(damaged)) from None
    return splits


def _damaged_file(builder: Any, instruction: str) -> str | None:
    """Returns the first file of a split that is damaged or truncated."""
    import tensorflow as tf

    for file in builder.info.splits[instruction].file_instructions:
        path, wanted = str(file.filename), file.take
        records = tf.data.TFRecordDataset(path).skip(file.skip).take(wanted).ignore_errors()
        if records.reduce(np.int64(0), lambda count, _: count + 1) != wanted:
            return path
    return None


def collect(examples: Any) -> Examples:
    """Puts all examples of a tf.data.Dataset of `"image"` and `"label"` into arrays."""
    arrays = {
        name: np.empty((len(examples), *spec.shape), spec.dtype.as_numpy_dtype)
        for name, spec in examples.element_spec.items()
        if name in ("image", "label")
    }
    end = 0
    for batch in examples.batch(READ_BATCH).as_numpy_iterator():
        start, end = end, end + len(batch["label"])
        for name, array in arrays.items():
            array[start:end] = batch[name]
    return Examples(arrays["image"], arrays["label"])
