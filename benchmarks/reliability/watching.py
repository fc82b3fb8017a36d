"""Attempts in forks that are watched from outside: their memory, their time, what they open."""

import contextlib
import ctypes
import dataclasses
import json
import os
import resource
import select
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Beyond what a fork begins with, in bytes; and seconds of computing, and of waiting.
MOST_MEMORY, MOST_SECONDS, MOST_WAITING = 2 << 30, 30, 120
POLL = 0.01
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
# Of inotify: that a file is opened, and that it does not block.
OPENED, NONBLOCKING = 0x20, os.O_NONBLOCK


@dataclasses.dataclass(frozen=True)
class Attempt:
    """How an attempt ended.

    Args:
        ending: `"told"` if it has returned something, or what ended it.
        told: What it has returned, if it is in JSON.
        opened: Whether it opened a file that is none of its own.
    """

    ending: str
    told: Any = None
    opened: bool = False


def attempted(function: Callable[..., Any], *arguments: Any, elsewhere: Path) -> Attempt:
    """Calls a function in a fork.

    Args:
        function: Returns something in JSON.
        arguments: Its arguments.
        elsewhere: A folder of files that it must not open.
    """
    reading, writing = os.pipe()
    with noting_opened(elsewhere) as opened:
        pid = os.fork()
        if not pid:
            os.close(reading)
            _answer(function, arguments, writing)
        os.close(writing)
        ending = _watched(pid, reading)
        return dataclasses.replace(ending, opened=opened())


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...], writing: int) -> None:
    """Writes what a function returns, and ends this process."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nowhere, number)
    status = 1
    try:
        with os.fdopen(writing, "w") as stream:
            json.dump(function(*arguments), stream)
        status = 0
    finally:
        os._exit(status)


def _watched(pid: int, reading: int) -> Attempt:
    """Waits for a fork, which is killed if it takes too much."""
    began, base, parts, ending = time.monotonic(), _memory(pid), [], None
    while True:
        if select.select([reading], [], [], POLL)[0]:
            part = os.read(reading, 1 << 16)
            parts.append(part)
            if not part:
                break
        ending = _too_much(pid, base, began)
        if ending is not None:
            os.kill(pid, signal.SIGKILL)
            break
    os.close(reading)
    _, status, used = os.wait4(pid, 0)
    if ending is None and used.ru_maxrss * 1024 - base > MOST_MEMORY:
        ending = "memory"
    code = os.waitstatus_to_exitcode(status)
    if ending is None and code:
        ending = f"signal {-code}" if code < 0 else "no answer"
    return Attempt(ending or "told", None if ending else json.loads(b"".join(parts)))


def _too_much(pid: int, base: int, began: float) -> str | None:
    if _memory(pid) - base > MOST_MEMORY:
        return "memory"
    if time.monotonic() - began > MOST_WAITING or _seconds(pid) > MOST_SECONDS:
        return "time"
    return None


def _memory(pid: int) -> int:
    """Returns the bytes that a process has in memory."""
    try:
        return PAGE * int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0


def _seconds(pid: int) -> float:
    """Returns the seconds that a process has computed."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(words[11]) + int(words[12])) / TICKS


@contextlib.contextmanager
def noting_opened(folder: Path) -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether a file in a folder was opened, by whatever library."""
    library = ctypes.CDLL(None, use_errno=True)
    handle = library.inotify_init1(NONBLOCKING)
    if handle < 0 or library.inotify_add_watch(handle, os.fsencode(folder), OPENED) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))

    def opened() -> bool:
        try:
            return any(length for length in _lengths(os.read(handle, 1 << 16)))
        except BlockingIOError:
            return False

    try:
        yield opened
    finally:
        os.close(handle)


def _lengths(events: bytes) -> Iterator[int]:
    """Yields the lengths of the names of the files that were opened; 0 for the folder itself."""
    header, at = struct.Struct("iIII"), 0
    while at < len(events):
        *_, length = header.unpack_from(events, at)
        yield length
        at += header.size + length
