"""What a run leaves behind in files, none of them ever half-written."""

import contextlib
import csv
import importlib.metadata
import io
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path that becomes `path` if the body succeeds, in one step.

    Args:
        path: The file to write or replace; its folder is created.

    Yields:
        Path of a file in the same folder, with the same suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, replacing it in one step."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def write_metrics(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Writes one line of CSV per epoch, replacing the file in one step."""
    text = io.StringIO(newline="")
    names = list(rows[0])
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue())


def versions() -> dict[str, str]:
    """Returns the versions that a result depends on, by package."""
    backend = keras.backend.backend()
    names = {"keras", "numpy", backend, "low-rank-local-connectivity"}
    found = {"python": platform.python_version(), "backend": backend}
    for name in sorted(names):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
