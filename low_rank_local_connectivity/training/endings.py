"""How a run ends that has no result, and what is said of it."""

import errno
import os

# A temporary failure in sysexits.h: the same command will continue.
STOPPED_STATUS = 75


class RunError(ValueError):
    """A run cannot start or continue as requested; the message is a sentence for the user."""


class StoppedError(Exception):
    """A run was asked to stop, and has saved its state."""


def full_disk(error: BaseException) -> str | None:
    """Returns a sentence if an error, Python's or TensorFlow's, is due to a full disk."""
    text = os.strerror(errno.ENOSPC)
    if getattr(error, "errno", None) != errno.ENOSPC and text not in str(error):
        return None
    return (
        f"The disk of `model_dir` must have room. Received: {text}. What was saved before is "
        "intact; make room and run the same command again."
    )


# What a system says of a file that it does not let be used; a text of each is in the messages of
# TensorFlow's own errors.
REFUSALS = ("EACCES", "EPERM", "EROFS", "EIO", "EDQUOT", "EMFILE", "ENFILE", "ENOLCK", "EXDEV")
REFUSALS += ("ENAMETOOLONG", "ENOTDIR", "EISDIR", "ELOOP", "ENODEV", "ENXIO", "ESTALE", "EFBIG")
REFUSALS += ("ENOSYS", "EOPNOTSUPP", "ENOENT", "EINVAL", "EBUSY", "EEXIST", "ETXTBSY")

# TensorFlow's operations that write files.
WRITERS = ("SummaryFileWriter", "SummaryWriter", "SaveV2", "MergeV2Checkpoints", "WriteFile")


def refused_file(error: BaseException) -> str | None:
    """Returns a sentence if an error, Python's or TensorFlow's, is the system's, such as of a file.

    An `OSError` without a number has a sentence of its own.
    """
    what = _of_system(error) if isinstance(error, OSError) else _of_tensorflow(error)
    if what is None or (isinstance(error, OSError) and error.errno is None):
        return what
    return (
        "The files of a run must be there for this user to read and write. Received: "
        f"{what}. What was saved before is intact; see to the file, and run the same command again."
    )


def _of_system(error: OSError) -> str:
    if error.strerror is None:
        return str(error) or type(error).__name__
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"


def _of_tensorflow(error: BaseException) -> str | None:
    """Returns an error's message if it is TensorFlow's, and of a file or of what writes files."""
    words = " ".join(str(error).split())
    known = [os.strerror(getattr(errno, name)) for name in REFUSALS if hasattr(errno, name)]
    theirs = type(error).__module__.partition(".")[0] == "tensorflow"
    return words if theirs and any(text in words for text in (*known, *WRITERS)) else None


# How TensorFlow and JAX, PyTorch, and Python report that memory is exhausted.
OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "ResourceExhausted", "OutOfMemory", "MemoryError")


def out_of_memory(error: BaseException) -> str | None:
    """Returns a sentence if an error is due to exhausted memory, of a device or the machine."""
    told = f"{type(error).__name__}: {error}"
    if not any(name in told for name in OUT_OF_MEMORY):
        return None
    return (
        "The device's memory must hold the network and a step of its training. Received: "
        f"{told.splitlines()[0]} Choose a smaller `batch_size`, smaller images or other layers."
    )
