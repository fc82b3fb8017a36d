"""Whether features reveal where they are."""

import dataclasses
from typing import Any

import numpy as np

from low_rank_local_connectivity.equivariance.features import Features, Measured, batches
from low_rank_local_connectivity.ops.arguments import (
    number_above,
    positive_int,
    positive_ints,
    require_each,
    whole_number,
)

# A feature whose variance is at most this fraction of its mean square is constant up to rounding.
ROUNDING = 1e-10


@dataclasses.dataclass(frozen=True)
class LocationProbe:
    """How well a linear probe predicts where a feature is.

    Args:
        row: R^2 of the row on held-out images: 1 if it is predicted exactly, 0 if no better than
            by the mean row, and below 0 if worse.
        column: R^2 of the column.
    """

    row: float
    column: float


def location_probe(
    model: Measured,
    images: Any = None,
    image_shape: tuple[int, int, int] | None = None,
    layer: str | None = None,
    *,
    examples: int = 64,
    ridge: float = 1e-3,
    seed: int = 0,
    batch_size: int = 32,
    data_format: str | None = None,
    progress: bool | None = None,
) -> LocationProbe:
    """Returns how well absolute position can be predicted from a model's frozen features.

    The features `z[n, p]`, one vector for image `n` and position `p`, are standardised over the
    training images; so are the targets `y[p] = (row, column)`, over the positions. Ridge regression
    minimises `mean_{n, p} ||y[p] - W' z[n, p]||^2 + ridge * ||W||^2` in closed form,

    `W = (E[z z'] + ridge * I)^-1 E[z y']`,

    and is evaluated by `R^2 = 1 - sum (y - W' z)^2 / sum y^2` on the other images. Of every two
    consecutive images, one, chosen at random, is for training and the other is held out.

    A network of unpadded convolutions reveals nothing about position on images whose statistics
    are the same everywhere, such as the noise that is drawn if only `image_shape` is given. Values
    above 0 are then due to padding, coordinates, or position-dependent filters or biases. On real
    images, whose content depends on the place, compare with a network that cannot know positions.

    Args:
        model: Keras model, or function of a batch, that returns features with rows and columns.
        images: Array or stream of batches, as for `error`, of at least 2 images. No image should
            occur twice, or both splits might contain it.
        image_shape: Instead of images, the shape of one image of standard normal noise.
        layer: Layer whose outputs are the features, as for `error`.
        examples: How many images of noise.
        ridge: Weight of the penalty, above 0, relative to features of variance 1.
        seed: Seed of the noise and of the split.
        batch_size: Images at a time.
        data_format: As for `error`.
        progress: As for `error`.

    Returns:
        `LocationProbe` with the R^2 of `row` and `column`.

    Raises:
        ValueError: If not exactly one of `images` and `image_shape` is given, there are fewer than
            2 images or fewer than 2 positions along an axis, or a number is out of its range.

    Example:
        >>> from low_rank_local_connectivity import AddCoordinates2D
        >>> found = location_probe(AddCoordinates2D(), image_shape=(6, 5, 1), examples=8)
        >>> round(found.row, 3), round(found.column, 3)
        (1.0, 1.0)

    Reference:
        Islam et al., "Position, Padding and Predictions: A Deeper Look at Position Information in
        CNNs", 2021 (with a convolutional read-out, which is linear here).
    """
    if (images is None) == (image_shape is None):
        given = "both" if images is not None else "neither"
        raise ValueError(
            f"One of `images` and `image_shape` must be given, and not both. Received: {given}."
        )
    ridge, seed = number_above("ridge", ridge, 0), whole_number("seed", seed, 0)
    examples = positive_int("examples", examples)
    if image_shape is not None:
        size = positive_ints("image_shape", image_shape)
        require_each("image_shape", size, 3, "the axes of an image")
        shape = (examples, *size)
        images = np.random.default_rng(seed).normal(size=shape).astype("float32")
    features = Features(model, layer, data_format, "location_probe")
    train, held_out = _split(features, images, seed, batch_size, progress)
    if held_out.count == 0:
        raise ValueError(
            "location_probe() needs at least 2 images: one to train the probe, one to judge it. "
            "Received: 1."
        )
    return LocationProbe(*_r_squared(train, held_out, ridge))


class _Moments:
    """Sums over images and positions of the products of features and targets."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: Any = 0
        self.products: Any = 0
        self.cross: Any = 0

    def add(self, vectors: np.ndarray, targets: np.ndarray) -> None:
        """Adds features `(images, positions, channels)`, targets `(positions, 2)`."""
        self.count += len(vectors) * vectors.shape[1]
        self.sums += vectors.sum(axis=(0, 1))
        self.products += np.einsum("npc,npd->cd", vectors, vectors, optimize=True)
        self.cross += np.einsum("npc,pt->ct", vectors, targets, optimize=True)


def _split(
    features: Features, images: Any, seed: int, batch_size: int, progress: bool | None
) -> tuple[_Moments, _Moments]:
    """Returns the moments of the training images and of those held out."""
    train, held_out = _Moments(), _Moments()
    number = 0
    for pictures, _ in batches(images, None, batch_size, progress):
        maps = features(pictures)
        if maps.ndim != 4:
            raise ValueError(
                "location_probe() needs features with rows, columns and channels. Received: "
                f"features of shape {maps.shape}. Name a layer."
            )
        maps = features.channels_last(maps).astype(float)
        targets = _targets(*maps.shape[1:3])
        vectors = maps.reshape(len(maps), -1, maps.shape[-1])
        trains = _trains(np.arange(number, number + len(maps)), seed)
        number += len(maps)
        for moments, chosen in ((train, trains), (held_out, ~trains)):
            if chosen.any():
                moments.add(vectors[chosen], targets)
    return train, held_out


def _trains(numbers: np.ndarray, seed: int) -> np.ndarray:
    """Returns which images are for training: one of each pair, at random; a single one, too."""
    lots = [np.random.default_rng([seed, pair]).integers(2) if pair else 0 for pair in numbers // 2]
    return numbers % 2 == lots


def _targets(height: int, width: int) -> np.ndarray:
    """Returns the row and column of each position, standardised to mean 0 and variance 1."""
    if min(height, width) < 2:
        raise ValueError(
            "location_probe() needs at least 2 positions along each axis. Received: features of "
            f"size {(height, width)}."
        )
    places = np.indices((height, width)).reshape(2, -1).T.astype(float)
    return (places - places.mean(axis=0)) / places.std(axis=0)


def _r_squared(train: _Moments, held_out: _Moments, ridge: float) -> tuple[float, float]:
    """Returns R^2 of row and column of the probe of `train` on `held_out`."""
    mean = train.sums / train.count
    variances = np.diag(train.products) / train.count - mean**2
    varies = variances > ROUNDING * np.diag(train.products) / train.count
    scale = np.where(varies, 1 / np.sqrt(np.where(varies, variances, 1)), 0)

    def standardised(moments: _Moments) -> tuple[np.ndarray, np.ndarray]:
        """Returns `E[z z']` and `E[z y']` of features standardised as those of `train`."""
        average = moments.sums / moments.count
        products = moments.products / moments.count
        products = products - np.outer(mean, average) - np.outer(average, mean)
        products = (products + np.outer(mean, mean)) * np.outer(scale, scale)
        # The targets' mean over each image is 0, so that of the features does not matter.
        return products, moments.cross / moments.count * scale[:, None]

    products, cross = standardised(train)
    weights = np.linalg.solve(products + ridge * np.eye(len(products)), cross)
    products, cross = standardised(held_out)
    # E[(y - W'z)^2] for targets of variance 1; z's mean is not quite 0 on the images held out.
    losses = 1 - 2 * np.sum(weights * cross, axis=0)
    losses += np.einsum("ct,cd,dt->t", weights, products, weights)
    row, column = 1 - losses
    return float(row), float(column)
