"""Evaluates a trained network: accuracy, precision and recall of each class, and confusions.

    lrlc-evaluate --model=runs/digits-simple_network-0
    lrlc-evaluate --model=runs/photos --dataset=folder --data_dir=NEW_PHOTOS --split=all

Prints accuracies and a table of the classes, and writes them with the confusion matrix into a
folder: `evaluation.json`, `evaluation.md`, `confusion.csv` and `confusion.png`.
"""

import csv
import dataclasses
import functools
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from low_rank_local_connectivity.data import DATASETS, Dataset
from low_rank_local_connectivity.data.dataset import MOST_PIXELS, SPLITS
from low_rank_local_connectivity.data.unreadable import refuse_too_large, refuse_unreadable
from low_rank_local_connectivity.experiments.backend import (
    check_backend,
    load_framework,
    pipeline_for,
)
from low_rank_local_connectivity.experiments.fields import AT_LEAST_1, Group, field, one_of
from low_rank_local_connectivity.experiments.folder import read_config
from low_rank_local_connectivity.experiments.side_command import carry_out
from low_rank_local_connectivity.experiments.trained import dataset_of, folder_of, load_network

TOP = 5
ALL = "all"
# Above so many classes the numbers in a picture of confusions could not be read.
MOST_NUMBERS = 20
# Of a class's name in it.
LETTERS = 24


@dataclasses.dataclass(frozen=True)
class Options:
    """What `lrlc-evaluate` is asked for."""

    model: str | None = field(
        None, "Folder of a finished run, or the model.keras in it.", Group.INPUT, path=True
    )
    dataset: str | None = field(
        None,
        "Other examples of the same shape and classes. [the run's]",
        Group.DATA,
        one_of(DATASETS),
    )
    data_dir: str | None = field(None, "Where they are. [the run's]", Group.DATA, path=True)
    split: str = field("test", "Which examples.", Group.DATA, one_of((*SPLITS, ALL)))
    batch_size: int | None = field(None, "Examples per step. [the run's]", Group.DATA, AT_LEAST_1)
    max_bytes: int | None = field(
        None,
        "Bytes that the model's arrays may take in memory. [256 MiB and 16 times its file's size, "
        "whichever is more]",
        Group.INPUT,
        AT_LEAST_1,
    )
    max_pixels: int = field(
        MOST_PIXELS,
        "Pixels that an image in a file may have; those with more count as unreadable.",
        Group.DATA,
        AT_LEAST_1,
    )
    out: str | None = field(
        None,
        "Folder for the tables and the picture. [evaluation-<split> in the run's folder]",
        Group.OUTPUT,
        path=True,
    )


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a network answers for examples whose classes are known.

    Args:
        class_names: Names of the classes.
        labels: The class of each example, shape `(examples,)`.
        scores: The network's score of each class for each example, such as its logits, shape
            `(examples, classes)`.

    Example:
        >>> scores = np.array([[2, 1], [0, 3], [1, 0]])
        >>> found = Evaluation(("ant", "bee"), np.array([0, 1, 1]), scores)
        >>> found.confusions.tolist()
        [[1, 0], [1, 1]]
    """

    class_names: Sequence[str]
    labels: np.ndarray
    scores: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """The class with the highest score for each example."""
        return self.scores.argmax(-1)

    @property
    def confusions(self) -> np.ndarray:
        """How many examples of each class (rows) are taken for each class (columns)."""
        from sklearn.metrics import confusion_matrix

        classes = range(len(self.class_names))
        return confusion_matrix(self.labels, self.predicted, labels=classes)

    def summary(self) -> dict[str, Any]:
        """Returns accuracies from 0 to 1, and precision and recall of each class."""
        from sklearn import metrics

        classes = range(len(self.class_names))
        each = metrics.precision_recall_fscore_support(
            self.labels, self.predicted, labels=classes, zero_division=math.nan
        )
        found: dict[str, Any] = {
            "examples": len(self.labels),
            "accuracy": float(metrics.accuracy_score(self.labels, self.predicted)),
            # Of the classes that there are examples of.
            "balanced_accuracy": float(np.nanmean(each[1])),
        }
        if len(self.class_names) > TOP:
            found[f"top_{TOP}_accuracy"] = float(
                metrics.top_k_accuracy_score(self.labels, self.scores, k=TOP, labels=classes)
            )
        rows = zip(self.class_names, *(column.tolist() for column in each), strict=True)
        names = ("precision", "recall", "f1", "examples")
        found["classes"] = [
            {"class": name, **dict(zip(names, map(_known, numbers), strict=True))}
            for name, *numbers in rows
        ]
        return found


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


def main() -> None:
    """Carries out the command line of the process."""
    carry_out(Options, evaluate, __doc__ or "")


def evaluate(options: Options, words: Sequence[str]) -> int:
    """Evaluates what the options name, prints and writes what is found; returns the exit status.

    Raises:
        ValueError: If there is no network, or the examples are not of its shape and classes.
    """
    if words:
        raise ValueError(f"Only flags are taken. Received: {' '.join(words)}.")
    folder = folder_of(options.model)
    config = read_config(folder / "config.json")
    dataset, data_dir = examples_of(options, dataset_of(folder), config)
    check_backend(dataset)
    load_framework()
    from low_rank_local_connectivity import training

    splits = dataset.load(data_dir)
    chosen = SPLITS if options.split == ALL else (options.split,)
    batches = pipeline_for(dataset)
    scored = [splits[name] for name in chosen]
    refuse_too_large(scored)
    refuse_unreadable(
        scored, functools.partial(batches.unreadable_images, max_pixels=options.max_pixels)
    )
    network, size = (
        load_network(folder, options.max_bytes),
        options.batch_size or config["batch_size"],
    )
    labels, scores = [], []
    for name in chosen:
        for inputs, their_labels in batches.evaluation_batches(
            dataset, splits[name], size, config["seed"]
        ):
            labels.append(np.asarray(their_labels))
            scores.append(np.asarray(network.predict_on_batch(inputs)))
    found = Evaluation(dataset.class_names, np.concatenate(labels), np.concatenate(scores))
    out = Path(options.out) if options.out else folder / f"evaluation-{options.split}"
    told = {"dataset": dataset.name, "split": options.split, **found.summary()}
    training.write_json(out / "evaluation.json", told)
    write_tables(found, told, out)
    draw_confusions(found, out / "confusion.png")
    print(f"{in_markdown(told)}\nWritten to {out}.")
    return 0


def examples_of(
    options: Options, trained_on: Dataset, config: dict[str, Any]
) -> tuple[Dataset, str | None]:
    """Returns the dataset to evaluate on, prepared as the network's own, and its folder.

    Raises:
        ValueError: If its examples have another shape or other classes.
    """
    name = options.dataset or trained_on.name
    data_dir = options.data_dir or (config["data_dir"] if name == trained_on.name else None)
    other = DATASETS[name]
    size = trained_on.image_shape[0] if other.resizable else None
    there = other.at(data_dir, size)
    for what in ("image_shape", "class_names"):
        ours, theirs = getattr(trained_on, what), getattr(there, what)
        if ours != theirs:
            raise ValueError(
                f"The examples must have the network's {what.replace('_', ' ')}, {ours}. "
                f"Received: {theirs} in --dataset={name} --data_dir={data_dir}."
            )
    alike = {one: getattr(trained_on, one) for one in ("value_range", "stored_range", "canvas")}
    kept = {"eval_crop": trained_on.eval_crop} if there.encoded else {}
    kept |= {"max_pixels": options.max_pixels}
    return dataclasses.replace(there, **alike, **kept), data_dir


def write_tables(found: Evaluation, told: dict[str, Any], out: Path) -> None:
    """Writes `evaluation.md` and `confusion.csv` into a folder."""
    from low_rank_local_connectivity.training.records import replacing

    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", *found.class_names])
    for name, row in zip(found.class_names, found.confusions.tolist(), strict=True):
        writer.writerow([name, *row])
    for file, content in (("confusion.csv", text.getvalue()), ("evaluation.md", in_markdown(told))):
        with replacing(out / file) as temporary:
            temporary.write_text(content, encoding="utf-8")


def in_markdown(told: dict[str, Any]) -> str:
    """Returns a line of accuracies and a table of the classes, in percent."""
    accuracies = [
        f"{name.replace('_', ' ')} {_percent(value)} %"
        for name, value in told.items()
        if name.endswith("accuracy")
    ]
    lines = [f"{told['examples']:,} examples of {told['dataset']}, {told['split']}: "]
    lines[0] += f"{', '.join(accuracies)}."
    lines += [
        "",
        "| class | examples | precision, % | recall, % | F1, % |",
        "|---|---|---|---|---|",
    ]
    for one in told["classes"]:
        numbers = " | ".join(_percent(one[name]) for name in ("precision", "recall", "f1"))
        lines.append(f"| {one['class']} | {one['examples']} | {numbers} |")
    return "\n".join(lines) + "\n"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def draw_confusions(found: Evaluation, path: Path) -> None:
    """Draws which classes are taken for which, each row in shares of its class."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt
    from sklearn.metrics import ConfusionMatrixDisplay

    from low_rank_local_connectivity.training.records import replacing

    counts = found.confusions
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(max(3.5, 1.5 + 0.42 * len(counts)), 30)
    figure, axis = plt.subplots(figsize=(side + 1, side), layout="constrained")
    labels = [name[:LETTERS] for name in found.class_names]
    display = ConfusionMatrixDisplay(shares, display_labels=labels)
    display.plot(
        ax=axis,
        include_values=len(counts) <= MOST_NUMBERS,
        values_format=".0f",
        xticks_rotation="vertical",
        cmap="Blues",
        im_kw={"vmin": 0, "vmax": 100},
    )
    display.im_.colorbar.set_label("share of the class's examples, %")
    axis.set(xlabel="predicted class", ylabel="class")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
