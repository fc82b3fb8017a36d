"""The runs of a sweep: their settings, their names, and the commands that train them."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from low_rank_local_connectivity.experiments.experiment import Experiment
from low_rank_local_connectivity.experiments.flags import as_flags


def runs_of_sweep(
    experiment: Experiment, num_seeds: int = 1, spatial_ranks: Sequence[int] = ()
) -> list[Experiment]:
    """Returns the runs of a sweep, all ranks of a seed before the next seed.

    Args:
        experiment: Their common settings, with the sweep's folder as `model_dir` and the first
            seed as `seed`.
        num_seeds: Number of seeds, at least 1.
        spatial_ranks: The ranks; if empty, that of the experiment alone.

    Raises:
        ValueError: If the number of seeds or a rank is out of its range.
    """
    if num_seeds < 1:
        raise ValueError(f"`num_seeds` must be at least 1. Received: {num_seeds}.")
    runs = []
    for seed in range(experiment.seed, experiment.seed + num_seeds):
        for rank in dict.fromkeys(spatial_ranks or [experiment.spatial_rank]):
            run = dataclasses.replace(experiment, spatial_rank=rank, seed=seed)
            folder = str(Path(experiment.model_dir) / run_name(run))
            runs.append(dataclasses.replace(run, model_dir=folder))
    return runs


def run_name(experiment: Experiment) -> str:
    """Returns a unique name, made of the rank, the seed and a digest of all other settings."""
    ours = experiment.recorded_config()
    rest = {key: ours[key] for key in ours if key not in ("seed", "spatial_rank")}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:8]
    return f"{experiment.dataset}-{digest}-rank{experiment.spatial_rank}-seed{experiment.seed}"


def command_line(experiment: Experiment) -> list[str]:
    """Returns the command that runs only this experiment, with the script of this process."""
    script = str(Path(sys.argv[0]).resolve())
    return [sys.executable, script, "--every_flag_given", *as_flags(experiment)]
