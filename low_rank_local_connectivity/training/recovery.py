"""Continuing a run that was interrupted at any moment, as if it had not been."""

import contextlib
import math
import signal
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity.training.checkpoints import Checkpoints, all_finite
from low_rank_local_connectivity.training.endings import RunError, StoppedError
from low_rank_local_connectivity.training.records import write_metrics
from low_rank_local_connectivity.training.replicas import together
from low_rank_local_connectivity.training.strategy import ONE_DEVICE, Placement

WATCHED_METRIC = "val_accuracy"


class LostError(RunError):
    """A run cannot go on: its loss or weights are no longer finite."""


class Recovery(keras.callbacks.Callback):
    """Saves a run's whole state periodically, and restores it.

    The state consists of every variable of the model and its optimizer (weights, moments, step
    count, seed generators), those of the metrics within an epoch, the metrics of completed epochs
    and the time they took; of variables that differ between replicas, the value of each. Saving
    changes none of them. If the order of the data depends only on epoch and step, a continued run
    equals an uninterrupted one.

    Args:
        folder: The run's folder, with `checkpoints/` and `metrics.csv`.
        steps_per_epoch: Steps in an epoch.
        every_steps: Steps between checkpoints within an epoch; None for none. There is always one
            at the end of an epoch.
        every_minutes: Minutes between checkpoints within an epoch; None for none.
        keep: How many of the newest checkpoints to keep, besides the best.
        placement: Where training runs. All processes of a job read checkpoints and decide
            together when to save or stop; only the chief writes.
    """

    def __init__(
        self,
        folder: Path,
        steps_per_epoch: int,
        every_steps: int | None = None,
        every_minutes: float | None = None,
        keep: int = 2,
        placement: Placement = ONE_DEVICE,
    ) -> None:
        super().__init__()
        self.checkpoints = Checkpoints(folder / "checkpoints", keep)
        self.metrics_path = folder / "metrics.csv"
        self.steps_per_epoch, self.placement = steps_per_epoch, placement
        self.every_steps, self.every_minutes = every_steps, every_minutes
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0
        self.best = -math.inf
        self.step = 0
        self.signal: int | None = None
        # Values of the metrics' variables from before the interruption, for each replica.
        self._metrics: list[np.ndarray] = []
        self._epoch_started_at = 0
        self._started = self._saved_at = time.monotonic()

    def _variables(self) -> list[Any]:
        return [*self.model.variables, *self.model.optimizer.variables]

    def restore(self, model: keras.Model) -> int:
        """Restores a compiled model to its newest intact state, if there is one.

        Args:
            model: The model, built and compiled as when the state was saved.

        Returns:
            How many steps it has done; 0 if nothing was saved.

        Raises:
            RunError: If no saved state can be used, it belongs to another backend, or the workers
                of a job have different ones.
        """
        self.set_model(model)
        model.optimizer.build(model.trainable_variables)
        variables = self._variables()
        found = self.checkpoints.newest([tuple(variable.shape) for variable in variables])
        self._check_workers(found)
        if found is None and self.metrics_path.exists():
            raise RunError(
                "A run that was begun must have a checkpoint. Received: "
                f"{self.checkpoints.folder} without one, beside {self.metrics_path}. Put it back, "
                "or give another `model_dir` to start over."
            )
        if found is None:
            return 0
        arrays, about = found
        here = keras.backend.backend()
        if about["backend"] != here:
            raise RunError(
                "A run must be continued on the backend that it was started on. Received: "
                f"KERAS_BACKEND={here} for a run on {about['backend']}. Set it to "
                f"{about['backend']}, or give another `model_dir`."
            )
        count = len(variables)
        for variable, array in zip(variables, arrays[:count], strict=True):
            variable.assign(array)
        self._restore_own(arrays[count:], about)
        self.rows, self.seconds = about["rows"], about["seconds"]
        self.best = -math.inf if about["best"] is None else about["best"]
        self.step = about["step"]
        return self.step

    def _check_workers(self, found: tuple[list[np.ndarray], dict[str, Any]] | None) -> None:
        """Checks that all workers read the same checkpoint, before one of them changes anything."""
        if self.placement.workers > 1:
            arrays, about = found or ([], {"step": 0})
            digest = 0
            for array in arrays:
                digest = zlib.crc32(np.ascontiguousarray(array).tobytes(), digest)
            self.placement.check_same(about["step"], digest)

    def _own_variables(self) -> list[Any]:
        """Returns the variables that may differ between replicas, but for those of the metrics."""
        return [*self.model.non_trainable_variables, *_scalars(self.model.optimizer)]

    def _restore_own(self, arrays: list[np.ndarray], about: dict[str, Any]) -> None:
        """Restores what each replica had of its own, unless there were others then.

        An older checkpoint has nothing of it, but sums of metrics.
        """
        count = about.get("metrics", len(arrays))
        metrics = arrays[:count] if isinstance(count, int) else arrays
        own, variables = arrays[len(metrics) :], self._own_variables()
        if own and self._shapes(variables) == _shapes(own[: len(variables)]):
            self.placement.set_own_values(variables, own[: len(variables)])
            metrics = own[len(variables) :]
        elif self.placement.separate:
            metrics = [np.stack([array, *self._zeros(array)]) for array in metrics]
        self._metrics = metrics

    def _shapes(self, variables: list[Any]) -> list[tuple[int, ...]]:
        """Returns the shapes of what the replicas have of variables."""
        first = (self.placement.replicas,) if self.placement.separate else ()
        return [first + tuple(variable.shape) for variable in variables]

    def _zeros(self, array: np.ndarray) -> list[np.ndarray]:
        return [np.zeros_like(array)] * (self.placement.replicas - 1)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Starts the clock."""
        del logs
        now = time.monotonic()
        self._started, self._saved_at = now - self.seconds, now

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Records where the epoch, or the rest of it, begins."""
        del epoch, logs
        self._epoch_started_at = self.step

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Saves the state if it is time to, or if the run was asked to stop."""
        self.step = self._epoch_started_at + batch + 1
        loss = float((logs or {}).get("loss", 0.0))
        lost, stop, due = self.placement.in_any_worker(
            not math.isfinite(loss), self.signal is not None, self._is_time()
        )
        if lost:
            raise LostError(self._lost(f"a loss of {loss}"))
        if self._metrics:
            self._add_metrics()
        inside = self.step % self.steps_per_epoch != 0
        if inside and (stop or due):
            self._save(within_epoch=True)
            self._stop_if(stop)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Records the epoch's metrics and saves the state."""
        logs = {name: float(value) for name, value in (logs or {}).items()}
        self.rows.append({"epoch": epoch + 1, **logs})
        score = logs.get(WATCHED_METRIC, -math.inf)
        is_best = score > self.best
        self.best = max(score, self.best)
        self._save(best=is_best)
        self.write_metrics()
        self._stop_if(*self.placement.in_any_worker(self.signal is not None))

    def write_metrics(self) -> None:
        """Writes the metrics of completed epochs, if this is the chief."""
        if self.placement.chief:
            write_metrics(self.metrics_path, self.rows)

    def _add_metrics(self) -> None:
        """Adds the sums and counts of the epoch's steps before the run was interrupted.

        This is not done at the start of the epoch, when Keras has not yet made the variables.
        """
        self._synchronize()
        shapes = self._shapes(self.model.metrics_variables)
        if shapes != _shapes(self._metrics):
            raise RunError(
                "A saved state must have the sums of the run's metrics. Received: one in "
                f"{self.checkpoints.folder} with {len(self._metrics)} for {len(shapes)}. Remove "
                "it to continue from the one before, or give another `model_dir`."
            )
        self.placement.add_own_values(self.model.metrics_variables, self._metrics)
        self._metrics = []

    def _synchronize(self) -> None:
        """Updates the variables; between steps JAX keeps the state outside them."""
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()

    def _is_time(self) -> bool:
        steps, minutes = self.every_steps, self.every_minutes
        if steps is not None and self.step % steps == 0:
            return True
        return minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes

    def _lost(self, what: str) -> str:
        paths = self.checkpoints.paths()
        last = f"The last good checkpoint is {paths[-1]}" if paths else "There is no checkpoint"
        return (
            f"The loss and all weights must stay finite. Received: {what} at step {self.step}. "
            f"{last}. Lower the peak learning rate and train in another folder."
        )

    def _save(self, within_epoch: bool = False, best: bool = False) -> None:
        """Writes a checkpoint if this is the chief; collective: every worker must call it."""
        self.seconds = time.monotonic() - self._started
        self._saved_at = time.monotonic()
        self._synchronize()
        metrics = self.model.metrics_variables if within_epoch else []
        arrays = self._arrays(metrics)
        if not all_finite(arrays):
            raise LostError(self._lost("a weight or its moment that is not"))
        about = {
            "backend": keras.backend.backend(),
            "step": self.step,
            "rows": self.rows,
            "seconds": self.seconds,
            "best": self.best if math.isfinite(self.best) else None,
            "metrics": len(metrics),
        }
        if self.placement.chief:
            self.checkpoints.save(self.step, arrays, about, best)

    def _arrays(self, metrics: list[Any]) -> list[np.ndarray]:
        """Returns the state: what replicas share, or its mean, then what each has of its own."""
        variables = [*self._variables(), *metrics]
        arrays = [np.asarray(keras.ops.convert_to_numpy(variable)) for variable in variables]
        differing = self._own_variables()
        own = self.placement.own_values([*differing, *metrics])
        places = {id(variable): place for place, variable in enumerate(variables)}
        for variable, values in zip(differing, own, strict=False):
            place = places[id(variable)]
            arrays[place] = together(values, arrays[place])
        return arrays + own

    def _stop_if(self, stop: bool) -> None:
        if stop:
            here = self.signal and signal.Signals(self.signal).name
            raise StoppedError(
                f"Stopped by {here or 'a signal to another worker'} after step {self.step}, which "
                "is saved. The same command goes on from there."
            )


def _shapes(arrays: list[np.ndarray]) -> list[tuple[int, ...]]:
    return [array.shape for array in arrays]


def _scalars(optimizer: Any) -> list[Any]:
    """Returns an optimizer's numbers, such as the scale of a loss, which replicas may change."""
    return [variable for variable in optimizer.variables if len(variable.shape) == 0]


@contextlib.contextmanager
def heeding_signals(recovery: Recovery) -> Iterator[None]:
    """Returns a context in which SIGTERM and SIGINT stop training after the current step.

    The state is saved then. Enter the context after a strategy is made, since TensorFlow's
    multi-worker strategy installs its own handler of SIGTERM. A second signal of the same kind has
    its usual effect.
    """
    before = {}

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        recovery.signal = number
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
