"""Kronecker-factored kernels: parameters against accuracy, and export."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity import KroneckerConv2D, conversion, plots
from low_rank_local_connectivity.experiments.paper.statistics import mean_and_error
from low_rank_local_connectivity.experiments.studies.images import image_shape, splits
from low_rank_local_connectivity.experiments.studies.study import (
    Options,
    Record,
    Study,
    accuracy,
    main,
    mean,
    percent,
    rows,
    train,
    values,
)

EPOCHS = 40
# Filters of the layers behind the first, each 3x3 and factored into 3x3 over a part of the channels
# and 1x1 over the rest.
WIDTHS = (32, 64)
PARTS = 4
CONDITIONS: dict[str, int | None] = {"dense": None, "rank 1": 1, "rank 2": 2, "rank 4": 4}


def network(rank: int | None, shape: tuple[int, int, int]) -> Any:
    """Returns three layers with batch normalisation, pooling between them, and logits."""
    arguments: dict[str, Any] = {"padding": "same", "use_bias": False}
    parts = [keras.layers.Conv2D(16, 3, **arguments)]
    channels = 16
    for width in WIDTHS:
        parts += [keras.layers.BatchNormalization(), keras.layers.ReLU()]
        parts.append(keras.layers.MaxPooling2D())
        if rank is None:
            parts.append(keras.layers.Conv2D(width, 3, **arguments))
        else:
            factors = (
                (3, 3, channels // PARTS, width // PARTS),
                (1, 1, PARTS, PARTS),
            )
            parts.append(KroneckerConv2D(width, 3, factors, rank=rank, **arguments))
        channels = width
    parts += [keras.layers.BatchNormalization(), keras.layers.ReLU()]
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    return keras.Sequential([keras.Input(shape), *parts, *head])


def measure(rank: int | None, seed: int, options: Options) -> dict[str, Any]:
    """Trains, and compares with the network of ordinary convolutions that it becomes."""
    parts = splits(options)
    model = network(rank, image_shape(options))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.003), loss)
    epochs = options.epochs or EPOCHS
    train(model, parts["train"], parts["valid"], epochs=epochs, batch_size=32, seed=seed)
    exported = conversion.convert(
        model, lambda one: one.to_conv2d() if isinstance(one, KroneckerConv2D) else None
    )
    images = parts["test"][0][:64]
    difference = np.abs(
        exported.predict(images, verbose=0) - model.predict(images, verbose=0)
    ).max()
    return {
        "parameters": model.count_params(),
        "test": accuracy(model, parts["test"]),
        "difference": float(difference),
    }


def verdict(found: Mapping[str, list[Record]]) -> tuple[str, bool]:
    """Compares with the dense network."""
    dense = mean(found["dense"], "parameters")
    best, lost = 0.0, {}
    for name, runs in found.items():
        lost[name] = 100 * (mean(found["dense"], "test") - mean(runs, "test"))
        if lost[name] <= 2:
            best = max(best, dense / mean(runs, "parameters"))
    difference = max(value for runs in found.values() for value in values(runs, "difference"))
    sentence = (
        f"{best:.1f} times fewer parameters at a loss of at most 2 points; exported, logits differ "
        f"by at most {difference:.1e}."
    )
    return sentence, best >= 3 and difference < 1e-4


def table(found: Mapping[str, list[Record]]) -> str:
    """Returns a line for each rank."""
    dense = mean(found["dense"], "parameters")
    lines = []
    for name, runs in found.items():
        parameters = mean(runs, "parameters")
        exported = f"{max(values(runs, 'difference')):.1e}"
        cells = [name, f"{parameters:,.0f}", f"{dense / parameters:.1f}"]
        lines.append([*cells, percent(runs, "test"), exported])
    header = ["kernels", "parameters", "times fewer", "test, %", "largest difference exported"]
    return rows(header, lines)


def draw(found: Mapping[str, list[Record]], path: Path) -> None:
    """Draws accuracy against parameters."""
    curves = {}
    for name, runs in found.items():
        score, error = mean_and_error(values(runs, "test"))
        curves[name] = [(mean(runs, "parameters"), 100 * score, 100 * error)]
    plots.lines_with_errors(curves, path, "parameters", "test accuracy, %")


STUDY = Study(
    name="compression",
    claim="Kernels that are sums of a few Kronecker products need far fewer parameters at nearly "
    "the same accuracy, and become ordinary convolutions for serving.",
    criterion="At least three times fewer parameters at a loss of at most 2 points, and logits "
    "that differ by less than 1e-4 when exported.",
    conditions=CONDITIONS,
    measure=measure,
    verdict=verdict,
    table=table,
    draw=draw,
    images=True,
)

if __name__ == "__main__":
    main(STUDY)
