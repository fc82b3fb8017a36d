"""Trains the rows of the paper's tables that would teach most, for as long as there is time.

    python -m experiments.campaign --budget=cpu --minutes=120 --data_dir=DATA
    python -m experiments.campaign --budget=cpu --status
    python -m experiments.campaign --pack=PACKED --data_dir=DATA

A campaign is a list of runs: rows, data sets, ranks and seeds, in the order of what each would
teach. It trains the next one that is neither recorded nor being trained by another process, until
the minutes are over. The run that is then trained saves its state and ends; the same command goes
on with it.
Several processes, also on several machines that share the folder, divide the runs among them. Each
finished run is a line of `records.jsonl` in the folder, which `lrlc-report` reads.
`--pack` writes MNIST and CIFAR-10, as prepared in DATA, to files of arrays; with those as
`--data_dir` a machine without TensorFlow trains too, on JAX or PyTorch.
"""

import contextlib
import dataclasses
import itertools
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from low_rank_local_connectivity.data import DATASETS
from low_rank_local_connectivity.data.packed import pack
from low_rank_local_connectivity.experiments.experiment import Experiment
from low_rank_local_connectivity.experiments.fields import POSITIVE, Group, field, one_of
from low_rank_local_connectivity.experiments.flags import (
    FLAGS,
    as_flags,
    experiment_from_flags,
    parse_flags,
)
from low_rank_local_connectivity.experiments.paper import report
from low_rank_local_connectivity.experiments.paper.sources import read
from low_rank_local_connectivity.experiments.runs import run_name
from low_rank_local_connectivity.experiments.side_command import carry_out
from low_rank_local_connectivity.experiments.sweeping import Outcome, Run, attempt, say, tell
from low_rank_local_connectivity.training.endings import STOPPED_STATUS, StoppedError

TRAINS = "from low_rank_local_connectivity.experiments.command import main; main()"
# A row's file of flags, and the rank to train it with; None where it has none.
Row = tuple[str, int | None]
HEADLINE: tuple[Row, ...] = (
    ("convolution", None),
    ("lrlc_layer3", 4),
    ("locally_connected_layer3_conv_init", None),
    ("locally_connected_layer3", None),
)
FURTHER: tuple[Row, ...] = (("input_dependent_layer3", 4), ("coord_conv", None), ("lrlc_layer3", 8))
LAST: tuple[Row, ...] = (
    ("lrlc_layer3", 16),
    ("wide_layer3", None),
    ("spatial_bias_layer3", None),
)


@dataclasses.dataclass(frozen=True)
class Budget:
    """What is spent on each run, and the runs in their order.

    Args:
        flags: Flags that override a row's own.
        runs: Data set, row and seed of each run.
    """

    flags: tuple[str, ...]
    runs: tuple[tuple[str, Row, int], ...]


def _paper_runs() -> Iterator[tuple[str, Row, int]]:
    for seed, dataset in itertools.product(range(10), ("mnist", "cifar10")):
        yield from ((dataset, row, seed) for row in (*HEADLINE, *FURTHER, *LAST))


def _cpu_runs() -> Iterator[tuple[str, Row, int]]:
    # On CIFAR-10 small budgets contradict the paper most.
    for rows, dataset in itertools.product((HEADLINE, FURTHER), ("cifar10", "mnist")):
        yield from ((dataset, row, seed) for seed in range(3) for row in rows)


BUDGETS = {
    "paper": Budget((), tuple(_paper_runs())),
    # Every training image, half of the paper's filters, an eighth of its epochs.
    "cpu": Budget(
        (
            "--filters=32",
            "--batch_size=128",
            "--epochs=20",
            "--peak_learning_rate=0.003",
            "--warmup_epochs=2",
            "--validation_every=5",
        ),
        tuple(_cpu_runs()),
    ),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """The command's flags."""

    budget: str = field(
        "cpu",
        "What is spent on each run: the paper's, or what two cores can do.",
        Group.INPUT,
        one_of(BUDGETS),
    )
    minutes: float = field(60.0, "No run goes on after them.", Group.OUTPUT, POSITIVE)
    status: bool = field(
        False, "Print what is done and what is missing, train nothing.", Group.OUTPUT
    )
    data_dir: str | None = field(None, "Folder of the data sets.", Group.DATA, path=True)
    model_dir: str = field(
        "runs/campaign", "Folder of the runs and of records.jsonl.", Group.SAVING, path=True
    )
    pack: str | None = field(
        None,
        "Folder to which to write the data sets as arrays, in files of less than 60 MB; train "
        "nothing.",
        Group.OUTPUT,
        path=True,
    )


def main() -> None:
    """Carries out the command line of the process."""
    carry_out(Options, carry_on, __doc__ or "")


def carry_on(options: Options, words: Sequence[str]) -> int:
    """Trains what is missing until the minutes are over, or prints what there is.

    Returns:
        The exit status: that of a stopped run if something is still missing, 1 if a run failed.

    Raises:
        ValueError: If a word is no flag, or a run cannot be made of the flags.
        FileNotFoundError: If the data is missing.
    """
    if words:
        raise ValueError(f"Only flags are taken. Received: {' '.join(words)}.")
    if options.pack:
        for file in packed(options):
            say(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
        return 0
    folder = Path(options.model_dir)
    runs = [planned(experiment, folder) for experiment in experiments(options)]
    if options.status:
        say(status(runs, folder))
        return 0
    for dataset in sorted({run.config["dataset"] for run in runs}):
        DATASETS[dataset].find(options.data_dir)
    return train(runs, folder, 60 * options.minutes)


def packed(options: Options) -> list[Path]:
    """Writes the data sets of a budget as arrays, and returns their files.

    Raises:
        ValueError: If the folder has some of them.
        FileNotFoundError: If the data is missing.
    """
    names = sorted({dataset for dataset, _, _ in BUDGETS[options.budget].runs})
    for name in names:
        DATASETS[name].find(options.data_dir)
    return [
        file for name in names for file in pack(DATASETS[name], options.data_dir, str(options.pack))
    ]


def experiments(options: Options) -> list[Experiment]:
    """Returns the runs of a budget, in their order."""
    budget = BUDGETS[options.budget]
    described = []
    for dataset, (row, rank), seed in budget.runs:
        flags = [f"--flagfile=paper/{dataset}_{row}.flags", *budget.flags, f"--seed={seed}"]
        flags += [f"--data_dir={options.data_dir}"] if options.data_dir else []
        described.append(_experiment(flags, rank))
    return described


def _experiment(flags: list[str], rank: int | None) -> Experiment:
    """Returns what a command of these flags would train, with one seed and a rank."""
    for name in FLAGS:
        FLAGS[name].unparse()
    parse_flags(["campaign", *flags])
    experiment = experiment_from_flags()
    return experiment if rank is None else dataclasses.replace(experiment, spatial_rank=rank)


def planned(experiment: Experiment, folder: Path) -> Run:
    """Returns a run of a campaign: its name, and the command that trains it."""
    name = run_name(experiment)
    placed = dataclasses.replace(experiment, model_dir=str(folder / name))
    command = [sys.executable, "-c", TRAINS, "--every_flag_given", *as_flags(placed)]
    return Run(name, placed.recorded_config(), command, folder / name)


def train(runs: Sequence[Run], folder: Path, seconds: float) -> int:
    """Trains the runs that are missing, in order, until the time is over; returns the status."""
    outcomes: list[Outcome] = []
    try:
        with ending_after(seconds):
            for number, run in enumerate(runs, 1):
                outcomes.append(attempt(run, folder))
                tell(outcomes[-1], run, f"{number}/{len(runs)}")
    except StoppedError as stopped:
        say(str(stopped))
    say(f"\n{status(runs, folder)}")
    if any(outcome.failed for outcome in outcomes):
        return 1
    return 0 if len(outcomes) == len(runs) else STOPPED_STATUS


@contextlib.contextmanager
def ending_after(seconds: float) -> Iterator[None]:
    """Within this context, the process is asked to stop when the time is over.

    Raises:
        StoppedError: If it is asked to, by this or by another signal, between two runs.
    """

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        raise StoppedError(f"Stopped by {signal.Signals(number).name} between two runs.")

    before = signal.signal(signal.SIGTERM, stop)
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
    try:
        timer.start()
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before)


def status(runs: Sequence[Run], folder: Path) -> str:
    """Returns what is done and what is missing, and the tables so far, as Markdown."""
    path, names = folder / "records.jsonl", {run.name for run in runs}
    found = read([path])[0] if path.exists() else []
    records = [record for record in found if record["name"] in names]
    done = {record["name"] for record in records}
    missing = [run for run in runs if run.name not in done]
    parts = [f"{len(done)} of {len(names)} runs are done."]
    if missing:
        parts.append("Missing, in this order:\n" + "\n".join(map(_in_words, missing)))
    for group in report.group(records):
        tables = (report.table(group), report.comparisons(group))
        parts += [f"## {group.title}", *(one for one in tables if one.count("\n") > 1)]
    return "\n\n".join(parts)


def _in_words(run: Run) -> str:
    begun = " (begun)" if (run.folder / "checkpoints").exists() else ""
    config = run.config
    rank = f", rank {config['spatial_rank']}" if "low_rank" in str(config["layer_types"]) else ""
    method = report.method_name(config)
    return f"* {config['dataset']}: {method}{rank}, seed {config['seed']}{begun}"


if __name__ == "__main__":
    main()
