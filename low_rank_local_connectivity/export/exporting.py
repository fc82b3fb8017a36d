"""Converting, writing, verifying and moving into place."""

import dataclasses
import importlib.metadata
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from low_rank_local_connectivity.export.arguments import require_arguments
from low_rank_local_connectivity.export.formats import FORMATS, encoded_name
from low_rank_local_connectivity.export.forms import choose_form
from low_rank_local_connectivity.export.precision import in_float32, policies
from low_rank_local_connectivity.export.samples import given_inputs, sample_inputs
from low_rank_local_connectivity.export.signatures import Port, Served, ports
from low_rank_local_connectivity.export.verifying import (
    Checks,
    Expected,
    compute,
    difference,
    encode_images,
    in_a_sentence,
    prepare,
)
from low_rank_local_connectivity.inspection.graph import require_graph
from low_rank_local_connectivity.keras_settings import changed_settings
from low_rank_local_connectivity.unfinished import unfinished_folder

MANIFEST = "manifest.json"
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
    representative: Any = None,
    labels: Any = None,
) -> dict[str, Any]:
    """Writes a model in formats for servers, and verifies that they compute the same.

    The model is converted first: a model of another precision is replaced by a float32 copy, the
    filters of low-rank layers with fixed weights are mixed in advance, turned filters become plain
    convolutions, and batch normalisations are folded into the layers before them where that is
    exact. Everything is written to a temporary folder, loaded by the format's own runtime and
    compared with the float32 model, on batches of 1 and of the whole sample, signature by
    signature. Only then is it moved into place, so nothing half-written or wrong is left behind.

    Args:
        model: Built functional or `Sequential` model, with any number of inputs and outputs in
            lists and dictionaries. Requests and answers name each by its key in a dictionary, or
            else by the name of its `keras.Input` or of the layer that returns it. A name that some
            format does not allow, such as `my image` or `class`, is replaced with `my_image` or
            `class_` in all of them; the manifest has both.
        path: Folder; nothing is overwritten in it. `tf_saved_model` becomes
            `1/`, the versioned folder that TensorFlow Serving expects, with the signature
            `serving_default` over prepared inputs and a warm-up request; `onnx` becomes
            `model.onnx`, `litert` `model.tflite`, `litert_int8` `model_int8.tflite`;
            `manifest.json` describes them. Inputs have the model's types, floating types being
            float32. Any batch size works, except for `litert_int8`, which takes one example.
        formats: What to write: any of `"tf_saved_model"`, `"onnx"`, `"litert"` and
            `"litert_int8"`, whose weights and activations are integers of eight bits.
        convert: Whether to convert the layers. For small batches the converted form, which reads
            a filter for every position, may be slower. `"measure"` writes each form in the first
            format, runs it at `serving_batch_size`, prints the times and keeps the fastest form,
            or the smallest of those that take at most a quarter longer: converted, unconverted, or
            with low-rank layers that convolve with every bank, which suits small batches. A model
            without layers to convert is not measured.
        sample: Inputs to verify on, arranged as the model's are. If None, random floats in
            [-1, 1], and random integers from 0 to 255 or to the last entry of the `Embedding`
            that looks them up.
        serving_batch_size: Batch to measure at; 1 if None.
        preprocess: Function of TensorFlow from the bytes of an image file, a scalar string
            tensor, to the input of a model that has one. With it the SavedModel has a second
            signature, `serving_bytes`, over encoded images.
        class_names: Name of each class in the order of the outputs; the answers of
            `serving_bytes` then include the name of the class.
        tolerance: Largest difference allowed, relative to the largest value of an output. For
            `litert_int8` it is 0.25.
        representative: About a hundred inputs like those that will be served, arranged as the
            model's are, from which `litert_int8` chooses the scale of its integers; the sample if
            None.
        labels: Class of each representative input; the manifest then has the accuracy of
            `litert_int8` and of the model.

    Returns:
        The manifest, a dictionary of the model's name; the form that is served (`"converted"`,
        `"unconverted"` or `"bank by bank"`); the parameters of the model and of that form;
        milliseconds if they were measured; the `precision`: the names of the model's dtype
        policies, that of the served form and how far it is from the model's own outputs; `inputs`
        and `outputs`, with `name`, `model_name`, `shape`, `dtype` and, for inputs, `sample_range`,
        and, where there is only one, `input` and the name of the `output`; class names; versions;
        and for each format its `file` (in the folder), `bytes`, `signatures` and `difference`.
        SavedModels with `preprocess` add the `bytes_difference` of that signature; `litert_int8`
        adds its `tolerance`, `batch_size`, the fraction of representative inputs for which its
        largest output is the model's (`agreement`, for each output) and the `accuracy` of both.

    Raises:
        ValueError: If an argument is out of its range, the model is of another kind, the backend
            cannot write a format, a format cannot represent the model, a file exists already, or
            an export differs from the model.
        ImportError: If a package is missing; the message names it and says how to install it.

    Example:
        >>> import tempfile
        >>> inputs = keras.Input((8, 9, 2), name="image")
        >>> model = keras.Model(inputs, keras.layers.Flatten(name="values")(inputs))
        >>> manifest = export_model(model, tempfile.mkdtemp() + "/served", formats=())
        >>> manifest["input"]["shape"]
        [None, 8, 9, 2]
    """
    require_arguments(
        model,
        path,
        formats,
        convert,
        sample,
        serving_batch_size,
        preprocess,
        class_names,
        tolerance,
    )
    folder = Path(path).expanduser()
    _check(model, folder, formats)
    formats = tuple(dict.fromkeys(formats))
    as_trained = Served(model, *ports(model), preprocess=preprocess, class_names=class_names)
    arrays = sample_inputs(model, as_trained.inputs, sample)
    trained = compute(as_trained, arrays)
    _check_class_names(class_names, trained)
    # Layers that conversions make are to compute in float32, whatever the global default.
    with changed_settings(floatx="float32", dtype_policy="float32"):
        served = dataclasses.replace(
            as_trained, model=in_float32(model), warmup=trained.first(1).inputs
        )
        checks = Checks(compute(served, arrays), tolerance)
        _check_numbers(model, checks.sample)
        if preprocess is not None and "tf_saved_model" in formats:
            checks.encoded = encode_images(arrays[0])
            checks.prepared = compute(served, [prepare(served, checks.encoded)])
        if any(FORMATS[name].integers for name in formats):
            calibration = _calibration(served, sample, representative, labels)
            checks.representative, checks.labels = compute(served, calibration), labels
            served = dataclasses.replace(served, representative=checks.representative.inputs)
        name, form, measured = choose_form(
            served, convert, _batch(checks.sample, serving_batch_size or 1), formats
        )
        served = dataclasses.replace(served, model=form)
        manifest = {
            "model": model.name,
            "form": name,
            "parameters": {"model": model.count_params(), "served": form.count_params()},
            **measured,
            "precision": _precision(model, trained, checks.sample),
            **_described(served, checks.sample),
            "class_names": None if class_names is None else list(class_names),
            "formats": {},
            "versions": _versions(),
        }
        if formats:
            _write(served, folder, formats, manifest, checks)
    return manifest


def _write(
    served: Served,
    folder: Path,
    formats: Sequence[str],
    manifest: dict[str, Any],
    checks: Checks,
) -> None:
    """Writes each format, verifies it and adds it to the manifest; then moves all into place."""
    with unfinished_folder(folder) as temporary:
        for name in formats:
            kind = FORMATS[name]
            written = temporary / kind.file
            with in_a_sentence(name, "write", served.model):
                kind.write(served, written)
            found = checks.verify(name, kind, written, served)
            manifest["formats"][name] = {**_entry(served, name, written), **found}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        _move([FORMATS[name].file for name in formats] + [MANIFEST], temporary, folder)


def _move(files: Sequence[str], temporary: Path, folder: Path) -> None:
    """Moves all files or none."""
    try:
        for file in files:
            (temporary / file).replace(folder / file)
    except BaseException:
        for file in files:
            if not (temporary / file).exists():
                (folder / file).replace(temporary / file)
        raise


def _check(model: Any, folder: Path, formats: Sequence[str]) -> None:
    require_graph("export_model", model, opened=False)
    for name in formats:
        FORMATS[name].require(name)
    taken = [folder / FORMATS[name].file for name in formats]
    taken = [file for file in (*taken, folder / MANIFEST) if formats and file.exists()]
    if taken:
        raise ValueError(
            f"An export must not replace another one. Received: path={str(folder)!r}, where "
            f"{taken[0]} exists. Choose another path or remove it."
        )


def _check_class_names(class_names: Sequence[str] | None, trained: Expected) -> None:
    if class_names is None:
        return
    unwritable = [name for name in class_names if not _is_writable(name)]
    if unwritable:
        raise ValueError(
            "`class_names` must be text, or names of files as Python reads them. Received: "
            f"{unwritable[0]!a}."
        )
    shapes = [values.shape[1:] for values in trained.outputs.values()]
    if shapes != [(len(class_names),)]:
        received = ", ".join(str((None, *shape)) for shape in shapes)
        raise ValueError(
            "`class_names` must have a name for each number of the model's only output. Received: "
            f"{len(class_names)} names for outputs of shape {received}."
        )


def _is_writable(name: str) -> bool:
    try:
        return bool(encoded_name(name))
    except UnicodeEncodeError:
        return False


def _check_numbers(model: Any, sample: Expected) -> None:
    wrong = [name for name, values in sample.outputs.items() if np.isnan(values).any()]
    if wrong:
        raise ValueError(
            f"A model must be verified on outputs that are numbers. Received: {model.name!r}, "
            f"whose output {wrong[0]!r} has NaN for the sample. Give another `sample`, or a model "
            "whose weights are numbers."
        )


def _calibration(served: Served, sample: Any, representative: Any, labels: Any) -> list[np.ndarray]:
    """Returns the inputs to calibrate integers on, to which any labels belong."""
    argument, given = "representative", representative
    if given is None:
        argument, given = "sample", sample
    if given is None:
        raise ValueError(
            "Integers must be calibrated on inputs like those that will be served. Received: "
            "neither `representative` nor `sample`. Give some hundred inputs."
        )
    arrays = given_inputs(served.model, served.inputs, given, argument)
    classes = served.outputs[0].shape
    if labels is not None and not (
        len(served.outputs) == 1 and len(classes) == 2 and np.shape(labels) == (len(arrays[0]),)
    ):
        raise ValueError(
            f"`labels` must be the class of each of the {len(arrays[0])} inputs of "
            f"`{argument}`, and the model must have one output, a number for each class. Received: "
            f"labels of shape {np.shape(labels)}, outputs of shape "
            f"{', '.join(str(port.shape) for port in served.outputs)}."
        )
    return arrays


def _batch(sample: Expected, size: int) -> dict[str, np.ndarray]:
    """Returns inputs for a batch of another size."""
    return {
        name: np.resize(values, (size, *values.shape[1:])) for name, values in sample.inputs.items()
    }


def _precision(model: Any, trained: Expected, served: Expected) -> dict[str, Any]:
    """Returns the manifest's entry on the precision of a model and of its float32 copy."""
    found = difference(trained.outputs, served.outputs)
    return {
        "model": policies(model),
        "served": "float32",
        # A 16-bit model may overflow where its copy does not.
        "difference": found if np.isfinite(found) else None,
    }


def _described(served: Served, sample: Expected) -> dict[str, Any]:
    """Returns the manifest's entries on inputs and outputs."""
    inputs = [
        {
            **_port(port),
            "sample_range": [
                float(sample.inputs[port.name].min()),
                float(sample.inputs[port.name].max()),
            ],
        }
        for port in served.inputs
    ]
    outputs = [_port(port) for port in served.outputs]
    return {
        **({"input": inputs[0]} if len(inputs) == 1 else {}),
        **({"output": outputs[0]["name"]} if len(outputs) == 1 else {}),
        "inputs": inputs,
        "outputs": outputs,
    }


def _port(port: Port) -> dict[str, Any]:
    return {**dataclasses.asdict(port), "shape": list(port.shape)}


def _entry(served: Served, name: str, written: Path) -> dict[str, Any]:
    files = [written] if written.is_file() else [p for p in written.rglob("*") if p.is_file()]
    signatures = ["serving_default"] if name != "onnx" else []
    if name == "tf_saved_model" and served.preprocess is not None:
        signatures.append("serving_bytes")
    return {
        "file": written.name,
        "bytes": sum(file.stat().st_size for file in files),
        "signatures": signatures,
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {**found, "backend": keras.backend.backend()}
