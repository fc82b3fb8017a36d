"""Zip archives: of models, and of arrays."""

import io
import math
import zipfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from low_rank_local_connectivity.untrusted.sizes import (
    MOST_TEXT,
    TRUST,
    on_disk,
    require_regular,
    require_room,
    room_for,
)

# Others take memory of their own, up to 4 GB for 30 bytes.
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
VERSIONS = {(1, 0): np.lib.format.read_array_header_1_0}
VERSIONS |= {(2, 0): np.lib.format.read_array_header_2_0}


def require_honest(archive: zipfile.ZipFile, room: int, path: Any, remedy: str = TRUST) -> None:
    """Refuses an archive that takes more memory than it may, or whose names leave it.

    Args:
        archive: The archive.
        room: Bytes that its members may take.
        path: Where it is, for errors.
        remedy: What to do if they would take more, in a sentence.

    Raises:
        ValueError: If it does.
    """
    members = archive.infolist()
    names = {member.filename for member in members}
    if len(names) < len(members):
        raise _refused(path, "names of its own for all members", "one twice")
    for member in members:
        parts = PurePosixPath(member.filename.replace("\\", "/")).parts
        if ".." in parts or parts[:1] == ("/",):
            raise _refused(path, "members inside it", repr(member.filename))
        if member.compress_type not in COMPRESSIONS:
            raise _refused(path, "members stored or deflated", f"type {member.compress_type}")
        if member.filename.endswith(".json"):
            require_room(member.file_size, MOST_TEXT, path)
    require_room(sum(member.file_size for member in members), room, path, remedy)


def _refused(path: Any, must: str, received: str) -> ValueError:
    return ValueError(f"An archive must have {must}. Received: {received} in {str(path)!r}.")


def read_arrays(
    path: Path, names: Collection[str] | None = None, remedy: str = TRUST
) -> dict[str, np.ndarray]:
    """Returns the arrays of an `.npz` file, which holds as many numbers as it says.

    Args:
        path: The file.
        names: The arrays to read of those that are there; all of them if None.
        remedy: What to do if they would take more memory than they may, in a sentence.

    Raises:
        ValueError: If it declares more than it holds, or than it may; see `room_for`.
        Exception: Whatever a damaged file leads NumPy to.
    """
    require_regular(path)
    room = room_for(on_disk(path))
    # NumPy leaves a damaged file open that it has opened itself.
    with path.open("rb") as file:
        with zipfile.ZipFile(file) as archive:
            require_honest(archive, room, path, remedy)
            for member in archive.infolist():
                if names is None or member.filename.removesuffix(".npy") in names:
                    _require_as_many(archive, member, path)
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files if names is None or name in names}


def _require_as_many(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Any) -> None:
    """Refuses an array of more numbers than its member has bytes for."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in VERSIONS:
            raise _refused(path, "arrays of version 1 or 2", f"version {version}")
        shape, _, kind = VERSIONS[version](stream)
        begin = stream.tell()
    if kind.hasobject:
        return  # which NumPy refuses
    if begin + math.prod(shape) * kind.itemsize != member.file_size:
        told = f"{member.filename!r} of shape {shape} in {member.file_size:,} bytes"
        raise _refused(path, "as many numbers as it says", told)


def in_memory(archive: zipfile.ZipFile, name: str) -> io.BytesIO:
    """Returns a member's content, whose checksum fits."""
    return io.BytesIO(archive.read(name))
