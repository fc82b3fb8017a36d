"""Seconds of both plans of the low-rank layer, and how well the cost model chooses between them.

    KERAS_BACKEND=tensorflow python -m benchmarks.plans measure --sizes=fit --out=fit.csv
    KERAS_BACKEND=tensorflow python -m benchmarks.plans fit --measured=fit.csv
    KERAS_BACKEND=tensorflow python -m benchmarks.plans measure --sizes=check --out=check.csv
    KERAS_BACKEND=tensorflow python -m benchmarks.plans check --measured=check.csv

`measure` times both plans in turn; `fit` prints a record for
`low_rank_local_connectivity/plans/coefficients.json` by non-negative least squares on relative
errors; `check` prints in how many cells the choice is within 15 % of the better plan. The sizes
that are checked (those of `benchmarks.workloads`) are none of those that are fitted.
"""

import argparse
import csv
import dataclasses
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import keras

from benchmarks.coefficients import fitted, print_record
from benchmarks.steps import inference_step, training_step
from benchmarks.workloads import WORKLOADS, Workload
from low_rank_local_connectivity.plans import (
    LOW_RANK,
    LowRankRequest,
    choose,
    names_of,
)

FITTED = {
    "2D, 8x8x32, 3": Workload(0, (8, 8), 32, 32, 3, "same"),
    "2D, 14x14x128, 3": Workload(0, (14, 14), 128, 128, 3, "same"),
    "2D, 32x32x3, 3": Workload(0, (32, 32), 3, 48, 3, "valid"),
    "2D, 20x20x24, 5": Workload(0, (20, 20), 24, 32, 5, "valid"),
    "2D, 40x40x32, 3": Workload(0, (40, 40), 32, 32, 3, "valid"),
    "2D, 6x6x256, 3": Workload(0, (6, 6), 256, 256, 3, "same"),
    "1D, 64x48, 5": Workload(0, (64,), 48, 48, 5, "valid"),
    "1D, 400x16, 7": Workload(0, (400,), 16, 24, 7, "valid"),
}
CHECKED = {name: WORKLOADS[name] for name in ("W1", "W2", "W3", "W4")}
SIZES: dict[str, tuple[dict[str, Workload], tuple[int, ...], tuple[int, ...]]] = {
    "fit": (FITTED, (2, 3, 6, 14, 24), (1, 6, 32, 96)),
    "check": (CHECKED, (1, 2, 4, 10, 30), (1, 16, 128)),
}
# The fused plan has no costs on a CPU, where it is interpreted.
MEASURED = tuple(plan for plan in LOW_RANK if plan.name != "fused")
PLANS = names_of(MEASURED)
COLUMNS = ("size", "rank", "batch", "training", *PLANS)
TOLERANCE = 1.15


def measure(
    sizes: str, path: Path, seconds: float, ranks: Sequence[int], batches: Sequence[int]
) -> None:
    """Writes a row of seconds for each cell."""
    workloads, all_ranks, all_batches = SIZES[sizes]
    ranks, batches = ranks or all_ranks, batches or all_batches
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for (name, workload), batch in itertools.product(workloads.items(), batches):
            sized = dataclasses.replace(workload, batch=batch)
            for rank, training in itertools.product(ranks, (False, True)):
                best = _measure_cell(sized, rank, training, seconds)
                writer.writerow([name, rank, batch, int(training), *best])
                file.flush()
            keras.backend.clear_session()
            print(f"{name}, batch {batch}", flush=True)


def _measure_cell(workload: Workload, rank: int, training: bool, seconds: float) -> list[float]:
    """Returns each plan's least seconds over several alternating runs."""
    make_step = training_step if training else inference_step
    layers = [workload.low_rank(rank, implementation=plan) for plan in PLANS]
    steps = [make_step(layer, workload.input_shape) for layer in layers]
    for step in steps:
        step()
    taken: list[list[float]] = [[] for _ in steps]
    while len(taken[0]) < 30:
        for times, step in zip(taken, steps, strict=True):
            started = time.perf_counter()
            step()
            times.append(time.perf_counter() - started)
        total = sum(map(sum, taken))
        if total > 10 * seconds or (len(taken[0]) >= 3 and total > seconds):
            break
    return [min(times) for times in taken]


def read(path: Path, sizes: str) -> list[tuple[LowRankRequest, str, list[float]]]:
    """Returns for each measured cell its request, its name and the plans' seconds."""
    workloads, _, _ = SIZES[sizes]
    cells = []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            rank, batch, training = int(row["rank"]), int(row["batch"]), row["training"] == "1"
            workload = dataclasses.replace(workloads[row["size"]], batch=batch)
            layer = workload.low_rank(rank)
            layer.build(workload.input_shape)
            mode = "training" if training else "inference"
            name = f"{row['size']}, K={rank}, batch {batch}, {mode}"
            request = layer.asked(workload.input_shape, training)
            cells.append((request, name, [float(row[plan]) for plan in PLANS]))
    return cells


def fit(path: Path) -> None:
    """Prints a record of coefficients in nanoseconds."""
    cells = read(path, "fit")
    costs = {name: _fitted_modes(index, cells) for index, name in enumerate(PLANS)}
    print_record("python -m benchmarks.plans", costs)


def _fitted_modes(index: int, cells: list) -> dict[str, dict[str, float]]:
    """Returns a plan's coefficients in inference and in a training step."""
    modes = ("inference", "training")
    return {
        mode: _fitted(index, [cell for cell in cells if cell[0].training == (mode == "training")])
        for mode in modes
    }


def _fitted(index: int, cells: list) -> dict[str, float]:
    """Returns a plan's coefficients; prints how far from them the seconds are."""
    requests, _, measured = zip(*cells, strict=True)
    return fitted(MEASURED[index], requests, [seconds[index] for seconds in measured])


def check(path: Path) -> None:
    """Prints the cells where the choice is not within the tolerance, and the share where it is."""
    cells = read(path, "check")
    good = 0
    for request, name, seconds in cells:
        taken = seconds[PLANS.index(choose(LOW_RANK, request).name)]
        if taken <= TOLERANCE * min(seconds):
            good += 1
        else:
            print(f"{name}: {1000 * taken:.2f} ms, the other {1000 * min(seconds):.2f} ms")
    print(f"within {TOLERANCE - 1:.0%} of the better plan: {good} of {len(cells)} cells")


def _integers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def main() -> None:
    """Does what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("action", choices=("measure", "fit", "check"))
    parser.add_argument("--sizes", choices=tuple(SIZES), default="check")
    parser.add_argument("--out", type=Path, default=Path("plans.csv"))
    parser.add_argument("--measured", type=Path, default=Path("plans.csv"))
    parser.add_argument("--seconds", type=float, default=0.3, help="at least, for each cell")
    for name in ("ranks", "batches"):
        parser.add_argument(f"--{name}", type=_integers, default=(), help="instead of all")
    arguments = parser.parse_args()
    if arguments.action == "measure":
        measure(
            arguments.sizes, arguments.out, arguments.seconds, arguments.ranks, arguments.batches
        )
    elif arguments.action == "fit":
        fit(arguments.measured)
    else:
        check(arguments.measured)


if __name__ == "__main__":
    main()
