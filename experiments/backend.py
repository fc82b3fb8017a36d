"""Which backend Keras will take, told before it is loaded."""

import importlib.util
import json
import os
from pathlib import Path

# Backends that can train, and the module that each needs.
BACKENDS = ("tensorflow", "jax", "torch")
PROJECT = "low-rank-local-connectivity"


def backend_name() -> str:
    """Returns the backend that Keras will take: `KERAS_BACKEND`'s, or that of `keras.json`."""
    return os.environ.get("KERAS_BACKEND") or _of_keras_json() or "tensorflow"


def _of_keras_json() -> str | None:
    home = os.environ.get("KERAS_HOME") or Path("~").expanduser() / ".keras"
    try:
        return json.loads((Path(home).expanduser() / "keras.json").read_text()).get("backend")
    except (OSError, ValueError, AttributeError):
        return None


def check_backend() -> None:
    """Makes sure that what a run needs of the backend is installed, without loading it.

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
            "Images are read by TensorFlow on every backend, and it is not installed: "
            f"pip install '{PROJECT}[experiments]'."
        )
