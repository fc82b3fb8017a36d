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
