"""The pictures of a report, each in several formats, and its learning curves."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from low_rank_local_connectivity.experiments.backend import without_messages
from low_rank_local_connectivity.experiments.paper.statistics import mean_and_error
from low_rank_local_connectivity.training.records import replacing

# With more points than these, bars of errors would hide each other.
MOST_BARS = 20
# What is drawn of each epoch: the name of its picture, its axis and its factor.
CURVES = {
    "val_accuracy": ("accuracy", "validation accuracy, %", 100.0),
    "loss": ("loss", "training loss", 1.0),
}
BARS = "\n(bars: standard error over several seeds)"
Points = list[tuple[float, float, float]]


@dataclasses.dataclass(frozen=True)
class Drawing:
    """Where the pictures of a report go, and in which formats.

    Args:
        folder: The folder.
        formats: Endings of the files, such as `"png"`; the first is that of the report's own.
    """

    folder: Path
    formats: Sequence[str]

    def draw(self, function: Callable[..., None], values: Any, name: str, *rest, **options) -> str:
        """Draws a picture in every format and returns the first one's file name.

        Args:
            function: What draws values into a file: a function of `plots`.
            values: The values.
            name: The picture's name, without an ending.
            *rest: Further arguments of the function.
            **options: Further options of the function.
        """
        for ending in self.formats:
            with replacing(self.folder / f"{name}.{ending}") as temporary:
                function(values, temporary, *rest, **options)
        return f"{name}.{self.formats[0]}"

    def curves(self, methods: dict[str, list[dict[str, Any]]], name: str, title: str) -> list[str]:
        """Draws the learning curves of methods, each a mean over runs; returns the file names.

        Args:
            methods: The records of each method, of which some may lack metrics.
            name: The end of the files' names.
            title: Title of the pictures.
        """
        written = []
        for metric, (word, label, factor) in CURVES.items():
            lines = {one: curve(records, metric, factor) for one, records in methods.items()}
            lines = {one: points for one, points in lines.items() if points}
            if not lines:
                continue
            few = max(map(len, lines.values())) <= MOST_BARS
            shown = lines if few else {one: without_bars(lines[one]) for one in lines}
            axes = ("epoch", label + BARS if few else label)
            options: dict[str, Any] = {"title": title, "log_x": False}
            file = f"curves_{word}_{name}"
            written.append(self.draw(plots().lines_with_errors, shown, file, *axes, **options))
        return written


def curve(records: Iterable[dict[str, Any]], metric: str, factor: float) -> Points:
    """Returns the mean of a metric over runs after each epoch, and its standard error."""
    values: dict[float, list[float]] = defaultdict(list)
    for record in records:
        for row in record.get("metrics", ()):
            if math.isfinite(row.get(metric, math.nan)) and "epoch" in row:
                values[row["epoch"]].append(factor * row[metric])
    return [(epoch, *mean_and_error(found)) for epoch, found in sorted(values.items())]


def without_bars(points: Points) -> Points:
    """Returns points without their errors."""
    return [(x, y, math.nan) for x, y, _ in points]


def plots() -> ModuleType:
    """Returns what draws; it loads Keras, which the tables do without."""
    with without_messages():
        from low_rank_local_connectivity import plots
    return plots
