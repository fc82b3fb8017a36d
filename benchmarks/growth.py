"""How a training step's time and peak memory grow with rank, positions, batch and channels.

    KERAS_BACKEND=tensorflow python -m benchmarks.growth --out=benchmarks/growth-tensorflow

Writes `<out>.csv` and `<out>.png`. One number changes at a time, the others are those of BASE.
Times are taken in turn in one process; memory is what a step adds to its own process.
"""

import argparse
import csv
import dataclasses
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras

from benchmarks.contestants import (
    CONVOLUTION,
    INPUT_DEPENDENT,
    LOCALLY_CONNECTED,
    LOW_RANK,
    RELEASE,
    contestants,
)
from benchmarks.memory import megabytes
from benchmarks.steps import alternate, training_step
from benchmarks.workloads import Workload

BASE = Workload(32, (28, 28), 32, 32, 3, "valid")
BASE_RANK = 8
KINDS = (CONVOLUTION, LOW_RANK, RELEASE, INPUT_DEPENDENT, LOCALLY_CONNECTED)
AXES = {
    "rank": (1, 8, 32),
    "positions": (144, 676, 1444),
    "batch": (8, 32, 128),
    "channels": (16, 32, 64),
}


def at(axis: str, value: int) -> tuple[Workload, int]:
    """Returns shapes and rank with one number changed."""
    if axis == "rank":
        return BASE, value
    if axis == "positions":
        side = round(value**0.5) + BASE.kernel_size - 1
        return dataclasses.replace(BASE, spatial=(side, side)), BASE_RANK
    if axis == "batch":
        return dataclasses.replace(BASE, batch=value), BASE_RANK
    return dataclasses.replace(BASE, channels=value, filters=value), BASE_RANK


def measure(path: Path) -> None:
    """Writes a row for every axis, value and kind of layer."""
    points = [(axis, value) for axis, values in AXES.items() for value in values]
    seconds = {}
    measured: dict[tuple, dict[str, float]] = {}
    for axis, value in points:
        workload, names = _names(axis, value)
        key = (workload, *names.values())
        if key in measured:
            seconds[axis, value] = measured[key]
            continue
        layers = contestants(workload, list(names.values()))
        steps = {name: training_step(layer, workload.input_shape) for name, layer in layers.items()}
        seconds[axis, value] = measured[key] = alternate(steps, rounds=5)
        keras.backend.clear_session()
        print(f"{axis} = {value}: timed", flush=True)

    cells = [(axis, value, kind) for axis, value in points for kind in KINDS]
    needed = list(dict.fromkeys((_names(a, v)[0], _names(a, v)[1][kind]) for a, v, kind in cells))
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda cell: megabytes(*cell, training=True).added, needed)
        added = dict(zip(needed, found, strict=True))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["axis", "value", "layer", "milliseconds", "megabytes"])
        for axis, value, kind in cells:
            workload, names = _names(axis, value)
            milliseconds = 1000 * seconds[axis, value][names[kind]]
            label = kind.removesuffix(", K=")
            row = [axis, value, label, f"{milliseconds:.2f}", added[workload, names[kind]]]
            writer.writerow(row)


def _names(axis: str, value: int) -> tuple[Workload, dict[str, str]]:
    workload, rank = at(axis, value)
    return workload, {kind: f"{kind}{rank}" if kind.endswith("=") else kind for kind in KINDS}


def draw(table: Path, picture: Path) -> None:
    """Draws a written table."""
    from matplotlib.figure import Figure

    curves = defaultdict(list)
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            point = float(row["value"]), float(row["milliseconds"]), float(row["megabytes"])
            curves[row["axis"], row["layer"]].append(point)
    figure = Figure(figsize=(14, 6.5), layout="constrained")
    grid = figure.subplots(2, len(AXES))
    for column, axis in enumerate(AXES):
        for row, quantity in enumerate(("training step, ms", "added by a step, MB")):
            plot = grid[row][column]
            for (its_axis, layer), points in curves.items():
                if its_axis == axis:
                    values, *measured = zip(*points, strict=True)
                    plot.plot(values, measured[row], marker="o", markersize=4, label=layer)
            plot.set_xscale("log", base=2)
            plot.set_yscale("log")
            plot.set_xticks(AXES[axis], labels=[str(value) for value in AXES[axis]])
            plot.minorticks_off()
            plot.grid(alpha=0.3)
            plot.set_xlabel(axis if row else "")
            plot.set_ylabel("" if column else quantity)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(KINDS))
    figure.savefig(picture, dpi=110)


def main() -> None:
    """Measures and draws."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("growth"))
    parser.add_argument("--only_draw", action="store_true", help="from a table that is there")
    arguments = parser.parse_args()
    table = arguments.out.with_suffix(".csv")
    if not arguments.only_draw:
        measure(table)
    draw(table, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
