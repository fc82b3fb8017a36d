"""What every study shares: seeds, records, training, the table and the picture."""

import argparse
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity import plots, training
from low_rank_local_connectivity.experiments.paper.statistics import mean_and_error
from low_rank_local_connectivity.training.records import (
    append_record,
    given_path,
    read_records,
    versions,
)

RESULTS = Path(__file__).parent / "results"
# The data set that needs no file, and all those whose images a study can use.
DATASET = "digits"
IMAGES = (DATASET, "mnist", "cifar10")
MET = {True: "met; ", False: "not met; ", None: ""}
# Examples of a batch where nothing is learned.
AT_ONCE = 500
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line says.

    Args:
        seeds: How many runs of each condition.
        epochs: Longest training; None for the study's own.
        output: Folder of records, tables and pictures.
        dataset: Name of the data set, where a study can do with several.
        data_dir: Folder with real images, or None.
        flags: The study's own flags, by name.
    """

    seeds: int
    epochs: int | None
    output: Path
    dataset: str = DATASET
    data_dir: str | None = None
    flags: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Study:
    """An experiment with its claim.

    Args:
        name: Its name, and that of its files.
        claim: What is claimed, in a sentence.
        criterion: What must come out, in a sentence.
        conditions: What is compared, by name, with what `measure` needs to know.
        measure: Function of a condition's value, a seed and the options to numbers by name, or
            lists of numbers.
        verdict: Function of the records by condition to what came out, in a sentence, and whether
            that meets the criterion; None if there is none to meet.
        table: Function of the records by condition to a Markdown table.
        draw: Function of the records by condition and a PNG's path that draws the picture.
        seeds: Runs of each condition unless the command line says otherwise.
        images: Whether it is made of the images of any data set, `--dataset`.
        flags: Its own flags, by name, with what `ArgumentParser.add_argument` takes.
        chosen: Function of the options to the names of the conditions that they ask for; None
            for all.
        variant: Name of the flag, if any, each value of which but the default has files of its
            own.
    """

    name: str
    claim: str
    criterion: str
    conditions: Mapping[str, Any]
    measure: Callable[[Any, int, Options], dict[str, Any]]
    verdict: Callable[[Mapping[str, list[Record]]], tuple[str, bool | None]]
    table: Callable[[Mapping[str, list[Record]]], str]
    draw: Callable[[Mapping[str, list[Record]], Path], None] | None = None
    seeds: int = 5
    images: bool = False
    flags: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    chosen: Callable[[Options], Sequence[str]] | None = None
    variant: str | None = None

    def file(self, options: Options, ending: str) -> Path:
        """Returns the path of a file of results; each data set has its own."""
        parts = [self.name]
        if self.variant and options.flags[self.variant] != self.flags[self.variant]["default"]:
            parts.append(options.flags[self.variant])
        if options.dataset != DATASET:
            parts.append(options.dataset)
        return options.output / f"{'-'.join(parts)}.{ending}"

    def asked_for(self, options: Options) -> list[str]:
        """Returns the names of the conditions to run."""
        return list(self.conditions if self.chosen is None else self.chosen(options))


def main(study: Study, arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing of a study, then writes its table and picture."""
    options = parse(study, arguments)
    training.ignore_keras_json()
    path = study.file(options, "jsonl")
    for seed, condition in itertools.product(range(options.seeds), study.asked_for(options)):
        name = f"{condition}, seed {seed}"
        if name in {record["name"] for record in _records(path)}:
            continue
        # Or the models of all runs so far stay in memory, gigabytes of a large network.
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)
        started = time.monotonic()
        found = study.measure(study.conditions[condition], seed, options)
        seconds = round(time.monotonic() - started, 1)
        about = {"name": name, "condition": condition, "seed": seed, "seconds": seconds}
        append_record(path, {**about, "versions": versions(), "found": found})
        print(f"{study.name}: {name}, {seconds} s: {_short(found)}", flush=True)
    report(study, options)


def parse(study: Study, arguments: Sequence[str] | None) -> Options:
    """Returns what the command line says.

    Raises:
        SystemExit: If it says what cannot be, with the reason on standard error.
    """
    parser = argparse.ArgumentParser(description=f"{study.claim} {study.criterion}")
    parser.add_argument("--seeds", type=int, default=study.seeds, help="runs of each condition")
    parser.add_argument("--epochs", type=int, help="longest training, in epochs")
    parser.add_argument(
        "--output", type=given_path, default=RESULTS, help="folder of what is written"
    )
    if study.images:
        parser.add_argument(
            "--dataset", choices=list(IMAGES), default=DATASET, help="where the images are from"
        )
        parser.add_argument("--data_dir", help="folder of data prepared by tensorflow-datasets")
    for name, about in study.flags.items():
        parser.add_argument(f"--{name}", **about)
    found = vars(parser.parse_args(arguments))
    own = {name: found.pop(name) for name in study.flags}
    options = Options(**found, flags=own)
    for name in ("seeds", "epochs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name} must be at least 1. Received: --{name}={value}.")
    if options.dataset != DATASET and options.data_dir is None:
        parser.error(
            f"--dataset={options.dataset} must come with the folder that holds it. Received: no "
            "--data_dir. Name the folder."
        )
    try:
        study.asked_for(options)
    except ValueError as error:
        parser.error(str(error))
    return options


def report(study: Study, options: Options) -> None:
    """Writes a study's table and picture from its records, and prints the table."""
    found: dict[str, list[Record]] = {condition: [] for condition in study.conditions}
    for record in _records(study.file(options, "jsonl")):
        if record["condition"] in found:
            found[record["condition"]].append(record)
    if study.chosen is not None:
        found = {name: records for name, records in found.items() if records}
    if not all(found.values()):
        return
    sentence, met = study.verdict(found)
    counts = sorted({len(records) for records in found.values()})
    seeds = f"{' to '.join(map(str, counts))} seed{'s' if counts[-1] > 1 else ''}"
    text = (
        f"# {study.name}\n\n{study.claim}\n\n**Criterion.** {study.criterion}\n\n"
        f"**Outcome ({MET[met]}{seeds}).** "
        f"{sentence}\n\n{study.table(found)}\n"
    )
    study.file(options, "md").write_text(text)
    if study.draw is not None:
        study.draw(found, study.file(options, "png"))
    print(text)


def _records(path: Path) -> list[Record]:
    return read_records(path) if path.exists() else []


def _short(found: Mapping[str, Any]) -> str:
    numbers = {name: value for name, value in found.items() if isinstance(value, (int, float))}
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def values(records: Iterable[Record], name: str) -> list[Any]:
    """Returns what was found under a name, for each seed."""
    return [record["found"][name] for record in records]


def mean(records: Iterable[Record], name: str) -> float:
    """Returns the mean over seeds of what was found."""
    return mean_and_error(values(records, name))[0]


def percent(records: Iterable[Record], name: str) -> str:
    """Returns a share as percent, with its standard error over seeds."""
    return with_error(*mean_and_error(values(records, name)))


def with_error(share: float, error: float, sign: str = "") -> str:
    """Returns a share as percent, with its standard error if there is one.

    Args:
        share: The share.
        error: Its standard error, not a number where there was one run only.
        sign: `"+"` for a difference, whose sign is always shown.

    Example:
        >>> with_error(0.9, 0.012), with_error(0.031, math.nan, "+")
        ('90.0 ± 1.2', '+3.1')
    """
    text = f"{100 * share:{sign}.1f}"
    return text if math.isnan(error) else f"{text} ± {100 * error:.1f}"


def rows(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """Returns a Markdown table."""
    table = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in table)


def curve(records: Sequence[Record], name: str, x: Sequence[float]) -> list[tuple]:
    """Returns points `(x, mean, standard error)` of lists of numbers."""
    columns = zip(*values(records, name), strict=True)
    return [(at, *mean_and_error(column)) for at, column in zip(x, columns, strict=True)]


def draw_curves(
    found: Mapping[str, Sequence[Record]],
    name: str,
    x: Sequence[float],
    path: Path,
    labels: tuple[str, str],
    *,
    log_x: bool = False,
    levels: Mapping[str, float] | None = None,
) -> None:
    """Draws shares that were found, in percent, against a quantity: a line for each condition.

    Args:
        found: The records by condition.
        name: Name of the lists of shares.
        x: The quantity for each share of a list.
        path: The PNG to write.
        labels: What the axes are, with their units.
        log_x: Whether the quantity is on a logarithmic axis.
        levels: Horizontal lines to compare with, by name.
    """
    curves = {
        condition: [(at, 100 * share, 100 * error) for at, share, error in curve(runs, name, x)]
        for condition, runs in found.items()
    }
    plots.lines_with_errors(curves, path, *labels, levels=levels, log_x=log_x)


def draw_bars(
    found: Mapping[str, Sequence[Record]],
    name: str,
    kinds: Iterable[str],
    cases: Sequence[str],
    path: Path,
    label: str,
) -> None:
    """Draws shares that were found, in percent: a bar for each case of each kind.

    Args:
        found: The records by condition, `"kind, case"`.
        name: Name of the shares.
        kinds: Names of the groups of bars.
        cases: Names of the bars of each group.
        path: The PNG to write.
        label: What the shares are.
    """
    groups: dict[str, dict[str, tuple[float, float]]] = {}
    for kind in kinds:
        groups[kind] = {}
        for case in cases:
            share, error = mean_and_error(values(found[f"{kind}, {case}"], name))
            groups[kind][case] = (100 * share, 100 * error)
    plots.bars_with_errors(groups, path, label)


Examples = tuple[np.ndarray, np.ndarray]


def train(
    model: Any,
    examples: Examples,
    valid: Examples,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    patience: int | None = None,
    evaluated_at_once: int = AT_ONCE,
) -> list[float]:
    """Trains a compiled model and gives it the weights of its best epoch.

    Args:
        model: Model compiled with a loss.
        examples: Images and labels.
        valid: Those that choose the epoch.
        epochs: How many at most.
        batch_size: Examples of a step.
        seed: Of the order of the examples, a new one each epoch.
        patience: Epochs without a lower validation loss after which training ends; None: never.
        evaluated_at_once: Examples of a batch in validation, fewer where they are large.

    Returns:
        The training loss of each epoch.
    """
    rng = np.random.default_rng(seed)
    losses: list[float] = []
    best, best_weights, best_epoch = np.inf, model.get_weights(), 0
    for epoch in range(epochs):
        # Keras on TensorFlow with a seed would shuffle arrays alike in every epoch.
        order = rng.permutation(len(examples[0]))
        shuffled = (examples[0][order], examples[1][order])
        losses.append(_mean_loss(model.train_on_batch, model, shuffled, batch_size))
        loss = _mean_loss(model.test_on_batch, model, valid, evaluated_at_once)
        if loss < best:
            best, best_weights, best_epoch = loss, model.get_weights(), epoch
        elif patience is not None and epoch - best_epoch >= patience:
            break
    model.set_weights(best_weights)
    return losses


def _mean_loss(step: Callable[..., Any], model: Any, examples: Examples, batch_size: int) -> float:
    """Takes a step with every batch; returns the mean loss of the examples.

    Of few small batches `fit` and `evaluate` would take most of the time to begin and to end.
    """
    total = 0.0
    for first in range(0, len(examples[0]), batch_size):
        images, labels = (part[first : first + batch_size] for part in examples)
        model.reset_metrics()
        total += len(images) * float(step(images, labels, return_dict=True)["loss"])
    return total / len(examples[0])


def accuracy(model: Any, examples: Examples, at_once: int = AT_ONCE) -> float:
    """Returns the share of examples whose largest logit is that of their class."""
    logits = model.predict(examples[0], batch_size=at_once, verbose=0)
    return float((logits.argmax(-1) == examples[1]).mean())
