"""The conditions under which flags have an effect, so that none is silently ignored."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from low_rank_local_connectivity.data import DATASETS
from low_rank_local_connectivity.experiments.backend import backend_name
from low_rank_local_connectivity.experiments.experiment import LOW_RANK_KIND, Experiment
from low_rank_local_connectivity.models import APPLICATIONS, MODELS, NETWORKS, in_dimensions

# Datasets that come without files.
WITHOUT_FILES = ("digits", "synthetic")
# Flags of a sweep on Ray.
ON_RAY = ("ray_address", "cpus_per_run", "gpus_per_run", "retries")


@dataclasses.dataclass(frozen=True)
class Need:
    """The condition for a flag to change a run.

    Args:
        what: The condition in words, after "needs".
        holds: Function of a run that tells whether it holds.
    """

    what: str
    holds: Callable[[Experiment], bool]


def _kinds(run: Experiment) -> set[str]:
    """Returns the kinds of the layers that are chosen by flags, as images have them."""
    if NETWORKS[run.network].num_layers:
        return {in_dimensions(kind, 2) for kind in run.filled_layer_types}
    inserted = {run.insert_layer} if run.insert_layer else set()
    inserted |= {LOW_RANK_KIND} if run.relax else set()
    return inserted | ({run.replace_with} if run.replace else set())


def _has_rank(run: Experiment) -> bool:
    return bool({LOW_RANK_KIND, "wide_conv2d"} & _kinds(run))


def _has_low_rank(run: Experiment) -> bool:
    """Returns whether a layer is low-rank, or a wide convolution that matches one exactly."""
    matched = "wide_conv2d" in _kinds(run) and bool(NETWORKS[run.network].stages)
    return LOW_RANK_KIND in _kinds(run) or matched


def _draws_logits(run: Experiment) -> bool:
    has_logits = run.spatial_rank > 1 or run.normalize_weights != "softmax"
    return LOW_RANK_KIND in _kinds(run) and has_logits and not run.input_dependent


def _option(name: str) -> Need:
    choosing = ", ".join(key for key, network in MODELS.items() if name in network.options)
    return Need(f"a network that lets it be chosen ({choosing})", lambda run: _has(run, name))


def _has(run: Experiment, option: str) -> bool:
    return option in NETWORKS[run.network].options


def _is_simulated(run: Experiment) -> bool:
    if backend_name() == "jax":
        return run.strategy != "one_device"
    return run.strategy in ("mirrored", "multi_worker")


def _reaches_profile(run: Experiment) -> bool:
    examples = run.train_examples or run.placed.split_sizes[0]
    return not run.profile or int(run.profile[0]) <= run.epochs * (examples // run.batch_size)


LOW_RANK = Need("a low-rank layer", _has_low_rank)
RANK = Need("a low-rank layer, or a wide one to match it", _has_rank)
NEEDS: dict[str, Need] = {
    "data_dir": Need(
        "a dataset that is read from files", lambda run: run.dataset not in WITHOUT_FILES
    ),
    "download": Need(
        "a dataset of tensorflow-datasets",
        lambda run: run.dataset not in WITHOUT_FILES and DATASETS[run.dataset].complete is None,
    ),
    "replace_with": Need("--replace", lambda run: bool(run.replace)),
    "relax": Need("a network of keras.applications", lambda run: run.network in APPLICATIONS),
    "spatial_rank": RANK,
    "spatial_ranks": RANK,
    "kernel_size": _option("kernel_size"),
    "filters": _option("filters"),
    "coord_conv": _option("coord_conv"),
    "stem": _option("stem"),
    "normalize_weights": LOW_RANK,
    "combining_weights_initializer": Need(
        "a low-rank layer whose combining weights are drawn, of rank 2 or more and not "
        "--input_dependent",
        _draws_logits,
    ),
    "share_row_combining_weights": LOW_RANK,
    "share_col_combining_weights": LOW_RANK,
    "input_dependent": LOW_RANK,
    "use_spatial_bias": LOW_RANK,
    "locally_connected_fan": Need(
        "a locally connected layer", lambda run: "locally_connected2d" in _kinds(run)
    ),
    "momentum": Need("--optimizer=sgd", lambda run: run.optimizer == "sgd"),
    "ema_momentum": Need("--use_ema", lambda run: run.use_ema),
    "tpu": Need("--strategy=tpu or auto", lambda run: run.strategy in ("tpu", "auto")),
    "peers_timeout": Need(
        "--strategy=multi_worker or auto", lambda run: run.strategy in ("multi_worker", "auto")
    ),
    "virtual_devices": Need(
        "--strategy=mirrored or multi_worker, or JAX and --strategy=auto", _is_simulated
    ),
    "profile": Need("START to be among the run's steps", _reaches_profile),
    "serving_batch_size": Need("--export_formats", lambda run: bool(run.export_formats)),
}


def check_flags_have_effect(
    given: Mapping[str, Any],
    defaults: Mapping[str, Any],
    runs: Sequence[Experiment],
    are_sweep: bool = False,
) -> None:
    """Checks that no flag is ignored.

    A flag that turns off something that is off anyway is accepted.

    Args:
        given: Values of the flags that are given.
        defaults: Their default values.
        runs: The runs that they describe; an effect on one is enough.
        are_sweep: Whether these are the runs of a sweep.

    Raises:
        ValueError: If a flag has no effect on any run.
    """
    if "spatial_rank" in given and given.get("spatial_ranks"):
        ranks = ",".join(given["spatial_ranks"])
        raise ValueError(
            "--spatial_rank and --spatial_ranks must not both be given: a sweep uses the ranks of "
            f"the latter. Received: --spatial_rank={given['spatial_rank']} with "
            f"--spatial_ranks={ranks}. Give all ranks with --spatial_ranks."
        )
    needs = {**NEEDS, **_needs_beside(given, are_sweep)}
    for name, value in given.items():
        said = not value and value == defaults[name]
        if name in needs and not said and not any(map(needs[name].holds, runs)):
            shown = ",".join(value) if isinstance(value, list) else value
            raise ValueError(
                f"--{name} needs {needs[name].what}, and would have no effect here. Received: "
                f"--{name}={shown}. Leave it out."
            )


def _needs_beside(given: Mapping[str, Any], are_sweep: bool) -> dict[str, Need]:
    """Returns the needs of flags that are no experiment's, among flags that are given."""
    on_ray = Need("--sweep_engine=ray", lambda _: given.get("sweep_engine") == "ray")
    return {
        "allow_other_flags": Need("a single run", lambda _: not are_sweep),
        "sweep_engine": Need("a sweep, of --spatial_ranks or --num_seeds", lambda _: are_sweep),
        **dict.fromkeys(ON_RAY, on_ray),
    }
