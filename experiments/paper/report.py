"""Tables, pictures and learning curves from the records of finished runs, or their folders.

    lrlc-report RECORDS_OR_FOLDER... --out=FOLDER

Runs are grouped by dataset and budget, and within a group by method; a method's rank is the one
with the highest mean validation accuracy. Means are over seeds, with standard errors; methods are
compared by a paired t-test over the seeds that both have. Published numbers are given for
comparison. A single seed has no error and does not determine an order.
"""

import argparse
import csv
import dataclasses
import io
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from low_rank_local_connectivity.experiments.paper import statistics
from low_rank_local_connectivity.experiments.paper.drawing import BARS, Drawing, plots
from low_rank_local_connectivity.experiments.paper.published import PUBLISHED
from low_rank_local_connectivity.experiments.paper.sources import Record, budget_of, read
from low_rank_local_connectivity.experiments.paper.statistics import mean_and_error, percent
from low_rank_local_connectivity.experiments.side_command import told_of
from low_rank_local_connectivity.experiments.streams import keep_streams_open, lost_output
from low_rank_local_connectivity.experiments.sweeping import choose_rank
from low_rank_local_connectivity.training.records import given_path, replacing

NAMES = {
    "conv2d": "convolution",
    "wide_conv2d": "wide convolution",
    "coord_conv2d": "CoordConv",
    "locally_connected2d": "locally connected",
    "low_rank_locally_connected2d": "LRLC",
}
ACCURACY = "test accuracy, %" + BARS
UNKNOWN = "-"
SPLITS_SHOWN = ("train", "valid", "test")
# Of pictures: one to look at, and one to print.
PICTURE_FORMATS = ("png", "pdf")
KNOWN_FORMATS = {*PICTURE_FORMATS, "svg"}
RELEASED = ", the release's initial values"
# Methods to compare: in the paper the first is usually better than the second.
ORDER = (
    ("LRLC, layer 3", "convolution"),
    ("LRLC, layer 3", "convolution + spatial bias, layer 3"),
    ("input-dependent LRLC, layer 3", "LRLC, layer 3"),
    ("convolution", "locally connected, layer 3, the release's initial values"),
    ("LRLC, layer 3", "locally connected, layer 3, the release's initial values"),
    ("LRLC, layer 3", "locally connected, layer 3"),
    ("LRLC, layer 3", "CoordConv"),
    ("LRLC, layer 3", "wide convolution, layer 3"),
    (
        "locally connected, layer 3",
        "locally connected, layer 3" + RELEASED,
    ),
)


@dataclasses.dataclass(frozen=True)
class Method:
    """All runs of one method on one dataset with one budget.

    Args:
        name: The method in words.
        records: Its runs, of every rank and seed.
    """

    name: str
    records: tuple[Record, ...]

    @property
    def ranks(self) -> list[int]:
        """The ranks of the runs, ascending."""
        return sorted({record["config"]["spatial_rank"] for record in self.records})

    @property
    def rank(self) -> int:
        """The rank chosen on the validation split."""
        return choose_rank(self.records)

    def results(self, rank: int | None = None) -> dict[int, dict[str, Any]]:
        """Returns the results by seed at a rank, by default the chosen one."""
        rank = self.rank if rank is None else rank
        return {
            record["config"]["seed"]: record["result"]
            for record in self.records
            if record["config"]["spatial_rank"] == rank
        }

    def chosen(self) -> list[Record]:
        """Returns the runs at the chosen rank."""
        rank = self.rank
        return [one for one in self.records if one["config"]["spatial_rank"] == rank]

    def accuracy(self, split: str, rank: int | None = None) -> tuple[float, float]:
        """Returns the mean accuracy on a split and its standard error over seeds."""
        results = self.results(rank).values()
        return mean_and_error([result[f"{split}_accuracy"] for result in results])

    def parameters(self, rank: int | None = None) -> int:
        """Returns the number of trainable parameters at a rank."""
        return next(iter(self.results(rank).values()))["parameters"]


@dataclasses.dataclass(frozen=True)
class Group:
    """All methods on one dataset with one budget, in the paper's order."""

    dataset: str
    budget: dict[str, Any]
    methods: tuple[Method, ...]

    @property
    def title(self) -> str:
        """The dataset, and whether its images are translated."""
        return self.dataset + (", translated" if self.budget.get("translate") else "")

    def method(self, name: str) -> Method | None:
        """Returns the method with a name, if it was run."""
        return next((method for method in self.methods if method.name == name), None)


def method_name(config: dict[str, Any]) -> str:
    """Returns a run's method in the words of the tables.

    It does not depend on the rank, except that rank 1 under softmax is a convolution with a spatial
    bias.

    Args:
        config: The values of a run's flags.

    Example:
        >>> config = {"network": "simple_network", "coord_conv": False}
        >>> method_name({**config, "layer_types": ["conv2d", "wide_conv2d"]})
        'wide convolution, layer 2'
    """
    kind, where = _kind_and_place(config)
    name = NAMES.get(kind, kind.replace("_", " "))
    if kind == "conv2d" and config["coord_conv"]:
        name = "CoordConv"
    variants = []
    if kind == "low_rank_locally_connected2d":
        name, variants = _low_rank_name(config)
    if kind == "locally_connected2d" and config["locally_connected_fan"] == "kernel":
        variants = [RELEASED.removeprefix(", ")]
    return ", ".join([name, *where, *variants])


def _kind_and_place(config: dict[str, Any]) -> tuple[str, list[str]]:
    if config["network"] != "simple_network":
        if config["insert_layer"]:
            return config["insert_layer"], ["inserted"]
        if config["replace"]:
            return config["replace_with"], ["+".join(config["replace"])]
        return "conv2d", []
    others = [i for i, kind in enumerate(config["layer_types"], 1) if kind != "conv2d"]
    if not others:
        return "conv2d", []
    kinds = dict.fromkeys(config["layer_types"][index - 1] for index in others)
    kind = next(iter(kinds))
    if others == [1, 2, 3]:
        return kind, ["all layers"]
    return kind, [f"layer{'s' if len(others) > 1 else ''} {'+'.join(map(str, others))}"]


def _low_rank_name(config: dict[str, Any]) -> tuple[str, list[str]]:
    fixed = not config["input_dependent"]
    softmax = config["normalize_weights"] == "softmax"
    if fixed and softmax and config["spatial_rank"] == 1:
        return "convolution + spatial bias", []
    variants = []
    rows, cols = (config[f"share_{axis}_combining_weights"] for axis in ("row", "col"))
    if fixed and not (rows and cols):
        variants.append("full weights" if not rows and not cols else "rows" if rows else "columns")
    if not softmax:
        variants.append(f"normalisation {config['normalize_weights'] or 'none'}")
    if config["combining_weights_initializer"] != "conv_init":
        variants.append(f"initialised by {config['combining_weights_initializer']}")
    if not config["use_spatial_bias"]:
        variants.append("no spatial bias")
    return ("LRLC" if fixed else "input-dependent LRLC"), variants


def group(records: Sequence[Record]) -> list[Group]:
    """Sorts records into datasets, budgets and methods."""
    sorted_out: dict[tuple, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    budgets = {}
    for record in records:
        config = record["config"]
        budget = budget_of(config)
        key = (
            config["dataset"],
            tuple(sorted((name, str(value)) for name, value in budget.items())),
        )
        budgets[key] = budget
        sorted_out[key][method_name(config)].append(record)
    groups = []
    for key, methods in sorted(sorted_out.items()):
        dataset, _ = key
        order = list(PUBLISHED.get(dataset, PUBLISHED["mnist"]))
        names = sorted(methods, key=lambda name: (_place(name, order), name))
        found = tuple(Method(name, tuple(methods[name])) for name in names)
        groups.append(Group(dataset, budgets[key], found))
    return groups


def _place(name: str, order: list[str]) -> int:
    matching = [place for place, row in enumerate(order) if name.startswith(row)]
    return max(matching, default=len(order))


def table(group: Group) -> str:
    """Returns a Markdown table of a group's accuracies in percent and the published ones."""
    published = {} if group.budget.get("translate") else PUBLISHED.get(group.dataset, {})
    lines = [
        "| method | rank | seeds | parameters | train | valid | test | published |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in group.methods:
        has_rank = any(word in method.name for word in ("LRLC", "wide"))
        few = f" of {', '.join(map(str, method.ranks))}" if len(method.ranks) > 1 else ""
        cells = [
            method.name,
            f"{method.rank}{few}" if has_rank else "",
            str(len(method.results())),
            f"{method.parameters():,}",
            *(percent(*method.accuracy(split)) for split in SPLITS_SHOWN),
            _published(published, method.name),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _published(published: dict[str, tuple[float, float]], name: str) -> str:
    known = _as_run(published)
    return "{:.2f} ± {:.2f}".format(*known[name]) if name in known else ""


def _as_run(published: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Returns published rows under the names of methods here.

    The paper's locally connected layers used the release's initial values.
    """
    return {
        row + (RELEASED if row.startswith("locally") else ""): values
        for row, values in published.items()
    }


def comparisons(group: Group) -> str:
    """Returns a Markdown table of paired differences in test accuracy, in percentage points."""
    lines = [
        "| expected | above | in print by | here by | seeds | p | order here |",
        "|---|---|---|---|---|---|---|",
    ]
    published = {} if group.budget.get("translate") else PUBLISHED.get(group.dataset, {})
    for pair in ORDER:
        upper, lower = _as_published(published, *pair)
        first, second = group.method(upper), group.method(lower)
        if first is None or second is None:
            continue
        mean, error, p, seeds = paired(first, second)
        between = _published_difference(published, upper, lower)
        by = "" if math.isnan(between) else f"{between:+.2f}"
        ours = f"{100 * mean:+.2f}" + ("" if math.isnan(error) else f" ± {100 * error:.2f}")
        cells = [by, ours if seeds else UNKNOWN, str(seeds), UNKNOWN if seeds < 2 else f"{p:.3f}"]
        lines.append(f"| {' | '.join([upper, lower, *cells, _verdict(mean, p, seeds)])} |")
    return "\n".join(lines)


def _verdict(mean: float, p: float, seeds: int) -> str:
    """Returns in words whether two methods are in the expected order."""
    if seeds < 2:
        return f"cannot be told from {'one seed' if seeds else 'no seed in common'}"
    order = "same" if mean > 0 else "other" if mean < 0 else "neither"
    return order if p < 0.05 else f"{order}, within noise"


def _as_published(
    published: dict[str, tuple[float, float]], upper: str, lower: str
) -> tuple[str, str]:
    """Returns two methods in the paper's order on this dataset."""
    return (lower, upper) if _published_difference(published, upper, lower) < 0 else (upper, lower)


def _published_difference(
    published: dict[str, tuple[float, float]], upper: str, lower: str
) -> float:
    """Returns the difference of two published rows; NaN if one is not published."""
    known = {name: mean for name, (mean, _) in _as_run(published).items()}
    return known.get(upper, math.nan) - known.get(lower, math.nan)


def paired(first: Method, second: Method) -> tuple[float, float, float, int]:
    """Compares the test accuracies of two methods over the seeds that both have.

    Returns:
        The mean difference, its standard error, the p-value of a two-sided paired t-test (not a
        number for fewer than two seeds) and the number of seeds.
    """
    one, other = first.results(), second.results()
    seeds = sorted(set(one) & set(other))
    pairs = [(one[seed]["test_accuracy"], other[seed]["test_accuracy"]) for seed in seeds]
    return (*statistics.paired(pairs), len(seeds))


def drops(plain: Group, translated: Group) -> str:
    """Returns a Markdown table of how much test accuracy each method loses under translation.

    Both accuracies are at the rank chosen for translated images, if the method was run at that
    rank in place.
    """
    lines = ["| method | in place | translated | lost |", "|---|---|---|---|"]
    for method in translated.methods:
        there = plain.method(method.name)
        if there is None:
            continue
        rank = _common_rank(there, method)
        before, after = there.results(rank), method.results()
        lost = [
            before[seed]["test_accuracy"] - after[seed]["test_accuracy"]
            for seed in sorted(set(before) & set(after))
        ]
        cells = [percent(*one.accuracy("test", at)) for one, at in ((there, rank), (method, None))]
        cells.append(percent(*mean_and_error(lost)) if lost else UNKNOWN)
        lines.append(f"| {method.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _common_rank(plain: Method, translated: Method) -> int:
    return translated.rank if translated.rank in plain.ranks else plain.rank


def budget_in_words(budget: dict[str, Any]) -> str:
    """Returns the flags that give a budget."""
    return " ".join(
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in sorted(budget.items())
    )


def draw(group: Group, drawing: Drawing, name: str) -> list[str]:
    """Draws a group's accuracy against rank and against parameters, and its learning curves.

    Args:
        group: The group.
        drawing: Where to draw.
        name: The end of the files' names.

    Returns:
        Names of the files written.
    """
    written = []
    ranked = [method for method in group.methods if len(method.ranks) > 1]
    level = group.method("convolution")
    baselines = {"convolution": _point(level, None)[1]} if level else {}
    lines, title = plots().lines_with_errors, group.title
    if ranked:
        curves = {method.name: _against_rank(group, method) for method in ranked}
        options = {"title": title, "levels": baselines}
        rank = "rank K (number of banks)"
        written.append(drawing.draw(lines, curves, f"rank_{name}", rank, ACCURACY, **options))
    if len(group.methods) > 1:
        curves = {
            method.name: [
                (method.parameters(rank), *_point(method, rank)[1:]) for rank in method.ranks
            ]
            for method in group.methods
        }
        axes = ("number of trainable parameters", ACCURACY)
        written.append(drawing.draw(lines, curves, f"parameters_{name}", *axes, title=title))
    trained = {method.name: method.chosen() for method in group.methods}
    return written + drawing.curves(trained, name, title)


def _against_rank(group: Group, method: Method) -> list[tuple[float, float, float]]:
    """Returns a method's points, with rank 1, a convolution with a spatial bias, if it was run."""
    points = [_point(method, rank) for rank in method.ranks]
    first = group.method(method.name.replace("LRLC", "convolution + spatial bias"))
    if first is None or first is method or 1 in method.ranks:
        return points
    return [_point(first, 1), *points]


def _point(method: Method, rank: int | None) -> tuple[float, float, float]:
    mean, error = method.accuracy("test", rank)
    return float(rank or 0), 100 * mean, 100 * error


def write(
    records: Sequence[Record], folder: Path, formats: Sequence[str] = PICTURE_FORMATS
) -> Path:
    """Writes `report.md` and its pictures, and `report.csv`.

    Args:
        records: What `read` returned.
        folder: Folder for the files, created if necessary.
        formats: Endings of the files of pictures; the report shows the first.

    Returns:
        Path of the report.

    Raises:
        ValueError: If there are no records.
        OSError: If the folder cannot be written.
    """
    if not records:
        raise ValueError("A report needs at least one record. Received: none.")
    folder.mkdir(parents=True, exist_ok=True)
    drawing = Drawing(folder, formats)
    groups = group(records)
    parts = []
    for number, one in enumerate(groups):
        # A dataset's second budget gets a number.
        again = sum(other.title == one.title for other in groups[:number])
        parts += _section(one, groups, drawing, f"_{again + 1}" if again else "")
    fixed = _draw_fixed_against_input_dependent(groups, drawing)
    if fixed:
        parts += ["## Fixed and input-dependent weights\n", _picture(fixed)]
    for name, text in (("report.csv", in_csv(groups)), ("report.md", "\n".join(parts))):
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder / "report.md"


def _section(one: Group, groups: Sequence[Group], drawing: Drawing, number: str) -> list[str]:
    """Returns a group's part of a report, whose pictures it draws.

    Args:
        one: The group.
        groups: All groups.
        drawing: Where to draw.
        number: What distinguishes its files from those of the dataset's other budgets.
    """
    parts = [f"## {one.title}\n", f"`{budget_in_words(one.budget)}`\n", table(one) + "\n"]
    further = (ranks_table(one), comparisons(one))
    parts += [table_of + "\n" for table_of in further if table_of.count("\n") > 1]
    parts += [_picture(file) for file in draw(one, drawing, one.title.replace(", ", "_") + number)]
    for plain in groups:
        if one.budget.get("translate") and _same_but_translation(plain, one):
            parts.append(drops(plain, one) + "\n")
            parts.append(_picture(_draw_drops(plain, one, drawing, number)))
    return parts


def ranks_table(group: Group) -> str:
    """Returns a Markdown table of every rank of the methods with several, in percent."""
    lines = ["| method | rank | seeds | parameters | train | valid | test |"]
    lines.append("|---|---|---|---|---|---|---|")
    for method in group.methods:
        for rank in method.ranks if len(method.ranks) > 1 else ():
            cells = [
                method.name,
                f"{rank}, chosen" if rank == method.rank else str(rank),
                str(len(method.results(rank))),
                f"{method.parameters(rank):,}",
                *(percent(*method.accuracy(split, rank)) for split in SPLITS_SHOWN),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def in_csv(groups: Sequence[Group]) -> str:
    """Returns a line of CSV for every method and rank, with accuracies from 0 to 1."""
    text = io.StringIO(newline="")
    measured = [f"{split}_{what}" for split in SPLITS_SHOWN for what in ("accuracy", "error")]
    writer = csv.writer(text, lineterminator="\n")
    names = ("dataset", "budget", "method", "rank", "chosen", "seeds", "parameters")
    writer.writerow([*names, *measured])
    for one in groups:
        for method in one.methods:
            for rank in method.ranks:
                numbers = [x for split in SPLITS_SHOWN for x in method.accuracy(split, rank)]
                known = ["" if math.isnan(number) else number for number in numbers]
                counts = [len(method.results(rank)), method.parameters(rank)]
                chosen = int(rank == method.rank)
                words = [one.title, budget_in_words(one.budget), method.name, rank, chosen]
                writer.writerow([*words, *counts, *known])
    return text.getvalue()


def _picture(file: str) -> str:
    return f"![{file}]({file})\n"


def _draw_drops(plain: Group, translated: Group, drawing: Drawing, number: str) -> str:
    """Draws each method's accuracy in place and translated; returns the file's name."""
    pairs = [
        (there, method)
        for method in translated.methods
        if (there := plain.method(method.name)) is not None
    ]
    bars = {
        "in place": {m.name: _point(m, _common_rank(m, after))[1:] for m, after in pairs},
        "translated": {method.name: _bar(method) for _, method in pairs},
    }
    name = f"translated_{plain.dataset}{number}"
    return drawing.draw(plots().bars_with_errors, bars, name, ACCURACY, title=plain.dataset)


def _draw_fixed_against_input_dependent(groups: Sequence[Group], drawing: Drawing) -> str | None:
    """Draws both kinds of weights for every group that has both; returns the file's name."""
    names = ("convolution", "LRLC, layer 3", "input-dependent LRLC, layer 3")
    bars = {
        group.title: {name: _bar(group.method(name)) for name in names}
        for group in groups
        if all(group.method(name) for name in names)
    }
    if not bars:
        return None
    return drawing.draw(plots().bars_with_errors, bars, "fixed_and_input_dependent", ACCURACY)


def _bar(method: Method | None) -> tuple[float, float]:
    return (math.nan, math.nan) if method is None else _point(method, None)[1:]


def _same_but_translation(plain: Group, translated: Group) -> bool:
    """Whether two groups have methods in common and differ only in the translation."""
    left, right = (
        {k: v for k, v in one.budget.items() if k not in ("translate", "canvas_size")}
        for one in (plain, translated)
    )
    alike = plain.dataset == translated.dataset and left == right
    common = any(plain.method(method.name) for method in translated.methods)
    return alike and common and not plain.budget.get("translate")


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the report that the command line describes.

    Args:
        arguments: The command line; that of the process if None.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "records",
        type=given_path,
        nargs="+",
        help="records.jsonl of sweeps; folders of runs, of sweeps, or of several of them",
    )
    parser.add_argument(
        "--out", type=given_path, default=Path("report"), help="folder of the report"
    )
    parser.add_argument(
        "--pictures",
        type=_endings,
        default=PICTURE_FORMATS,
        help="formats of the pictures, the report's own first: png, pdf, svg [png,pdf]",
    )
    keep_streams_open()
    given = parser.parse_args(arguments)
    try:
        records, remarks = read(given.records)
        for remark in remarks:
            print(remark, file=sys.stderr)
        print(write(records, given.out, given.pictures))
    except OSError as error:
        _refuse(_told_of(error, given.out))
    except (ValueError, ImportError) as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        print("report: stopped by SIGINT.", file=sys.stderr)
        sys.exit(130)
    if lost := lost_output():
        _refuse(lost)


def _told_of(error: OSError, out: Path) -> str:
    """Returns a sentence on a file that the system refused: to be written, or to be read."""
    file = out if error.filename is None else Path(error.filename)
    if not file.is_relative_to(out) and not out.is_relative_to(file):
        return told_of(error)
    return (
        "--out must be a folder that can be written. Received: "
        f"--out={out} ({error.strerror or error}). Choose another."
    )


def _endings(text: str) -> tuple[str, ...]:
    endings = tuple(text.split(","))
    if not set(endings) <= KNOWN_FORMATS:
        raise argparse.ArgumentTypeError(f"takes png, pdf and svg, not {text!r}")
    return endings


def _refuse(sentence: str) -> NoReturn:
    print(f"report: {sentence}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
