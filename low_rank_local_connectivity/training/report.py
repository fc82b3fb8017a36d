"""Tables and pictures from the records of finished runs.

    python -m low_rank_local_connectivity.training.report runs/cpu/records.jsonl --out=report

Runs are grouped by dataset and budget, and within a group by method; a method's rank is the one
with the highest mean validation accuracy. Means are over seeds, with standard errors; methods are
compared by a paired t-test over the seeds that both have. Published numbers stand beside ours.
"""

import argparse
import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from low_rank_local_connectivity.plots import bars_with_errors, lines_with_errors
from low_rank_local_connectivity.training.published import PUBLISHED
from low_rank_local_connectivity.training.records import given_path, read_records, replacing
from low_rank_local_connectivity.training.sweep import choose_rank, mean_and_error, percent

Record = dict[str, Any]

# Fields that make a method, beside the rank; all others make the budget.
METHOD = (
    "layer_types",
    "insert_layer",
    "replace",
    "replace_with",
    "normalize_weights",
    "combining_weights_initializer",
    "share_row_combining_weights",
    "share_col_combining_weights",
    "input_dependent",
    "use_spatial_bias",
    "locally_connected_fan",
    "coord_conv",
)
NEITHER = ("spatial_rank", "seed", "strategy", "export_formats", "serving_batch_size")
NAMES = {
    "conv2d": "convolution",
    "wide_conv2d": "wide convolution",
    "coord_conv2d": "CoordConv",
    "locally_connected2d": "locally connected",
    "low_rank_locally_connected2d": "LRLC",
}
RELEASED = ", the release's initial values"
# Methods to compare: as a rule the paper has the first above the second.
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
        """The ranks there are, ascending."""
        return sorted({record["config"]["spatial_rank"] for record in self.records})

    @property
    def rank(self) -> int:
        """The rank chosen on the validation split."""
        return choose_rank(self.records)

    def results(self, rank: int | None = None) -> dict[int, dict[str, Any]]:
        """Returns the results at a rank, by default the chosen one, by seed."""
        rank = self.rank if rank is None else rank
        return {
            record["config"]["seed"]: record["result"]
            for record in self.records
            if record["config"]["spatial_rank"] == rank
        }

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
        """Returns the method of a name, if it was run."""
        return next((method for method in self.methods if method.name == name), None)


def method_name(config: dict[str, Any]) -> str:
    """Returns a run's method in the words of the tables.

    The rank has no part in it, but that rank 1 under softmax is a convolution with a spatial bias.

    Args:
        config: A run's flags' values.

    Example:
        >>> config = {"network": "simple_network", "coord_conv": False}
        >>> method_name({**config, "layer_types": ["conv2d", "wide_conv2d"]})
        'wide convolution, layer 2'
    """
    kind, where = _kind_and_place(config)
    name = NAMES[kind]
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
        budget = _budget(config)
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


def _budget(config: dict[str, Any]) -> dict[str, Any]:
    """Returns what is set of the flags that are no part of a method.

    Flags that are off or left out are too: so a record from before a flag existed is of the same
    budget as one from after.
    """
    return {
        name: value
        for name, value in config.items()
        if name not in (*METHOD, *NEITHER, "dataset") and value not in (None, False, [])
    }


def _place(name: str, order: list[str]) -> int:
    matching = [place for place, row in enumerate(order) if name.startswith(row)]
    return max(matching, default=len(order))


def table(group: Group) -> str:
    """Returns a group's accuracies in percent as a Markdown table, beside the published ones."""
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
            *(percent(*method.accuracy(split)) for split in ("train", "valid", "test")),
            _published(published, method.name),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _published(published: dict[str, tuple[float, float]], name: str) -> str:
    known = _as_run(published)
    return "{:.2f} ± {:.2f}".format(*known[name]) if name in known else ""


def _as_run(published: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Returns published rows under the names of methods here.

    The paper's locally connected layers started from the release's initial values.
    """
    return {
        row + (RELEASED if row.startswith("locally") else ""): values
        for row, values in published.items()
    }


def comparisons(group: Group) -> str:
    """Returns paired differences in test accuracy, in percent points, as a Markdown table."""
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
        verdict = "same" if mean > 0 else "other"
        verdict += "" if p < 0.05 else ", within noise"
        ours = f"{100 * mean:+.2f}" + ("" if math.isnan(error) else f" ± {100 * error:.2f}")
        lines.append(f"| {upper} | {lower} | {by} | {ours} | {seeds} | {p:.3f} | {verdict} |")
    return "\n".join(lines)


def _as_published(
    published: dict[str, tuple[float, float]], upper: str, lower: str
) -> tuple[str, str]:
    """Returns two methods in the order that the paper has them in on this dataset."""
    return (lower, upper) if _published_difference(published, upper, lower) < 0 else (upper, lower)


def _published_difference(
    published: dict[str, tuple[float, float]], upper: str, lower: str
) -> float:
    """Returns what is between two published rows; not a number if one is not published."""
    known = {name: mean for name, (mean, _) in _as_run(published).items()}
    return known.get(upper, math.nan) - known.get(lower, math.nan)


def paired(first: Method, second: Method) -> tuple[float, float, float, int]:
    """Compares the test accuracies of two methods over the seeds that both have.

    Returns:
        The mean difference, its standard error, the p-value of a two-sided paired t-test (not a
        number for fewer than two seeds) and the number of seeds.
    """
    from scipy import stats

    one, other = first.results(), second.results()
    seeds = sorted(set(one) & set(other))
    pairs = [(one[seed]["test_accuracy"], other[seed]["test_accuracy"]) for seed in seeds]
    differences = [a - b for a, b in pairs]
    if len(seeds) < 2:
        return (*mean_and_error(differences or [math.nan]), math.nan, len(seeds))
    p = float(stats.ttest_rel(*zip(*pairs, strict=True)).pvalue)
    return (*mean_and_error(differences), p, len(seeds))


def drops(plain: Group, translated: Group) -> str:
    """Returns how much of each method's test accuracy translation takes, as a Markdown table.

    Both at the rank chosen for translated images, if the method was run at it in place.
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
        cells = (there.accuracy("test", rank), method.accuracy("test"), mean_and_error(lost))
        lines.append(f"| {method.name} | {' | '.join(percent(*cell) for cell in cells)} |")
    return "\n".join(lines)


def _common_rank(plain: Method, translated: Method) -> int:
    return translated.rank if translated.rank in plain.ranks else plain.rank


def budget_in_words(budget: dict[str, Any]) -> str:
    """Returns a budget as the flags that give it."""
    return " ".join(
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in sorted(budget.items())
    )


def draw(group: Group, folder: Path, name: str) -> list[str]:
    """Draws a group's accuracy against rank and against parameters.

    Args:
        group: The group.
        folder: Folder for the files.
        name: What their names end in.

    Returns:
        Names of the files written.
    """
    written = []
    ranked = [method for method in group.methods if len(method.ranks) > 1]
    level = group.method("convolution")
    baselines = {"convolution": _point(level, None)[1]} if level else {}
    if ranked:
        curves = {method.name: _against_rank(group, method) for method in ranked}
        file = f"rank_{name}.png"
        lines_with_errors(
            curves,
            folder / file,
            "rank K",
            "test accuracy, %",
            title=group.title,
            levels=baselines,
        )
        written.append(file)
    if len(group.methods) > 1:
        curves = {
            method.name: [
                (method.parameters(rank), *_point(method, rank)[1:]) for rank in method.ranks
            ]
            for method in group.methods
        }
        file = f"parameters_{name}.png"
        lines_with_errors(
            curves, folder / file, "trainable parameters", "test accuracy, %", title=group.title
        )
        written.append(file)
    return written


def _against_rank(group: Group, method: Method) -> list[tuple[float, float, float]]:
    """Returns a method's points, from rank 1, a convolution with a spatial bias, if it was run."""
    points = [_point(method, rank) for rank in method.ranks]
    first = group.method(method.name.replace("LRLC", "convolution + spatial bias"))
    if first is None or first is method or 1 in method.ranks:
        return points
    return [_point(first, 1), *points]


def _point(method: Method, rank: int | None) -> tuple[float, float, float]:
    mean, error = method.accuracy("test", rank)
    return float(rank or 0), 100 * mean, 0.0 if math.isnan(error) else 100 * error


def write(records: Sequence[Record], folder: Path) -> Path:
    """Writes `report.md` and its pictures.

    Args:
        records: What `read_records` returned.
        folder: Folder for the files, created if need be.

    Returns:
        Path of the report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups = group(records)
    parts = []
    for number, one in enumerate(groups):
        # A dataset's second budget gets a number.
        again = sum(other.title == one.title for other in groups[:number])
        name = one.title.replace(", ", "_") + (f"_{again + 1}" if again else "")
        parts += [f"## {one.title}\n", f"`{budget_in_words(one.budget)}`\n", table(one) + "\n"]
        compared = comparisons(one)
        if compared.count("\n") > 1:
            parts.append(compared + "\n")
        parts += [_picture(file) for file in draw(one, folder, name)]
        for plain in groups:
            if one.budget.get("translate") and _same_but_translation(plain, one):
                parts.append(drops(plain, one) + "\n")
                parts.append(_picture(_draw_drops(plain, one, folder)))
    fixed = _draw_fixed_against_input_dependent(groups, folder)
    if fixed:
        parts += ["## Fixed and input-dependent weights\n", _picture(fixed)]
    path = folder / "report.md"
    with replacing(path) as temporary:
        temporary.write_text("\n".join(parts))
    return path


def _picture(file: str) -> str:
    return f"![{file}]({file})\n"


def _draw_drops(plain: Group, translated: Group, folder: Path) -> str:
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
    file = f"translated_{plain.dataset}.png"
    bars_with_errors(bars, folder / file, "test accuracy, %", title=plain.dataset)
    return file


def _draw_fixed_against_input_dependent(groups: Sequence[Group], folder: Path) -> str | None:
    """Draws both kinds of weights for every group that has both; returns the file's name."""
    names = ("convolution", "LRLC, layer 3", "input-dependent LRLC, layer 3")
    bars = {
        group.title: {name: _bar(group.method(name)) for name in names}
        for group in groups
        if all(group.method(name) for name in names)
    }
    if not bars:
        return None
    file = "fixed_and_input_dependent.png"
    bars_with_errors(bars, folder / file, "test accuracy, %")
    return file


def _bar(method: Method | None) -> tuple[float, float]:
    return (math.nan, 0.0) if method is None else _point(method, None)[1:]


def _same_but_translation(plain: Group, translated: Group) -> bool:
    left, right = (
        {k: v for k, v in one.budget.items() if k not in ("translate", "canvas_size")}
        for one in (plain, translated)
    )
    return (
        plain.dataset == translated.dataset and left == right and not plain.budget.get("translate")
    )


def main() -> None:
    """Reports what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("records", type=given_path, nargs="+", help="files of records")
    parser.add_argument(
        "--out", type=given_path, default=Path("report"), help="folder of the report"
    )
    arguments = parser.parse_args()
    records = [record for path in arguments.records for record in read_records(path)]
    print(write(records, arguments.out))  # noqa: T201


if __name__ == "__main__":
    main()
