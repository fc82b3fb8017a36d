"""The features to measure: those of images, batch by batch, as NumPy arrays."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity.inspection import receptive_field
from low_rank_local_connectivity.inspection.graph import submodel
from low_rank_local_connectivity.layers.data_format import standardize_data_format
from low_rank_local_connectivity.ops.arguments import boolean, positive_int, received, tensor, text

# A model, or a function of a batch of images as a NumPy array.
Measured = keras.Model | Callable[[Any], Any]


class Features:
    """The features of a model or function, for images in its data format.

    Args:
        measured: Keras model, or function of a batch, a NumPy array, that returns an array
            or tensor.
        layer: Name of the layer of a functional or Sequential model whose outputs are the
            features, `"block/conv"` within the model `block`; the model's outputs if None.
        data_format: Where images and features have their channels; Keras's global setting if None.
        caller: Name of the public function, for its errors.
    """

    def __init__(
        self, measured: Measured, layer: str | None, data_format: str | None, caller: str
    ) -> None:
        if not callable(measured):
            raise ValueError(
                f"{caller}() measures a Keras model, or a function of a batch of images. Received: "
                f"{received('model', measured)}."
            )
        self.measured = measured
        self.layer = layer
        self.caller = caller
        self.data_format = standardize_data_format(data_format)
        if layer is not None:
            text("layer", layer)
        if layer is not None and not isinstance(measured, keras.Model):
            raise ValueError(
                f"`layer` names a layer of a Keras model. Received: layer={layer!r} with a "
                f"{type(measured).__name__}. Give {caller}() the model, or a function that "
                "returns the features."
            )
        if layer is not None:
            self._compute = submodel(caller, measured, layer)
        elif isinstance(measured, keras.Model):
            model: Any = measured
            self._compute = lambda images: model(images, training=False)
        else:
            self._compute = measured

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the features of a batch, one for each example."""
        found = self._compute(images)
        if isinstance(found, (list, tuple, dict)):
            raise ValueError(
                f"{self.caller}() needs one array of features. Received: a "
                f"{type(found).__name__} of {len(found)}. Name a layer, or give a function that "
                "returns one of them."
            )
        features = keras.ops.convert_to_numpy(found)
        if features.ndim < 2 or len(features) != len(images):
            raise ValueError(
                f"{self.caller}() needs features of shape (batch, ...), one row for each image. "
                f"Received: shape {features.shape} for {len(images)} images."
            )
        return features

    def channels_last(self, maps: np.ndarray) -> np.ndarray:
        """Returns a view of maps whose rows and columns are axes 1 and 2."""
        return maps if self.data_format == "channels_last" else np.moveaxis(maps, (-2, -1), (1, 2))

    def original(self, maps: np.ndarray) -> np.ndarray:
        """Undoes `channels_last`."""
        return maps if self.data_format == "channels_last" else np.moveaxis(maps, (1, 2), (-2, -1))

    def strides(
        self, image_size: tuple[int, int], feature_size: tuple[int, int]
    ) -> tuple[int, int] | None:
        """Returns the total strides, or None if they could only be guessed."""
        return self._model_strides or ((1, 1) if image_size == feature_size else None)

    @functools.cached_property
    def _model_strides(self) -> tuple[int, int] | None:
        if not isinstance(self.measured, keras.Model):
            return None
        try:
            found = receptive_field(self.measured, self.layer)[-1].strides
        except ValueError:
            return None  # a layer without a rule; the sizes may still tell
        return found if len(found) == 2 and None not in found else None  # pyright: ignore


def batches(
    images: Any, labels: Any, batch_size: int, progress: bool | None
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yields batches of images and of labels, if there are any.

    Args:
        images: Array of all images, or batches of them: an iterable, a `tf.data.Dataset` or a
            `keras.utils.PyDataset`, of which each item is a batch or begins with one, as
            `(images, labels)` does. A stream is read once.
        labels: Array of labels for an array of images.
        batch_size: Images at a time; a stream's batches are taken as they are.
        progress: Whether to show a progress bar; None shows it for streams.
    """
    batch_size = positive_int("batch_size", batch_size)
    is_array = _is_array_of_images(images)
    if labels is not None and (not is_array or len(labels) != len(images)):
        count = len(images) if is_array else "a stream, which brings its own labels"
        raise ValueError(
            "`labels` must be one for each of an array of images. Received: "
            f"{len(labels)} labels for {count}."
        )
    stream = _slices(images, labels, batch_size) if is_array else _items(images)
    number = -(-len(images) // batch_size) if is_array else _length(images)
    shown = not is_array if progress is None else boolean("progress", progress)
    bar = keras.utils.Progbar(number, unit_name="batch") if shown else None
    count = 0
    for count, (pictures, answers) in enumerate(stream, start=1):
        yield _array(pictures), None if answers is None else _array(answers)
        if bar is not None:
            bar.update(count)
    if bar is not None and number is None:
        bar.update(count, finalize=True)
    if count == 0:
        raise ValueError("There must be at least one image. Received: none.")


def _is_array_of_images(images: Any) -> bool:
    """Returns whether images are an array, rather than a stream; refuses anything else."""
    stream = hasattr(images, "__iter__") or isinstance(images, keras.utils.PyDataset)
    if isinstance(images, (str, bytes, Mapping, keras.KerasTensor)) or not stream:
        raise ValueError(
            "`images` must be an array of images, or a stream of batches of them. Received: "
            f"{received('images', images)}."
        )
    if hasattr(images, "shape"):
        tensor("images", images, "bhW")
        return True
    return False


def _slices(images: Any, labels: Any, batch_size: int) -> Iterator[tuple[Any, Any]]:
    for start in range(0, len(images), batch_size):
        one = slice(start, start + batch_size)
        yield images[one], None if labels is None else labels[one]


def _items(stream: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    if isinstance(stream, keras.utils.PyDataset):  # which is not iterable
        dataset: Any = stream
        stream = (dataset[index] for index in range(len(dataset)))
    for item in stream:
        pictures: Any
        pictures, *answers = item if isinstance(item, (tuple, list)) and item else (item,)
        # Each item is a batch, or begins with one.
        yield tensor("images", pictures, "bhW"), answers[0] if answers else None


def _length(stream: Any) -> int | None:
    """Returns the number of batches; None if a stream does not have one."""
    cardinality = getattr(stream, "cardinality", None)
    if cardinality is not None and int(cardinality()) == -1:
        raise ValueError(
            "A stream of images must end. Received: a dataset that repeats for ever. "
            "Use its take(number of batches)."
        )
    try:
        return len(stream)
    except TypeError:
        return None


def _array(values: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(values))
