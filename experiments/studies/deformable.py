"""Do filters that choose where to look follow what is warped?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from scipy import ndimage

from low_rank_local_connectivity import DeformableConv2D, SpatialTransformer2D
from low_rank_local_connectivity.experiments.studies.images import image_shape, splits
from low_rank_local_connectivity.experiments.studies.study import (
    Options,
    Record,
    Study,
    accuracy,
    curve,
    draw_curves,
    main,
    mean,
    percent,
    rows,
    train,
    values,
)

# Pixels, in images of 28, by which a warp moves things: standard deviation, and its smoothness.
STRENGTHS = (0.0, 1.0, 2.0, 3.0, 4.0)
TRAINED, SMOOTHNESS = 2.0, 4.0
FILTERS, STRIDES = (16, 32, 32), (2, 2, 1)
EPOCHS, BATCH, RATE = 20, 32, 0.003
# Rows and columns by which the toy's target is moved.
OFFSET = (0.6, -0.3)
NETWORKS = ("convolution", "deformable v1", "deformable v2", "spatial transformer")


def warped(images: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Moves every pixel of an image by a smooth random field of its own."""
    size = images.shape[1]
    strength, smoothness = strength * size / 28, SMOOTHNESS * size / 28
    grid = np.indices(images.shape[1:3])
    result = np.zeros_like(images)
    for image, target in zip(images, result, strict=True):
        noise = rng.normal(size=grid.shape)
        field = ndimage.gaussian_filter(noise, (0, smoothness, smoothness), mode="wrap")
        places = grid + strength * field / field.std()
        for channel in range(image.shape[-1]):
            target[..., channel] = ndimage.map_coordinates(image[..., channel], places, order=1)
    return result


def build(kind: str, shape: tuple[int, ...]) -> Any:
    """Returns three layers, of which all but the first may choose where to look, and logits."""
    x = inputs = keras.Input(shape)
    if kind == "spatial transformer":
        locate = keras.Sequential(
            [
                keras.layers.Conv2D(8, 5, strides=2, padding="same", activation="relu"),
                keras.layers.Conv2D(16, 5, strides=2, padding="same", activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(32, activation="relu"),
            ]
        )
        x = SpatialTransformer2D(locate)(x)
    for index, (filters, strides) in enumerate(zip(FILTERS, STRIDES, strict=True)):
        arguments: dict[str, Any] = {"strides": strides, "padding": "same", "use_bias": False}
        if index and kind.startswith("deformable"):
            layer: Any = DeformableConv2D(filters, 3, modulated=kind.endswith("v2"), **arguments)
        else:
            layer = keras.layers.Conv2D(filters, 3, **arguments)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(layer(x)))
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x)))


def measure(kind: str, seed: int, options: Options) -> dict[str, Any]:
    """Trains on warped images, and tests on others warped less and more."""
    parts = {}
    for index, (name, (images, labels)) in enumerate(splits(options).items()):
        rng = np.random.default_rng([seed, index])
        parts[name] = (images if name == "test" else warped(images, TRAINED, rng), labels)
    model = build(kind, image_shape(options))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(RATE), loss)
    epochs = options.epochs or EPOCHS
    train(model, parts["train"], parts["valid"], epochs=epochs, batch_size=BATCH, seed=seed)
    images, labels = parts["test"]
    found = []
    for strength in STRENGTHS:
        rng = np.random.default_rng([seed, 9, int(10 * strength)])
        found.append(accuracy(model, (warped(images, strength, rng), labels)))
    result = {
        "accuracies": found,
        "as trained": found[STRENGTHS.index(TRAINED)],
        "parameters": model.count_params(),
    }
    if kind.startswith("deformable"):
        result |= toy(kind.endswith("v2"), seed)
    return result


def toy(modulated: bool, seed: int) -> dict[str, float]:
    """Compares a new layer with a convolution, and lets it find by how much images were moved."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(16, 24, 26, 3)).astype("float32")
    plain = keras.layers.Conv2D(4, 3, padding="same")
    expected = keras.ops.convert_to_numpy(plain(images))
    layer = DeformableConv2D(4, 3, padding="same", modulated=modulated)
    layer.build(images.shape)
    layer.kernel.assign(plain.kernel)
    apart = np.abs(keras.ops.convert_to_numpy(layer(images)) - expected).max()
    smooth = ndimage.gaussian_filter(images, (0, 2, 2, 0), mode="wrap")
    smooth /= smooth.std()
    back = tuple(-one for one in OFFSET)
    moved = ndimage.shift(smooth, (0, *back, 0), order=1, mode="grid-constant")
    one = DeformableConv2D(3, 1, use_bias=False, modulated=False)
    inputs = keras.Input(images.shape[1:])
    model = keras.Model(inputs, one(inputs))
    one.kernel.assign(np.eye(3)[None, None])
    one.kernel.trainable = False
    model.compile(keras.optimizers.Adam(0.02), "mse")
    model.fit(smooth, moved, batch_size=16, epochs=300, verbose=0)
    offset, _ = one.offsets_and_mask(smooth)
    found = keras.ops.convert_to_numpy(offset).mean(axis=(0, 1, 2))
    return {"starts apart": float(apart), "offset off": float(np.abs(found - OFFSET).max())}


def verdict(found: Mapping[str, list[Record]]) -> tuple[str, bool]:
    """Compares with a convolution."""
    score = {name: mean(runs, "as trained") for name, runs in found.items()}
    layers = [found[name] for name in NETWORKS if name.startswith("deformable")]
    start = max(max(values(runs, "starts apart")) for runs in layers)
    off = max(max(values(runs, "offset off")) for runs in layers)
    sentence = (
        ", ".join(f"{name}: {100 * share:.1f} %" for name, share in score.items())
        + f" of warped images right. A new layer's outputs are within {start:.1e} of a "
        f"convolution's; a constant offset is found to {off:.3f} pixels."
    )
    best = max(score["deformable v1"], score["deformable v2"])
    return sentence, best >= score["convolution"] and start < 1e-4 and off < 0.1


def table(found: Mapping[str, list[Record]]) -> str:
    """Returns a line for each network."""
    lines = []
    for name, runs in found.items():
        cells = [name, f"{mean(runs, 'parameters'):,.0f}", percent(runs, "as trained")]
        shares = curve(runs, "accuracies", STRENGTHS)
        lines.append([*cells, *(f"{100 * share:.1f}" for _, share, _ in shares)])
    header = ["network", "parameters", "warped as trained, %"]
    return rows([*header, *(f"by {strength:g}, %" for strength in STRENGTHS)], lines)


def draw(found: Mapping[str, list[Record]], path: Path) -> None:
    """Draws accuracy against the strength of the warp."""
    labels = ("warp, pixels of 28 (trained with 2)", "test accuracy, %")
    draw_curves(found, "accuracies", STRENGTHS, path, labels)


STUDY = Study(
    name="deformable",
    claim="Layers that learn where to look start as convolutions, find a known offset, and "
    "classify warped images at least as well as convolutions.",
    criterion="New layers within 1e-4 of a convolution, a constant offset found to 0.1 pixels, and "
    "the better deformable network no worse on warped images than the convolution.",
    conditions={name: name for name in NETWORKS},
    measure=measure,
    verdict=verdict,
    table=table,
    draw=draw,
    images=True,
)

if __name__ == "__main__":
    main(STUDY)
