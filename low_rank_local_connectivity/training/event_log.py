"""Learning curves, settings and weight maps for TensorBoard, without TensorFlow."""

import io
import sys
import time
import types
from pathlib import Path
from typing import Any

import keras
import numpy as np

WITHOUT_TENSORFLOW = "tensorboard.compat.notf"
# Least pixels of the longer side of a map.
SIDE = 64


class EventLog(keras.callbacks.Callback):
    """Writes the metrics of every epoch as `keras.callbacks.TensorBoard` does, on every backend.

    Keras's own callback needs TensorFlow. As there, `train/` and `validation/` in the folder have
    each metric as `epoch_<name>`, and `train/` the learning rate.

    Args:
        folder: Where TensorBoard's `--logdir` will point.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._writers: dict[str, Any] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes an epoch's metrics."""
        self._write("train", "learning_rate", self.model.optimizer.learning_rate, epoch)
        for name, value in (logs or {}).items():
            part = "validation" if name.startswith("val_") else "train"
            self._write(part, name.removeprefix("val_"), value, epoch)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the files."""
        del logs
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _write(self, part: str, name: str, value: Any, epoch: int) -> None:
        keep_tensorflow_out()
        from tensorboard.summary import Writer

        if part not in self._writers:
            self._writers[part] = Writer(str(self.folder / part))
        number = float(keras.ops.convert_to_numpy(value))
        self._writers[part].add_scalar(f"epoch_{name}", number, epoch)


def keep_tensorflow_out() -> None:
    """Keeps TensorBoard from importing TensorFlow, which it does unless it finds this module."""
    if keras.backend.backend() != "tensorflow":
        sys.modules.setdefault(WITHOUT_TENSORFLOW, types.ModuleType(WITHOUT_TENSORFLOW))


class RunLog(keras.callbacks.Callback):
    """Writes a run's settings, and after each epoch maps of its combining weights.

    TensorBoard lists the settings under HPARAMS beside the last metrics, and shows the maps under
    IMAGES: for each layer whose weights do not depend on the input its banks side by side, from
    weight 0 (black) to the largest one (white). A layer over one axis gives a line, one over three
    its slices one below the other.

    Args:
        folder: Where TensorBoard's `--logdir` will point.
        settings: Values of the settings by name: bool, int, float or str.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        super().__init__()
        self.folder, self.settings = folder, settings
        self._writer: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Writes the settings."""
        del logs
        keep_tensorflow_out()
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if self._writer is None:
            self._writer = EventFileWriter(str(self.folder))
            self._add(hparams_pb(self.settings, trial_id=self.folder.parent.name), 0)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the maps."""
        del logs
        from tensorboard.compat.proto.summary_pb2 import Summary

        for layer in self.model._flatten_layers(include_self=False):
            if getattr(layer, "has_logits", False) and not layer.input_dependent:
                weights = np.asarray(keras.ops.convert_to_numpy(layer.combining_weights()))
                height, width, encoded = picture(weights)
                image = Summary.Image(
                    height=height, width=width, colorspace=1, encoded_image_string=encoded
                )
                value = Summary.Value(tag=f"combining_weights/{layer.name}", image=image)
                self._add(Summary(value=[value]), epoch)
        self._writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the file."""
        del logs
        self._writer.close()
        self._writer = None

    def _add(self, summary: Any, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        # What serialises it may be another build of the protocol.
        event = Event(wall_time=time.time(), step=step)
        event.summary.MergeFromString(summary.SerializeToString())
        self._writer.add_event(event)


def picture(weights: np.ndarray) -> tuple[int, int, bytes]:
    """Returns height, width and PNG of the maps of banks, side by side.

    Args:
        weights: Combining weights, shape `(*output sizes, K)`.
    """
    from PIL import Image

    *sizes, banks = weights.shape
    rows, columns = int(np.prod(sizes[:-1])), sizes[-1]
    largest = max(float(weights.max()), np.finfo("float32").tiny)
    maps = np.moveaxis(weights.reshape(rows, columns, banks), -1, 1) / largest
    levels = np.pad(maps, [(0, 0), (0, 0), (0, 1)], constant_values=1).reshape(rows, -1)
    pixels = np.clip(np.round(255 * levels), 0, 255).astype("uint8")
    # Small maps are enlarged, so that positions can be seen.
    times = max(1, SIDE // max(rows, columns))
    pixels = pixels.repeat(times, 0).repeat(times, 1)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return *pixels.shape, file.getvalue()
