"""Where position means something, and where it means nothing: five kinds of layer."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity import (
    CoordConv2D,
    FullConv2D,
    LocallyConnected2D,
    LowRankLocallyConnected2D,
)
from low_rank_local_connectivity.experiments.studies.images import image_shape, on_canvas, splits
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

# Pixels that the canvas is larger than the images.
MARGIN = 8
EPOCHS = 10
# Filters and strides of the layers, all 3x3, without biases or normalisation, which would show a
# full convolution where the border is.
LAYERS = ((16, 1), (32, 2), (64, 2))
PLAIN = functools.partial(keras.layers.Conv2D, padding="same")
KINDS: dict[str, tuple[Callable[..., Any], ...]] = {
    "convolution": (PLAIN,) * 3,
    "CoordConv": (functools.partial(CoordConv2D, padding="same"), PLAIN, PLAIN),
    "LRLC, layer 3": (
        PLAIN,
        PLAIN,
        functools.partial(LowRankLocallyConnected2D, padding="same", spatial_rank=4),
    ),
    "locally connected, layer 3": (
        PLAIN,
        PLAIN,
        functools.partial(LocallyConnected2D, padding="same"),
    ),
    "full convolution": (FullConv2D,) * 3,
}
PLACES = ("aligned", "translated")


def measure(condition: tuple[str, str], seed: int, options: Options) -> dict[str, Any]:
    """Trains on images in the middle of a canvas or anywhere, and tests on others placed alike."""
    kind, place = condition
    size, _, channels = image_shape(options)
    canvas = size + MARGIN
    parts = [keras.Input((canvas, canvas, channels))]
    for make, (filters, strides) in zip(KINDS[kind], LAYERS, strict=True):
        layer = make(filters, 3, strides=strides, use_bias=False, kernel_initializer="he_normal")
        parts += [layer, keras.layers.ReLU()]
    model = keras.Sequential([*parts, keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.003), loss)
    rngs = {
        name: np.random.default_rng([seed, index]) for index, name in enumerate(splits(options))
    }
    examples = {
        name: on_canvas(part, canvas, rngs[name] if place == "translated" else None)
        for name, part in splits(options).items()
    }
    epochs = options.epochs or EPOCHS
    train(model, examples["train"], examples["valid"], epochs=epochs, batch_size=32, seed=seed)
    return {
        "train": accuracy(model, examples["train"]),
        "test": accuracy(model, examples["test"]),
        "parameters": model.count_params(),
    }


def verdict(found: Mapping[str, list[Record]]) -> tuple[str, bool]:
    """Compares the kinds in both places."""
    score = {name: mean(runs, "test") for name, runs in found.items()}
    kept = {kind: [score[f"{kind}, {place}"] for place in PLACES] for kind in KINDS}
    best = max(KINDS, key=lambda kind: kept[kind][1])
    local = "locally connected, layer 3"
    gap = mean(found[f"{local}, translated"], "train") - kept[local][1]
    met = kept["LRLC, layer 3"][0] >= kept["convolution"][0] and best == "full convolution"
    sentence = (
        f"Aligned, LRLC {100 * kept['LRLC, layer 3'][0]:.1f} % against a convolution's "
        f"{100 * kept['convolution'][0]:.1f} %; translated, the best is {best} "
        f"({100 * kept[best][1]:.1f} %), and a locally connected layer's test accuracy is "
        f"{100 * gap:.1f} points below its training accuracy."
    )
    return sentence, met


def table(found: Mapping[str, list[Record]]) -> str:
    """Returns a line for each kind."""
    lines = []
    for kind in KINDS:
        cells = [kind, f"{mean(found[f'{kind}, aligned'], 'parameters'):,.0f}"]
        for place in PLACES:
            runs = found[f"{kind}, {place}"]
            cells += [percent(runs, "train"), percent(runs, "test")]
        lines.append(cells)
    header = ["network", "parameters"]
    parts = [f"{place}: {part}, %" for place in PLACES for part in ("train", "test")]
    return rows([*header, *parts], lines)


def draw(found: Mapping[str, list[Record]], path: Path) -> None:
    """Draws a bar for each kind and place."""
    draw_bars(found, "test", KINDS, PLACES, path, "test accuracy, %")


STUDY = Study(
    name="aligned",
    claim="Layers that know where they are help where position means something and hurt where it "
    "means nothing.",
    criterion="On aligned images LRLC is at least as good as a convolution; on translated ones "
    "full convolutions are best.",
    conditions={f"{kind}, {place}": (kind, place) for kind in KINDS for place in PLACES},
    measure=measure,
    verdict=verdict,
    table=table,
    draw=draw,
    images=True,
)

if __name__ == "__main__":
    main(STUDY)
