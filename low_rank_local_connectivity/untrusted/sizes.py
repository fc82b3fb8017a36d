"""How much a file may make a program allocate, and which files are read at all."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What arrays of any file may take in memory, in bytes, and how many times what it takes on disk:
# zeros compress a thousandfold, trained weights hardly at all.
ALWAYS, TIMES = 2**28, 16
# The longest JSON text that is parsed, in bytes. Parsed, brackets take 24 times as much; the
# longest description of a network in keras.applications has 1.3 MB.
MOST_TEXT = 2**24
# The longest file of records, of which each run adds 2 kB.
MOST_RECORDS = 2**26
BLOCK = 512
TRUST = "Allow as many by `max_bytes` if you trust the file."
KINDS: dict[str, Callable[[int], bool]] = {
    "a pipe": stat.S_ISFIFO,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
    "a socket": stat.S_ISSOCK,
    "a folder": stat.S_ISDIR,
}


def require_regular(path: str | os.PathLike[str]) -> None:
    """Refuses what is there but is no file: opening a pipe waits, and a device has no end.

    Raises:
        ValueError: If it is something else.
        OSError: If there is nothing.
    """
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode):
        kind = next((kind for kind, holds in KINDS.items() if holds(mode)), "something else")
        raise ValueError(
            f"What is read must be a file. Received: {os.fspath(path)!r}, which is {kind}. Give a "
            "file."
        )


def read_text(path: Path, most: int = MOST_TEXT) -> bytes:
    """Returns the bytes of a file of text.

    Args:
        path: The file.
        most: The most bytes that it may have.

    Raises:
        ValueError: If it is no file, or longer.
        OSError: If it cannot be read.
    """
    require_regular(path)
    with path.open("rb") as file:
        text = file.read(most + 1)
    if len(text) > most:
        raise ValueError(
            f"The file must have at most {most:,} bytes. Received: {str(path)!r}, which has "
            f"{path.stat().st_size:,}. Put the right one there."
        )
    return text


def on_disk(*paths: str | os.PathLike[str]) -> int:
    """Returns the bytes that files take, in which what was never written takes none.

    File systems that do not say are believed.
    """
    told = [Path(path).stat() for path in paths]
    stored = sum(min(one.st_size, BLOCK * one.st_blocks) for one in told)
    return stored or sum(one.st_size for one in told)


def room_for(stored: int, max_bytes: int | None = None) -> int:
    """Returns the bytes that the arrays of a file may take in memory.

    Args:
        stored: What the file takes on disk.
        max_bytes: The limit; if None, 256 MiB and 16 times what is stored, whichever is more.

    Example:
        >>> room_for(1000), room_for(10**9), room_for(10**9, max_bytes=5000)
        (268435456, 16000000000, 5000)
    """
    return max(ALWAYS, TIMES * stored) if max_bytes is None else max_bytes


def require_room(needed: int, room: int, path: Any, remedy: str = TRUST) -> None:
    """Refuses to read what would take more memory than it may.

    Args:
        needed: Bytes that it would take.
        room: Bytes that it may.
        path: The file.
        remedy: What to do, in a sentence.

    Raises:
        ValueError: If it would.
    """
    if needed > room:
        raise ValueError(
            f"The arrays of a file must take at most {room:,} bytes of memory. Received: "
            f"{str(path)!r}, which declares {needed:,}. {remedy}"
        )
