"""A pixel's label stands in a corner of the image: only a network that sees so far can tell."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity import DilatedContext2D
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

# The label of the middle pixel is the colour of the corner, 12 pixels from it.
SIZE, DISTANCE = 25, 12
COUNTS = {"train": 600, "valid": 300, "test": 500}
CHANNELS, EPOCHS = 12, 16
NEAR, FAR = (1, 1, 1, 1, 1, 1), (1, 1, 2, 4, 8, 1)
CONDITIONS = {
    "undilated": {"dilations": NEAR},
    "dilated": {"dilations": FAR},
    "dilated, random initial kernels": {"dilations": FAR, "kernel_initializer": "glorot_uniform"},
}


def reach(dilations: tuple[int, ...]) -> int:
    """Returns how far from a position the module sees."""
    return sum(dilations)


def examples(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws noise of three colours with a corner that is red or green."""
    images = rng.uniform(0, 0.3, (count, SIZE, SIZE, 3)).astype("float32")
    labels = np.arange(count) % 2
    images[:, :3, :3] = 0
    for label in (0, 1):
        images[labels == label, :3, :3, label] = 1
    return images, labels


def network(settings: Mapping[str, Any]) -> Any:
    """Returns a 1x1 layer, the context module, and two logits at the middle pixel."""
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(CHANNELS, 1, activation="relu")(inputs)
    x = DilatedContext2D(CHANNELS, **settings)(x)
    x = keras.layers.ReLU()(x)
    middle = keras.layers.Flatten()(keras.layers.Cropping2D(SIZE // 2)(x))
    return keras.Model(inputs, keras.layers.Dense(2)(middle))


def measure(settings: Mapping[str, Any], seed: int, options: Options) -> dict[str, Any]:
    """Trains on the label of the middle pixel alone."""
    model = network(settings)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.003), loss)
    parts = {
        name: examples(count, np.random.default_rng([seed, index]))
        for index, (name, count) in enumerate(COUNTS.items())
    }
    losses = train(
        model,
        parts["train"],
        parts["valid"],
        epochs=options.epochs or EPOCHS,
        batch_size=50,
        seed=seed,
    )
    learnt = next((epoch for epoch, value in enumerate(losses, 1) if value < 0.1), None)
    return {"test": accuracy(model, parts["test"]), "losses": losses, "learnt": learnt or 0}


def verdict(found: Mapping[str, list[Record]]) -> tuple[str, bool]:
    """Compares what sees the corner with what does not."""
    score = {name: mean(runs, "test") for name, runs in found.items()}
    solved = {
        name: sum(value > 0 for value in values(runs, "learnt")) for name, runs in found.items()
    }
    random = "dilated, random initial kernels"
    met = score["undilated"] < 0.6 and score["dilated"] > 0.95
    seen = len(found["dilated"])
    sentence = (
        f"Undilated, which sees {reach(NEAR)} pixels far, {100 * score['undilated']:.1f} %; "
        f"dilated, {reach(FAR)} pixels, {100 * score['dilated']:.1f} %, learnt in "
        f"{solved['dilated']} of {seen} runs; from random kernels {100 * score[random]:.1f} %, in "
        f"{solved[random]}."
    )
    return sentence, met


def table(found: Mapping[str, list[Record]]) -> str:
    """Returns a line for each module."""
    lines = []
    for name, runs in found.items():
        epochs = [value or "-" for value in values(runs, "learnt")]
        sees = reach(CONDITIONS[name]["dilations"])
        lines.append([name, sees, percent(runs, "test"), ", ".join(map(str, epochs))])
    header = ["module", "sees, pixels", "test, %", "epochs to a training loss of 0.1, by run"]
    return rows(header, lines)


def draw(found: Mapping[str, list[Record]], path: Path) -> None:
    """Draws every run's training loss."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6.5, 4), layout="constrained")
    for colour, (name, runs) in zip(
        ("tab:blue", "tab:green", "tab:red"), found.items(), strict=True
    ):
        for index, losses in enumerate(values(runs, "losses")):
            epochs = range(1, len(losses) + 1)
            axis.plot(epochs, losses, color=colour, label=None if index else name, alpha=0.8)
    axis.axhline(np.log(2), color="gray", linestyle="--", linewidth=1, label="ln 2: chance")
    axis.set(xlabel="epoch", ylabel="training loss")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=130)
    plt.close(figure)


STUDY = Study(
    name="far_cue",
    claim="Dilations that double let a few layers see far enough for a cue at a distance; "
    "undilated layers of the same cost never can.",
    criterion=f"With the cue {DISTANCE} pixels away, below 60 % undilated and above 95 % dilated.",
    conditions=CONDITIONS,
    measure=measure,
    verdict=verdict,
    table=table,
    draw=draw,
)

if __name__ == "__main__":
    main(STUDY)
