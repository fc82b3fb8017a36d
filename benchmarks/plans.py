"""Seconds of both plans of the low-rank layer, and how well the cost model chooses between them.

    KERAS_BACKEND=tensorflow python -m benchmarks.plans measure --sizes=fit --out=fit.csv
    KERAS_BACKEND=tensorflow python -m benchmarks.plans fit --measured=fit.csv
    KERAS_BACKEND=tensorflow python -m benchmarks.plans measure --sizes=check --out=check.csv
    KERAS_BACKEND=tensorflow python -m benchmarks.plans check --measured=check.csv

`measure` times both plans in turn; `fit` prints the rows of
`low_rank_local_connectivity.ops.plan_costs.COSTS` by non-negative least squares on relative
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
import numpy as np

from benchmarks.steps import inference_step, training_step
from benchmarks.workloads import WORKLOADS, Workload
from low_rank_local_connectivity.ops import plan_costs

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
PLANS = plan_costs.PLANS
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


def read(path: Path, sizes: str) -> list[tuple[plan_costs.Request, str, list[float]]]:
    """Returns for each measured cell its shapes, its name and both plans' seconds."""
    workloads, _, _ = SIZES[sizes]
    cells = []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            rank, batch, training = int(row["rank"]), int(row["batch"]), row["training"] == "1"
            layer = workloads[row["size"]].low_rank(rank)
            workload = workloads[row["size"]]
            layer.build(workload.input_shape)
            request = plan_costs.Request.of(
                layer.windows, workload.spatial, workload.channels, workload.filters, rank, batch
            )
            request = dataclasses.replace(request, training=training)
            mode = "training" if training else "inference"
            name = f"{row['size']}, K={rank}, batch {batch}, {mode}"
            cells.append((request, name, [float(row[plan]) for plan in PLANS]))
    return cells


def fit(path: Path) -> None:
    """Prints coefficients in nanoseconds."""
    from scipy.optimize import nnls

    cells = read(path, "fit")
    for index, plan in enumerate(PLANS):
        for training in (False, True):
            chosen = [cell for cell in cells if cell[0].training == training]
            terms = np.array([list(plan_costs.terms(plan, cell[0]).values()) for cell in chosen])
            seconds = np.array([cell[2][index] for cell in chosen])
            solution, _ = nnls(terms / seconds[:, None], np.ones(len(seconds)))
            error = np.abs(terms @ solution / seconds - 1)
            names = plan_costs.terms(plan, chosen[0][0])
            row = {name: float(f"{1e9 * x:.3g}") for name, x in zip(names, solution, strict=True)}
            print(f"{(plan, training)}: {row},  # median error {np.median(error):.0%}")


def check(path: Path) -> None:
    """Prints the cells where the choice is not within the tolerance, and the share where it is."""
    cells = read(path, "check")
    good = 0
    for request, name, seconds in cells:
        # With one bank under softmax there is nothing to mix, and the layer takes the first.
        plan = PLANS[0] if request.rank == 1 else plan_costs.choose_plan(request)
        taken = seconds[PLANS.index(plan)]
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
