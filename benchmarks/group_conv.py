"""Seconds and memory of a convolution with turned filters against ordinary convolutions.

    KERAS_BACKEND=tensorflow python -m benchmarks.group_conv --workloads=G1,G3

Prints one row per workload and kind of step: milliseconds of an ordinary convolution with as many
parameters, which reads and makes `sqrt(order)` times fewer maps, and of one with as many maps,
which has `order` times the parameters; how many of either `GroupConv2D` takes; and, each in a
process of its own, the megabytes that three steps add to the built layer. The layers of a row run
in turn in one process; on a shared machine only the ratios mean anything.
"""

import argparse
import dataclasses
import json
import math

import keras

from benchmarks.memory import alone, status_megabytes
from benchmarks.steps import alternate, inference_step, training_step
from low_rank_local_connectivity.layers import GroupConv2D

TURNED, PARAMETERS, MAPS = "turned filters", "same parameters", "same maps"
STEPS = {"inference": inference_step, "training": training_step}
RUNS = 3


@dataclasses.dataclass(frozen=True)
class Workload:
    """One layer's shapes.

    Args:
        batch: Examples.
        size: Rows of an image, as many as columns.
        channels: Input channels in each orientation, as many as filters.
        order: Orientations.
        kernel_size: Taps per axis.
    """

    batch: int
    size: int
    channels: int
    order: int = 4
    kernel_size: int = 3

    def contestant(self, name: str) -> tuple[keras.Layer, tuple[int, ...]]:
        """Makes a layer, and the shape of its inputs."""
        arguments = {"kernel_size": self.kernel_size, "padding": "same"}
        images = (self.batch, self.size, self.size)
        if name == TURNED:
            layer = GroupConv2D(self.channels, order=self.order, **arguments)
            return layer, (*images, self.order, self.channels)
        wider = self.order if name == MAPS else math.sqrt(self.order)
        width = round(wider * self.channels)
        return keras.layers.Conv2D(width, **arguments), (*images, width)

    def __str__(self) -> str:
        maps = f"{self.order} x {self.channels}"
        image = f"{self.batch} of {self.size} x {self.size}"
        return f"{self.kernel_size} x {self.kernel_size}, {maps} to {maps}; {image}"


WORKLOADS = {
    "G1": Workload(32, 28, 16),
    "G2": Workload(32, 14, 64),
    "G3": Workload(8, 56, 32),
    "G4": Workload(32, 7, 128),
    "G5": Workload(32, 28, 8, order=8, kernel_size=5),
    "G6": Workload(1, 28, 32),
}


def added_megabytes(workload: Workload, name: str, step: str) -> int:
    """Measures in a new process what three steps add."""
    return alone("benchmarks.group_conv", [dataclasses.asdict(workload), name, step])


def _measure_here(what: str) -> None:
    fields, name, step = json.loads(what)
    layer, shape = Workload(**fields).contestant(name)
    run = STEPS[step](layer, shape)
    before = status_megabytes("VmRSS")
    for _ in range(RUNS):
        run()
    print(json.dumps(status_megabytes("VmHWM") - before))


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        _measure_here(arguments.one)
        return
    names = (PARAMETERS, MAPS, TURNED)
    print(f"Keras {keras.__version__} on {keras.backend.backend()}\n")
    header = [f"{PARAMETERS}, ms", f"{MAPS}, ms", f"x {PARAMETERS}", f"x {MAPS}"]
    header += [f"{name}, MB" for name in names]
    print(f"| layer and images | step | {' | '.join(header)} |")
    print("|---" * 9 + "|", flush=True)
    for key in arguments.workloads.split(","):
        workload = WORKLOADS[key]
        for step, make_step in STEPS.items():
            steps = {name: make_step(*workload.contestant(name)) for name in names}
            seconds = alternate(steps, arguments.rounds)
            cells = [f"{1000 * seconds[name]:.1f}" for name in names[:2]]
            cells += [f"{seconds[TURNED] / seconds[name]:.2f}" for name in names[:2]]
            cells += [str(added_megabytes(workload, name, step)) for name in names]
            print(f"| {key}: {workload} | {step} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
