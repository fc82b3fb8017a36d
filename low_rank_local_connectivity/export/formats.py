"""The formats: how each is written, and how what was written is run to verify it.

Each needs packages that not every installation has, and imports them where it is used.
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
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity.export.warmup import prediction_log


@dataclasses.dataclass(frozen=True)
class Served:
    """What is exported.

    Args:
        model: Built model with one input and one output.
        preprocess: Function of an encoded image, a scalar string tensor of TensorFlow, to an input
            of the model; None if there is none.
        class_names: Name of each class, if the outputs are one number per class.
        warmup: Images for the request that a server makes of itself while it starts.
    """

    model: Any
    preprocess: Callable[[Any], Any] | None
    class_names: Sequence[str] | None
    warmup: np.ndarray

    @property
    def input_name(self) -> str:
        """What requests call the images."""
        return self.model.inputs[0].name

    @property
    def output_name(self) -> str:
        """What answers call the outputs."""
        return self.model.output_names[0]


@dataclasses.dataclass(frozen=True)
class Format:
    """A format.

    Args:
        file: What it is called in the export's folder.
        backends: Those of Keras that can write it.
        packages: What it needs, by the name to import, with the name to install.
        write: Function of what is served and a path.
        run: Function of a path and a `Served` to a function of images to outputs.
    """

    file: str
    backends: tuple[str, ...]
    packages: dict[str, str]
    write: Callable[[Served, Path], None]
    run: Callable[[Path, Served], Callable[[np.ndarray], np.ndarray]]

    def require(self, name: str) -> None:
        """Refuses to write under another backend or without the packages.

        Raises:
            ValueError: If the backend cannot write it.
            ImportError: If a package is missing.
        """
        backend = keras.backend.backend()
        if backend not in self.backends:
            raise ValueError(
                f"The format {name!r} can be written on the backends {', '.join(self.backends)}. "
                f"Received: {backend!r}. Save the model as .keras, load it with "
                f"KERAS_BACKEND={self.backends[0]} and export it there."
            )
        for package, line in self.packages.items():
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise ImportError(
                    f"The format {name!r} needs {package}: pip install {line}."
                ) from error


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keeps converters from telling how they convert."""
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


def _write_saved_model(served: Served, folder: Path) -> None:
    import tensorflow as tf

    model, name, output = served.model, served.input_name, served.output_name
    archive = keras.export.ExportArchive()
    if keras.backend.backend() == "jax":
        archive.track(model)
    # On TensorFlow, tracking the model would write every weight twice.
    images = tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32, name=name)
    serve = archive.add_endpoint(
        "serving_default", lambda image: {output: model(image, training=False)}, [images]
    )
    if served.preprocess is not None:

        def from_bytes(encoded_images):
            inputs = tf.map_fn(served.preprocess, encoded_images, fn_output_signature=tf.float32)
            answer = dict(serve(tf.ensure_shape(inputs, images.shape)))
            if served.class_names is not None:
                names = tf.constant(list(served.class_names))
                answer["class"] = tf.gather(names, tf.argmax(answer[output], -1))
            return answer

        encoded = tf.TensorSpec((None,), tf.string, name="encoded_images")
        traced: Any = tf.function(from_bytes, input_signature=[encoded])
        traced.get_concrete_function()
        archive.add_endpoint("serving_bytes", traced)
    with quietly():
        archive.write_out(str(folder), verbose=False)
    extra = folder / "assets.extra"
    extra.mkdir()
    if served.class_names is not None:
        (extra / "class_names.txt").write_text("\n".join(served.class_names) + "\n")
    request = prediction_log(model.name, "serving_default", {name: served.warmup})
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        writer.write(request)


def _run_saved_model(path: Path, served: Served) -> Callable[[np.ndarray], np.ndarray]:
    import tensorflow as tf

    loaded: Any = tf.saved_model.load(str(path))  # to be kept: its variables go with it

    def run(images: np.ndarray) -> np.ndarray:
        answer = loaded.signatures["serving_default"](**{served.input_name: tf.constant(images)})
        return answer[served.output_name].numpy()

    return run


def _write_onnx(served: Served, path: Path) -> None:
    served.model(served.warmup)  # Keras exports what was called
    with quietly():
        served.model.export(str(path), format="onnx", verbose=False)


def _run_onnx(path: Path, served: Served) -> Callable[[np.ndarray], np.ndarray]:
    del served
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _write_litert(served: Served, path: Path) -> None:
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder, quietly():
        saved = Path(folder) / "1"
        _write_saved_model(dataclasses.replace(served, preprocess=None), saved)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            str(saved), signature_keys=["serving_default"]
        )
        path.write_bytes(converter.convert())


def _run_litert(path: Path, served: Served) -> Callable[[np.ndarray], np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    runner = interpreter.get_signature_runner("serving_default")
    return lambda images: runner(**{served.input_name: images})[served.output_name]


TENSORFLOW = {"tensorflow": "'low-rank-local-connectivity[tensorflow]'"}
EXPORT = "'low-rank-local-connectivity[export]'"
FORMATS = {
    "tf_saved_model": Format(
        "1", ("tensorflow", "jax"), TENSORFLOW, _write_saved_model, _run_saved_model
    ),
    "onnx": Format(
        "model.onnx",
        # PyTorch's exporter does not see into a gradient of one's own, nor Keras's on JAX.
        ("tensorflow",),
        dict.fromkeys(("onnx", "onnxruntime"), EXPORT),
        _write_onnx,
        _run_onnx,
    ),
    "litert": Format(
        "model.tflite",
        ("tensorflow",),
        {**TENSORFLOW, "ai_edge_litert": EXPORT},
        _write_litert,
        _run_litert,
    ),
}
