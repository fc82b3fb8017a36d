"""Seconds and memory of layers with geometry of their own against an ordinary convolution.

    KERAS_BACKEND=tensorflow python -m benchmarks.equivariance --workloads=E1,E3
    KERAS_BACKEND=tensorflow python -m benchmarks.equivariance --workloads=E3 --memory

Prints one row per workload: milliseconds of `keras.layers.Conv2D` with the same filters, kernel and
inputs, and how many convolutions each layer of `LAYERS` is, for inference and for a training step
(forward and backward). All run in turn in one process; on a shared machine only the ratios mean
anything. A spatial transformer has no filters: it is compared where there are as many as channels,
its localization network a global mean. With `--memory`: megabytes that a training step adds, each
layer in a process of its own.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import keras

from benchmarks.memory import RUNS, alone, status_megabytes
from benchmarks.steps import alternate, inference_step, training_step
from low_rank_local_connectivity import layers

CONVOLUTION = "Conv2D"


@dataclasses.dataclass(frozen=True)
class Workload:
    """One layer's shapes; images are square.

    Args:
        batch: Examples.
        size: Rows of an image, as many as columns.
        channels: Input channels.
        filters: Filters.
        taps: Rows of a kernel, as many as columns.
        strides: Step between windows.
    """

    batch: int
    size: int
    channels: int
    filters: int
    taps: int = 3
    strides: int = 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the inputs, channels last."""
        return (self.batch, self.size, self.size, self.channels)

    @property
    def arguments(self) -> dict[str, Any]:
        """What an ordinary convolution of these shapes takes."""
        return {
            "filters": self.filters,
            "kernel_size": self.taps,
            "strides": self.strides,
            "padding": "same",
            "data_format": "channels_last",
        }

    def __str__(self) -> str:
        stride = f", stride {self.strides}" if self.strides > 1 else ""
        image = f"{self.batch} of {self.size} x {self.size} x {self.channels}"
        return f"{self.taps} x {self.taps}, {self.channels} to {self.filters}{stride}; {image}"


WORKLOADS = {
    "E1": Workload(32, 28, 3, 32),
    "E2": Workload(32, 28, 16, 32),
    "E3": Workload(16, 28, 64, 64),
    "E4": Workload(16, 14, 256, 256),
    "E5": Workload(16, 28, 64, 128, strides=2),
    "E6": Workload(16, 28, 32, 32, taps=5),
}


def _transformer(workload: Workload) -> keras.Layer | None:
    """Makes a spatial transformer, if its outputs have the convolution's shape."""
    if workload.filters != workload.channels or workload.strides > 1:
        return None
    found = keras.layers.GlobalAveragePooling2D(data_format="channels_last")
    return layers.SpatialTransformer2D(found, data_format="channels_last")


def _deformable(**changes: Any) -> Callable[[Workload], keras.Layer]:
    return lambda workload: layers.DeformableConv2D(**workload.arguments, **changes)


# Layers that take images of the convolution's shape and have as many outputs; one line each.
LAYERS: dict[str, Callable[[Workload], keras.Layer | None]] = {
    CONVOLUTION: lambda workload: keras.layers.Conv2D(**workload.arguments),
    "deformable, v1": _deformable(modulated=False),
    "deformable, v2": _deformable(),
    "spatial transformer": _transformer,
}


def _made(workload: Workload, name: str) -> keras.Layer | None:
    """Makes a layer; offsets get values that lie between pixels, as they do after training."""
    layer = LAYERS[name](workload)
    if layer is None:
        return None
    layer.build(workload.input_shape)
    for weight in layer.weights:
        if weight.name == "kernel" and name == "spatial transformer":
            weight.assign(keras.initializers.RandomNormal(stddev=0.02)(weight.shape))
        if weight.name == "offset_kernel":
            draw = keras.initializers.RandomNormal(stddev=(workload.channels * workload.taps) ** -1)
            weight.assign(draw(weight.shape))
    return layer


def ratios(workload: Workload, names: list[str], rounds: int) -> list[str]:
    """Returns, for both modes, the convolution's milliseconds and the others' ratios to it."""
    cells = []
    for make_step in (inference_step, training_step):
        made = {name: _made(workload, name) for name in names}
        shape = workload.input_shape
        steps = {name: make_step(layer, shape) for name, layer in made.items() if layer is not None}
        seconds = alternate(steps, rounds, warm_up=2)
        first = seconds.pop(CONVOLUTION)
        cells.append(f"{1000 * first:.1f}")
        cells += [f"{seconds[name] / first:.2f}" if name in seconds else "" for name in names[1:]]
    return cells


def _measure_here(what: str) -> None:
    fields, name = json.loads(what)
    workload = Workload(**fields)
    layer = _made(workload, name)
    if layer is None:
        print(json.dumps(""))
        return
    step = training_step(layer, workload.input_shape)
    before = status_megabytes("VmRSS")
    for _ in range(RUNS):
        step()
    print(json.dumps(status_megabytes("VmHWM") - before))


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--layers", help="names as printed, separated by ';'")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        _measure_here(arguments.one)
        return
    chosen = arguments.layers.split(";") if arguments.layers else list(LAYERS)
    names = [CONVOLUTION, *(name for name in chosen if name != CONVOLUTION)]
    print(f"Keras {keras.__version__} on {keras.backend.backend()}\n")
    if arguments.memory:
        heads = [f"{name}, MB added" for name in names]
    else:
        heads = [head for mode in ("inference", "training") for head in (f"{mode}, ms", *names[1:])]
    print(f"| kernel and images | {' | '.join(heads)} |")
    print("|---" * (len(heads) + 1) + "|", flush=True)
    for key in arguments.workloads.split(","):
        workload = WORKLOADS[key]
        if arguments.memory:
            fields = dataclasses.asdict(workload)
            cells = [str(alone("benchmarks.equivariance", [fields, name])) for name in names]
        else:
            cells = ratios(workload, names, arguments.rounds)
        print(f"| {key}: {workload} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
