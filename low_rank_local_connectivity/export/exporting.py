"""Converting, writing, verifying and moving into place."""

import importlib.metadata
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from low_rank_local_connectivity.conversion import (
    ConversionReport,
    fold_batch_normalization,
    to_plain_convolutions,
)
from low_rank_local_connectivity.conversion import convert as convert_model
from low_rank_local_connectivity.conversion.orientations import has_orientations
from low_rank_local_connectivity.export.formats import FORMATS, Served
from low_rank_local_connectivity.layers.low_rank_locally_connected import LowRankLocallyConnected

MANIFEST = "manifest.json"
# Images that an export is verified on if no sample is given, and batches that are cut from them.
SAMPLES = 7
# Runs of each form, alternately, when they are measured.
RUNS = 15
# Times that differ by less than this factor are alike: a machine's noise is not worth megabytes.
ABOUT_AS_FAST = 1.25
VERSIONS = ("keras", "numpy", "tensorflow", "onnx", "ai-edge-litert")


def export_model(
    model: keras.Model,
    path: str | Path,
    formats: Sequence[str] = ("tf_saved_model",),
    convert: bool | Literal["measure"] = True,
    sample: Any = None,
    serving_batch_size: int | None = None,
    preprocess: Callable[[Any], Any] | None = None,
    class_names: Sequence[str] | None = None,
    tolerance: float = 1e-4,
) -> dict[str, Any]:
    """Writes a model in formats that servers read, and proves that they compute the same.

    The model is converted first: low-rank layers with fixed weights mix their filters once, turned
    filters are spelled out as plain convolutions, and batch normalisations become part of the
    layers before them where that is exact. Everything is written to a temporary folder, loaded
    again by the format's own runtime and compared with the model on batches of 1 and of the whole
    sample; only then is it moved to its place, so nothing half-written or wrong remains.

    Args:
        model: Built functional or `Sequential` model with one input and one output.
        path: Folder, in which nothing that is written may exist. `tf_saved_model` becomes
            `1/`, the versioned folder that TensorFlow Serving expects, with the signature
            `serving_default` over float images and a warm-up request; `onnx` becomes
            `model.onnx`, `litert` `model.tflite`; `manifest.json` says what is there. Batch
            sizes are free.
        formats: What to write: any of `"tf_saved_model"`, `"onnx"`, `"litert"`.
        convert: Whether to convert. At a small batch the converted form, which reads filters of
            its own for every position, may be slower. `"measure"` writes each form in the first
            format, runs them at `serving_batch_size`, prints their times and keeps the fastest, or
            the smallest of those within a quarter of it: converted, unconverted, or with low-rank
            layers that convolve with every bank, which suits few examples. A model without layers
            to convert is not measured.
        sample: Inputs of the model to verify on; random ones in [-1, 1] if None.
        serving_batch_size: Batch to measure at; 1 if None.
        preprocess: Function of TensorFlow from the bytes of an image file, a scalar string
            tensor, to an input of the model. With it the SavedModel has a second signature,
            `serving_bytes`, over encoded images.
        class_names: Name of each class in the order of the outputs; `serving_bytes` then
            answers with the class's name too.
        tolerance: Largest difference allowed, relative to the largest output.

    Returns:
        The manifest: the model's name, the form that is served (`"converted"`,
        `"unconverted"` or `"bank by bank"`), the parameters of the model and of that form,
        milliseconds if they were measured, the input's name, shape and range in the sample, class
        names, versions, and for each format its `file` (in the folder), `bytes`, `signatures` and
        `difference`.

    Raises:
        ValueError: If an argument is out of its range, the backend cannot write a format, a place
            is taken, or an export differs from the model.
        ImportError: If a package is missing; the message names it and how to install it.

    Example:
        >>> import tempfile
        >>> inputs = keras.Input((8, 9, 2), name="image")
        >>> model = keras.Model(inputs, keras.layers.Flatten(name="values")(inputs))
        >>> manifest = export_model(model, tempfile.mkdtemp() + "/served", formats=())
        >>> manifest["input"]["shape"]
        [None, 8, 9, 2]
    """
    folder = Path(path)
    _check(model, folder, formats, convert, serving_batch_size)
    images = _sample(model, sample)
    name, form, measured = _form(model, convert, images, serving_batch_size or 1, formats)
    served = Served(form, preprocess, class_names, images[:1])
    expected = {count: _outputs(model, images[:count]) for count in {1, len(images)}}
    manifest: dict[str, Any] = {
        "model": model.name,
        "form": name,
        "parameters": {"model": model.count_params(), "served": form.count_params()},
        **measured,
        "input": {
            "name": served.input_name,
            "shape": list(model.inputs[0].shape),
            "dtype": "float32",
            "sample_range": [float(images.min()), float(images.max())],
        },
        "output": served.output_name,
        "class_names": None if class_names is None else list(class_names),
        "formats": {},
        "versions": _versions(),
    }
    if not formats:
        return manifest
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".", dir=folder))
    try:
        for name in formats:
            kind = FORMATS[name]
            written = temporary / kind.file
            kind.write(served, written)
            run = kind.run(written, served)
            difference = max(
                _difference(outputs, run(images[:count])) for count, outputs in expected.items()
            )
            if not difference <= tolerance:
                raise ValueError(
                    "An export must compute what the model computes. Received: a "
                    f"{name} that differs by {difference:.1e} relative to the largest output, "
                    f"with tolerance={tolerance:.1e}. Nothing was written."
                )
            manifest["formats"][name] = _entry(served, name, written, difference)
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        for file in (*(FORMATS[name].file for name in formats), MANIFEST):
            (temporary / file).replace(folder / file)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def _check(
    model: Any, folder: Path, formats: Sequence[str], convert: Any, batch_size: int | None
) -> None:
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(
            f"`formats` must be among {', '.join(map(repr, FORMATS))}. Received: "
            f"formats={list(formats)!r}."
        )
    if convert not in (True, False, "measure"):
        raise ValueError(
            f"`convert` must be True, False or 'measure'. Received: convert={convert!r}."
        )
    if batch_size is not None and batch_size < 1:
        raise ValueError(
            f"`serving_batch_size` must be at least 1. Received: serving_batch_size={batch_size}."
        )
    if not model.built or len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            "An exported model must be built and have one input and one output. Received: "
            f"{model.name!r}. Wrap what a server needs in a keras.Model of its own."
        )
    for name in formats:
        FORMATS[name].require(name)
    taken = [folder / FORMATS[name].file for name in formats]
    taken = [file for file in (*taken, folder / MANIFEST) if formats and file.exists()]
    if taken:
        raise ValueError(
            f"An export must not replace another one. Received: path={str(folder)!r}, where "
            f"{taken[0]} exists. Choose another path or remove it."
        )


def _sample(model: Any, sample: Any) -> np.ndarray:
    """Returns inputs to verify on."""
    shape = tuple(model.inputs[0].shape)[1:]
    if sample is None:
        if None in shape:
            raise ValueError(
                "A model for inputs of any size needs a `sample` to be verified on. Received: "
                f"sample=None for inputs of shape {(None, *shape)}. Give a few inputs."
            )
        rng = np.random.default_rng(0)
        return rng.uniform(-1, 1, (SAMPLES, *shape)).astype("float32")
    images = np.asarray(keras.ops.convert_to_numpy(sample), "float32")
    fits = images.ndim == len(shape) + 1 and len(images) > 0
    if not fits or any(a not in (None, b) for a, b in zip(shape, images.shape[1:], strict=True)):
        raise ValueError(
            f"`sample` must be inputs of the model, of shape {(None, *shape)}. Received: shape "
            f"{images.shape}."
        )
    return images


def _form(
    model: Any, convert: Any, images: np.ndarray, batch_size: int, formats: Sequence[str]
) -> tuple[str, Any, dict[str, Any]]:
    """Returns the form of a model to serve, its name, and what was measured to choose it."""
    if convert is False:
        return "unconverted", model, {}
    if has_orientations(model):
        model = to_plain_convolutions(model)
    if convert is True:
        return "converted", _folded(convert_model(model, report=None)), {}
    reports: list[ConversionReport] = []
    converted = convert_model(model, report=reports.append)
    if not reports[0].replaced:  # All forms would be the same.
        return "converted", _folded(converted), {}
    forms = {
        "unconverted": _folded(model),
        "bank by bank": _folded(convert_model(model, bank_by_bank, report=None)),
        "converted": _folded(converted),
    }
    batch = np.resize(images, (batch_size, *images.shape[1:]))
    milliseconds = _measure(forms, batch, formats)
    chosen = _smallest_of_the_fastest(milliseconds, forms)
    times = ", ".join(f"{time:.3g} ms {name}" for name, time in milliseconds.items())
    print(  # noqa: T201
        f"A batch of {batch_size} takes {times}: the {chosen} form is served."
    )
    return chosen, forms[chosen], {"milliseconds": {"batch_size": batch_size, **milliseconds}}


def _folded(model: Any) -> Any:
    return fold_batch_normalization(model, report=None)


def _smallest_of_the_fastest(milliseconds: Mapping[str, float], forms: Mapping[str, Any]) -> str:
    """Returns the form with the fewest parameters of those about as fast as the fastest."""
    limit = ABOUT_AS_FAST * min(milliseconds.values())
    near = [name for name, time in milliseconds.items() if time <= limit]
    return min(near, key=lambda name: (forms[name].count_params(), milliseconds[name]))


def bank_by_bank(layer: Any) -> Any:
    """Returns a low-rank layer that convolves with every bank, which suits few examples.

    By itself a layer plans for 32 examples if the batch is unknown, as it is for a server.
    """
    if not isinstance(layer, LowRankLocallyConnected) or layer.implementation != "auto":
        return None
    if layer.input_dependent:  # It does so in any case.
        return None
    copy = type(layer).from_config(
        {**layer.get_config(), "implementation": "convolve_then_combine"}
    )
    copy.build(layer.get_build_config()["input_shape"])
    copy.set_weights(layer.get_weights())
    return copy


def _measure(
    forms: Mapping[str, Any], batch: np.ndarray, formats: Sequence[str]
) -> dict[str, float]:
    """Returns the milliseconds that each form takes, alternately, as the first format runs it."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: _runner(form, Path(folder) / name, formats, batch[:1])
            for name, form in forms.items()
        }
        milliseconds: dict[str, list[float]] = {name: [] for name in forms}
        for run in runs.values():
            run(batch)  # compiles
        for _ in range(RUNS):
            for name, run in runs.items():
                started = time.perf_counter()
                run(batch)
                milliseconds[name].append(1000 * (time.perf_counter() - started))
    return {name: round(statistics.median(found), 3) for name, found in milliseconds.items()}


def _runner(
    form: Any, folder: Path, formats: Sequence[str], warmup: np.ndarray
) -> Callable[[np.ndarray], Any]:
    """Returns what runs a form as it would be served; by Keras if no format is asked for."""
    if not formats:
        return form.predict_on_batch
    kind, served = FORMATS[formats[0]], Served(form, None, None, warmup)
    folder.mkdir()
    kind.write(served, folder / kind.file)
    return kind.run(folder / kind.file, served)


def _outputs(model: Any, images: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(images, training=False))


def _difference(expected: np.ndarray, served: np.ndarray) -> float:
    """Returns how far outputs are from others, relative to the largest."""
    if expected.shape != served.shape:
        return float("inf")
    return float(np.abs(served - expected).max() / max(np.abs(expected).max(), 1e-30))


def _entry(served: Served, name: str, written: Path, difference: float) -> dict[str, Any]:
    files = [written] if written.is_file() else [p for p in written.rglob("*") if p.is_file()]
    signatures = ["serving_default"] if name != "onnx" else []
    if name == "tf_saved_model" and served.preprocess is not None:
        signatures.append("serving_bytes")
    return {
        "file": written.name,
        "bytes": sum(file.stat().st_size for file in files),
        "signatures": signatures,
        "difference": difference,
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {**found, "backend": keras.backend.backend()}
