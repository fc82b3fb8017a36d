"""Files and folders that are being written: their names, and what is left of them by a kill."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

# Prefix of their names.
UNFINISHED = ".writing-"


@contextlib.contextmanager
def unfinished_folder(parent: Path) -> Iterator[Path]:
    """Yields a new folder, for what is to be moved out of it, and removes it in the end.

    What killed processes were writing into the same folder is removed.

    Args:
        parent: The folder to make it in; created if necessary.
    """
    with _unfinished(parent, "", _make_folder) as temporary:
        yield temporary


@contextlib.contextmanager
def unfinished_file(parent: Path, suffix: str) -> Iterator[Path]:
    """As `unfinished_folder`, an empty file whose name has a suffix."""
    with _unfinished(parent, suffix, _make_file) as temporary:
        yield temporary


@contextlib.contextmanager
def _unfinished(parent: Path, suffix: str, make: Callable[[Path], int]) -> Iterator[Path]:
    """Yields something new that is locked as long as it is being written, then removes it."""
    parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(parent)
    handle = None
    while handle is None:
        path = parent / f"{UNFINISHED}{secrets.token_hex(8)}{suffix}"
        handle = make(path)
        with contextlib.suppress(OSError, ImportError):  # without locks nothing is abandoned
            _lock(handle)
        if not path.exists():  # taken for abandoned before it was locked
            os.close(handle)
            handle = None
    try:
        yield path
    finally:
        _remove(path)
        os.close(handle)


def _make_file(path: Path) -> int:
    # By the permissions that the user wants for new files, which `tempfile` does not ask for.
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)


def _make_folder(path: Path) -> int:
    path.mkdir()
    # Windows opens no folders.
    return os.open(path if hasattr(os, "O_DIRECTORY") else os.devnull, os.O_RDONLY)


def _remove(path: Path) -> None:
    """Removes a file or folder; what cannot be removed is left to the next who tries."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _lock(handle: int, wait: bool = True) -> None:
    import fcntl  # which Windows has not

    fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def remove_abandoned(folder: Path) -> None:
    """Removes what killed processes were writing into a folder, as far as that can be told."""
    for path in folder.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError, ImportError):
            _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    try:
        _lock(handle, wait=False)
        _remove(path)
    finally:
        os.close(handle)


def remove_unfinished(folder: Path) -> None:
    """Removes what a killed process left half-written; nothing else may be writing there."""
    for path in [*folder.rglob(f"{UNFINISHED}*")]:
        _remove(path)
