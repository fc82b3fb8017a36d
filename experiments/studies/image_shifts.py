"""How steady is a classifier while its image moves along the diagonal?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity import equivariance
from low_rank_local_connectivity.experiments.studies.few_examples import network
from low_rank_local_connectivity.experiments.studies.images import image_shape, on_canvas, splits
from low_rank_local_connectivity.experiments.studies.study import (
    Options,
    Record,
    Study,
    draw_curves,
    main,
    mean,
    percent,
    rows,
    train,
)

# Pixels that the canvas is larger than the images.
MARGIN = 16
# Along the diagonal, from the middle: negative is up and left. Multiples of the total stride, as in
# the paper: between them what is lost is lost to subsampling, whatever the padding.
SHIFTS = (-8, -4, 0, 4, 8)
EPOCHS = 12


def measure(padding: str, seed: int, options: Options) -> dict[str, Any]:
    """Trains on images in the middle, and tests on the same test images moved."""
    size, _, channels = image_shape(options)
    canvas = size + MARGIN
    parts = {name: on_canvas(part, canvas, None) for name, part in splits(options).items()}
    model = network(padding, (canvas, canvas, channels))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.003), loss)
    epochs = options.epochs or EPOCHS
    train(model, parts["train"], parts["valid"], epochs=epochs, batch_size=32, seed=seed)
    images, labels = parts["test"]
    found = equivariance.accuracy_under_shifts(
        model.predict_on_batch, images, labels, SHIFTS, progress=False
    )
    consistency = equivariance.shift_consistency(
        model.predict_on_batch, images, shifts=[(s, s) for s in SHIFTS], seed=seed, progress=False
    )
    accuracies = np.asarray(found.mean).tolist()
    return {
        "accuracies": accuracies,
        "diagonal": float(np.mean(accuracies)),
        "consistency": float(consistency),
    }


def verdict(found: Mapping[str, list[Record]]) -> tuple[str, bool]:
    """Compares accuracy over all shifts, and how often classes agree."""
    words = [
        f"{name}: {100 * mean(runs, 'diagonal'):.1f} % of images right over all shifts, "
        f"{100 * mean(runs, 'consistency'):.1f} % of pairs alike"
        for name, runs in found.items()
    ]
    better = [
        mean(found["full"], name) >= mean(found["same"], name)
        for name in ("diagonal", "consistency")
    ]
    return "; ".join(words) + ".", all(better)


def table(found: Mapping[str, list[Record]]) -> str:
    """Returns a line for each padding."""
    lines = [
        [name, percent(runs, "diagonal"), percent(runs, "consistency")]
        for name, runs in found.items()
    ]
    note = (
        "\n\nPublished for ImageNet classes, same / full, in percent: ResNet-18 diagonal 79.43 / "
        "82.74, consistency 86.43 / 88.38; ResNet-50 86.36 / 87.92 and 90.21 / 91.36 (Kayhan and "
        "van Gemert, CVPR 2020)."
    )
    return rows(["padding", "accuracy over all shifts, %", "consistency, %"], lines) + note


def draw(found: Mapping[str, list[Record]], path: Path) -> None:
    """Draws accuracy against the shift."""
    labels = ("diagonal shift, pixels", "test accuracy, %")
    draw_curves(found, "accuracies", SHIFTS, path, labels)


STUDY = Study(
    name="image_shifts",
    claim="A network that cannot see position keeps its answer while the image moves.",
    criterion="Over diagonal shifts full convolutions are at least as accurate and as consistent "
    "as same ones.",
    conditions={"valid": "valid", "same": "same", "full": "full"},
    measure=measure,
    verdict=verdict,
    table=table,
    draw=draw,
    images=True,
)

if __name__ == "__main__":
    main(STUDY)
