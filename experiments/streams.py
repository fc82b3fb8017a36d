"""Standard streams that may be closed, broken or full, without any harm to what a command does."""

import io
import os
import sys


class Lossy(io.FileIO):
    """A file whose writes never fail: what it does not take is lost, and the reason kept."""

    lost: OSError | None = None

    def write(self, data) -> int:
        """Writes what the file takes; returns the size of the data."""
        left = memoryview(data).cast("B")
        try:
            while left:
                left = left[super().write(left) or len(left) :]
        except OSError as error:
            self.lost = error
        return memoryview(data).nbytes


def lost_output() -> str | None:
    """Returns a sentence if standard output did not take all, unless its reader had enough."""
    sys.stdout.flush()
    lost = getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "lost", None)
    if lost is None or isinstance(lost, BrokenPipeError):
        return None
    return (
        "Standard output must take what is printed. Received: "
        f"{lost.strerror or lost}. Make room, or print it elsewhere."
    )


def keep_streams_open() -> None:
    """Makes what is printed from now on reach its reader if it can, and no harm come if not.

    A closed descriptor would be given to the next file that is opened, which then would have what
    libraries print in it. Streams that something else stands for, as in tests, are left alone.
    """
    for number in (0, 1, 2):
        if not _is_open(number):
            _open_nothing(number)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None or stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, lossy(number, stream))


def lossy(number: int, like: io.TextIOWrapper | None) -> io.TextIOWrapper:
    """Returns a stream to a descriptor, with the encoding and buffering of another."""
    encoding, errors = (like.encoding, like.errors) if like else ("utf-8", "backslashreplace")
    raw = Lossy(number, "w", closefd=False)
    by_line = like is not None and like.line_buffering
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=by_line)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _open_nothing(number: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
