"""What must hold of the files that tensorflow-datasets prepared, before it reads them.

TensorFlow's reader ends the process at a record that says it is longer than memory, and
tensorflow-datasets imports whatever class a description names.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from low_rank_local_connectivity.untrusted.sizes import read_text, require_regular

from .unreadable import WHOLE, UnreadableError

DESCRIPTIONS = ("dataset_info.json", "features.json")
CLASS, OWN = "pythonClassName", "tensorflow_datasets."
# Of a record: its length, a checksum of that, and a checksum of its bytes.
LENGTH, HEADER, TRAILER = 8, 12, 4


def require_whole(folder: Path) -> None:
    """Refuses descriptions that are damaged, and files that are none, in a prepared folder.

    Args:
        folder: The folder of a version of a dataset.

    Raises:
        UnreadableError: If there are any; the error names the first.
    """
    for path in sorted(folder.iterdir()):
        try:
            if not path.is_dir():
                require_regular(path)
            if path.name in DESCRIPTIONS:
                _require_own_classes(json.loads(read_text(path)))
        except (OSError, ValueError, RecursionError):
            raise UnreadableError(WHOLE.format(path)) from None


def _require_own_classes(described: Any) -> None:
    if not isinstance(described, dict):
        raise ValueError("no description")
    for name in _classes(described):
        if not str(name).startswith(OWN):
            raise ValueError("another's class")


def _classes(described: Any) -> Iterator[Any]:
    """Yields the names of all classes in a description."""
    if isinstance(described, dict):
        for key, value in described.items():
            if key == CLASS:
                yield value
            yield from _classes(value)
    elif isinstance(described, list):
        for value in described:
            yield from _classes(value)


def require_whole_records(path: Path, count: int) -> None:
    """Refuses a file of fewer records, or with one that says it is longer than the file.

    Args:
        path: The file.
        count: How many records it must have at least.

    Raises:
        UnreadableError: If it is such a file.
    """
    size, at, found = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            at += HEADER + int.from_bytes(file.read(LENGTH), "little") + TRAILER
            found += 1
    if at != size or found < count:
        raise UnreadableError(WHOLE.format(path))
