"""Models that Keras 3 saved: `.keras` files, which are checked before Keras reads them."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from low_rank_local_connectivity.untrusted.archives import require_honest
from low_rank_local_connectivity.untrusted.descriptions import (
    require_few_calls,
    require_own_description,
)
from low_rank_local_connectivity.untrusted.hdf5 import require_own_content
from low_rank_local_connectivity.untrusted.sizes import (
    on_disk,
    require_regular,
    require_room,
    room_for,
)
from low_rank_local_connectivity.untrusted.weights import weights_within

CONFIG, WEIGHTS = "config.json", "model.weights.h5"


def load_model(path: Path, max_bytes: int | None = None) -> Any:
    """Loads a `.keras` file of Keras 3; no code from it is run, and no other file is read.

    Args:
        path: The file.
        max_bytes: Bytes that its arrays, and the weights of the model that it describes, may take
            in memory; see `room_for`.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: If it refers to other files, or takes more memory than it may.
        Exception: Whatever else Keras raises.
    """
    room = room_of(path, max_bytes)
    with zipfile.ZipFile(path) as archive:
        require_honest(archive, room, path)
        described = json.loads(archive.read(CONFIG))
        require_own_description(described, str(path))
        require_few_calls(described, str(path))
        content = archive.read(WEIGHTS)
    with h5py.File(io.BytesIO(content), "r") as file:
        require_own_content(file, content, len(content), room, str(path))
    del content
    with weights_within(room, path):
        return keras.models.load_model(path, compile=False, safe_mode=True)


def room_of(path: Path, max_bytes: int | None = None) -> int:
    """Returns the bytes that a file's arrays may take in memory.

    Raises:
        ValueError: If it is no file, or itself larger, as one is that is mostly holes.
    """
    require_regular(path)
    room = room_for(on_disk(path), max_bytes)
    require_room(path.stat().st_size, room, path)
    return room


def require_whole_weights(path: Path, max_bytes: int | None = None) -> None:
    """Refuses a file of weights that Keras would read, as `load_model` refuses a model's.

    Raises:
        ValueError: If it refers to other files, or takes more memory than it may.
        OSError: If it is no HDF5 file.
    """
    room = room_of(path, max_bytes)
    with h5py.File(path, "r") as file:
        require_own_content(file, path.read_bytes(), on_disk(path), room, str(path))


def layers_not_finite(model: Any) -> list[str]:
    """Returns the names of the layers with weights that are infinite or not numbers."""
    layers = model._flatten_layers(include_self=False, recursive=False)
    return [layer.name for layer in layers if not all(map(_is_finite, layer.weights))]


def _is_finite(weight: Any) -> bool:
    if "float" not in weight.dtype:
        return True
    value = keras.ops.convert_to_numpy(keras.ops.cast(weight, "float32"))
    return bool(np.isfinite(value).all())
