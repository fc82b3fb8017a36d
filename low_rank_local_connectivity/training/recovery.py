"""Continuing a run that was stopped: everything that training changes, in one file."""

import json
import math
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity.training.records import replacing, write_metrics


class Recovery(keras.callbacks.Callback):
    """Saves a run's whole state after each epoch, and restores it.

    The state is every variable of the model and its optimizer (weights, moments, step count and
    seed generators), the metrics of the epochs so far and the time they took. It is replaced in
    one step, so a run killed at any moment finds the last whole epoch. With data whose order
    depends on the epoch alone, the continued run equals one that was never stopped.

    Args:
        folder: The run's folder; holds `checkpoints/state.npz` and `metrics.csv`.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.state_path = folder / "checkpoints" / "state.npz"
        self.metrics_path = folder / "metrics.csv"
        self.rows: list[dict[str, float]] = []
        self.seconds = 0.0
        self._started = time.monotonic()

    def _variables(self) -> list[Any]:
        return [*self.model.variables, *self.model.optimizer.variables]

    def restore(self, model: keras.Model) -> int:
        """Puts a compiled model into its saved state, if there is one.

        Args:
            model: The model, built and compiled as when the state was saved.

        Returns:
            How many epochs are behind it; 0 if nothing was saved.

        Raises:
            ValueError: If the state belongs to another model or backend.
        """
        self.set_model(model)
        model.optimizer.build(model.trainable_variables)
        if not self.state_path.exists():
            return 0
        with np.load(self.state_path) as state:
            about = json.loads(str(state["about"]))
            arrays = [state[f"variable_{index}"] for index in range(about["variables"])]
        variables = self._variables()
        expected = [tuple(variable.shape) for variable in variables]
        if about["backend"] != keras.backend.backend() or expected != [a.shape for a in arrays]:
            raise ValueError(
                "A run must be continued on the backend and with the model that it was started "
                f"with. Received: {self.state_path} from backend {about['backend']!r} with "
                f"{len(arrays)} variables, for backend {keras.backend.backend()!r} with "
                f"{len(expected)}. Use the same KERAS_BACKEND and package version, or another "
                "folder."
            )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        self.rows, self.seconds = about["rows"], about["seconds"]
        return len(self.rows)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Starts the clock."""
        del logs
        self._started = time.monotonic() - self.seconds

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves the state, then lists the epoch's metrics; a broken state is not kept."""
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            return
        self.rows.append({"epoch": epoch + 1, **{k: float(v) for k, v in (logs or {}).items()}})
        self.seconds = time.monotonic() - self._started
        variables = self._variables()
        about = {
            "backend": keras.backend.backend(),
            "rows": self.rows,
            "seconds": self.seconds,
            "variables": len(variables),
        }
        arrays = {
            f"variable_{index}": keras.ops.convert_to_numpy(variable)
            for index, variable in enumerate(variables)
        }
        with replacing(self.state_path) as temporary:
            np.savez(temporary, about=np.array(json.dumps(about)), **arrays)
        write_metrics(self.metrics_path, self.rows)
