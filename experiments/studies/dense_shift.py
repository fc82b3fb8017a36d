"""A map for every pixel: does it move with the image, or with the pooling grid?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity import DilatedContext2D, equivariance, plots
from low_rank_local_connectivity.experiments.studies.study import (
    Options,
    Record,
    Study,
    curve,
    main,
    mean,
    percent,
    rows,
    train,
)

SIZE, CHANNELS = 48, 8
COUNTS = {"train": 300, "valid": 60, "test": 40}
SHIFTS = tuple(range(1, 9))
# Wider than what either network sees, so that no border shows.
MARGIN = 12
DILATIONS = (1, 1, 2, 4, 1)
EPOCHS = 8


def examples(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws noisy images of bright rectangles, and for each pixel whether it lies in one."""
    labels = np.zeros((count, SIZE, SIZE), "int32")
    for label in labels:
        for _ in range(rng.integers(3, 7)):
            row, column = rng.integers(0, SIZE - 6, size=2)
            height, width = rng.integers(3, 14, size=2)
            label[row : row + height, column : column + width] = 1
    images = labels + rng.normal(0, 0.7, labels.shape)
    return images[..., None].astype("float32"), labels


def convolution(filters: int = CHANNELS, **arguments: Any) -> Any:
    """Returns a 3x3 convolution that keeps the size, with ReLU."""
    return keras.layers.Conv2D(filters, 3, padding="same", activation="relu", **arguments)


def network(kind: str) -> Any:
    """Returns a network from images to two logits for each pixel."""
    x = inputs = keras.Input((SIZE, SIZE, 1))
    x = convolution()(x)
    if kind == "encoder-decoder":
        for filters in (2 * CHANNELS, 4 * CHANNELS):
            x = convolution(filters)(keras.layers.MaxPooling2D()(x))
        for filters in (2 * CHANNELS, CHANNELS):
            x = convolution(filters)(keras.layers.UpSampling2D()(x))
    else:
        x = DilatedContext2D(CHANNELS, DILATIONS)(x)
    return keras.Model(inputs, keras.layers.Conv2D(2, 1)(x))


def measure(kind: str, seed: int, options: Options) -> dict[str, Any]:
    """Trains, and measures how far the maps are from moving with their images."""
    model = network(kind)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.003), loss)
    parts = {
        name: examples(count, np.random.default_rng([seed, index]))
        for index, (name, count) in enumerate(COUNTS.items())
    }
    epochs = options.epochs or EPOCHS
    train(model, parts["train"], parts["valid"], epochs=epochs, batch_size=10, seed=seed)
    images, labels = parts["test"]
    shifts = [equivariance.Shift(0, shift) for shift in SHIFTS]
    found = equivariance.curve(model, images, shifts, margin=MARGIN, progress=False)
    logits = model.predict(images, verbose=0)
    errors = np.asarray(found.mean).tolist()
    return {
        "accuracy": float((logits.argmax(-1) == labels).mean()),
        "errors": errors,
        "one pixel": errors[0],
        "four pixels": errors[3],
        "parameters": model.count_params(),
    }


def verdict(found: Mapping[str, list[Record]]) -> tuple[str, bool]:
    """Compares the errors at one pixel."""
    pooled, dilated = (mean(found[name], "one pixel") for name in CONDITIONS)
    whole = mean(found["encoder-decoder"], "four pixels")
    sentence = (
        f"Shifted by one pixel the encoder-decoder's error is {pooled:.1e}, by four, its total "
        f"stride, {whole:.1e}; the context module's is {dilated:.1e}."
    )
    return sentence, pooled > 100 * max(dilated, whole)


def table(found: Mapping[str, list[Record]]) -> str:
    """Returns a line for each network."""
    lines = [
        [
            name,
            f"{mean(runs, 'parameters'):,.0f}",
            percent(runs, "accuracy"),
            f"{mean(runs, 'one pixel'):.1e}",
            f"{mean(runs, 'four pixels'):.1e}",
        ]
        for name, runs in found.items()
    ]
    header = ["network", "parameters", "pixels right, %", "error at 1 pixel", "at 4 pixels"]
    return rows(header, lines)


def draw(found: Mapping[str, list[Record]], path: Path) -> None:
    """Draws the error against the shift."""
    curves = {
        name: [(x, max(y, 1e-14), error) for x, y, error in curve(runs, "errors", SHIFTS)]
        for name, runs in found.items()
    }
    labels = ("shift, pixels", "equivariance error (squared, relative; 0 drawn as 1e-14)")
    plots.lines_with_errors(curves, path, *labels, log_x=False, log_y=True)


CONDITIONS = {"encoder-decoder": "encoder-decoder", "dilated context": "dilated context"}
STUDY = Study(
    name="dense_shift",
    claim="A map that was pooled and enlarged again moves with the pooling's grid; one of dilated "
    "convolutions moves with the image.",
    criterion="Away from the border, a shift by one pixel gives the encoder-decoder an error more "
    "than 100 times that of the dilated module, and its own at four pixels, the total stride.",
    conditions=CONDITIONS,
    measure=measure,
    verdict=verdict,
    table=table,
    draw=draw,
)

if __name__ == "__main__":
    main(STUDY)
