"""Image datasets prepared by tensorflow-datasets, read from disk."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .dataset import Examples, Split
from .prepared_files import require_whole, require_whole_records
from .unreadable import WHOLE, UnreadableError

# Examples decoded at a time.
READ_BATCH = 1024
# Letters of an error that are shown.
SHOWN = 200


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
        UnreadableError: If a file that describes it is damaged; the error names it.
    """
    folder = Path(data_dir or default_data_dir()).expanduser()
    if not download:
        find_prepared(name, data_dir)
        for described in sorted(folder.glob(f"{name}/*/dataset_info.json")):
            require_whole(described.parent)
    import tensorflow_datasets as tfds

    if download:
        builder = tfds.builder(name, data_dir=str(folder))
        builder.download_and_prepare()
        return builder
    try:
        return tfds.builder(name, data_dir=str(folder))
    except Exception as error:  # whatever a damaged description leads to
        raise _unreadable(folder / name, error) from error


def _unreadable(path: Path, error: Exception) -> UnreadableError:
    why = " ".join(f"{type(error).__name__}: {error}".split())[:SHOWN]
    return UnreadableError(
        f"A prepared dataset must be as it was written. Received: {path}, which cannot be read "
        f"({why}). Put it back, or prepare the dataset again."
    )


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
    splits: dict[str, Split] = {}
    for split, instruction in instructions.items():
        try:
            for file in _files_of(builder, instruction):
                require_whole_records(Path(str(file.filename)), file.skip + file.take)
            splits[split] = _collect(builder, instruction, change)
        except UnreadableError:
            raise
        except Exception as error:  # of TensorFlow, or whatever a damaged description leads to
            raise _told_of(builder, instruction, error) from error
    return splits


@contextlib.contextmanager
def described_whole(builder: Any) -> Iterator[None]:
    """Turns whatever a damaged description leads to into an error that names the folder."""
    try:
        yield
    except (FileNotFoundError, ValueError):
        raise
    except Exception as error:
        raise _unreadable(Path(str(builder.data_dir)), error) from error


def _files_of(builder: Any, instruction: str) -> list[Any]:
    """Returns the files of a split; none of tensorflow-datasets' own mock data."""
    info = builder.info
    if instruction.partition("[")[0] not in info.splits or info.file_format.value != "tfrecord":
        return []
    return info.splits[instruction].file_instructions


def _told_of(builder: Any, instruction: str, error: Exception) -> UnreadableError:
    """Returns an error that names the damaged file of a split, or what was read of it."""
    try:
        damaged = _damaged_file(builder, instruction)
        paths = [Path(str(file.filename)) for file in _files_of(builder, instruction)]
    except Exception:  # noqa: BLE001 - the first error says more
        damaged, paths = None, []
    if damaged is not None:
        return UnreadableError(WHOLE.format(damaged))
    return _unreadable(paths[0] if paths else Path(str(builder.data_dir)), error)


def _collect(builder: Any, instruction: str, change: Callable[[Any], Any] | None) -> Examples:
    """Puts all examples of one split into arrays."""
    import tensorflow as tf

    file = None if change else _only_file(builder, instruction)
    if file is not None:
        return _in_arrays(_decoded_in_batches(builder.info.features, file), file.take)
    examples = _decoded(builder, instruction)
    if change is not None:
        examples = examples.map(change, num_parallel_calls=tf.data.AUTOTUNE)
    return _in_arrays(examples.batch(READ_BATCH), len(examples))


def _decoded(builder: Any, instruction: str) -> Any:
    """Returns the examples of a split, whose images have as many pixels as they may."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    from .decoding import require_few_pixels

    image = builder.info.features["image"]
    undecoded = {"image": tfds.decode.SkipDecoding()}

    def decode(example):
        with tf.control_dependencies([require_few_pixels(example["image"])]):
            encoded = tf.identity(example["image"])
        return {**example, "image": image.decode_example(encoded)}

    examples = builder.as_dataset(split=instruction, decoders=undecoded)
    count = len(examples)
    decoded = examples.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    return decoded.apply(tf.data.experimental.assert_cardinality(count))


def _only_file(builder: Any, instruction: str) -> Any | None:
    """Returns the TFRecord file that holds a split alone, and how much of it to read."""
    info = builder.info
    # tensorflow-datasets' own mock data has none.
    if instruction.partition("[")[0] not in info.splits or info.file_format.value != "tfrecord":
        return None
    files = info.splits[instruction].file_instructions
    return files[0] if len(files) == 1 else None


def _decoded_in_batches(features: Any, file: Any) -> Any:
    """Returns batches of what `as_dataset` gives one at a time, from one file.

    For small images parsing each example by itself takes three times as long as all else.
    """
    import tensorflow as tf

    from .decoding import require_few_pixels

    image = features["image"]
    stored = {
        "image": tf.io.FixedLenFeature((), tf.string),
        "label": tf.io.FixedLenFeature((), tf.int64),
    }

    def decode_one(encoded):
        with tf.control_dependencies([require_few_pixels(encoded)]):
            return image.decode_example(tf.identity(encoded))

    def decode(records):
        examples = tf.io.parse_example(records, stored)
        spec = tf.TensorSpec(image.shape, image.tf_dtype)
        images = tf.map_fn(decode_one, examples["image"], fn_output_signature=spec)
        return {**examples, "image": images}

    records = tf.data.TFRecordDataset(str(file.filename)).skip(file.skip).take(file.take)
    return records.batch(READ_BATCH).map(decode, num_parallel_calls=tf.data.AUTOTUNE)


def _damaged_file(builder: Any, instruction: str) -> str | None:
    """Returns the first file of a split that is missing, damaged or truncated."""
    import tensorflow as tf

    for file in builder.info.splits[instruction].file_instructions:
        path, wanted, found = str(file.filename), file.take, 0
        records = tf.data.TFRecordDataset(path).skip(file.skip).take(wanted).batch(READ_BATCH)
        try:
            for batch in records.as_numpy_iterator():
                found += len(batch)
        except tf.errors.OpError:
            return path
        if found != wanted:
            return path
    return None


def _in_arrays(batches: Any, count: int) -> Examples:
    """Puts a tf.data.Dataset of batches of `"image"` and `"label"` into arrays.

    Args:
        batches: The batches.
        count: Number of examples in all of them.

    Raises:
        tf.errors.DataLossError: If there are fewer.
    """
    import tensorflow as tf

    arrays = {
        name: np.empty((count, *spec.shape[1:]), spec.dtype.as_numpy_dtype)
        for name, spec in batches.element_spec.items()
        if name in ("image", "label")
    }
    end = 0
    for batch in batches.as_numpy_iterator():
        start, end = end, end + len(batch["label"])
        for name, array in arrays.items():
            array[start:end] = batch[name]
    if end != count:
        raise tf.errors.DataLossError(None, None, f"{end} of {count} examples")
    return Examples(arrays["image"], arrays["label"])
