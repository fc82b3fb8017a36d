"""The files that a run writes, none of which is ever half-written."""

import contextlib
import csv
import importlib.metadata
import io
import json
import os
import platform
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from low_rank_local_connectivity.training.claims import check_claims, waiting_turn
from low_rank_local_connectivity.unfinished import unfinished_file


def given_path(text: str) -> Path:
    """Returns a path from a command line, with a leading `~` as the home folder.

    Example:
        >>> given_path("~/records.jsonl") == Path.home() / "records.jsonl"
        True
    """
    return Path(text).expanduser()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path that becomes `path` if the body succeeds, in one step.

    What killed processes were writing into the same folder is removed.

    Args:
        path: The file to write or replace; its folder is created.

    Yields:
        Path of a file in the same folder, with the same suffix.

    Raises:
        RunError: If the folder was claimed and is no longer there.
    """
    check_claims(path)
    with unfinished_file(path.parent, path.suffix) as temporary:
        yield temporary
        check_claims(path)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, replacing it in one step."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def write_metrics(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Writes one line of CSV per epoch, replacing the file in one step.

    A metric that only some epochs have is empty in the others.
    """
    text = io.StringIO(newline="")
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue())


def append_record(path: Path, record: dict[str, Any], locking: bool = True) -> bool:
    """Adds a record to a file as a line of JSON, unless the file has one of the same name.

    Several processes may add to one file: each waits for its turn, and a line that a killed
    process left unfinished is terminated before the next one.

    Args:
        path: The file; created with its folder if necessary.
        record: The record; its `"name"` identifies it.
        locking: Whether to wait for a turn; if not, no other process may add to the file.

    Returns:
        Whether it was added.

    Raises:
        RunError: If the file system refuses locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record, sort_keys=True)
    with path.open("a+b") as file, waiting_turn(file, path, locking):
        file.seek(0)
        text = file.read()
        if record["name"] in {known["name"] for known in _parse(text, path)}:
            return False
        ending = b"" if not text or text.endswith(b"\n") else b"\n"
        file.write(ending + line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return True


def read_records(path: Path) -> list[dict[str, Any]]:
    """Returns the records in a file that `append_record` wrote, except unfinished ones.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    return _parse(path.read_bytes(), path)


def _parse(text: bytes, path: Path) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict) and "name" in record:
            records.append(record)
        elif line.strip():
            warnings.warn(f"Line {number} of {path} is not a record and is left out.", stacklevel=3)
    return records


def versions() -> dict[str, str]:
    """Returns the versions of the packages that a result depends on."""
    import keras  # here, as records are read without it too

    backend = keras.backend.backend()
    names = {"keras", "numpy", backend, "low-rank-local-connectivity"}
    found = {"python": platform.python_version(), "backend": backend}
    for name in sorted(names):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
