"""Which square is on the left? A network that also sees how high they are answers that instead."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity import FullConv2D, WithBackground
from low_rank_local_connectivity.experiments.studies.study import (
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
)

SIZE, SQUARE, GAP = 32, 4, 5
SHIFTS = (0, 1, 2, 4, 8, 12, 16)
EPOCHS, PATIENCE = 50, 10
COUNTS = {"train": 2000, "valid": 1000, "test": 1000}
# Filters and strides of the layers, all 3x3.
LAYERS = ((32, 1), (32, 2), (64, 2), (64, 2))
CONDITIONS = {
    "valid": {"padding": "valid"},
    "same": {"padding": "same"},
    "full": {"padding": "full"},
    "full, biases": {"padding": "full", "bias": True},
    "full, batch normalisation": {"padding": "full", "normalized": True},
    "full, biases, background padding": {"padding": "full", "bias": True, "background": True},
}


def examples(count: int, rng: np.random.Generator, shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draws a red and a green square side by side; the class says which is on the left.

    Args:
        count: Number of images.
        rng: Draws places.
        shift: Rows by which class 0, drawn high, is moved down and class 1, drawn low, up.
    """
    images = np.zeros((count, SIZE, SIZE, 3), "float32")
    labels = np.arange(count) % 2
    for image, label in zip(images, labels, strict=True):
        left = rng.integers(0, SIZE - 2 * SQUARE - GAP + 1)
        right = rng.integers(left + SQUARE + GAP, SIZE - SQUARE + 1)
        tops = (7, 23)[label] + rng.integers(-4, 4, size=2) + (shift, -shift)[label]
        for column, top, colour in zip((left, right), tops, (label, 1 - label), strict=True):
            image[top : top + SQUARE, column : column + SQUARE, colour] = 1
    return images, labels


def network(padding: str, bias: bool = False, normalized: bool = False, background: bool = False):
    """Returns four layers, the largest response of each filter, and two logits.

    Padding and initial values are as published: "same" puts a pixel on every side, where Keras's,
    with strides, would leave out the upper and left border; weights are uniform within one over
    the square root of what a filter reads.
    """
    body: list[Any] = []
    channels = 3
    for filters, strides in LAYERS:
        width = 1 / math.sqrt(9 * channels)
        arguments: dict[str, Any] = {
            "strides": strides,
            "use_bias": bias,
            "kernel_initializer": keras.initializers.RandomUniform(-width, width),
            "bias_initializer": keras.initializers.RandomUniform(-width, width),
        }
        if padding == "full":
            value = "background" if background else "zeros"
            body.append(FullConv2D(filters, 3, padding_value=value, **arguments))
        else:
            if padding == "same":
                body.append(keras.layers.ZeroPadding2D(1))
            body.append(keras.layers.Conv2D(filters, 3, **arguments))
        if normalized:
            body.append(keras.layers.BatchNormalization(momentum=0.9))
        body.append(keras.layers.ReLU())
        channels = filters
    if background:
        body = [WithBackground(keras.Sequential(body))]
    head = [keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(2)]
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), *body, *head])


def measure(condition: Mapping[str, Any], seed: int, options: Options) -> dict[str, Any]:
    """Trains, and scores the same test images at every shift."""
    model = network(**condition)
    optimizer = keras.optimizers.Adadelta(1.0, rho=0.9, epsilon=1e-6, weight_decay=5e-5)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    draws = {name: np.random.default_rng([seed, index]) for index, name in enumerate(COUNTS)}
    parts = {name: examples(COUNTS[name], draws[name]) for name in ("train", "valid")}
    train(
        model,
        parts["train"],
        parts["valid"],
        epochs=options.epochs or EPOCHS,
        batch_size=200,
        seed=seed,
        patience=PATIENCE,
    )
    found = [
        accuracy(model, examples(COUNTS["test"], np.random.default_rng([seed, 2]), shift))
        for shift in SHIFTS
    ]
    return {"similar": found[0], "dissimilar": found[-1], "accuracies": found}


def verdict(found: Mapping[str, list[Record]]) -> tuple[str, bool]:
    """Compares the test images as drawn with the same ones, shifted by 16 rows."""
    far = {name: mean(runs, "dissimilar") for name, runs in found.items()}
    lost = {name: mean(runs, "similar") - far[name] for name, runs in found.items()}
    met = far["same"] <= 0.1 and far["valid"] <= 0.1 and far["full, biases"] < 0.15
    met = met and all(
        abs(lost[name]) < 1e-3 for name in ("full", "full, biases, background padding")
    )
    return (
        "Shifted by 16 rows, "
        + ", ".join(f"{name}: {100 * value:.1f} %" for name, value in far.items())
        + f"; full loses {100 * lost['full']:.2f} points, with biases and background padding "
        f"{100 * lost['full, biases, background padding']:.2f}.",
        met,
    )


def table(found: Mapping[str, list[Record]]) -> str:
    """Returns a line for each network, with what is published."""
    published = {"valid": "100.0 / 0.2", "same": "99.8 / 8.4", "full": "89.7 / 89.7"}
    lines = [
        [name, percent(runs, "similar"), percent(runs, "dissimilar"), published.get(name, "")]
        for name, runs in found.items()
    ]
    header = ["network", "as trained, %", "shifted by 16, %", "published, both"]
    note = (
        "\n\nPublished: Kayhan and van Gemert, CVPR 2020, whose training, validation and test "
        "images are the same ones; here they are drawn with seeds of their own."
    )
    return rows(header, lines) + note


def draw(found: Mapping[str, list[Record]], path: Path) -> None:
    """Draws accuracy against the shift."""
    labels = ("shift, rows", "test accuracy, %")
    draw_curves(found, "accuracies", SHIFTS, path, labels, levels={"chance": 50.0})


STUDY = Study(
    name="red_green",
    claim="Where height tells the class too, networks that can see height use it, and fail once it "
    "is other; full convolutions cannot see it unless biases or normalisation let borders show.",
    criterion="Moved by 16 rows, valid and same score at most 10 %, full convolutions with biases "
    "below 15 %; full ones, and those with biases and background padding, score as unmoved.",
    conditions=CONDITIONS,
    measure=measure,
    verdict=verdict,
    table=table,
    draw=draw,
)

if __name__ == "__main__":
    main(STUDY)
