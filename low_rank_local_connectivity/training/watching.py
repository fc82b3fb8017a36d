"""How fast a run trains, how much memory it takes, and a trace of some of its steps."""

import array
import importlib
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import keras

from low_rank_local_connectivity.training.recovery import Recovery

# Name of what is shown and recorded of each epoch.
RATE = "images_per_second"


class Speed(keras.callbacks.Callback):
    """Measures steps, and adds images per second to the metrics of steps and epochs.

    To be called before the callbacks that record metrics. A step lasts from the end of the one
    before, so it includes waiting for data; validation and the first step, in which functions are
    compiled, are not counted.

    Args:
        batch_size: Examples per step, over all devices.
    """

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.first: float | None = None
        self.steps = array.array("d")
        self._last = self._seconds = 0.0
        self._counted = 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the clock."""
        del epoch, logs
        self._last, self._seconds, self._counted = time.perf_counter(), 0.0, 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Measures a step, and adds the epoch's images per second so far to its metrics."""
        del batch
        now = time.perf_counter()
        took, self._last = now - self._last, now
        if self.first is None:
            self.first = took
        else:
            self.steps.append(took)
            self._counted, self._seconds = self._counted + 1, self._seconds + took
        self._add_rate(logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the epoch's images per second to its metrics."""
        del epoch
        self._add_rate(logs)

    def _add_rate(self, logs: dict | None) -> None:
        count, seconds = self._counted or 1, self._seconds or self.first
        if logs is not None and seconds:
            logs[RATE] = round(count * self.batch_size / seconds, 1)

    def told(self) -> dict[str, float]:
        """Returns seconds of the first step and of the median of the others, and images per second.

        What is not known, as no step was done, is left out.
        """
        found = {} if self.first is None else {"first_step_seconds": round(self.first, 6)}
        if self.steps:
            median = statistics.median(self.steps)
            found["median_step_seconds"] = round(median, 6)
            found[RATE] = round(self.batch_size / median, 1)
        return found


class Trace(keras.callbacks.Callback):
    """Writes a trace of some steps that TensorBoard opens, by the backend's own profiler.

    TensorBoard shows those of TensorFlow and JAX with `pip install tensorboard-plugin-profile`, and
    those of PyTorch with `torch-tb-profiler`.

    Args:
        folder: TensorBoard's folder.
        first: The first step to be traced, counted from 1 at the beginning of the run.
        last: The last one.
        recovery: Which knows the step; to be called before this.
    """

    def __init__(self, folder: Path, first: int, last: int, recovery: Recovery) -> None:
        super().__init__()
        self.folder, self.first, self.last, self.recovery = folder, first, last, recovery
        self._running: Any = None

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Starts the profiler before the first of the steps."""
        del batch, logs
        if self._running is None and self.first <= self.recovery.step + 1 <= self.last:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._running = PROFILERS[keras.backend.backend()]()
            self._running.start(self.folder)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Stops the profiler after the last of the steps."""
        del batch, logs
        if self.recovery.step >= self.last:
            self._stop()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Stops the profiler, if the run ends before the last of the steps."""
        del logs
        self._stop()

    def _stop(self) -> None:
        if self._running is not None:
            self._running.stop()
            self._running = None


class _TensorFlowProfiler:
    def start(self, folder: Path) -> None:
        import tensorflow as tf

        tf.profiler.experimental.start(str(folder))

    def stop(self) -> None:
        import tensorflow as tf

        tf.profiler.experimental.stop()


class _JaxProfiler:
    def start(self, folder: Path) -> None:
        importlib.import_module("jax").profiler.start_trace(str(folder))

    def stop(self) -> None:
        importlib.import_module("jax").profiler.stop_trace()


class _TorchProfiler:
    def start(self, folder: Path) -> None:
        profiler = importlib.import_module("torch").profiler
        written = profiler.tensorboard_trace_handler(str(folder))
        self._profile = profiler.profile(on_trace_ready=written)
        self._profile.start()

    def stop(self) -> None:
        self._profile.stop()


PROFILERS = {"tensorflow": _TensorFlowProfiler, "jax": _JaxProfiler, "torch": _TorchProfiler}


def peak_memory_bytes() -> int:
    """Returns the most memory that the accelerator has held, or without one this process.

    Example:
        >>> peak_memory_bytes() > 2**20
        True
    """
    found = PEAKS[keras.backend.backend()]()
    if found is not None:
        return found
    # In kilobytes, but for macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _tensorflow_peak() -> int | None:
    import tensorflow as tf

    names = [f"{kind}:0" for kind in ("GPU", "TPU") if tf.config.list_logical_devices(kind)]
    return tf.config.experimental.get_memory_info(names[0])["peak"] if names else None


def _jax_peak() -> int | None:
    (device, *_) = importlib.import_module("jax").local_devices()
    return (device.memory_stats() or {}).get("peak_bytes_in_use")


def _torch_peak() -> int | None:
    cuda = importlib.import_module("torch").cuda
    return cuda.max_memory_allocated() if cuda.is_available() else None


PEAKS = {"tensorflow": _tensorflow_peak, "jax": _jax_peak, "torch": _torch_peak}
