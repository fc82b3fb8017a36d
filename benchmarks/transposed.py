"""Seconds of transposed local layers against Keras's `Conv2DTranspose`.

    KERAS_BACKEND=tensorflow python -m benchmarks.transposed --workloads=T1,T2
    KERAS_BACKEND=tensorflow python -m benchmarks.transposed --fit

Prints one row per workload and rank: what `implementation="auto"` takes, and for inference and for
a training step (forward and backward) milliseconds of `Conv2DTranspose` and how many of those a
transposed locally connected layer and either plan of the low-rank one take. All run in turn in one
process; on a shared machine only the ratios mean anything. `--fit` prints the plans' costs for
`low_rank_local_connectivity/plans/coefficients.json` instead, by non-negative least squares on
relative errors over further sizes.
"""

import argparse
import dataclasses
import itertools
from typing import Any

import keras

from benchmarks.coefficients import fitted, print_record
from benchmarks.steps import alternate, inference_step, training_step
from low_rank_local_connectivity import layers
from low_rank_local_connectivity.plans import LOW_RANK_TRANSPOSE, names_of

PLANS = names_of(LOW_RANK_TRANSPOSE)
CONVOLUTION, LOCAL = "Conv2DTranspose", "LocallyConnected2DTranspose"


@dataclasses.dataclass(frozen=True)
class Workload:
    """One layer's shapes, as in the decoder of a U-Net.

    Args:
        batch: Examples.
        size: Rows of an input, as many as columns.
        channels: Input channels.
        filters: Output channels.
        kernel_size: Taps per axis.
        strides: Step between windows.
    """

    batch: int
    size: int
    channels: int
    filters: int
    kernel_size: int = 3
    strides: int = 2

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the inputs, channels last."""
        return (self.batch, self.size, self.size, self.channels)

    @property
    def arguments(self) -> dict:
        """Arguments that all kinds of layer take."""
        return {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": "same",
            "data_format": "channels_last",
        }

    def low_rank(self, rank: int, plan: Any = "auto") -> Any:
        """Makes the low-rank layer of these shapes."""
        return layers.LowRankLocallyConnected2DTranspose(
            **self.arguments, spatial_rank=rank, implementation=plan
        )


WORKLOADS = {
    "T1": Workload(32, 14, 64, 32),
    "T2": Workload(8, 7, 128, 64, 2),
    "T3": Workload(64, 28, 16, 8, 4),
    "T4": Workload(1, 16, 64, 32),
}
FITTED = (
    Workload(4, 8, 48, 24),
    Workload(48, 8, 32, 32, 2),
    Workload(16, 20, 24, 12, 4),
    Workload(1, 12, 96, 48),
    Workload(32, 12, 32, 32, 3, 1),
    Workload(1, 24, 32, 16, 3, 1),
)
FITTED_RANKS = (2, 6, 16)


def steps_of(workload: Workload, rank: int, training: bool, compared: bool) -> dict:
    """Returns the steps to time, by the names of layers and plans."""
    made = {plan: workload.low_rank(rank, plan) for plan in PLANS}
    if compared:
        made[CONVOLUTION] = keras.layers.Conv2DTranspose(**workload.arguments)
        made[LOCAL] = layers.LocallyConnected2DTranspose(**workload.arguments)
    make_step = training_step if training else inference_step
    return {name: make_step(layer, workload.input_shape) for name, layer in made.items()}


def compare(names: list[str], ranks: tuple[int, ...]) -> None:
    """Prints a row for each workload, rank and mode."""
    columns = (LOCAL, *PLANS)
    print("workload rank mode", "auto", f"{CONVOLUTION} [ms]", *(f"{one} [x]" for one in columns))
    for name, rank, training in itertools.product(names, ranks, (False, True)):
        workload = WORKLOADS[name]
        seconds = alternate(steps_of(workload, rank, training, compared=True))
        layer = workload.low_rank(rank)
        layer.build(workload.input_shape)
        taken = layer.chosen_plan(workload.input_shape, training)
        ratios = (f"{seconds[one] / seconds[CONVOLUTION]:.2f}" for one in columns)
        mode = "training" if training else "inference"
        print(name, rank, mode, taken, f"{1000 * seconds[CONVOLUTION]:.2f}", *ratios, flush=True)
        keras.backend.clear_session()


def fit() -> None:
    """Prints a record of coefficients in nanoseconds."""
    costs: dict[str, dict] = {plan: {} for plan in PLANS}
    for mode in ("inference", "training"):
        cells = []
        for workload, rank in itertools.product(FITTED, FITTED_RANKS):
            seconds = alternate(steps_of(workload, rank, mode == "training", compared=False))
            layer = workload.low_rank(rank)
            layer.build(workload.input_shape)
            cells.append((layer.asked(workload.input_shape, mode == "training"), seconds))
            keras.backend.clear_session()
        for plan in LOW_RANK_TRANSPOSE:
            requests, measured = zip(*cells, strict=True)
            seconds = [found[plan.name] for found in measured]
            costs[plan.name][mode] = fitted(plan, requests, seconds)
    print_record("python -m benchmarks.transposed --fit", costs)


def main() -> None:
    """Does what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--ranks", default="2,4,10")
    parser.add_argument("--fit", action="store_true", help="print the plans' costs instead")
    arguments = parser.parse_args()
    if arguments.fit:
        fit()
    else:
        compare(arguments.workloads.split(","), tuple(map(int, arguments.ranks.split(","))))


if __name__ == "__main__":
    main()
