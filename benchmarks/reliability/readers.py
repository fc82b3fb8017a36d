"""What the project reads: a whole file of each kind, its reader, and what the file itself says."""

import dataclasses
import hashlib
import io
import json
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from benchmarks.reliability import damages
from low_rank_local_connectivity import layers, legacy, training
from low_rank_local_connectivity.data import DATASETS
from low_rank_local_connectivity.data.folder import ImageFiles
from low_rank_local_connectivity.data.unreadable import refuse_too_large
from low_rank_local_connectivity.experiments import trained, warm_start
from low_rank_local_connectivity.experiments.experiment import Experiment
from low_rank_local_connectivity.experiments.folder import (
    read_config,
    read_result,
    result_digest,
)
from low_rank_local_connectivity.experiments.paper import sources
from low_rank_local_connectivity.experiments.predicting import input_of
from low_rank_local_connectivity.legacy.checkpoints import read_checkpoint
from low_rank_local_connectivity.training import checkpoints

SAVED = Path(__file__).parents[2] / "tests" / "saved_models" / "keras-2.15"
LARGE = 2**28
STATE = {"backend": "tensorflow", "step": 7, "rows": [], "seconds": 0.5, "best": None}
RESULT = {"valid_accuracy": 0.5, "test_accuracy": 0.25, "parameters": 9, "seconds": 1.5}
# Digests of numbers, by which what is loaded is compared.
Told = list[str]


@dataclasses.dataclass(frozen=True)
class Reader:
    """A kind of file.

    Args:
        file: The name of the file that is damaged, in the folder of whole ones.
        read: Function of the folder that reads it and tells what it has read.
        says: Function of the folder that tells what the file itself says, where no checksum
            protects it: the loaded must be among it.
        inside: Damages within the container.
        named: The name that a refusal must have.
    """

    file: str
    read: Callable[[Path], Told]
    inside: tuple[damages.Damage, ...] = ()
    says: Callable[[Path], Told] | None = None
    named: str = ""


def digests(arrays: Iterable[Any]) -> Told:
    """Returns a digest of the numbers of each array but zeros, in order of their size.

    Loading puts kernels of Keras 2 into another order, and leaves out zeros.
    """
    flat = (np.ascontiguousarray(array, "float32").reshape(-1) for array in arrays)
    return [hashlib.sha256(np.sort(array[array != 0]).tobytes()).hexdigest()[:16] for array in flat]


def weights(model: Any) -> Told:
    """Returns digests of a model's weights."""
    return digests(keras.ops.convert_to_numpy(weight) for weight in model.weights)


def network() -> Any:
    """Returns a small network of this package's layers."""
    inputs = keras.Input(DATASETS["digits"].input_shape)
    x = layers.LowRankLocallyConnected2D(2, 3, 2)(inputs)
    x = keras.layers.BatchNormalization()(x)
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(x)))


def two_layers() -> Any:
    """Returns the network whose weights alone are in a file."""
    parts = [keras.layers.Dense(3, name="a"), keras.layers.Dense(2, name="b")]
    return keras.Sequential([keras.Input((4,)), *parts])


def write_weights(path: Path, rng: np.random.Generator) -> None:
    """Writes weights as Keras 2's `save_weights` did."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([b"a", b"b"])
        for layer in two_layers().layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = np.array([name.encode() for name in names])
            for name, weight in zip(names, layer.weights, strict=True):
                group[name] = rng.normal(size=tuple(weight.shape)).astype("float32")


def write_checkpoint(prefix: Path, rng: np.random.Generator) -> None:
    """Writes weights as a checkpoint of TensorFlow."""
    field = damages.field
    arrays: dict[str, np.ndarray] = {}
    root, nodes = b"", []
    for number, layer in enumerate(two_layers().layers):
        children = b""
        owner = len(nodes) + 1
        root += field(1, field(1, owner) + field(2, f"layer_with_weights-{number}".encode()))
        inner = []
        for weight in layer.weights:
            key = f"{layer.name}/{weight.name}"
            arrays[key] = rng.normal(size=tuple(weight.shape)).astype("float32")
            value = field(1, b"VARIABLE_VALUE") + field(3, key.encode())
            inner.append(field(2, value))
            children += field(1, field(1, owner + len(inner)) + field(2, weight.name.encode()))
        nodes += [children, *inner]
    graph = b"".join(field(1, node) for node in (root, *nodes))
    index, numbers = damages.checkpoint(arrays, graph)
    Path(f"{prefix}.index").write_bytes(index)
    Path(f"{prefix}.data-00000-of-00001").write_bytes(numbers)


def write_whole(folder: Path) -> None:
    """Writes a whole file of each kind."""
    shutil.copytree(SAVED, folder, dirs_exist_ok=True)
    rng = np.random.default_rng(0)
    run = folder / "run"
    run.mkdir()
    training.save(network(), run / "model.keras")
    config = {**Experiment(model_dir=str(run)).config(), "backend": "tensorflow"}
    (run / "config.json").write_text(json.dumps(config))
    trained.write_inputs(run, DATASETS["digits"])
    write_result(run)
    (run / "warm_start.json").write_text(json.dumps({"loaded": ["a", "b"], "new": []}))
    record = {"name": "run", "config": config, "result": {**RESULT, "train_accuracy": 1.0}}
    (folder / "records.jsonl").write_text(json.dumps(record) + "\n" + json.dumps(record) + "\n")
    arrays = [rng.normal(size=(3, 4)), np.arange(5), np.ones(2, "float32")]
    checkpoints.Checkpoints(folder / "states").save(7, arrays, STATE)
    write_weights(folder / "weights.h5", rng)
    write_checkpoint(folder / "weights", rng)
    inputs = rng.normal(size=(24, 6, 5, 1)).astype("float32")
    labels = np.arange(24) % 2
    np.savez(folder / "data.npz", x_train=inputs, y_train=labels, x_test=inputs, y_test=labels)
    write_images(folder / "images", rng)


def write_result(run: Path) -> None:
    """Writes the result of a run, with the digest of its model as it is."""
    path = run / "model.keras"
    small = path.is_file() and path.stat().st_size < LARGE
    digest = hashlib.sha256(path.read_bytes() if small else b"").hexdigest()
    result = {**RESULT, "model_sha256": digest}
    text = json.dumps({**result, "digest": result_digest(result)})
    (run / "result.json").write_text(text)


def write_images(folder: Path, rng: np.random.Generator) -> None:
    """Writes images of each format."""
    from PIL import Image

    folder.mkdir()
    pixels = rng.integers(0, 256, (9, 7, 3), "uint8")
    for name in ("png", "jpg", "gif", "bmp", "webp", "tiff"):
        Image.fromarray(pixels).save(folder / f"image.{name}")


def of_model(name: str) -> Callable[[Path], Told]:
    """Returns a reader of a model of Keras 2."""
    return lambda folder: weights(legacy.load_model(folder / name))


def of_weights(name: str, make: Callable[[], Any]) -> Callable[[Path], Told]:
    """Returns a reader of weights of Keras 2, into a network like theirs."""
    return lambda folder: weights(legacy.load_weights(make(), folder / name))


def in_hdf5(name: str) -> Callable[[Path], Told]:
    """Returns a function that tells what datasets an HDF5 file has, also in an archive."""

    def says(folder: Path) -> Told:
        content = (folder / name).read_bytes()
        if name.endswith(".keras"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                content = archive.read("model.weights.h5")
        found: list[Any] = []

        def note(_: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiub":
                found.append(item[()])

        with h5py.File(io.BytesIO(content), "r") as file:
            file.visititems(note)
        return digests(found)

    return says


def in_checkpoint(name: str) -> Callable[[Path], Told]:
    """Returns a function that tells what tensors a checkpoint has."""

    def leaves(tree: Any) -> Iterable[Any]:
        for inner in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(inner) if isinstance(inner, (dict, list)) else [inner.read()]

    return lambda folder: digests(leaves(read_checkpoint(str(folder / name), 1 << 28)))


def read_network(folder: Path) -> Told:
    """Reads the network of a run, the digest of which fits whatever it is."""
    write_result(folder / "run")
    return weights(trained.load_network(folder / "run"))


def read_start(folder: Path) -> Told:
    """Reads the file of `--weights`."""
    return weights(warm_start.read(str(folder / "run" / "model.keras")))


def read_recorded(folder: Path) -> Told:
    """Reads which layers were loaded when a run began."""
    return warm_start._recorded(folder / "run" / "warm_start.json")


def read_state(folder: Path) -> Told:
    """Reads a checkpoint."""
    (path,) = (folder / "states").iterdir()
    shapes, dtypes = [(3, 4), (5,), (2,)], ["float64", "int64", "float32"]
    arrays, about = checkpoints.read(path, shapes, dtypes, checkpoints.NEEDED)
    return [*digests(arrays), json.dumps(about, sort_keys=True)]


def read_records(folder: Path) -> Told:
    """Reads records, and what is told of those that are left out."""
    records, remarks = sources.read([folder / "records.jsonl"])
    if remarks:
        raise ValueError(" ".join(remarks))
    return [json.dumps(record, sort_keys=True) for record in records]


def read_arrays(folder: Path) -> Told:
    """Reads a user's arrays."""
    path = str(folder / "data.npz")
    splits: Any = DATASETS["npz"].at(path).load(path)
    return digests(part for one in splits.values() for part in (one.images, one.labels))


def in_arrays(folder: Path) -> Told:
    """Returns what arrays a file has; a part of them is held out."""
    with np.load(folder / "data.npz") as file:
        arrays = {name: file[name] for name in file.files}
    del arrays
    return ["anything"]


def text_of(name: str, read: Callable[[Path], Any]) -> Callable[[Path], Told]:
    """Returns a reader of a file of JSON."""
    return lambda folder: [json.dumps(read(folder / name), sort_keys=True, default=str)]


def of_image(name: str, pillow: bool = True) -> Callable[[Path], Told]:
    """Returns a reader of an image file, by Pillow or TensorFlow."""

    def read(folder: Path) -> Told:
        path = folder / "images" / f"image.{name}"
        try:
            if pillow:
                return digests([input_of(DATASETS["digits"], path)])
            return digests([_by_tensorflow(path)])
        except Exception as error:
            if not isinstance(error, (ValueError, OSError) if pillow else _refusals()):
                raise
            raise ValueError(f"{path} was skipped: {error}") from error

    return read


def _by_tensorflow(path: Path) -> np.ndarray:
    """Returns an image as a folder of images is read, which lists files and nothing else."""
    from low_rank_local_connectivity.data.decoding import decode

    if not path.is_file():
        raise ValueError("it is no file")
    refuse_too_large([ImageFiles((str(path),), np.zeros(1, "int64"))])
    return decode(path.read_bytes()).numpy()


def _refusals() -> tuple[type[Exception], ...]:
    import tensorflow as tf

    return ValueError, tf.errors.OpError


ANYTHING = ["anything"]
MODEL = damages.in_zip({"config.json": damages.in_json, "model.weights.h5": damages.in_hdf5})
MODEL_BYTES = damages.in_zip({"config.json": damages.outside, "model.weights.h5": damages.outside})
MODEL_OF_2 = damages.in_zip(
    {
        "config.json": damages.in_json,
        "metadata.json": damages.in_json,
        "model.weights.h5": damages.in_hdf5,
    }
)
INSIDE = (MODEL, MODEL_BYTES)
RUN = "run/model.keras"
VARIABLES = "model/variables/variables"
INDEX = "model/variables/variables.index"
SHARD = "model/variables/variables.data-00000-of-00001"


def _any(_: Path) -> Told:
    return ANYTHING


READERS = {
    "Keras 2 .h5": Reader(
        "model.h5", of_model("model.h5"), (damages.in_hdf5,), in_hdf5("model.h5")
    ),
    "Keras 2 .keras": Reader(
        "model.keras", of_model("model.keras"), (MODEL_OF_2, MODEL_BYTES), in_hdf5("model.keras")
    ),
    "Keras 2 weights": Reader(
        "weights.h5",
        of_weights("weights.h5", two_layers),
        (damages.in_hdf5,),
        in_hdf5("weights.h5"),
    ),
    "SavedModel, description": Reader(
        "model/keras_metadata.pb", of_model("model"), (), in_checkpoint(VARIABLES), "model"
    ),
    "SavedModel, index": Reader(
        INDEX, of_model("model"), (damages.in_table,), in_checkpoint(VARIABLES), "model"
    ),
    "SavedModel, numbers": Reader(SHARD, of_model("model"), (), None, "model"),
    "checkpoint of TensorFlow": Reader(
        "weights.index",
        of_weights("weights", two_layers),
        (damages.in_table,),
        in_checkpoint("weights"),
        "weights",
    ),
    "network of a run": Reader(RUN, read_network, INSIDE, in_hdf5(RUN), "run"),
    "--weights": Reader(RUN, read_start, INSIDE, in_hdf5(RUN), "run"),
    "state of a run": Reader(
        "states/step_000000007.npz", read_state, (damages.in_checkpoint, damages.in_npz), _any
    ),
    "result.json": Reader(
        "run/result.json",
        text_of("run/result.json", read_result),
        (damages.in_result, damages.in_json),
        _any,
    ),
    "config.json": Reader(
        "run/config.json", text_of("run/config.json", read_config), (damages.in_json,), _any
    ),
    "inputs.json": Reader(
        "run/inputs.json",
        text_of("run", trained.dataset_of),
        (damages.in_json,),
        _any,
    ),
    "warm_start.json": Reader("run/warm_start.json", read_recorded, (damages.in_json,), _any),
    "records.jsonl": Reader("records.jsonl", read_records, (damages.in_lines,), _any),
    "arrays, .npz": Reader("data.npz", read_arrays, (damages.in_npz,), _any),
}
READERS |= {
    f"image, .{name}, {'Pillow' if pillow else 'TensorFlow'}": Reader(
        f"images/image.{name}",
        of_image(name, pillow),
        (damages.in_png,) if name == "png" else (),
        _any,
    )
    for name in ("png", "jpg", "gif", "bmp", "webp", "tiff")
    for pillow in (True, False)
    if pillow or name != "tiff"
}


def told_by(kind: str, folder: Path) -> dict[str, Any]:
    """Reads a file, and returns what came of it; to be called in a fork."""
    reader = READERS[kind]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            told = reader.read(folder)
    except (ValueError, FileNotFoundError) as error:
        name = reader.named or reader.file
        return {"refused": str(error), "named": name in str(error)}
    except Exception as error:  # noqa: BLE001 - which is what is looked for
        return {"raised": f"{type(error).__name__}: {error}"[:300]}
    says = [] if reader.says is None else _what_it_says(reader.says, folder)
    return {"loaded": told, "says": says}


def _what_it_says(says: Callable[[Path], Told], folder: Path) -> Told:
    try:
        return says(folder)
    except Exception:  # noqa: BLE001 - then it says nothing
        return []
