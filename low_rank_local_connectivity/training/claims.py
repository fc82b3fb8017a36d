"""Claims of folders: one process at a time writes to a claimed one, and only while it is there."""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from low_rank_local_connectivity.training.endings import RunError

# The lock files that this process holds, and whatever it writes is in whose folder.
_held: dict[Path, IO] = {}


@contextlib.contextmanager
def claimed(path: Path, locking: bool = True) -> Iterator[IO | None]:
    """Yields an open lock file if no other process holds it, else None.

    The lock is released when the last process that inherited it ends, however it ends. While it is
    held, `check_claims` tells whether the file is still there.

    Args:
        path: The lock file; created with its folder if necessary. A link is not followed.
        locking: Whether to lock it; if not, another process may claim it too.

    Raises:
        RunError: If it cannot be opened, or the file system refuses to lock it.
    """
    with _opened(path) as lock:
        try:
            if locking:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        except OSError as error:
            raise _unlockable(path, error) from error
        held = path.absolute()
        _held[held] = lock
        try:
            yield lock
        finally:
            # Where another thread waited, it may be held by that one already.
            if _held.get(held) is lock:
                del _held[held]


def _opened(path: Path) -> IO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        if stat.S_ISREG(os.fstat(number).st_mode):
            return os.fdopen(number, "r+b")
        os.close(number)
        why = "it is no regular file"
    except OSError as error:
        why = "it is a link" if path.is_symlink() else error.strerror or str(error)
    raise RunError(
        "A lock must be a file that this user can write, and no link. Received: "
        f"{path}: {why}. Remove it if it is not another user's, or choose another folder."
    )


def _unlockable(path: Path, error: OSError) -> RunError:
    return RunError(
        f"The file system of a run must support locks. Received: {path}: "
        f"{error.strerror or error}. If no other process uses the folder, give --no_lock."
    )


def check_claims(path: Path) -> None:
    """Checks that the claimed folder of a file that is about to be written is still there.

    Raises:
        RunError: If its lock has been removed or replaced, or the folder moved.
    """
    target = path.absolute()
    for lock, held in _held.items():
        if target.is_relative_to(lock.parent) and not _is_there(lock, held):
            raise RunError(
                "The folder of a run and the lock in it must stay where they are while it runs. "
                f"Received: {lock}, which is gone or another file. Nothing more was written; "
                "start the command again where the folder is now."
            )


def _is_there(path: Path, held: IO) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(held.fileno()))
    except OSError:
        return False


@contextlib.contextmanager
def waiting_turn(file: IO, path: Path, locking: bool = True) -> Iterator[None]:
    """Within this context no other process that waits for its turn uses an open file.

    Raises:
        RunError: If the file system refuses to lock it.
    """
    try:
        if locking:
            fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        raise _unlockable(path, error) from error
    yield
