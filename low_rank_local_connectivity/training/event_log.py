"""Learning curves for TensorBoard, without TensorFlow."""

import sys
import types
from pathlib import Path
from typing import Any

import keras

WITHOUT_TENSORFLOW = "tensorboard.compat.notf"


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
        # TensorBoard imports TensorFlow, if it is installed, unless it finds a module of this name.
        sys.modules.setdefault(WITHOUT_TENSORFLOW, types.ModuleType(WITHOUT_TENSORFLOW))
        from tensorboard.summary import Writer

        if part not in self._writers:
            self._writers[part] = Writer(str(self.folder / part))
        number = float(keras.ops.convert_to_numpy(value))
        self._writers[part].add_scalar(f"epoch_{name}", number, epoch)
