"""From two numbers to the pixel they name: a convolution cannot, one that sees coordinates can."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity import AddCoordinates2D, LowRankLocallyConnected2D
from low_rank_local_connectivity.experiments.studies.study import (
    Options,
    Record,
    Study,
    accuracy,
    draw_bars,
    main,
    mean,
    percent,
    rows,
    train,
)

CANVAS, MARGIN = 24, 4
WIDTH, EPOCHS = 24, 80
NETWORKS = ("convolution", "CoordConv", "LRLC")
SPLITS = ("uniform", "quadrant")


def splits(kind: str, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns pairs of numbers from -1 to 1 and the pixels they name.

    Args:
        kind: `"uniform"`: a fifth of the pixels, drawn at random, is for tests; `"quadrant"`: the
            lower right quarter is.
        seed: Draws the pixels of the tests, and those that choose the epoch.
    """
    places = np.arange(MARGIN, CANVAS - MARGIN)
    pixels = np.stack(np.meshgrid(places, places, indexing="ij"), axis=-1).reshape(-1, 2)
    inputs = (2 * pixels / (CANVAS - 1) - 1).astype("float32")
    labels = pixels[:, 0] * CANVAS + pixels[:, 1]
    order = np.random.default_rng(seed).permutation(len(pixels))
    if kind == "uniform":
        tests = order[: len(order) // 5]
    else:
        tests = np.flatnonzero((pixels >= CANVAS // 2).all(axis=1))
    rest = order[~np.isin(order, tests)]
    parts = {"test": tests, "valid": rest[: len(rest) // 10], "train": rest[len(rest) // 10 :]}
    return {name: (inputs[where], labels[where]) for name, where in parts.items()}


def network(kind: str) -> Any:
    """Returns a network from two numbers, the same at every pixel, to a logit for each pixel."""
    inputs = keras.Input((2,))
    x = keras.layers.RepeatVector(CANVAS * CANVAS)(inputs)
    x = keras.layers.Reshape((CANVAS, CANVAS, 2))(x)
    size = 3 if kind == "convolution" else 1
    if kind == "CoordConv":
        x = AddCoordinates2D()(x)
    for _ in range(3):
        if kind == "LRLC":
            # Combining weights of their own at every pixel: it can learn what coordinates give.
            x = LowRankLocallyConnected2D(
                WIDTH, 1, spatial_rank=4, additive_axes=(), use_spatial_bias="per_filter"
            )(x)
        else:
            x = keras.layers.Conv2D(WIDTH, size, padding="same")(x)
        x = keras.layers.ReLU()(x)
    x = keras.layers.Conv2D(1, 1)(x)
    return keras.Model(inputs, keras.layers.Flatten()(x))


def measure(condition: tuple[str, str], seed: int, options: Options) -> dict[str, Any]:
    """Trains on some of the pixels and tests on the others."""
    kind, split = condition
    model = network(kind)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.005), loss)
    parts = splits(split, seed)
    epochs = options.epochs or EPOCHS
    train(model, parts["train"], parts["valid"], epochs=epochs, batch_size=16, seed=seed)
    return {name: accuracy(model, part) for name, part in parts.items()}


def verdict(found: Mapping[str, list[Record]]) -> tuple[str, bool]:
    """Compares the networks on both splits."""
    score = {name: 100 * mean(runs, "test") for name, runs in found.items()}
    met = min(score[f"CoordConv, {split}"] for split in SPLITS) > 90
    met = met and score["convolution, quadrant"] < 10
    sentence = "; ".join(
        f"{kind}: {score[f'{kind}, uniform']:.1f} % uniform, "
        f"{score[f'{kind}, quadrant']:.1f} % quadrant"
        for kind in NETWORKS
    )
    return f"On pixels not trained on, {sentence}.", met


def table(found: Mapping[str, list[Record]]) -> str:
    """Returns a line for each network."""
    lines = []
    for kind in NETWORKS:
        cells = [kind]
        for split in SPLITS:
            runs = found[f"{kind}, {split}"]
            cells += [percent(runs, "train"), percent(runs, "test")]
        lines.append(cells)
    parts = [f"{split}: {part}, %" for split in SPLITS for part in ("train", "test")]
    return rows(["network", *parts], lines)


def draw(found: Mapping[str, list[Record]], path: Path) -> None:
    """Draws a bar for each network and split."""
    draw_bars(found, "test", NETWORKS, SPLITS, path, "pixels named rightly, %")


STUDY = Study(
    name="coordinates",
    claim="A network that sees coordinates learns which pixel two numbers name, and for pixels it "
    "was never shown; a convolution does not.",
    criterion="With coordinates above 90 % on both splits; a convolution below 10 % on the "
    "quadrant it was not shown.",
    conditions={f"{kind}, {split}": (kind, split) for kind in NETWORKS for split in SPLITS},
    measure=measure,
    verdict=verdict,
    table=table,
    draw=draw,
)

if __name__ == "__main__":
    main(STUDY)
