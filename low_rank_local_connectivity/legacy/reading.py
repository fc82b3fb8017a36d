"""The files of Keras 2: an HDF5 file, a `.keras` archive, a SavedModel's folder, a checkpoint.

Nothing that could run is loaded: descriptions are JSON, and weights are arrays.
"""

import contextlib
import dataclasses
import itertools
import json
import mmap
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from low_rank_local_connectivity.legacy.checkpoints import (
    files_of,
    read_checkpoint,
    read_description,
)
from low_rank_local_connectivity.legacy.stored import NOT_WEIGHTS, LayerWeights, Stored, Weight
from low_rank_local_connectivity.ops.arguments import received
from low_rank_local_connectivity.untrusted.archives import in_memory, require_honest
from low_rank_local_connectivity.untrusted.hdf5 import (
    identity,
    require_own_content,
    require_text,
)
from low_rank_local_connectivity.untrusted.sizes import (
    on_disk,
    require_regular,
    require_room,
    room_for,
)


@dataclasses.dataclass(frozen=True)
class Saved:
    """The content of a path.

    Args:
        path: The path.
        room: Bytes that arrays may take in memory.
        describe: Function that returns the model's description, or None if there is none.
        weights: Function that returns the stored weights.
    """

    path: str
    room: int
    describe: Callable[[], Any]
    weights: Callable[[], Stored]

    def config(self) -> Any:
        """Returns the model's description."""
        config = self.describe()
        if config is None:
            raise ValueError(
                f"{self.path!r} holds weights without a description of their model. Build the "
                "model again in Keras 3 and use load_weights()."
            )
        return config

    def stored(self) -> Stored:
        """Returns the weights."""
        return self.weights()


@contextlib.contextmanager
def explained(path: str) -> Iterator[None]:
    """Turns whatever reading a file leads to into an error that names the file."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ValueError) and repr(path) in str(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path!r} is damaged: it cannot be read ({type(error).__name__}: {reason})."
        ) from error


@contextlib.contextmanager
def open_saved(path: str | os.PathLike[str], max_bytes: int | None = None) -> Iterator[Saved]:
    """Opens a file or folder that Keras 2 saved, of any kind.

    Within the context all errors name the file.

    Args:
        path: The file or folder.
        max_bytes: Bytes that its arrays may take in memory, or None for the usual limit.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(
            f"`path` must be the path of a file or folder. Received: {received('path', path)}."
        )
    require_size(max_bytes)
    name = os.fspath(path)
    with explained(name), _opened(Path(name), name, max_bytes) as saved:
        yield saved


def require_size(max_bytes: Any) -> None:
    """Refuses limits that are not numbers of bytes."""
    whole = isinstance(max_bytes, int) and not isinstance(max_bytes, bool)
    if max_bytes is not None and not (whole and max_bytes >= 0):
        raise ValueError(
            "`max_bytes` must be a number of bytes, or None. Received: "
            f"{received('max_bytes', max_bytes)}."
        )


@contextlib.contextmanager
def _opened(place: Path, name: str, max_bytes: int | None) -> Iterator[Saved]:
    prefix = name.removesuffix(".index")
    # First: a checkpoint called "checkpoint" stands beside a file of that name.
    if Path(f"{prefix}.index").is_file():
        room = _room(files_of(prefix), max_bytes, name)
        yield Saved(name, room, lambda: None, lambda: read_checkpoint(prefix, room))
    elif place.is_dir():
        yield _saved_model(place, name, max_bytes)
    elif not place.exists():
        raise ValueError(f"There is no file or folder to load at {name!r}.")
    else:
        room = _room([place], max_bytes, name)
        if zipfile.is_zipfile(place):
            with _archive(place, name, room) as saved:
                yield saved
        else:
            with _hdf5(place, name, room) as saved:
                yield saved


def _room(files: list[Path], max_bytes: int | None, path: str) -> int:
    """Returns the bytes that arrays of some files may take, which must be files."""
    for file in files:
        require_regular(file)
    room = room_for(on_disk(*files), max_bytes)
    require_room(sum(file.stat().st_size for file in files), room, path)
    return room


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _require_keras_2(version: Any, path: str) -> None:
    if version is not None and _text(version).startswith("3"):
        raise ValueError(
            f"{path!r} was saved by Keras {_text(version)}. Load it with keras.saving.load_model()."
        )


@contextlib.contextmanager
def _hdf5(place: Path, path: str, room: int) -> Iterator[Saved]:
    try:
        file = h5py.File(place, "r")
    except OSError as error:
        raise ValueError(
            f"{path!r} is damaged, or not a file of Keras: it is neither HDF5 nor a .keras archive."
        ) from error
    with file, place.open("rb") as stored:
        with mmap.mmap(stored.fileno(), 0, access=mmap.ACCESS_READ) as content:
            require_own_content(file, content, on_disk(place), room, path)
        yield _in_hdf5(file, path, room)


def _in_hdf5(file: Any, path: str, room: int) -> Saved:
    def describe() -> Any:
        _require_keras_2(file.attrs.get("keras_version"), path)
        config = file.attrs.get("model_config")
        return None if config is None else _described(config, path)

    def weights() -> Stored:
        root = file.get("model_weights", file)
        listed = {"layer_names", "layer_names0"} & set(root.attrs)
        return _by_layer(root) if listed else _Trees().of(root)

    return Saved(path, room, describe, weights)


def _described(config: Any, path: str) -> Any:
    require_text(config, path)
    return json.loads(_text(config))


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


class _Trees:
    """The content of groups, each read once by however many names it can be reached."""

    def __init__(self) -> None:
        self.known: dict[Any, Any] = {}

    def of(self, group: Any) -> dict[str, Any]:
        """Returns the content of a group, without groups that have no weights."""
        key = identity(group)
        if key not in self.known:
            self.known[key] = {}  # a group within itself has nothing more
            tree = {name: self._part(name, inner) for name, inner in group.items()}
            self.known[key] = {name: inner for name, inner in tree.items() if inner}
        return self.known[key]

    def _part(self, name: str, inner: Any) -> Any:
        if name == "vars":
            return [_weight(inner[str(number)]) for number in range(len(inner))]
        known = isinstance(inner, h5py.Group) and name not in NOT_WEIGHTS
        return self.of(inner) if known else None


@contextlib.contextmanager
def _archive(place: Path, path: str, room: int) -> Iterator[Saved]:
    with zipfile.ZipFile(place) as archive:
        require_honest(archive, room, path)
        metadata = json.loads(archive.read("metadata.json"))
        config = json.loads(archive.read("config.json"))
        # Its checksum is that of all of it.
        stored = in_memory(archive, "model.weights.h5")
    _require_keras_2(metadata.get("keras_version"), path)
    content = stored.getvalue()
    with h5py.File(stored, "r") as file:
        require_own_content(file, content, len(content), room, path)
        yield Saved(path, room, lambda: config, lambda: _Trees().of(file))


def _saved_model(place: Path, path: str, max_bytes: int | None) -> Saved:
    described = place / "keras_metadata.pb"
    if not (place / "saved_model.pb").is_file():
        raise ValueError(
            f"The folder {path!r} is not a SavedModel: it holds no saved_model.pb. Give the folder "
            "that does."
        )

    def describe() -> Any:
        if not described.exists():
            raise ValueError(
                f"The SavedModel {path!r} holds no keras_metadata.pb, and so no description of its "
                "layers: it was exported for serving, not saved by Keras 2's model.save(). Build "
                "the model again in Keras 3 and use load_weights()."
            )
        return _described(read_description(described), path)

    prefix = str(place / "variables" / "variables")
    room = _room(files_of(prefix), max_bytes, path)
    return Saved(path, room, describe, lambda: read_checkpoint(prefix, room))
