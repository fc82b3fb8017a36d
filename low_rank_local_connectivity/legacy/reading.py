"""The files of Keras 2: an HDF5 file, a `.keras` archive, a SavedModel's folder, a checkpoint.

Nothing that could run is loaded: descriptions are JSON, and weights are arrays.
"""

import contextlib
import dataclasses
import io
import itertools
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from low_rank_local_connectivity.legacy.checkpoints import read_checkpoint, read_description
from low_rank_local_connectivity.legacy.stored import NOT_WEIGHTS, LayerWeights, Stored, Weight
from low_rank_local_connectivity.ops.arguments import received

# Errors that reading damaged files raises, besides those of TensorFlow.
DAMAGE = (OSError, KeyError, IndexError, RuntimeError, EOFError, UnicodeError, AttributeError)
DAMAGE = (*DAMAGE, TypeError, NotImplementedError, OverflowError, zipfile.BadZipFile, zlib.error)
DAMAGE = (*DAMAGE, json.JSONDecodeError, ArithmeticError, MemoryError)


@dataclasses.dataclass(frozen=True)
class Saved:
    """The content of a path.

    Args:
        path: The path.
        describe: Function that returns the model's description, or None if there is none.
        weights: Function that returns the stored weights.
    """

    path: str
    describe: Callable[[], Any]
    weights: Callable[[], Stored]

    def config(self) -> Any:
        """Returns the model's description."""
        with explained(self.path):
            config = self.describe()
        if config is None:
            raise ValueError(
                f"{self.path!r} holds weights without a description of their model. Build the "
                "model again in Keras 3 and use load_weights()."
            )
        return config

    def stored(self) -> Stored:
        """Returns the weights."""
        with explained(self.path):
            return self.weights()


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Turns errors of reading a file into one that says that it is damaged."""
    try:
        yield
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path!r} is damaged: it cannot be read ({type(error).__name__}: {reason})."
        ) from error


@contextlib.contextmanager
def open_saved(path: str | os.PathLike[str]) -> Iterator[Saved]:
    """Opens a file or folder that Keras 2 saved, of any kind."""
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(
            f"`path` must be the path of a file or folder. Received: {received('path', path)}."
        )
    name = os.fspath(path)
    place, prefix = Path(name), name.removesuffix(".index")
    # First: a checkpoint called "checkpoint" stands beside a file of that name.
    if Path(f"{prefix}.index").is_file():
        yield Saved(name, lambda: None, lambda: read_checkpoint(prefix))
    elif place.is_dir():
        yield _saved_model(place, name)
    elif not place.is_file():
        raise ValueError(f"There is no file or folder to load at {name!r}.")
    elif zipfile.is_zipfile(place):
        with explained(name):
            saved = _archive(place, name)
        yield saved
    else:
        try:
            file = h5py.File(place, "r")
        except OSError as error:
            raise ValueError(
                f"{name!r} is damaged, or not a file of Keras: it is neither HDF5 nor a .keras "
                "archive."
            ) from error
        with file:
            yield _hdf5(file, name)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _require_keras_2(version: Any, path: str) -> None:
    if version is not None and _text(version).startswith("3"):
        raise ValueError(
            f"{path!r} was saved by Keras {_text(version)}. Load it with keras.saving.load_model()."
        )


def _hdf5(file: Any, path: str) -> Saved:
    def describe() -> Any:
        _require_keras_2(file.attrs.get("keras_version"), path)
        config = file.attrs.get("model_config")
        return None if config is None else json.loads(_text(config))

    def weights() -> Stored:
        root = file.get("model_weights", file)
        listed = {"layer_names", "layer_names0"} & set(root.attrs)
        return _by_layer(root) if listed else _tree(root)

    return Saved(path, describe, weights)


def _names(group: Any, attribute: str) -> list[str]:
    # Lists too long for one attribute are cut into name0, name1, ...
    if attribute in group.attrs:
        return [_text(name) for name in group.attrs[attribute]]
    names: list[str] = []
    for part in itertools.count():
        if f"{attribute}{part}" not in group.attrs:
            break
        names += [_text(name) for name in group.attrs[f"{attribute}{part}"]]
    return names


def _by_layer(root: Any) -> list[LayerWeights]:
    layers = []
    for name in _names(root, "layer_names"):
        paths = _names(root[name], "weight_names")
        weights = [_weight(root[name][path], path) for path in paths]
        layers.append(LayerWeights(name, weights))
    return [layer for layer in layers if layer.weights]


def _weight(dataset: Any, path: str = "") -> Weight:
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiub":
        raise TypeError(f"{dataset.name} is not an array of numbers")
    return Weight(tuple(dataset.shape), lambda: np.asarray(dataset[()]), path)


def _tree(group: Any) -> dict[str, Any]:
    """Returns the content of a group, without groups that have no weights."""
    tree: dict[str, Any] = {}
    for name, inner in group.items():
        if name == "vars":
            tree[name] = [_weight(inner[str(number)]) for number in range(len(inner))]
        elif isinstance(inner, h5py.Group) and name not in NOT_WEIGHTS:
            tree[name] = _tree(inner)
    return {name: inner for name, inner in tree.items() if inner}


def _archive(place: Path, path: str) -> Saved:
    with zipfile.ZipFile(place) as archive:
        metadata = json.loads(archive.read("metadata.json"))
        config = json.loads(archive.read("config.json"))
        # read() checks the CRC-32 of all of it.
        stored = io.BytesIO(archive.read("model.weights.h5"))
    _require_keras_2(metadata.get("keras_version"), path)
    file = h5py.File(stored, "r")
    return Saved(path, lambda: config, lambda: _tree(file))


def _saved_model(place: Path, path: str) -> Saved:
    described = place / "keras_metadata.pb"
    if not (place / "saved_model.pb").is_file():
        raise ValueError(
            f"The folder {path!r} is not a SavedModel: it holds no saved_model.pb. Give the folder "
            "that does."
        )

    def describe() -> Any:
        if not described.is_file():
            raise ValueError(
                f"The SavedModel {path!r} holds no keras_metadata.pb, and so no description of its "
                "layers: it was exported for serving, not saved by Keras 2's model.save(). Build "
                "the model again in Keras 3 and use load_weights()."
            )
        return json.loads(read_description(described))

    return Saved(path, describe, lambda: read_checkpoint(str(place / "variables" / "variables")))
