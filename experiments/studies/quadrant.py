"""In which quadrant is the image? How wide a black border hides the answer from a network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from experiments.studies.images import splits
from experiments.studies.study import (
    Options,
    Record,
    Study,
    accuracy,
    curve,
    main,
    rows,
    train,
)
from low_rank_local_connectivity import FullConv2D, plots
from low_rank_local_connectivity.training.sweep import mean_and_error

# Of the canvas; the other place is a multiple of the network's total stride, 8, away.
CANVAS, MOVED = 64, 48
BORDERS = (0, 4, 8, 16, 32, 64)
LAYERS = ((16, 1), (32, 2), (32, 2), (32, 2))
RECEPTIVE_FIELD = 31
COUNT = 300
EPOCHS, PATIENCE = 20, 6
CONDITIONS = {
    f"{padding}, {how}": (padding, how)
    for padding in ("same", "full")
    for how in ("from scratch", "random and frozen")
}


def examples(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns every image twice: in the upper left corner, and in the lower right."""
    size = images.shape[1]
    canvas = np.zeros((2 * len(images), CANVAS, CANVAS, 1), "float32")
    canvas[: len(images), :size, :size] = images
    canvas[len(images) :, MOVED : MOVED + size, MOVED : MOVED + size] = images
    return canvas, np.repeat([0, 1], len(images))


def network(padding: str, border: int, frozen: bool) -> Any:
    """Returns four layers behind a black border, the largest responses, and two logits."""
    body: list[Any] = [keras.layers.ZeroPadding2D(border)] if border else []
    for filters, strides in LAYERS:
        arguments: dict[str, Any] = {"strides": strides, "kernel_initializer": "he_normal"}
        if padding == "full":
            body.append(FullConv2D(filters, 3, trainable=not frozen, **arguments))
        else:
            arguments |= {"padding": "same", "use_bias": False, "trainable": not frozen}
            body.append(keras.layers.Conv2D(filters, 3, **arguments))
        body.append(keras.layers.ReLU())
    head = [keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(2)]
    return keras.Sequential([keras.Input((CANVAS, CANVAS, 1)), *body, *head])


def measure(condition: tuple[str, str], seed: int, options: Options) -> dict[str, Any]:
    """Trains with each border on images of its own."""
    padding, how = condition
    parts = splits(options)
    rng = np.random.default_rng(seed)
    found = []
    for border in BORDERS:
        keras.utils.set_random_seed(seed)
        model = network(padding, border, how != "from scratch")
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.003), loss)
        few = {name: images for name, (images, _) in parts.items()}
        drawn = few["train"][rng.permutation(len(few["train"]))[:COUNT]]
        train(
            model,
            examples(drawn),
            examples(few["valid"]),
            epochs=options.epochs or EPOCHS,
            batch_size=32,
            seed=seed,
            patience=PATIENCE,
        )
        found.append(accuracy(model, examples(few["test"])))
    return {"accuracies": found, "no border": found[0], "widest border": found[-1]}


def verdict(found: Mapping[str, list[Record]]) -> tuple[str, bool]:
    """Compares with chance, 50 %."""
    scores = {name: curve(runs, "accuracies", BORDERS) for name, runs in found.items()}
    same = [scores[name] for name in scores if name.startswith("same")]
    full = [scores[name] for name in scores if name.startswith("full")]
    wide = max(abs(points[-1][1] - 0.5) for points in same)
    always = max(abs(point[1] - 0.5) for points in full for point in points)
    met = all(points[0][1] > 0.9 for points in same) and wide < 0.05 and always < 0.05
    seen = [max((x for x, y, _ in points if y > 0.6), default=None) for points in same]
    sentence = (
        f"Same: {', '.join(f'{100 * points[0][1]:.1f} %' for points in same)} without a border, "
        f"better than 60 % up to borders of {' and '.join(map(str, seen))} pixels; full: within "
        f"{100 * always:.1f} points of chance everywhere."
    )
    return sentence, met


def table(found: Mapping[str, list[Record]]) -> str:
    """Returns a line for each border."""
    lines = []
    for index, border in enumerate(BORDERS):
        cells: list[Any] = [border]
        for runs in found.values():
            mean, error = mean_and_error([run["found"]["accuracies"][index] for run in runs])
            cells.append(f"{100 * mean:.1f} ± {100 * error:.1f}")
        lines.append(cells)
    return rows(["border, pixels", *(f"{name}, %" for name in found)], lines)


def draw(found: Mapping[str, list[Record]], path: Path) -> None:
    """Draws accuracy against the border."""
    curves = {
        name: [(x, 100 * y, 100 * error) for x, y, error in curve(runs, "accuracies", BORDERS)]
        for name, runs in found.items()
    }
    labels = ("border around the canvas, pixels", "test accuracy, %")
    plots.lines_with_errors(curves, path, *labels, levels={"chance": 50.0}, log_x=False)


STUDY = Study(
    name="quadrant",
    claim="A network whose convolutions keep the size with zeros knows in which quadrant an image "
    "is, even with random filters, until the border is wider than it sees; full ones never do.",
    criterion="Same is above 90 % without a border and at 50 % with the widest, wider than the "
    f"receptive field of {RECEPTIVE_FIELD} pixels; full stays at 50 % with any.",
    conditions=CONDITIONS,
    measure=measure,
    verdict=verdict,
    table=table,
    draw=draw,
)

if __name__ == "__main__":
    main(STUDY)
