"""The formats: how each is written, and how it is run for verification.

Each needs packages that not every installation has, and imports them where it is used. Keras is
imported there too, so that a command can be checked against the formats before a framework is
loaded.
"""

import contextlib
import dataclasses
import importlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from low_rank_local_connectivity.export.warmup import prediction_log

if TYPE_CHECKING:
    from low_rank_local_connectivity.export.signatures import Served

# Inputs by name to outputs by name.
Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Format:
    """A format.

    Args:
        file: Its name in the export's folder.
        backends: Keras's backends that can write it, each with the packages that it needs for that:
            the name to install, by the name to import.
        write: Function of a `Served` and a path that writes it.
        run: Function from a path and a `Served` to a function from inputs to outputs, by name.
        integers: Whether it computes in integers, calibrated on representative inputs.
    """

    file: str
    backends: dict[str, dict[str, str]]
    write: Callable[["Served", Path], None]
    run: Callable[[Path, "Served"], Run]
    integers: bool = False

    def require(self, name: str) -> None:
        """Refuses to write under another backend or without the packages.

        Raises:
            ValueError: If the backend cannot write it.
            ImportError: If a package is missing.
        """
        import keras

        backend = keras.backend.backend()
        if backend not in self.backends:
            raise ValueError(
                f"The format {name!r} can be written on the backends {', '.join(self.backends)}. "
                f"Received: {backend!r}. Save the model as .keras, load it with "
                f"KERAS_BACKEND={next(iter(self.backends))} and export it there."
            )
        for package, line in self.backends[backend].items():
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise ImportError(
                    f"The format {name!r} needs {package}: pip install {line}."
                ) from error


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silences converters."""
    level = os.environ.get("TF_CPP_MIN_LOG_LEVEL")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        if level is None:
            del os.environ["TF_CPP_MIN_LOG_LEVEL"]
        else:
            os.environ["TF_CPP_MIN_LOG_LEVEL"] = level


def _write_saved_model(served: "Served", folder: Path, batch_size: int | None = None) -> None:
    import keras
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    if keras.backend.backend() == "jax":
        archive.track(served.model)
    # On TensorFlow, tracking the model would write every weight twice.
    specs = {
        port.name: tf.TensorSpec((batch_size, *port.shape[1:]), port.dtype, name=port.name)
        for port in served.inputs
    }
    serve = archive.add_endpoint("serving_default", served.call, [specs])
    if served.preprocess is not None:
        traced = _serving_bytes(served, serve)
        traced.get_concrete_function()
        archive.add_endpoint("serving_bytes", traced)
    with quietly():
        archive.write_out(str(folder), verbose=False)
    extra = folder / "assets.extra"
    extra.mkdir()
    if served.class_names is not None:
        names = b"".join(encoded_name(name) + b"\n" for name in served.class_names)
        (extra / "class_names.txt").write_bytes(names)
    request = prediction_log(served.model.name, "serving_default", served.warmup)
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        writer.write(request)


def _serving_bytes(served: "Served", serve: Callable[..., Any]) -> Any:
    """Returns the signature that takes encoded images; the model has one input."""
    import tensorflow as tf

    (port,) = served.inputs
    preprocess: Any = served.preprocess

    def one(encoded):
        return tf.ensure_shape(tf.cast(preprocess(encoded), port.dtype), port.shape[1:])

    def from_bytes(encoded_images):
        inputs = tf.map_fn(one, encoded_images, fn_output_signature=port.dtype)
        answer = dict(serve({port.name: tf.ensure_shape(inputs, port.shape)}))
        if served.class_names is not None:
            (output,) = served.outputs
            names = tf.constant([encoded_name(name) for name in served.class_names])
            answer["class"] = tf.gather(names, tf.argmax(answer[output.name], -1))
        return answer

    encoded = tf.TensorSpec((None,), tf.string, name="encoded_images")
    return tf.function(from_bytes, input_signature=[encoded])


def encoded_name(name: str) -> bytes:
    """Returns a name as bytes; that of a file that is not UTF-8 as it is on the disk."""
    return name.encode("utf-8", "surrogateescape")


def _run_saved_model(path: Path, served: "Served") -> Run:
    import tensorflow as tf

    del served
    loaded: Any = tf.saved_model.load(str(path))  # to be kept: its variables go with it

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        answer = loaded.signatures["serving_default"](**tensors)
        return {name: value.numpy() for name, value in answer.items()}

    return run


def run_serving_bytes(path: Path) -> Callable[[Sequence[bytes]], dict[str, np.ndarray]]:
    """Returns the signature of a SavedModel that takes encoded images."""
    import tensorflow as tf

    loaded: Any = tf.saved_model.load(str(path))

    def run(encoded_images: Sequence[bytes]) -> dict[str, np.ndarray]:
        answer = loaded.signatures["serving_bytes"](tf.constant(list(encoded_images)))
        return {name: value.numpy() for name, value in answer.items()}

    return run


def _write_onnx(served: "Served", path: Path) -> None:
    import keras
    import onnx

    from low_rank_local_connectivity.export.onnx_names import declare_input_types, rename_values

    # Keras exports models, and names the inputs as it finds them.
    inputs = {
        port.name: keras.Input(port.shape[1:], dtype=port.dtype, name=port.name)
        for port in served.inputs
    }
    flat = keras.Model(list(inputs.values()), list(served.call(inputs).values()))
    flat([served.warmup[name] for name in inputs])  # Keras exports what was called
    with quietly():
        flat.export(str(path), format="onnx", verbose=False)
    file = onnx.load(str(path))
    rename_values(
        file.graph, [port.name for port in served.inputs], [port.name for port in served.outputs]
    )
    declare_input_types(file.graph, [port.dtype for port in served.inputs])
    onnx.save(file, str(path))


def _run_onnx(path: Path, served: "Served") -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [port.name for port in served.outputs]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def _converter(served: "Served", folder: Path, batch_size: int | None = None) -> Any:
    import tensorflow as tf

    _write_saved_model(dataclasses.replace(served, preprocess=None), folder, batch_size)
    return tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=["serving_default"])


def _write_litert(served: "Served", path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder, quietly():
        path.write_bytes(_converter(served, Path(folder) / "1").convert())


def _write_litert_int8(served: "Served", path: Path) -> None:
    import tensorflow as tf

    calibration: Any = served.representative
    count = len(next(iter(calibration.values())))

    def examples() -> Iterator[dict[str, np.ndarray]]:
        for k in range(count):
            yield {name: values[k : k + 1] for name, values in calibration.items()}

    with tempfile.TemporaryDirectory() as folder, quietly():
        # For a batch of unknown size low-rank layers convolve with their banks one by one, in an
        # order that the banks' values are made to depend on, and LiteRT's integer convolutions
        # take only kernels that are constants.
        converter = _converter(served, Path(folder) / "1", batch_size=1)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = examples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        path.write_bytes(converter.convert())


def _run_litert(path: Path, served: "Served") -> Run:
    from ai_edge_litert.interpreter import Interpreter

    del served
    runner = Interpreter(str(path)).get_signature_runner("serving_default")
    return lambda inputs: runner(**inputs)


def _run_litert_int8(path: Path, served: "Served") -> Run:
    run_one = _run_litert(path, served)

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        count = len(next(iter(inputs.values())))
        answers = [
            run_one({name: values[k : k + 1] for name, values in inputs.items()})
            for k in range(count)
        ]
        return {name: np.concatenate([one[name] for one in answers]) for name in answers[0]}

    return run


TENSORFLOW = {"tensorflow": "'low-rank-local-connectivity[tensorflow]'"}
EXPORT = "'low-rank-local-connectivity[export]'"
ONNX: dict[str, str] = dict.fromkeys(("onnx", "onnxruntime"), EXPORT)
LITERT = {**TENSORFLOW, "ai_edge_litert": EXPORT}
FORMATS = {
    "tf_saved_model": Format(
        "1", dict.fromkeys(("tensorflow", "jax"), TENSORFLOW), _write_saved_model, _run_saved_model
    ),
    "onnx": Format(
        "model.onnx",
        {"tensorflow": {**ONNX, "tf2onnx": EXPORT}, "torch": ONNX},
        _write_onnx,
        _run_onnx,
    ),
    "litert": Format("model.tflite", {"tensorflow": LITERT}, _write_litert, _run_litert),
    "litert_int8": Format(
        "model_int8.tflite",
        {"tensorflow": LITERT},
        _write_litert_int8,
        _run_litert_int8,
        integers=True,
    ),
}
