"""Keras's backend: which one it is, known before it is loaded, and loading it."""

import contextlib
import importlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Backends that can train, with the module that each needs.
BACKENDS = ("tensorflow", "jax", "torch")
PROJECT = "low-rank-local-connectivity"


def backend_name() -> str:
    """Returns the backend that Keras will use: that of `KERAS_BACKEND` or else of `keras.json`."""
    return os.environ.get("KERAS_BACKEND") or _of_keras_json() or "tensorflow"


def _of_keras_json() -> str | None:
    home = os.environ.get("KERAS_HOME") or Path("~").expanduser() / ".keras"
    try:
        return json.loads((Path(home).expanduser() / "keras.json").read_text()).get("backend")
    except (OSError, ValueError, AttributeError):
        return None


def check_backend() -> None:
    """Checks, without loading the backend, that everything a run needs of it is installed.

    Raises:
        ValueError: If the backend cannot train, or a package is missing.
    """
    name = backend_name()
    if name not in BACKENDS:
        raise ValueError(
            f"KERAS_BACKEND must be a backend that can train: {', '.join(BACKENDS)}. Received: "
            f"KERAS_BACKEND={name}."
        )
    if importlib.util.find_spec(name) is None:
        raise ValueError(
            f"KERAS_BACKEND={name} needs a package that is not installed: "
            f"pip install '{PROJECT}[{name}]'."
        )
    if importlib.util.find_spec("tensorflow") is None:
        raise ValueError(
            "Images are read by TensorFlow on every backend, but it is not installed: "
            f"pip install '{PROJECT}[experiments]'."
        )


def load_framework(virtual_devices: int | None = None) -> None:
    """Imports Keras and its backend without their messages about the machine; errors are shown.

    Args:
        virtual_devices: How many devices to make of the CPU; one if None.
    """
    if virtual_devices is not None:
        known = os.environ.get("XLA_FLAGS", "")
        count = f"--xla_force_host_platform_device_count={virtual_devices}"
        os.environ["XLA_FLAGS"] = f"{known} {count}".strip()  # JAX reads it when it is imported
    with without_messages():
        # Keras and its backend first: PyTorch's Triton ends the process if it is loaded after
        # TensorFlow, which the data pipeline needs on every backend.
        importlib.import_module("low_rank_local_connectivity.layers")
        import tensorflow as tf

        if virtual_devices is not None:
            (cpu,) = tf.config.list_physical_devices("CPU")
            parts = [tf.config.LogicalDeviceConfiguration() for _ in range(virtual_devices)]
            tf.config.set_logical_device_configuration(cpu, parts)


@contextlib.contextmanager
def without_messages() -> Iterator[None]:
    """Keeps what a framework says of the machine when it is imported; errors are shown."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryFile() as notes:
        standard_error = os.dup(2)
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except BaseException:
            notes.seek(0)
            os.write(standard_error, notes.read())
            raise
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
