"""From a trained model to what a server runs."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

FORMATS = ("tf_saved_model",)

# On this many random inputs an export is compared with the model before it is kept.
SAMPLES = 4


def export_model(
    model: keras.Model,
    path: str | Path,
    formats: Sequence[str] = ("tf_saved_model",),
    tolerance: float = 1e-4,
) -> dict[str, Any]:
    """Writes a model in formats that servers read, and checks what was written.

    Each export is written to a temporary folder, loaded again and compared with the model; only
    then is it moved to its place, so nothing half-written or wrong remains.

    Args:
        model: Built functional model with one input, on the TensorFlow or JAX backend.
        path: Folder; `tf_saved_model` is written to `<path>/1/`, the versioned folder that
            TensorFlow Serving expects, with the signature `serving_default` over float images
            and any batch size. It must not exist.
        formats: What to write: any of `"tf_saved_model"`.
        tolerance: Largest difference allowed, relative to the largest output.

    Returns:
        For each format, `path` and `difference`, the largest relative difference found.

    Raises:
        ValueError: If a format is unknown, the backend cannot write it, the place is taken, or
            the export differs from the model.
        ImportError: If TensorFlow is not installed.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(
            f"`formats` must be among {', '.join(map(repr, FORMATS))}. Received: "
            f"formats={list(formats)!r}."
        )
    if not formats:
        return {}
    if keras.backend.backend() not in ("tensorflow", "jax"):
        raise ValueError(
            "A SavedModel can be written on the TensorFlow or JAX backend. Received: backend "
            f"{keras.backend.backend()!r}. Save the model as .keras, load it with "
            "KERAS_BACKEND=tensorflow and export it there."
        )
    target = Path(path) / "1"
    if target.exists():
        raise ValueError(
            f"An export must not replace another one. Received: path={str(path)!r}, where "
            f"{target} exists. Choose another path or remove it."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".", dir=target.parent))
    try:
        written = temporary / "1"
        _write_saved_model(model, written)
        difference = _difference(model, written)
        if not difference <= tolerance:
            raise ValueError(
                "An export must compute what the model computes. Received: a SavedModel that "
                f"differs by {difference:.1e} relative to the largest output, with "
                f"tolerance={tolerance:.1e}. Nothing was written."
            )
        written.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return {"tf_saved_model": {"path": str(target), "difference": difference}}


def _import_tensorflow():
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError(
            "Writing a SavedModel needs TensorFlow: "
            "pip install 'low-rank-local-connectivity[tensorflow]'."
        ) from error
    return tf


def _write_saved_model(model: keras.Model, folder: Path) -> None:
    tf = _import_tensorflow()
    archive = keras.export.ExportArchive()
    if keras.backend.backend() == "jax":
        archive.track(model)
    # On TensorFlow, tracking the model would write every weight twice.
    (symbolic,) = model.inputs
    signature = tf.TensorSpec((None, *symbolic.shape[1:]), tf.float32, name=symbolic.name)
    archive.add_endpoint("serving_default", lambda image: model(image, training=False), [signature])
    archive.write_out(str(folder), verbose=False)


def _difference(model: keras.Model, folder: Path) -> float:
    """Returns how far a SavedModel's outputs are from the model's, relative to the largest."""
    tf = _import_tensorflow()
    (symbolic,) = model.inputs
    shape = (SAMPLES, *symbolic.shape[1:])
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
    loaded = tf.saved_model.load(str(folder))
    (served,) = loaded.signatures["serving_default"](tf.constant(images)).values()
    expected = keras.ops.convert_to_numpy(model(images, training=False))
    return float(np.abs(served.numpy() - expected).max() / np.abs(expected).max())
