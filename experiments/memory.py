"""Checking that a run fits into memory, before its network is built."""

import concurrent.futures
import importlib
import math
import os
from pathlib import Path
from typing import Any

from low_rank_local_connectivity.experiments.backend import backend_name
from low_rank_local_connectivity.experiments.experiment import Experiment

# Number of moments that an optimizer keeps for every weight.
MOMENTS = {"adam": 2, "adamw": 2, "lion": 1, "sgd": 1}
GIBIBYTE = 2**30
MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def check_memory(experiment: Experiment, needed: tuple[int, int, int] | None = None) -> None:
    """Checks that a run's weights and what a step keeps fit into the machine's memory.

    Both are lower bounds: the weights with their gradients and moments, and what layers with
    weights read. With an accelerator nothing is checked: it reports that its memory is
    exhausted, whereas the operating system kills the process without a message.

    Args:
        experiment: The run.
        needed: What `needed_bytes` returns, where that is known.

    Raises:
        RunError: If they do not fit.
    """
    from low_rank_local_connectivity.training import RunError

    free = None if has_accelerator() else free_bytes()
    if free is None:
        return
    parameters, for_weights, for_step = needed or needed_bytes(experiment)
    if for_weights + for_step <= free:
        return
    raise RunError(
        f"A network and a step of its training must fit into memory. Received: "
        f"{experiment.layers_in_words}, whose {parameters:,} trainable parameters take "
        f"{for_weights / GIBIBYTE:,.1f} GiB with their gradients and moments, and a step of which "
        f"keeps {for_step / GIBIBYTE:,.1f} GiB for --batch_size={experiment.batch_size}, where "
        f"{free / GIBIBYTE:,.1f} GiB are free. Choose other layers, smaller images or batches."
    )


def has_accelerator() -> bool:
    """Returns whether the backend computes on an accelerator."""
    name = backend_name()
    if name == "tensorflow":
        import tensorflow as tf

        return any(tf.config.list_logical_devices(kind) for kind in ("GPU", "TPU"))
    backend = importlib.import_module(name)  # type checkers need not find it
    if name == "jax":
        return backend.default_backend() != "cpu"
    return backend.cuda.is_available() or backend.backends.mps.is_available()


def needed_bytes(experiment: Experiment, model: Any = None) -> tuple[int, int, int]:
    """Returns a network's trainable parameters, the bytes of its weights and those of a step.

    Args:
        experiment: The run.
        model: Its network, built without values here if left out.
    """
    from low_rank_local_connectivity.inspection import step_bytes, weight_bytes

    model = without_values(experiment) if model is None else model
    outputs = experiment.batch_size * step_bytes(model)
    parameters = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    return parameters, weight_bytes(model, moments_of(experiment)), outputs


def without_values(experiment: Experiment) -> Any:
    """Returns a run's network with weights that have shapes, but no values.

    It is built in a thread of its own, with which Keras's state of it, names and weights to be
    initialised, disappears.
    """
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(_built, experiment).result()


def _built(experiment: Experiment) -> Any:
    import keras

    from low_rank_local_connectivity import training

    training.set_precision(experiment.precision)
    with keras.StatelessScope(initialize_variables=False):
        return experiment.build()


def moments_of(experiment: Experiment) -> int:
    """Returns how many numbers an optimizer keeps for every weight: moments, sums and averages."""
    plain = experiment.optimizer == "sgd" and experiment.momentum == 0
    moments = 0 if plain else MOMENTS[experiment.optimizer]
    return moments + (experiment.gradient_accumulation_steps > 1) + experiment.use_ema


def free_bytes() -> int | None:
    """Returns how much more memory this process can get; None if that is unknown."""
    known = [size for size in (_free_of_machine(), _free_of_container()) if size is not None]
    return min(known, default=None)


def _free_of_machine() -> int | None:
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:  # not Linux: all there is, at least
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (ValueError, OSError):
            return None
    kilobytes = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
    return 1024 * (kilobytes["MemAvailable"] + kilobytes.get("SwapFree", 0))


def _free_of_container() -> int | None:
    """Returns the memory left within a container's limit, counting cached files as free."""
    try:
        limit, used, statistics = (
            (CGROUP / f"memory.{name}").read_text() for name in ("max", "current", "stat")
        )
        cached = dict(line.split() for line in statistics.splitlines())["inactive_file"]
        return int(limit) - int(used) + int(cached)
    except (OSError, ValueError, KeyError):
        return None
