"""HDF5 files: what they hold must be in them, and as large as they say.

HDF5 resolves more than a file's own bytes: links to other files, datasets whose values are in
other files, and datasets put together from those of others. Keras writes none of them.
"""

import math
from collections.abc import Iterator
from typing import Any

import h5py

from low_rank_local_connectivity.untrusted.sizes import MOST_TEXT, require_room

# How a collection of texts of variable length begins, before its size in 8 bytes.
COLLECTION = b"GCOL\x01\x00\x00\x00"
# Chunks that a dataset may have however small its file is.
CHUNKS = 10_000
LINKS = (h5py.HardLink, h5py.SoftLink)


def require_own_content(file: h5py.File, content: Any, stored: int, room: int, path: str) -> None:
    """Refuses a file that reads others, or that takes more memory than it may.

    Every object is visited once, by however many names it can be reached.

    Args:
        file: The file, open.
        content: Its bytes, or a map of them.
        stored: Bytes that it takes on disk.
        room: Bytes that its arrays may take in memory.
        path: Where it is, for errors.

    Raises:
        ValueError: If it does.
        Exception: Of HDF5, if it is damaged.
    """
    needed, texts = 0, 0
    for item in _objects(file, path):
        if isinstance(item, h5py.Dataset):
            needed += _size_of(item, stored, path)
        fixed, variable = _attributes(item)
        needed, texts = needed + fixed, texts + variable
    require_room(needed, room, path)
    if texts:
        require_room(needed + texts * _longest_text(content), room, path)


def _objects(file: h5py.File, path: str) -> Iterator[Any]:
    """Yields every group and dataset of a file once."""
    waiting: list[Any] = [file]
    seen = {_identity(file)}
    while waiting:
        item = waiting.pop()
        yield item
        if not isinstance(item, h5py.Group):
            continue
        for name in item:
            inner = _inside(item, name, path)
            if _identity(inner) not in seen:
                seen.add(_identity(inner))
                waiting.append(inner)


def _identity(item: Any) -> tuple[int, int]:
    about = h5py.h5o.get_info(item.id)
    return about.fileno, about.addr


def identity(item: Any) -> Any:
    """Returns what is the same for all names by which an object can be reached."""
    return _identity(item) if isinstance(item, h5py.HLObject) else id(item)


def _inside(group: h5py.Group, name: str, path: str) -> Any:
    """Returns what a name in a group stands for, which must be in the group."""
    try:
        link: Any = group.get(name, getlink=True)
    except (TypeError, KeyError):
        link = None
    leaves = isinstance(link, h5py.SoftLink) and link.path.startswith("/")
    if not isinstance(link, LINKS) or leaves:
        raise ValueError(
            f"A file must hold its own content. Received: {path!r}, in which {name!r} of "
            f"{group.name!r} is a link to something outside. Save the model again."
        )
    return group[name]


def _size_of(dataset: h5py.Dataset, stored: int, path: str) -> int:
    """Returns the bytes that reading a dataset takes."""
    if dataset.external or dataset.is_virtual:
        raise ValueError(
            f"A file must hold its own content. Received: {path!r}, in which the values of "
            f"{dataset.name!r} are in other files. Save the model again."
        )
    if dataset.shape is None:
        return 0
    chunk = dataset.chunks or dataset.shape
    whole = math.prod(
        -(-length // max(part, 1)) for length, part in zip(dataset.shape, chunk, strict=True)
    )
    if dataset.chunks and whole > max(CHUNKS, stored):
        raise ValueError(
            f"A file must have room for what it declares. Received: {path!r}, in which "
            f"{dataset.name!r} is cut into {whole:,} chunks. Save the model again."
        )
    return max(math.prod(dataset.shape), math.prod(chunk)) * dataset.dtype.itemsize


def _attributes(item: Any) -> tuple[int, int]:
    """Returns the bytes of attributes of fixed size, and how many texts of variable size."""
    fixed, variable = 0, 0
    for name in item.attrs:
        attribute = h5py.h5a.open(item.id, name.encode())
        count = math.prod(attribute.shape or ())
        if attribute.dtype.kind == "O":
            # A single one is no longer than the file, and read alone.
            variable += count if attribute.shape else 0
        else:
            fixed += count * attribute.dtype.itemsize
    return fixed, variable


def _longest_text(content: Any) -> int:
    """Returns a number of bytes that no text of variable length exceeds."""
    longest, at = 0, content.find(COLLECTION)
    while at >= 0:
        begin = at + len(COLLECTION)
        longest = max(longest, int.from_bytes(content[begin : begin + 8], "little"))
        at = content.find(COLLECTION, begin)
    return longest


def require_text(text: Any, path: str) -> None:
    """Refuses a description that is too long to be parsed.

    Raises:
        ValueError: If it is.
    """
    if len(text) > MOST_TEXT:
        raise ValueError(
            f"A model's description must have at most {MOST_TEXT:,} bytes. Received: {path!r}, "
            f"where it has {len(text):,}."
        )
