"""Trained on upright digits, what does a network make of turned ones?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity import equivariance
from low_rank_local_connectivity.experiments.studies.images import on_canvas, splits
from low_rank_local_connectivity.experiments.studies.study import (
    Examples,
    Options,
    Record,
    Study,
    accuracy,
    draw_curves,
    main,
    mean,
    percent,
    rows,
    train,
    values,
)
from low_rank_local_connectivity.models.group_network import group_network

# 16x16 digits turned by 45 degrees need 23 pixels; MNIST's lie in the middle 20x20 of 28x28, and
# photographs, which have no background, lose their corners.
MARGIN = {"digits": 8}
ANGLES = tuple(range(0, 360, 15))
QUARTERS = (90, 180, 270)
EPOCHS = 12
# What differs is in how many orientations filters are applied; widths are such that the numbers
# of parameters are about the same. With one orientation it is an ordinary convolution.
ORDERS = {"convolution": 1, "p4": 4, "C8": 8}
FILTERS, KERNEL_SIZE = 16, 5
# What p4's logits may differ by, relative to the largest, and by how much others must be better.
MOST_SPREAD, LEAST_GAP = 1e-5, 0.1


def parts(options: Options) -> dict[str, Examples]:
    """Returns upright images, with room to turn them."""
    found = splits(options)
    size = found["test"][0].shape[1] + MARGIN.get(options.dataset, 0)
    return {name: on_canvas(part, size, None) for name, part in found.items()}


def measure(order: int, seed: int, options: Options) -> dict[str, Any]:
    """Trains on upright digits, and tests on the same test digits turned."""
    examples = parts(options)
    images, labels = examples["test"]
    model = group_network(images.shape[1:], 10, FILTERS, KERNEL_SIZE, order)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.003), loss)
    epochs = options.epochs or EPOCHS
    train(model, examples["train"], examples["valid"], epochs=epochs, batch_size=32, seed=seed)
    accuracies = [accuracy(model, (turned(images, degrees), labels)) for degrees in ANGLES]
    return {
        "accuracies": accuracies,
        "upright": accuracies[0],
        "turned": float(np.mean(accuracies[1:])),
        "spread": spread(model, images),
        "parameters": model.count_params(),
    }


def turned(images: np.ndarray, degrees: float) -> np.ndarray:
    """Returns images turned about their centres, by bicubic interpolation."""
    return np.ascontiguousarray(equivariance.Rotation(degrees, "bicubic")(images))


def spread(model: Any, images: np.ndarray) -> float:
    """Returns how far logits of images turned by quarters are from those of the images.

    The largest difference relative to the largest logit.
    """
    logits = model.predict(images, batch_size=500, verbose=0)
    differences = [
        np.abs(model.predict(turned(images, degrees), batch_size=500, verbose=0) - logits).max()
        for degrees in QUARTERS
    ]
    return float(max(differences) / np.abs(logits).max())


def verdict(found: Mapping[str, list[Record]]) -> tuple[str, bool]:
    """Looks at p4's logits, and compares accuracy on turned digits."""
    largest = max(values(found["p4"], "spread"))
    plain = mean(found["convolution"], "turned")
    gaps = {name: mean(found[name], "turned") - plain for name in ("p4", "C8")}
    words = [f"{name} {100 * gap:+.1f} points" for name, gap in gaps.items()]
    sentence = (
        f"p4's logits change by at most {largest:.1e} of the largest under quarter turns, the "
        f"convolution's by {max(values(found['convolution'], 'spread')):.2g}; over turned digits "
        f"the convolution is right in {100 * plain:.1f} %, {' and '.join(words)}."
    )
    return sentence, largest <= MOST_SPREAD and min(gaps.values()) >= LEAST_GAP


def table(found: Mapping[str, list[Record]]) -> str:
    """Returns a line for each network."""
    lines = [
        [
            name,
            f"{mean(runs, 'parameters'):,.0f}",
            percent(runs, "upright"),
            percent(runs, "turned"),
            f"{max(values(runs, 'spread')):.1e}",
        ]
        for name, runs in found.items()
    ]
    header = ["network", "parameters", "upright, %", "turned, %", "change of logits at quarters"]
    note = (
        "\n\nTurned: mean over 15, 30, ... 345 degrees. A 6 turned by 180 degrees is a 9, so that "
        "no network that does not see the angle is right in all."
    )
    return rows(header, lines) + note


def draw(found: Mapping[str, list[Record]], path: Path) -> None:
    """Draws accuracy against the angle."""
    labels = ("rotation of the test images, degrees", "test accuracy, %")
    draw_curves(found, "accuracies", ANGLES, path, labels)


STUDY = Study(
    name="rotation",
    claim="A network that turns its filters knows digits turned that it has seen upright only.",
    criterion="p4's logits stay within 1e-5 of the largest under quarter turns, and over turned "
    "digits p4 and C8 are at least 10 points better than a convolution.",
    conditions=ORDERS,
    measure=measure,
    verdict=verdict,
    table=table,
    draw=draw,
    images=True,
)

if __name__ == "__main__":
    main(STUDY)
