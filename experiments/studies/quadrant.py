r"""In which quadrant is the image? How wide a black border hides the answer from a network.

    python -m low_rank_local_connectivity.experiments.studies.quadrant --network=resnet18 \
        --dataset=cifar10 --data_dir=DATA

`--weights=FILE` adds a frozen network with weights of one's own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity import FullConv2D
from low_rank_local_connectivity.experiments.paper.statistics import mean_and_error
from low_rank_local_connectivity.experiments.studies.images import splits
from low_rank_local_connectivity.experiments.studies.study import (
    Examples,
    Options,
    Record,
    Study,
    accuracy,
    curve,
    draw_curves,
    main,
    rows,
    train,
    with_error,
)
from low_rank_local_connectivity.models import MODELS

# Between the two places: a multiple of every network's total stride, so that what a network
# without borders sees is the same in both.
DISTANCE = 64
LAYERS = ((16, 1), (32, 2), (32, 2), (32, 2))
# Of each network, the borders to try and how many images of each split it can be asked in minutes.
BORDERS: dict[str, tuple[int, ...]] = {
    "small": (0, 4, 8, 16, 32),
    "bagnet33": (0, 16, 32),
    "resnet18": (0, 16, 32, 64, 128),
    "densenet121": (0, 32, 128),
}
COUNTS = {
    "small": {"train": 100, "valid": 50, "test": 200},
    "bagnet33": {"train": 20, "valid": 10, "test": 25},
    "resnet18": {"train": 20, "valid": 10, "test": 25},
    "densenet121": {"train": 20, "valid": 10, "test": 25},
}
EPOCHS = {"small": 12, "bagnet33": 6, "resnet18": 6, "densenet121": 6}
PATIENCE, AT_ONCE = 5, 10
PUBLISHED = {
    "small": "",
    "bagnet33": "chance from a border of 32 on for all weights.",
    "resnet18": "from scratch 100 up to 256 pixels, 50 at 512; random and frozen 100, 100, 100, "
    "80, 52, 50 at 0, 16, 32, 64, 128, 256; ImageNet's weights about 99, 97, 96, 97, 94 up to "
    "128, then 50.",
    "densenet121": "from scratch 100 up to 256 pixels; random and frozen 100 up to 64, 96 at 128, "
    "50 at 256; ImageNet's weights 99.5 to 100 up to 128, 88 at 256, 50 at 512.",
}
SOURCE = "\n\nPublished (Kayhan and van Gemert, CVPR 2020; ImageNet, read off a plot): "
HOW = ("from scratch", "random and frozen", "given weights, frozen")
PAIRS = [("small", "same"), ("small", "full"), *((name, "") for name in BORDERS if name != "small")]
CONDITIONS = {
    f"{network}{padding and ' '}{padding}, {how}": (network, padding, how)
    for network, padding in PAIRS
    for how in HOW
}


def chosen(options: Options) -> list[str]:
    """Returns the conditions of the network that the flags name."""
    network, weights = options.flags["network"], options.flags["weights"]
    if weights and not Path(weights).exists() and weights != "imagenet":
        raise ValueError(
            f"--weights must name a file of weights, or imagenet. Received: --weights={weights}, "
            "which does not exist. Name one that does."
        )
    if weights == "imagenet" and network != "densenet121":
        raise ValueError(
            "--weights=imagenet must come with --network=densenet121, of keras.applications. "
            f"Received: --network={network}. Name a file of weights."
        )
    return [
        name
        for name, (one, _, how) in CONDITIONS.items()
        if one == network
        and (how != HOW[0] or not options.flags["frozen_only"])
        and (how != HOW[2] or weights)
    ]


def examples(images: np.ndarray) -> Examples:
    """Returns every image twice: in the upper left corner of a canvas, and in the lower right."""
    count, height, width, channels = images.shape
    canvas = np.zeros((2 * count, DISTANCE + height, DISTANCE + width, channels), "float32")
    canvas[:count, :height, :width] = images
    canvas[count:, DISTANCE:, DISTANCE:] = images
    return canvas, np.repeat([0, 1], count)


def small(padding: str, channels: int) -> Any:
    """Returns four layers that see 31 pixels."""
    body: list[Any] = [keras.Input((None, None, channels))]
    for filters, strides in LAYERS:
        arguments: dict[str, Any] = {"strides": strides, "kernel_initializer": "he_normal"}
        if padding == "full":
            body.append(FullConv2D(filters, 3, **arguments))
        else:
            arguments |= {"padding": "same", "use_bias": False}
            body.append(keras.layers.Conv2D(filters, 3, **arguments))
        body.append(keras.layers.ReLU())
    return keras.Sequential(body)


def features(network: str, padding: str, channels: int, weights: str | None = None) -> Any:
    """Returns a network from images of any size to maps, with weights from a file if one is named.

    Args:
        network: `"small"`, a network of `models`, or `"densenet121"` of `keras.applications`.
        padding: That of the small network.
        channels: Channels of the images.
        weights: File of weights: of the whole network of `models`, of the small one's layers, or of
            DenseNet-121 without its top; `"imagenet"` for the latter's published ones.
    """
    if network == "densenet121":
        model = keras.applications.DenseNet121(
            include_top=False, weights=weights, input_shape=(None, None, channels)
        )
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                # Its variances are far below the 1 that statistics start from: with 0.9, thirty
                # steps left so much of it that what was learned was not seen in testing.
                layer.momentum = 0.5
        return model
    if network == "small":
        model = small(padding, channels)
    else:
        model = MODELS[network].build((None, None, channels), 1000)
    if weights:
        model.load_weights(weights)
    if network == "small":
        return model
    return keras.Model(model.input, model.get_layer("pooling").input)


def head(body: Any, border: int, shape: Sequence[int]) -> Any:
    """Returns the network behind a black border, with the largest responses and two logits."""
    inputs = keras.Input(shape)
    x = keras.layers.ZeroPadding2D(border)(inputs) if border else inputs
    x = keras.layers.GlobalMaxPooling2D()(body(x))
    return keras.Model(inputs, keras.layers.Dense(2)(x))


def frozen(body: Any, border: int, parts: Mapping[str, Examples]) -> dict[str, Examples]:
    """Returns the largest response of each filter, in units of their usual size."""
    found = {}
    for name, (images, labels) in parts.items():
        batches = []
        for index in range(0, len(images), 8):
            around = [(0, 0), (border, border), (border, border), (0, 0)]
            maps = body(np.pad(images[index : index + 8], around), training=False)
            batches.append(keras.ops.convert_to_numpy(keras.ops.max(maps, axis=(1, 2))))
        found[name] = (np.concatenate(batches), labels)
    usual = found["train"][0].std() + 1e-12
    return {name: (responses / usual, labels) for name, (responses, labels) in found.items()}


def measure(condition: tuple[str, str, str], seed: int, options: Options) -> dict[str, Any]:
    """Trains with each border on images of its own."""
    network, padding, how = condition
    rng = np.random.default_rng(seed)
    parts = {}
    for name, (images, _) in splits(options).items():
        wanted = min(COUNTS[network][name], len(images))
        parts[name] = examples(images[rng.permutation(len(images))[:wanted]])
    if network == "densenet121":
        parts = {name: (_with_three_channels(x), y) for name, (x, y) in parts.items()}
    shape = parts["train"][0].shape[1:]
    found = []
    for border in BORDERS[network]:
        keras.utils.set_random_seed(seed)
        weights = options.flags["weights"] if how == HOW[2] else None
        body = features(network, padding, shape[-1], weights)
        if how == HOW[0]:
            model, used, epochs = head(body, border, shape), parts, EPOCHS[network]
        else:
            used = frozen(body, border, parts)
            model = keras.Sequential(
                [keras.Input(used["train"][0].shape[1:]), keras.layers.Dense(2)]
            )
            epochs = 100
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.003 if network == "small" else 0.001), loss)
        train(
            model,
            used["train"],
            used["valid"],
            epochs=options.epochs or epochs,
            batch_size=32 if network == "small" else 8,
            seed=seed,
            patience=PATIENCE if how == HOW[0] else 4 * PATIENCE,
            evaluated_at_once=AT_ONCE,
        )
        found.append(accuracy(model, used["test"], AT_ONCE))
    return {"accuracies": found, "no border": found[0], "widest border": found[-1]}


def _with_three_channels(images: np.ndarray) -> np.ndarray:
    return np.broadcast_to(images, (*images.shape[:-1], 3)) if images.shape[-1] == 1 else images


def verdict(found: Mapping[str, list[Record]]) -> tuple[str, bool]:
    """Compares with chance, 50 %."""
    words, met = [], True
    for name, runs in found.items():
        network, padding, _ = CONDITIONS[name]
        points = curve(runs, "accuracies", BORDERS[network])
        if padding == "full":
            away = max(abs(share - 0.5) for _, share, _ in points)
            words.append(f"{name}: within {100 * away:.1f} points of chance with every border")
            # Trained, a network without biases stays at chance exactly, too.
            met = met and away < 0.05
            continue
        seen = [border for border, share, _ in points if share > 0.6]
        words.append(
            f"{name}: {100 * points[0][1]:.1f} % without a border, above 60 % up to "
            f"{max(seen, default='no')} pixels, {100 * points[-1][1]:.1f} % with the widest"
        )
        if network == "small":
            met = met and points[0][1] > 0.9 and abs(points[-1][1] - 0.5) < 0.05
        else:
            met = met and (network == "bagnet33" or points[0][1] > 0.9)
    return "; ".join(words) + ".", met


def table(found: Mapping[str, list[Record]]) -> str:
    """Returns a line for each border."""
    network = CONDITIONS[next(iter(found))][0]
    lines = []
    for index, border in enumerate(BORDERS[network]):
        cells: list[Any] = [border]
        for runs in found.values():
            mean, error = mean_and_error([run["found"]["accuracies"][index] for run in runs])
            cells.append(with_error(mean, error))
        lines.append(cells)
    note = SOURCE + PUBLISHED[network] if PUBLISHED[network] else ""
    return rows(["border, pixels", *(f"{name}, %" for name in found)], lines) + note


def draw(found: Mapping[str, list[Record]], path: Path) -> None:
    """Draws accuracy against the border."""
    network = CONDITIONS[next(iter(found))][0]
    labels = ("border around the canvas, pixels", "test accuracy, %")
    draw_curves(found, "accuracies", BORDERS[network], path, labels, levels={"chance": 50.0})


STUDY = Study(
    name="quadrant",
    claim="A network whose convolutions keep the size with zeros knows in which quadrant an image "
    "is, even with random filters, until the border is wider than it sees; full ones never do.",
    criterion="Same is above 90 % without a border and at 50 % with one as wide as the network "
    "sees; full stays at 50 % with any.",
    conditions=CONDITIONS,
    measure=measure,
    verdict=verdict,
    table=table,
    draw=draw,
    images=True,
    flags={
        "network": {"choices": list(BORDERS), "default": "small", "help": "which network"},
        "weights": {"help": "file of weights, for a frozen network that has them"},
        "frozen_only": {"action": "store_true", "help": "do not train from scratch, which is slow"},
    },
    chosen=chosen,
    variant="network",
)

if __name__ == "__main__":
    main(STUDY)
