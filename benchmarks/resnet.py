"""ResNet-50 on synthetic images of 224x224: images per second and memory, as ratios.

    KERAS_BACKEND=tensorflow python -m benchmarks.resnet

Training steps of the unchanged network, of one with a layer inserted after the first convolution
and of one with the 3x3 convolutions of conv5 replaced, alternately in one process; the peak of
resident memory in a process of its own for each.
"""

import argparse
import json
import math

import keras

from benchmarks.memory import alone, status_megabytes
from benchmarks.steps import alternate, training_step
from models import MODELS, Settings, convolution

LOW_RANK = "low_rank_locally_connected2d"
KINDS = {
    "convolution": ("conv2d", {}),
    "low rank, K=4": (LOW_RANK, {"spatial_rank": 4}),
    "input-dependent, K=4": (LOW_RANK, {"spatial_rank": 4, "input_dependent": True}),
    "CoordConv": ("coord_conv2d", {}),
    "wide, as K=4": ("wide_conv2d", {"spatial_rank": 4}),
    "locally connected": ("locally_connected2d", {}),
}
PLACES = ("unchanged", "inserted", "replaced in conv5")
CLASSES = 1000


def build(kind: str, place: str, network: str, image_size: int) -> keras.Model:
    """Builds a network with one kind of layer in one place."""
    name, settings = KINDS[kind]
    make = convolution(name, Settings(**settings))
    sites = {"inserted": {"insert": make}, "replaced in conv5": {"replace": {"conv5": make}}}
    shape = (image_size, image_size, 3)
    return MODELS[network].build(shape, CLASSES, **sites.get(place, {}))


def cells(kinds: list[str]) -> list[tuple[str, str]]:
    """Returns what is measured: the unchanged network first, then each kind in each place."""
    changed = [(kind, place) for place in PLACES[1:] for kind in kinds]
    # A convolution in conv5 is the unchanged network.
    return [
        ("convolution", "unchanged"),
        *(cell for cell in changed if cell != ("convolution", PLACES[2])),
    ]


def _measure_here(one: str) -> None:
    *what, batch = json.loads(one)
    model = build(*what)
    step = training_step(model, (batch, *model.input_shape[1:]))
    step()
    step()
    print(status_megabytes("VmHWM"))


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", default="convolution;low rank, K=4;input-dependent, K=4")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        _measure_here(arguments.one)
        return
    chosen = cells(arguments.kinds.split(";"))
    size = (arguments.network, arguments.image_size)
    peaks = {cell: alone("benchmarks.resnet", [*cell, *size, arguments.batch]) for cell in chosen}
    models = {cell: build(*cell, *size) for cell in chosen}
    shape = (arguments.batch, size[1], size[1], 3)
    steps = {str(cell): training_step(model, shape) for cell, model in models.items()}
    seconds = alternate(steps, arguments.rounds, warm_up=1)
    print(f"{size[0]}, {size[1]}x{size[1]}, batch {arguments.batch}, training\n")
    print("| layer | where | parameters | images / s | x unchanged | peak, MB | x unchanged |")
    print("|---|---|---|---|---|---|---|")
    floor, least = seconds[str(chosen[0])], peaks[chosen[0]]
    for cell in chosen:
        taken = seconds[str(cell)]
        parameters = sum(math.prod(w.shape) for w in models[cell].trainable_weights)
        print(
            f"| {cell[0]} | {cell[1]} | {parameters:,} | {arguments.batch / taken:.2f} "
            f"| {floor / taken:.2f} | {peaks[cell]} | {peaks[cell] / least:.2f} |"
        )


if __name__ == "__main__":
    main()
