"""What watches a run: TensorBoard, a profiler, and a function of the user's."""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from low_rank_local_connectivity.experiments.experiment import (
    PLACES,
    SAVING,
    WATCHING,
    Experiment,
)

if TYPE_CHECKING:
    from low_rank_local_connectivity.training import Recovery


def watching(experiment: Experiment, recovery: "Recovery") -> list[Any]:
    """Returns the callbacks that watch a run.

    Args:
        experiment: The run.
        recovery: Which knows the step.

    Raises:
        RunError: If the user's function cannot be called, or returns something else.
    """
    from low_rank_local_connectivity import training

    folder = Path(experiment.model_dir) / "tensorboard"
    found: list[Any] = [training.RunLog(folder, settings_of(experiment))]
    if experiment.profile:
        first, last = map(int, experiment.profile)
        found.append(training.Trace(folder, first, last, recovery))
    return found + users_callbacks(experiment)


def settings_of(experiment: Experiment) -> dict[str, bool | int | float | str]:
    """Returns a run's settings as TensorBoard takes them."""
    return {
        name: ",".join(value) if isinstance(value, list) else "none" if value is None else value
        for name, value in experiment.config().items()
        if name not in (*PLACES, *SAVING, *WATCHING)
    }


def check_callbacks(experiment: Experiment) -> None:
    """Checks that the module of the user's function is there, without importing it.

    Modules of the folder that the command is started in are found too.

    Raises:
        ValueError: If it is not.
    """
    if experiment.callbacks is None:
        return
    if not {"", str(Path.cwd())} & {*sys.path}:
        sys.path.append(str(Path.cwd()))
    package = experiment.callbacks.partition(":")[0].partition(".")[0]
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            "--callbacks must name a function of a module that is installed or in this folder. "
            f"Received: --callbacks={experiment.callbacks}, where {package} is neither."
        )


def users_callbacks(experiment: Experiment) -> list[Any]:
    """Returns the callbacks that the user's function makes.

    Raises:
        RunError: If there is no such function, or it returns something else.
    """
    import keras

    from low_rank_local_connectivity.training import RunError

    if experiment.callbacks is None:
        return []
    check_callbacks(experiment)
    module, _, name = experiment.callbacks.partition(":")
    function = getattr(importlib.import_module(module), name, None)
    if not callable(function):
        raise RunError(
            "--callbacks must name a function of a module. Received: "
            f"--callbacks={experiment.callbacks}, and {module} has no such function."
        )
    found = function(experiment)
    given = list(found) if isinstance(found, (list, tuple)) else [found]
    if not all(isinstance(one, keras.callbacks.Callback) for one in given):
        raise RunError(
            "The function of --callbacks must return Keras callbacks. Received: "
            f"--callbacks={experiment.callbacks}, which returns {found!r}."
        )
    return given
