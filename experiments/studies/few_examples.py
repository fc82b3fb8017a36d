"""With few examples, is it better not to see absolute position?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity import FullConv2D
from low_rank_local_connectivity.experiments.paper.statistics import mean_and_error
from low_rank_local_connectivity.experiments.studies.images import (
    few,
    image_shape,
    on_canvas,
    splits,
)
from low_rank_local_connectivity.experiments.studies.study import (
    Options,
    Record,
    Study,
    accuracy,
    draw_curves,
    main,
    rows,
    train,
    values,
    with_error,
)

# Pixels that the canvas is larger than the images.
MARGIN = 16
PER_CLASS = (5, 10, 20, 50)
VALID_PER_CLASS = 10
STEPS = 100
LAYERS = ((16, 1), (32, 2), (64, 2))


def network(padding: str, shape: tuple[int, int, int]) -> Any:
    """Returns three 3x3 layers without biases, the largest responses, and logits."""
    parts: list[Any] = [keras.Input(shape)]
    for filters, strides in LAYERS:
        arguments: dict[str, Any] = {"strides": strides, "kernel_initializer": "he_normal"}
        if padding == "full":
            parts.append(FullConv2D(filters, 3, **arguments))
        else:
            arguments |= {"padding": padding, "use_bias": False}
            parts.append(keras.layers.Conv2D(filters, 3, **arguments))
        parts.append(keras.layers.ReLU())
    return keras.Sequential([*parts, keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(10)])


def measure(padding: str, seed: int, options: Options) -> dict[str, Any]:
    """Trains on 5 to 50 images of each class, placed at random, for as many steps each."""
    parts = splits(options)
    size, _, channels = image_shape(options)
    canvas = size + MARGIN
    test = on_canvas(parts["test"], canvas, np.random.default_rng([seed, 1]))
    rng = np.random.default_rng([seed, 2])
    valid = on_canvas(few(parts["valid"], VALID_PER_CLASS, rng), canvas, rng)
    found = []
    for per_class in PER_CLASS:
        rng = np.random.default_rng([seed, 3, per_class])
        examples = on_canvas(few(parts["train"], per_class, rng), canvas, rng)
        keras.utils.set_random_seed(seed)
        model = network(padding, (canvas, canvas, channels))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.003), loss)
        epochs = options.epochs or STEPS * 50 // (10 * per_class)
        train(model, examples, valid, epochs=epochs, batch_size=50, seed=seed)
        found.append(accuracy(model, test))
    return {"accuracies": found, "fewest": found[0]}


def gains(found: Mapping[str, list[Record]]) -> np.ndarray:
    """Returns full's accuracy less same's, for every seed and number of examples."""
    full, same = (np.array(values(found[name], "accuracies")) for name in ("full", "same"))
    count = min(len(full), len(same))
    return full[:count] - same[:count]


def verdict(found: Mapping[str, list[Record]]) -> tuple[str, bool]:
    """Compares the two with the fewest examples."""
    gain, error = mean_and_error(gains(found)[:, 0].tolist())
    sentence = (
        f"With {PER_CLASS[0]} images of each class full convolutions gain "
        f"{with_error(gain, error)} points, paired over seeds."
    )
    return sentence, gain > 0


def table(found: Mapping[str, list[Record]]) -> str:
    """Returns a line for each number of examples."""
    lines = []
    for index, per_class in enumerate(PER_CLASS):
        cells: list[Any] = [per_class]
        for runs in found.values():
            mean, error = mean_and_error([one[index] for one in values(runs, "accuracies")])
            cells.append(with_error(mean, error))
        gain, error = mean_and_error(gains(found)[:, index].tolist())
        lines.append([*cells, with_error(gain, error, "+")])
    return rows(["per class", *(f"{name}, %" for name in found), "full - same"], lines)


def draw(found: Mapping[str, list[Record]], path: Path) -> None:
    """Draws accuracy against the number of examples."""
    labels = ("training examples of each class", "test accuracy, %")
    draw_curves(found, "accuracies", PER_CLASS, path, labels, log_x=True)


STUDY = Study(
    name="few_examples",
    claim="Where position means nothing, a network that cannot see it needs fewer examples.",
    criterion="With the fewest examples full convolutions are better than same ones on average.",
    conditions={"same": "same", "full": "full"},
    measure=measure,
    verdict=verdict,
    table=table,
    draw=draw,
    seeds=10,
    images=True,
)

if __name__ == "__main__":
    main(STUDY)
