"""Comparing an export with the model, signature by signature."""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity.export.formats import Format, run_serving_bytes
from low_rank_local_connectivity.export.signatures import Port, Served

# Largest difference allowed for a model in 8-bit integers, relative to the largest output.
INT8_TOLERANCE = 0.25
# Images for verifying a signature over encoded images.
ENCODED = 7
# Length to which an error of a converter is cut.
LONGEST = 200


@dataclasses.dataclass(frozen=True)
class Expected:
    """Inputs, and the outputs that a model computes for them.

    Args:
        inputs: Inputs by name.
        outputs: The model's outputs for them by name.
    """

    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]

    def first(self, count: int) -> "Expected":
        """Returns the first examples alone."""
        inputs = {name: values[:count] for name, values in self.inputs.items()}
        return Expected(inputs, {name: values[:count] for name, values in self.outputs.items()})

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


def compute(served: Served, arrays: Sequence[np.ndarray]) -> Expected:
    """Returns inputs, given in the order of `model.inputs`, with the model's outputs for them."""
    inputs = dict(zip((port.name for port in served.inputs), arrays, strict=True))
    found = served.call(
        {name: keras.ops.convert_to_tensor(array) for name, array in inputs.items()}
    )
    return Expected(inputs, {name: _to_numpy(value) for name, value in found.items()})


def _to_numpy(value: Any) -> np.ndarray:
    """Returns a tensor as an array of a type that NumPy knows: bfloat16 is not."""
    if keras.backend.standardize_dtype(value.dtype) == "bfloat16":
        value = keras.ops.cast(value, "float32")
    return np.asarray(keras.ops.convert_to_numpy(value))


def difference(expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> float:
    """Returns how far outputs are from others, relative to the largest value of that output."""
    return max(_difference(values, found[name]) for name, values in expected.items())


def _difference(expected: np.ndarray, found: np.ndarray) -> float:
    if expected.shape != found.shape:
        return float("inf")
    one, other = expected.astype("float64"), found.astype("float64")
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    if same.all():
        return 0.0
    with np.errstate(invalid="ignore"):
        differences = np.abs(one - other)
    largest = np.abs(one[np.isfinite(one)]).max(initial=1e-30)
    return float(np.where(same, 0, differences).max() / largest)


@dataclasses.dataclass
class Checks:
    """The reference that exports are compared with.

    Args:
        sample: Inputs, and the model's outputs for them.
        tolerance: Largest difference allowed.
        encoded: Encoded images.
        prepared: The inputs that `preprocess` makes of these, and the model's outputs for them.
        representative: Inputs for calibrating integers, and the model's outputs for them.
        labels: Their classes, if known.
    """

    sample: Expected
    tolerance: float
    encoded: list[bytes] | None = None
    prepared: Expected | None = None
    representative: Expected | None = None
    labels: Any = None

    def verify(self, name: str, kind: Format, path: Path, served: Served) -> dict[str, Any]:
        """Returns how far each signature of an export is from the model, for the manifest.

        Args:
            name: The format's name.
            kind: The format.
            path: What was written.
            served: What it was written from.

        Raises:
            ValueError: If the format's runtime cannot run it, or it differs by too much.
        """
        if kind.integers:
            return self._verify_integers(name, kind.run, path, served)
        expected, tolerance = self.sample, self.tolerance
        found: dict[str, Any] = {}
        with in_a_sentence(name, "run", served.model):
            run = kind.run(path, served)
            answers = {count: run(expected.first(count).inputs) for count in {1, len(expected)}}
        found["difference"] = _largest(name, expected, answers, tolerance)
        if name == "tf_saved_model" and self.prepared is not None and self.encoded is not None:
            with in_a_sentence(name, "run", served.model):
                run_bytes = run_serving_bytes(path)
                answers = {
                    count: run_bytes(self.encoded[:count]) for count in {1, len(self.encoded)}
                }
            where = " over encoded images"
            found["bytes_difference"] = _largest(name, self.prepared, answers, tolerance, where)
        return found

    def _verify_integers(
        self, name: str, start: Callable[..., Any], path: Path, served: Served
    ) -> dict[str, Any]:
        expected: Any = self.representative
        with in_a_sentence(name, "run", served.model):
            answer = start(path, served)(expected.inputs)
        found: dict[str, Any] = {
            "difference": _largest(name, expected, {len(expected): answer}, INT8_TOLERANCE),
            "tolerance": INT8_TOLERANCE,
            "batch_size": 1,
            "agreement": {
                output: _share(values.argmax(-1), answer[output].argmax(-1))
                for output, values in expected.outputs.items()
                if values.ndim > 1 and values.shape[-1] > 1
            },
        }
        if self.labels is not None:
            (output,) = expected.outputs
            forms = {"model": expected.outputs[output], name: answer[output]}
            found["accuracy"] = {
                form: _share(values.argmax(-1), self.labels) for form, values in forms.items()
            }
        return found


def _share(one: Any, other: Any) -> float:
    return float(np.mean(np.asarray(one) == np.asarray(other)))


def _largest(
    name: str,
    expected: Expected,
    answers: dict[int, dict[str, np.ndarray]],
    tolerance: float,
    where: str = "",
) -> float:
    """Returns the largest difference of answers for each batch size; refuses one too large."""
    found = max(
        difference(expected.first(count).outputs, answer) for count, answer in answers.items()
    )
    if not found <= tolerance:
        raise ValueError(
            f"An export must compute what the model computes. Received: a {name} that differs"
            f"{where} by {found:.1e} relative to the largest output, with "
            f"tolerance={tolerance:.1e}. Nothing was written."
        )
    return found


@contextlib.contextmanager
def in_a_sentence(name: str, verb: str, model: Any) -> Iterator[None]:
    """Turns an error of a converter or a runtime into a sentence, except that of a full disk.

    Args:
        name: The format's name.
        verb: What is attempted: to `write` or to `run`.
        model: The model.
    """
    try:
        yield
    except (MemoryError, OSError):
        raise
    except Exception as error:
        reason = _shortened(_words(str(error)))
        raise ValueError(
            f"The format {name!r} must be able to {verb} every layer of the model. Received: "
            f"{model.name!r}, of which it says: {reason} ({type(error).__name__}). Nothing was "
            "written: choose another format."
        ) from error


def _words(text: str) -> str:
    """Returns the gist of a long error: the operation that it names and what is wrong with it.

    If it names none: its first line, or its last if the first is a heading.
    """
    operation = re.search(r"'tf\.[^\n]*", text)
    lines = text.strip().split("\n")
    return operation[0] if operation else lines[-1 if lines[0].endswith(":") else 0].strip()


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def encode_images(images: np.ndarray) -> list[bytes]:
    """Returns inputs of a model as files of images, PNG and JPEG in turn.

    Inputs that cannot be stored as images are replaced with noise of their size.
    """
    import tensorflow as tf

    pixels = _as_pixels(images[:ENCODED])
    return [
        (tf.io.encode_jpeg if k % 2 else tf.io.encode_png)(image).numpy()
        for k, image in enumerate(pixels)
    ]


def _as_pixels(images: np.ndarray) -> np.ndarray:
    """Returns images `(batch, height, width, 1 or 3)` of bytes that span the whole range."""
    if images.ndim == 4 and images.shape[-1] not in (1, 3) and images.shape[1] in (1, 3):
        images = np.moveaxis(images, 1, -1)
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        height, width = images.shape[1:3] if images.ndim > 2 else (32, 48)
        images = np.random.default_rng(0).uniform(size=(len(images), height, width, 3))
    low, high = float(images.min()), float(images.max())
    return np.round(255 * (images - low) / max(high - low, 1e-30)).astype("uint8")


def prepare(served: Served, encoded: Sequence[bytes]) -> np.ndarray:
    """Returns the inputs that `preprocess` makes of encoded images.

    Raises:
        ValueError: If it cannot read them, or its result is not the model's only input.
    """
    if len(served.inputs) != 1:
        raise ValueError(
            "`preprocess` makes one input, so the model must have no other. Received: a model "
            f"with the inputs {', '.join(repr(port.model_name) for port in served.inputs)}."
        )
    import tensorflow as tf

    # As it is served: in a graph, whose last digits may differ from those of eager execution, and
    # rounding to bytes makes whole numbers of them.
    run = tf.function(served.preprocess)
    return np.stack([_prepared(run, one, served.inputs[0]) for one in encoded])


def _prepared(run: Any, encoded: bytes, port: Port) -> np.ndarray:
    import tensorflow as tf

    must = (
        "`preprocess` must turn the bytes of an image into an input of the model, of shape "
        f"{port.shape[1:]} and type {port.dtype}. Received: "
    )
    try:
        found = tf.convert_to_tensor(run(tf.constant(encoded))).numpy()
    except Exception as error:
        reason = _shortened(_words(str(error)).rstrip("."))
        raise ValueError(f"{must}a function that fails: {reason}.") from error
    fits = len(found.shape) == len(port.shape) - 1 and all(
        size in (None, other) for size, other in zip(port.shape[1:], found.shape, strict=True)
    )
    if not fits or port.dtype not in ("float32", found.dtype.name):
        raise ValueError(f"{must}shape {found.shape} and type {found.dtype.name}.")
    return found.astype(port.dtype)
