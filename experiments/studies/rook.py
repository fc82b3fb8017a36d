"""Two images that differ in where a rook stands: who can tell them apart?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity import FullConv2D
from low_rank_local_connectivity.experiments.studies.study import (
    Options,
    Record,
    Study,
    main,
    mean,
    rows,
    values,
)

EPOCHS = 150
# Small logits at first, since one filter with momentum dies easily: it then responds to nothing.
FILTER = keras.initializers.RandomUniform(-0.2, 0.2)
LOGITS = keras.initializers.RandomUniform(-0.1, 0.1)
# It fills its patch, so that it touches two borders of the canvas in either corner.
ROOK = [
    "###..###..###",
    "###..###..###",
    "#############",
    ".###########.",
    "..#########..",
    "..#########..",
    "..#########..",
    "..#########..",
    "..#########..",
    "..#########..",
    "..#########..",
    "..#########..",
    ".###########.",
    "#############",
    "#############",
    "#############",
]


def images() -> np.ndarray:
    """Returns a rook in the upper left corner of a canvas, and one in the lower right."""
    rook = np.array([[pixel == "#" for pixel in row] for row in ROOK], "float32")
    canvas = np.zeros((2, 32, 32, 1), "float32")
    canvas[0, :16, :13, 0] = rook
    canvas[1, 16:, 19:, 0] = rook
    return canvas


def network(padding: str) -> Any:
    """Returns one 5x5 filter without a bias, ReLU, the largest response, and two logits."""
    drawn = FILTER.clone()
    if padding == "full":
        layer: Any = FullConv2D(1, 5, kernel_initializer=drawn)
    else:
        layer = keras.layers.Conv2D(1, 5, padding=padding, use_bias=False, kernel_initializer=drawn)
    parts = [layer, keras.layers.ReLU(), keras.layers.GlobalMaxPooling2D()]
    parts.append(keras.layers.Dense(2, kernel_initializer=LOGITS.clone()))
    return keras.Sequential([keras.Input((32, 32, 1)), *parts])


def measure(padding: str, seed: int, options: Options) -> dict[str, Any]:
    """Trains on the two images, one at a time."""
    del seed
    model = network(padding)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    pair, labels = images(), np.array([0, 1])
    history = model.fit(
        pair, labels, batch_size=1, epochs=options.epochs or EPOCHS, shuffle=False, verbose=0
    )
    logits = model.predict(pair, verbose=0)
    return {
        "accuracy": float((logits.argmax(-1) == labels).mean()),
        "loss": float(loss(labels, logits)),
        "difference": float(np.abs(logits[0] - logits[1]).max()),
        "losses": [round(float(value), 6) for value in history.history["loss"]],
    }


def verdict(found: Mapping[str, list[Record]]) -> tuple[str, bool]:
    """Compares with chance, whose loss is ln 2."""
    solved = {
        name: sum(value == 1 for value in values(runs, "accuracy")) for name, runs in found.items()
    }
    difference = max(values(found["full"], "difference"))
    loss = mean(found["full"], "loss")
    met = solved["full"] == 0 and difference < 1e-6 and abs(loss - np.log(2)) < 1e-3
    met = met and all(solved[name] == len(found[name]) for name in ("valid", "same"))
    sentence = (
        f"Solved in {solved['valid']} (valid) and {solved['same']} (same) of {len(found['same'])} "
        f"runs; full: largest difference of logits {difference:.1e}, loss {loss:.5f} "
        f"(ln 2 = {np.log(2):.5f})."
    )
    return sentence, met


def table(found: Mapping[str, list[Record]]) -> str:
    """Returns a line for each padding."""
    lines = [
        [
            name,
            f"{sum(value == 1 for value in values(runs, 'accuracy'))} of {len(runs)}",
            f"{mean(runs, 'loss'):.5f}",
            f"{max(values(runs, 'difference')):.1e}",
        ]
        for name, runs in found.items()
    ]
    return rows(["padding", "solved", "mean loss", "largest difference of logits"], lines)


def draw(found: Mapping[str, list[Record]], path: Path) -> None:
    """Draws the two images and the loss of every run while it trains."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplot_mosaic("AC;BC", figsize=(8, 4), width_ratios=[1, 3])
    for name, image, label in zip("AB", images(), (0, 1), strict=True):
        axes[name].imshow(image[..., 0], cmap="gray_r")
        axes[name].set(xticks=[], yticks=[], title=f"class {label}")
    colours = {"valid": "tab:blue", "same": "tab:orange", "full": "tab:green"}
    for name, runs in found.items():
        for index, losses in enumerate(values(runs, "losses")):
            axes["C"].plot(losses, color=colours[name], label=None if index else name, alpha=0.8)
    axes["C"].axhline(np.log(2), color="gray", linestyle="--", linewidth=1, label="ln 2: chance")
    axes["C"].set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    axes["C"].legend(title="padding")
    axes["C"].grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


STUDY = Study(
    name="rook",
    claim="Without padding, and with zeros that keep the size, a filter sees from the border where "
    "an object is; a full convolution cannot.",
    criterion="Valid and same tell the two images apart in every run; full stays at chance in all, "
    "its loss ln 2, with logits that differ by less than 1e-6.",
    conditions={"valid": "valid", "same": "same", "full": "full"},
    measure=measure,
    verdict=verdict,
    table=table,
    draw=draw,
    seeds=10,
)

if __name__ == "__main__":
    main(STUDY)
