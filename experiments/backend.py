"""Keras's backend: which one it is, known before it is loaded, and loading it."""

import contextlib
import importlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import IO

from low_rank_local_connectivity.data import Dataset

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


def pipeline_for(dataset: Dataset) -> ModuleType:
    """Returns the module of `data` that makes a dataset's batches; it loads what it needs.

    tf.data does on TensorFlow, and wherever only TensorFlow can read the dataset, and grain on
    JAX and PyTorch.
    """
    name = "pipeline" if needs_tensorflow(dataset) else "grain_pipeline"
    return importlib.import_module(f"low_rank_local_connectivity.data.{name}")


def needs_tensorflow(dataset: Dataset) -> bool:
    """Returns whether a dataset's batches are made by TensorFlow."""
    return backend_name() == "tensorflow" or dataset.needs_tensorflow


def check_backend(dataset: Dataset | None = None) -> None:
    """Checks, without loading the backend, that everything a run needs of it is installed.

    Args:
        dataset: What it reads batches of, None if it reads none.

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
        others = [one for one in BACKENDS if importlib.util.find_spec(one) is not None]
        instead = f", or set KERAS_BACKEND={others[0]}, which is installed" if others else ""
        raise ValueError(
            f"KERAS_BACKEND={name} needs a package that is not installed: "
            f"pip install '{PROJECT}[{name}]'{instead}."
        )
    if dataset is None:
        return
    if needs_tensorflow(dataset) and importlib.util.find_spec("tensorflow") is None:
        raise ValueError(
            f"The images of {dataset.name} are read by TensorFlow on every backend, but it is not "
            f"installed: pip install '{PROJECT}[experiments]'{_instead(dataset)}."
        )
    if not needs_tensorflow(dataset) and importlib.util.find_spec("grain") is None:
        raise ValueError(
            f"Data is read by grain on {name}, but it is not installed: "
            f"pip install '{PROJECT}[{name}]'."
        )


def _instead(dataset: Dataset) -> str:
    """Returns what else can be done where TensorFlow is not installed."""
    if dataset.packed is None or backend_name() == "tensorflow":
        return ""
    return f", or give the folder of {dataset.name}.npz with `data_dir`"


def load_framework(virtual_devices: int | None = None) -> None:
    """Imports Keras and its backend without their messages about the machine; errors are shown.

    TensorFlow is imported too where it is installed, as Keras does on every backend to seed it;
    after the backend, since PyTorch's Triton ends the process if it is loaded later.

    Args:
        virtual_devices: How many devices to make of the CPU; one if None.
    """
    if virtual_devices is not None:
        known = os.environ.get("XLA_FLAGS", "")
        count = f"--xla_force_host_platform_device_count={virtual_devices}"
        os.environ["XLA_FLAGS"] = f"{known} {count}".strip()  # JAX reads it when it is imported
    with without_messages():
        importlib.import_module("low_rank_local_connectivity.layers")
        if importlib.util.find_spec("tensorflow") is None:
            return
        import tensorflow as tf

        if virtual_devices is not None:
            (cpu,) = tf.config.list_physical_devices("CPU")
            parts = [tf.config.LogicalDeviceConfiguration() for _ in range(virtual_devices)]
            tf.config.set_logical_device_configuration(cpu, parts)


def _notes() -> IO[bytes]:
    """Returns a file that nobody sees, or where none can be made one that keeps nothing."""
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return Path(os.devnull).open("r+b")


@contextlib.contextmanager
def without_messages() -> Iterator[None]:
    """Keeps what a framework says of the machine when it is imported; errors are shown."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _notes() as notes:
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
