"""Seconds of layers in groups, and of depthwise ones, against Keras's convolutions of that kind.

    KERAS_BACKEND=tensorflow python -m benchmarks.depthwise --workloads=D1,D2
    KERAS_BACKEND=tensorflow python -m benchmarks.depthwise fit

The first prints one row per workload and kind of step: milliseconds of Keras's convolution, and how
many of it a low-rank layer takes by each plan, and a locally connected one. `fit` prints a record
for `low_rank_local_connectivity/plans/coefficients.json`, from least squares on relative errors.
The layers of a row run in turn in one process; on a shared machine only the ratios mean anything.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import keras

from benchmarks.coefficients import fitted, print_record
from benchmarks.steps import alternate, inference_step, training_step
from low_rank_local_connectivity import layers
from low_rank_local_connectivity.plans import DEPTHWISE_LOW_RANK, names_of

CONVOLUTION, LOCAL = "convolution", "locally connected"
STEPS: dict[str, Callable[..., Any]] = {"inference": inference_step, "training": training_step}
PLANS = names_of(DEPTHWISE_LOW_RANK)


@dataclasses.dataclass(frozen=True)
class Workload:
    """One layer's shapes.

    Args:
        batch: Examples.
        size: Rows of an image, as many as columns.
        channels: Input channels, as many as filters.
        groups: Groups of channels; as many as these for depthwise layers.
        kernel_size: Taps per axis.
        strides: Step between windows along both axes.
    """

    batch: int
    size: int
    channels: int
    groups: int
    kernel_size: int = 3
    strides: int = 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the inputs."""
        return (self.batch, self.size, self.size, self.channels)

    def layer(self, name: str, rank: int) -> keras.Layer:
        """Makes a layer."""
        given = {"strides": self.strides, "padding": "same"}
        depthwise = self.groups == self.channels
        sizes = [self.kernel_size] if depthwise else [self.channels, self.kernel_size]
        if not depthwise:
            given["groups"] = self.groups
        if name == CONVOLUTION:
            kind = keras.layers.DepthwiseConv2D if depthwise else keras.layers.Conv2D
            return kind(*sizes, **given)
        prefix = "Depthwise" if depthwise else ""
        if name == LOCAL:
            return getattr(layers, f"{prefix}LocallyConnected2D")(*sizes, **given)
        make = getattr(layers, f"{prefix}LowRankLocallyConnected2D")
        return make(*sizes, spatial_rank=rank, implementation=name, **given)

    def __str__(self) -> str:
        image = f"{self.batch} of {self.size} x {self.size} x {self.channels}"
        taps = f"{self.kernel_size} x {self.kernel_size}"
        return f"{taps} in {self.groups} groups, stride {self.strides}; {image}"


WORKLOADS = {
    "D1": Workload(32, 28, 96, 96),
    "D2": Workload(32, 14, 384, 384),
    "D3": Workload(1, 28, 96, 96),
    "D4": Workload(32, 28, 96, 96, strides=2),
    "D5": Workload(16, 14, 192, 192, kernel_size=7),
    "G1": Workload(32, 14, 128, 4),
    "G2": Workload(32, 14, 128, 32),
}
# Of other sizes than those.
FITTED = [
    Workload(batch, size, channels, channels, kernel_size)
    for batch in (1, 24)
    for size, channels, kernel_size in ((10, 256, 3), (24, 64, 3), (40, 32, 3), (16, 96, 5))
] + [Workload(batch, 40, 48, 48, 3, 2) for batch in (1, 24)]


def seconds(workload: Workload, names: list[str], rank: int, step: str, rounds: int) -> dict:
    """Returns each layer's median seconds."""
    steps = {}
    for name in names:
        layer = workload.layer(name, rank)
        layer.build(workload.shape)
        steps[name] = STEPS[step](layer, workload.shape)
    return alternate(steps, rounds)


def compare(keys: list[str], rank: int, rounds: int) -> None:
    """Prints a table of ratios."""
    names = [CONVOLUTION, *PLANS, "auto", LOCAL]
    print(f"Keras {keras.__version__} on {keras.backend.backend()}, K={rank}\n")
    header = [f"{CONVOLUTION}, ms", *(f"x {name}" for name in names[1:])]
    print(f"| layer and images | step | {' | '.join(header)} |")
    print("|---" * (2 + len(header)) + "|", flush=True)
    for key, step in itertools.product(keys, STEPS):
        found = seconds(WORKLOADS[key], names, rank, step, rounds)
        base = found[CONVOLUTION]
        cells = [f"{1000 * base:.1f}", *(f"{found[name] / base:.2f}" for name in names[1:])]
        print(f"| {key}: {WORKLOADS[key]} | {step} | {' | '.join(cells)} |", flush=True)


def fit(rounds: int) -> None:
    """Prints a record of coefficients in nanoseconds."""
    costs: dict[str, dict[str, dict[str, float]]] = {
        plan.measured_as: {} for plan in DEPTHWISE_LOW_RANK
    }
    for step in STEPS:
        requests, measured = [], []
        for workload, rank in itertools.product(FITTED, (2, 4, 12)):
            measured.append(seconds(workload, list(PLANS), rank, step, rounds))
            layer: Any = workload.layer("auto", rank)
            layer.build(workload.shape)
            requests.append(layer.asked(workload.shape, step == "training"))
        for plan in DEPTHWISE_LOW_RANK:
            taken = [found[plan.name] for found in measured]
            costs[plan.measured_as][step] = fitted(plan, requests, taken)
    print_record("python -m benchmarks.depthwise fit", costs)


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("action", nargs="?", choices=("compare", "fit"), default="compare")
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.action == "fit":
        fit(arguments.rounds)
    else:
        compare(arguments.workloads.split(","), arguments.rank, arguments.rounds)


if __name__ == "__main__":
    main()
