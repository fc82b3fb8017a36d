"""Do two patches show one place? With few pairs, is it better not to see position?"""

import functools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from scipy import ndimage
from sklearn.datasets import load_sample_images

from low_rank_local_connectivity import FullConv2D
from low_rank_local_connectivity.experiments.paper.statistics import mean_and_error
from low_rank_local_connectivity.experiments.studies.study import (
    Examples,
    Options,
    Record,
    Study,
    draw_curves,
    main,
    rows,
    train,
    values,
    with_error,
)

PATCH = 32
# Columns of the two photographs from which each split cuts; no pixel is in two splits.
REGIONS = {"train": (0, 380), "valid": (380, 480), "test": (480, 640)}
PAIRS = (125, 500, 2000)
TESTS, VALIDS = 500, 250
STEPS, BATCH = 250, 50
# What changes between the two patches of a pair, at most.
SHIFT, DEGREES, SCALE, CONTRAST, NOISE = 4, 20, 1.2, 1.4, 0.05
# Standard deviation, of grey from 0 to 1, below which a patch shows nothing.
TEXTURE = 0.04
RECALL = 0.95
DESCRIPTOR = 32


@functools.cache
def photographs() -> tuple[np.ndarray, ...]:
    """Returns scikit-learn's two photographs in grey, from 0 to 1."""
    return tuple(image.mean(axis=-1) / 255 for image in load_sample_images().images)


def cut(photo: np.ndarray, centre: np.ndarray, degrees: float, scale: float) -> np.ndarray:
    """Returns the patch around a place, turned and scaled, by linear interpolation."""
    offsets = np.arange(PATCH) - (PATCH - 1) / 2
    grid = np.stack(np.meshgrid(offsets, offsets, indexing="ij"))
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    places = np.tensordot(turn * scale, grid, axes=1) + centre[:, None, None]
    return ndimage.map_coordinates(photo, places, order=1, mode="nearest")


def pairs(split: str, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Cuts patches, each twice: as it is, and moved, turned, scaled and lit otherwise.

    Args:
        split: Where to cut.
        count: How many pairs.
        rng: Draws places and changes.

    Returns:
        Standardised patches of shape `(count, 2, 32, 32, 1)`, and the places, `(count, 3)`:
        photograph, row and column.
    """
    first, last = REGIONS[split]
    # The corner of a patch that is turned and enlarged, from its middle, stays in the region.
    reach = int(SCALE * PATCH / 2 * 2**0.5) + SHIFT + 1
    found, places = [], []
    while len(found) < count:
        index = int(rng.integers(2))
        photo = photographs()[index]
        row = rng.integers(reach, photo.shape[0] - reach)
        centre = np.array([row, rng.integers(first + reach, last - reach)], "float64")
        patch = cut(photo, centre, 0, 1)
        if patch.std() < TEXTURE:
            continue
        moved = centre + rng.uniform(-SHIFT, SHIFT, 2)
        scale = SCALE ** rng.uniform(-1, 1)
        other = cut(photo, moved, rng.uniform(-DEGREES, DEGREES), scale)
        other = other ** (CONTRAST ** rng.uniform(-1, 1)) + rng.normal(0, NOISE, other.shape)
        found.append([patch, other])
        places.append([index, *centre])
    patches = np.array(found)
    patches -= patches.mean(axis=(2, 3), keepdims=True)
    patches /= patches.std(axis=(2, 3), keepdims=True)
    return patches[..., None].astype("float32"), np.array(places)


def convolution(padding: str, filters: int, size: int, strides: int = 1) -> Any:
    """Returns a layer without a bias."""
    arguments: dict[str, Any] = {"strides": strides, "kernel_initializer": "he_normal"}
    if padding == "full":
        return FullConv2D(filters, size, **arguments)
    return keras.layers.Conv2D(filters, size, padding=padding, use_bias=False, **arguments)


def network(padding: str) -> Any:
    """Returns a network from pairs to their descriptors, of length 1, `(batch, 2, 32)`.

    Four 3x3 layers, then filters of 4x4 whose largest responses are the descriptor.
    """
    body = []
    for filters, strides in ((8, 1), (16, 2), (32, 2), (32, 2)):
        body += [convolution(padding, filters, 3, strides), keras.layers.ReLU()]
    body += [convolution(padding, DESCRIPTOR, 4), keras.layers.GlobalMaxPooling2D()]
    one = keras.Sequential(
        [keras.Input((PATCH, PATCH, 1)), *body, keras.layers.UnitNormalization()]
    )
    inputs = keras.Input((2, PATCH, PATCH, 1))
    descriptors = [one(inputs[:, index]) for index in (0, 1)]
    return keras.Model(inputs, keras.ops.stack(descriptors, axis=1))


def hardest_in_batch(unused: Any, descriptors: Any) -> Any:
    """Returns how much closer than by 1 each pair's nearest stranger in the batch is."""
    del unused
    one, other = descriptors[:, 0], descriptors[:, 1]
    squares = 2 - 2 * keras.ops.matmul(one, keras.ops.transpose(other))
    distances = keras.ops.sqrt(keras.ops.maximum(squares, 1e-6))
    own = keras.ops.diagonal(distances)
    others = distances + 10 * keras.ops.eye(keras.ops.shape(own)[0])
    nearest = keras.ops.minimum(keras.ops.min(others, axis=0), keras.ops.min(others, axis=1))
    return keras.ops.maximum(0.0, 1 + own - nearest)


def false_positives(model: Any, patches: np.ndarray, places: np.ndarray) -> float:
    """Returns the share of pairs of other places that pass where 95 % of true pairs do."""
    one, other = np.moveaxis(model.predict(patches, batch_size=250, verbose=0), 1, 0)
    own = np.linalg.norm(one - other, axis=-1)
    # Every patch with the changed one of the next place that does not overlap with its own.
    strangers = []
    for index, place in enumerate(places):
        for step in range(1, len(places)):
            candidate = (index + step) % len(places)
            away = np.abs(places[candidate] - place)
            if away[0] > 0 or away[1:].max() > 2 * PATCH:
                strangers.append(np.linalg.norm(one[index] - other[candidate]))
                break
    return float((np.array(strangers) <= np.quantile(own, RECALL)).mean())


def measure(padding: str, seed: int, options: Options) -> dict[str, Any]:
    """Trains on 125 to 2,000 pairs, for as many steps each."""
    valid, _ = pairs("valid", VALIDS, np.random.default_rng([seed, 1]))
    test = pairs("test", TESTS, np.random.default_rng([seed, 2]))
    found = []
    for count in PAIRS:
        examples, _ = pairs("train", count, np.random.default_rng([seed, 3, count]))
        keras.utils.set_random_seed(seed)
        model = network(padding)
        model.compile(keras.optimizers.Adam(0.002), hardest_in_batch)
        epochs = options.epochs or STEPS * BATCH // count
        train(
            model,
            _with_labels(examples),
            _with_labels(valid),
            epochs=epochs,
            batch_size=BATCH,
            seed=seed,
        )
        found.append(false_positives(model, *test))
    return {"errors": found, "fewest": found[0], "most": found[-1]}


def _with_labels(patches: np.ndarray) -> Examples:
    return patches, np.zeros(len(patches))


def changes(found: Mapping[str, list[Record]]) -> np.ndarray:
    """Returns full's false positives less same's, for every seed and number of pairs."""
    full, same = (np.array(values(found[name], "errors")) for name in ("full", "same"))
    count = min(len(full), len(same))
    return full[:count] - same[:count]


def verdict(found: Mapping[str, list[Record]]) -> tuple[str, bool]:
    """Compares full with same, where there are few pairs."""
    change, error = mean_and_error(changes(found)[:, 0].tolist())
    sentence = (
        f"With {PAIRS[0]} pairs full convolutions let {with_error(change, error, '+')} "
        "points more strangers pass than same ones, paired over seeds."
    )
    return sentence, change < 0


def table(found: Mapping[str, list[Record]]) -> str:
    """Returns a line for each number of pairs."""
    lines = []
    for index, count in enumerate(PAIRS):
        cells: list[Any] = [count]
        for runs in found.values():
            error, spread = mean_and_error([one[index] for one in values(runs, "errors")])
            cells.append(with_error(error, spread))
        change, spread = mean_and_error(changes(found)[:, index].tolist())
        lines.append([*cells, with_error(change, spread, "+")])
    note = (
        "\n\nFalse positives at 95 % recall, in percent. Published (HardNet on the Brown patches, "
        "same, and the change by full): 25,000 pairs 14.5, -6.3; 50,000 8.4, -4.1; 100,000 3.8, "
        "-0.9; 250,000 2.3, 0.0; 500,000 2.0, 0 (Kayhan and van Gemert, CVPR 2020)."
    )
    return rows(["pairs", *(f"{name}, %" for name in found), "full - same"], lines) + note


def draw(found: Mapping[str, list[Record]], path: Any) -> None:
    """Draws false positives against the number of pairs."""
    labels = ("pairs to learn from", "false positives at 95 % recall, %")
    draw_curves(found, "errors", PAIRS, path, labels, log_x=True)


STUDY = Study(
    name="patch_matching",
    claim="To tell whether two patches of photographs show one place, a network that cannot see "
    "absolute position needs fewer pairs.",
    criterion="With the fewest pairs full convolutions let fewer strangers pass than same ones.",
    conditions={"same": "same", "full": "full"},
    measure=measure,
    verdict=verdict,
    table=table,
    draw=draw,
)

if __name__ == "__main__":
    main(STUDY)
