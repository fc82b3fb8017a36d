"""Time and memory of the layers on scale spaces against ordinary convolutions.

    KERAS_BACKEND=tensorflow python -m benchmarks.scale_space --workloads=S1,L1

A `ScaleConv2D` is compared with a `Conv2D` of the same weights over as many maps as there are
levels, each of them the image's size: the same multiply-adds, without dilation. A pyramid's levels
are smaller, and so is its ratio. A `DeformableScaleConv2D` convolves to find its offsets, too, and
reads between pixels. A `ScaleSpaceLifting2D`, which has no weights, is compared with a 3x3 `Conv2D`
from the image's channels to 16. All run in turn in one process; on a shared machine only the ratios
mean anything. Memory is what a step adds at its peak, in a process of its own.
"""

import argparse
import dataclasses
import json
import math
from collections.abc import Callable

import keras

from benchmarks.memory import alone, status_megabytes
from benchmarks.steps import alternate, inference_step, training_step
from low_rank_local_connectivity.layers import (
    DeformableScaleConv2D,
    ScaleConv2D,
    ScaleSpaceLifting2D,
)

CONVOLUTION = "convolution"
RUNS = 3


@dataclasses.dataclass(frozen=True)
class Workload:
    """One layer's shapes.

    Args:
        batch: Examples.
        size: Rows of an image, as many as columns.
        channels: Channels of the input.
        scales: Number of levels.
        filters: Filters of the convolutions; 0 for a lifting.
        interaction: Levels that the scale convolution reads.
    """

    batch: int
    size: int
    channels: int
    scales: int
    filters: int = 0
    interaction: int = 1

    @property
    def image(self) -> tuple[int, ...]:
        """Shape of the images."""
        return (self.batch, self.size, self.size, self.channels)

    def __str__(self) -> str:
        shape = f"{self.batch} of {self.size} x {self.size} x {self.channels}, {self.scales} scales"
        if not self.filters:
            return shape
        return f"{shape}, {self.filters} filters, {self.interaction} levels read"


WORKLOADS = {
    "S1": Workload(8, 32, 32, 4, filters=32),
    "S2": Workload(8, 32, 32, 4, filters=32, interaction=2),
    "S3": Workload(4, 64, 16, 5, filters=16),
    "L1": Workload(32, 28, 1, 4),
    "L2": Workload(16, 96, 3, 4),
    "L3": Workload(4, 224, 3, 4),
}


class OnPyramid(keras.layers.Layer):
    """A scale convolution of maps that are made small within the step, all levels of one sum."""

    def __init__(self, layer: ScaleConv2D, scales: int) -> None:
        super().__init__()
        self.layer = layer
        self.scales = scales

    def build(self, input_shape) -> None:
        """Builds the layer for the levels' sizes."""
        batch, _, height, width, channels = input_shape
        steps = [2**level for level in range(self.scales)]
        self.layer.build([(batch, -(-height // s), -(-width // s), channels) for s in steps])

    def call(self, inputs):
        """Convolves the levels, and returns all they have in one row."""
        levels = [inputs[:, k, :: 2**k, :: 2**k] for k in range(self.scales)]
        flat = [keras.ops.reshape(level, (level.shape[0], -1)) for level in self.layer(levels)]
        return keras.ops.concatenate(flat, axis=1)


class OnStackedLevels(keras.layers.Layer):
    """An ordinary convolution of every level, those that are read together as channels."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.interaction = workload.interaction
        self.conv = keras.layers.Conv2D(
            workload.filters, 3, padding="same", data_format="channels_last"
        )

    def build(self, input_shape) -> None:
        """Builds the convolution."""
        *_, height, width, channels = input_shape
        self.conv.build((None, height, width, self.interaction * channels))

    def call(self, inputs):
        """Convolves all levels at once."""
        batch, scales, height, width, channels = inputs.shape
        maps = keras.ops.reshape(inputs, (batch * scales, height, width, channels))
        return self.conv(keras.ops.concatenate([maps] * self.interaction, axis=-1))


def between_pixels(layer: keras.Layer, shape: tuple[int, ...]) -> keras.Layer:
    """Gives a deformable layer offsets that lie between pixels, as they do after training."""
    layer.build(shape)
    fan_in = math.prod(layer.offset_kernel.shape[:3])
    draw = keras.initializers.RandomNormal(stddev=fan_in**-0.5 / 2)
    layer.offset_kernel.assign(draw(layer.offset_kernel.shape))
    return layer


def scale_contestants(workload: Workload) -> dict[str, tuple[keras.Layer, tuple[int, ...]]]:
    """Returns layers by name, with the shapes of their inputs, the convolution first."""
    if not workload.filters:
        made = {
            CONVOLUTION: keras.layers.Conv2D(16, 3, padding="same", data_format="channels_last")
        }
        for method in ("gaussian", "bilinear"):
            made[f"lifting, {method}"] = ScaleSpaceLifting2D(
                workload.scales, method=method, data_format="channels_last"
            )
        return {name: (layer, workload.image) for name, layer in made.items()}
    batch, *image = workload.image
    shape = (batch, workload.scales, *image)
    arguments = {"interaction": workload.interaction, "data_format": "channels_last"}
    made = {
        CONVOLUTION: OnStackedLevels(workload),
        "scale convolution": ScaleConv2D(workload.filters, 3, **arguments),
        "deformable": between_pixels(
            DeformableScaleConv2D(workload.filters, 3, **arguments), shape
        ),
    }
    if workload.interaction == 1:
        layer = ScaleConv2D(workload.filters, 3, data_format="channels_last")
        made["scale convolution, pyramid"] = OnPyramid(layer, workload.scales)
    return {name: (layer, shape) for name, layer in made.items()}


def ratios(workload: Workload, make_step: Callable, rounds: int) -> dict[str, float]:
    """Returns milliseconds of the convolution, and how many convolutions the others take."""
    contestants = scale_contestants(workload)
    steps = {name: make_step(layer, shape) for name, (layer, shape) in contestants.items()}
    seconds = alternate(steps, rounds, warm_up=2)
    first = seconds.pop(CONVOLUTION)
    return {CONVOLUTION: 1000 * first, **{name: one / first for name, one in seconds.items()}}


def _measure_memory(what: str) -> None:
    fields, name, training = json.loads(what)
    layer, shape = scale_contestants(Workload(**fields))[name]
    step = (training_step if training else inference_step)(layer, shape)
    before = status_megabytes("VmRSS")
    for _ in range(RUNS):
        step()
    print(json.dumps([before, status_megabytes("VmHWM")]))


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no_memory", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        _measure_memory(arguments.one)
        return
    print(f"Keras {keras.__version__} on {keras.backend.backend()}\n")
    print("| shapes | layer | inference | training | added by a training step, MB |")
    print("|---|---|---|---|---|", flush=True)
    for key in arguments.workloads.split(","):
        workload = WORKLOADS[key]
        found = [
            ratios(workload, make, arguments.rounds) for make in (inference_step, training_step)
        ]
        for name in found[0]:
            unit = " ms" if name == CONVOLUTION else " x"
            cells = [f"{one[name]:.2f}{unit}" for one in found]
            added = ""
            if not arguments.no_memory:
                what = [dataclasses.asdict(workload), name, True]
                before, peak = alone("benchmarks.scale_space", what)
                added = str(peak - before)
            print(f"| {key}: {workload} | {name} | {' | '.join(cells)} | {added} |", flush=True)


if __name__ == "__main__":
    main()
