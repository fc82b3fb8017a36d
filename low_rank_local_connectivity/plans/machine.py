"""The backend, the kind of device and how much memory it has: what Keras does not tell.

Which is why this file names TensorFlow, JAX and PyTorch. It has only ever run on processors.
"""

import dataclasses
import os
from pathlib import Path

import keras

from low_rank_local_connectivity.ops.constants import known_while_traced
from low_rank_local_connectivity.ops.precision import itemsize_of

BACKENDS = ("tensorflow", "jax", "torch", "numpy", "openvino")
DEVICES = ("cpu", "gpu", "tpu")
# Limits that containers put on their processes: control groups, version 2 and 1.
LIMIT_FILES = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a layer computes on.

    Args:
        backend: Keras's name of the backend.
        device: Kind of device: `"cpu"`, `"gpu"` or `"tpu"`.
        memory: Bytes of memory that the device has, None if that is not known.
    """

    backend: str
    device: str
    memory: int | None

    def itemsize(self, dtype: str) -> int:
        """Returns the bytes that a number counts for in a request.

        On a CPU those of float32, in which the costs of plans were measured there.

        Args:
            dtype: The layer's compute dtype.

        Example:
            >>> Machine("jax", "tpu", None).itemsize("bfloat16")
            2
        """
        return 4 if self.device == "cpu" else itemsize_of(dtype)


def present_machine() -> Machine:
    """Returns what a layer computes on that is built now; asked once, when it is built.

    Example:
        >>> present_machine().device in DEVICES
        True
    """
    device = device_kind()
    memory = memory_bytes() if device == "cpu" else device_memory_bytes()
    return Machine(keras.backend.backend(), device, memory)


@known_while_traced
def device_kind() -> str:
    """Returns the kind of device that the backend computes on."""
    kind = KINDS.get(keras.backend.backend(), lambda: "cpu")()
    return kind if kind in ("cpu", "tpu") else "gpu"


@known_while_traced
def memory_bytes() -> int | None:
    """Returns the bytes of memory that this process may use, or None if that is not known.

    The machine's own memory, or its container's limit if that is less.
    """
    try:
        known = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):
        return None
    for path in LIMIT_FILES:
        try:
            known.append(int(path.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(known)


@known_while_traced
def device_memory_bytes() -> int | None:
    """Returns the bytes of memory that an accelerator has, or None if it does not say."""
    return MEMORIES.get(keras.backend.backend(), lambda: None)()


def require_memory(size: int, what: str, instead: str) -> None:
    """Refuses a tensor that is larger than the memory.

    Args:
        size: Its bytes.
        what: A sentence's start that says what takes them.
        instead: A sentence that says what to do.

    Raises:
        ValueError: If the tensor cannot fit.
    """
    limit = present_machine().memory
    if limit is not None and size > limit:
        raise ValueError(
            f"{what} must fit into memory. Received: a request for {size:,} bytes, of "
            f"{limit:,} that there are. {instead}"
        )


def _tensorflow_kind() -> str:
    """Returns the kind of TensorFlow's devices, an accelerator's if there is one."""
    import tensorflow as tf

    kinds = {device.device_type.lower() for device in tf.config.list_logical_devices()}
    return next((kind for kind in ("tpu", "gpu") if kind in kinds), "cpu")


def _tensorflow_memory() -> int | None:
    """Returns what TensorFlow may take of the first accelerator; a TPU's is not told."""
    from tensorflow.python.client import device_lib

    limits = [one.memory_limit for one in device_lib.list_local_devices() if "GPU" in one.name]
    return limits[0] if limits else None


def _jax_device():
    import jax

    device = getattr(jax.config, "jax_default_device", None)
    if device is None or isinstance(device, str):
        device = jax.local_devices(backend=device)[0]
    return device


def _jax_memory() -> int | None:
    return (_jax_device().memory_stats() or {}).get("bytes_limit")


def _torch_kind() -> str:
    """Returns the kind of device that Keras takes when PyTorch is imported."""
    import torch

    chosen = os.environ.get("KERAS_TORCH_DEVICE")
    if chosen is None:
        accelerated = torch.cuda.is_available() or torch.backends.mps.is_available()
        return "gpu" if accelerated else "cpu"
    return chosen.partition(":")[0]


def _torch_memory() -> int | None:
    import torch

    return torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else None


KINDS = {
    "tensorflow": _tensorflow_kind,
    "jax": lambda: _jax_device().platform,
    "torch": _torch_kind,
}
MEMORIES = {"tensorflow": _tensorflow_memory, "jax": _jax_memory, "torch": _torch_memory}
