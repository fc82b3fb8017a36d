"""Whether a classifier keeps its answer when the image moves."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from low_rank_local_connectivity.equivariance.curves import Curve
from low_rank_local_connectivity.equivariance.features import Features, Measured, batches
from low_rank_local_connectivity.equivariance.transforms import Shift
from low_rank_local_connectivity.ops.arguments import (
    array,
    boolean,
    per_axis,
    positive_int,
    real_number,
    received,
    sequence,
    whole_number,
)


def shift_consistency(
    model: Measured,
    images: Any,
    max_shift: int | None = None,
    shifts: Sequence[tuple[int, int]] | None = None,
    seed: int = 0,
    pairs: int = 1,
    batch_size: int = 32,
    *,
    wrap: bool = False,
    fill: float = 0.0,
    data_format: str | None = None,
    progress: bool | None = None,
) -> float:
    """Returns how often two shifted copies of an image get the same class.

    `mean over images and pairs (s, t) of [argmax f(T_s x) == argmax f(T_t x)]`

    Args:
        model: Keras model, or function of a batch, that returns scores `(batch, classes)`.
        images: Array or stream of batches, as for `error`.
        max_shift: Draw the rows and columns of each shift uniformly from `-max_shift` to
            `max_shift`, for each image and pair.
        shifts: Instead, compare all pairs of these shifts `(rows, columns)`, each once.
        seed: Seed of the draws, which depend only on it and the image's place in `images`.
        pairs: How many pairs are drawn for each image, at least 1; ignored for `shifts`.
        batch_size: Images at a time.
        wrap: Whether what leaves on one side comes in on the other.
        fill: Value of the vacated pixels otherwise.
        data_format: As for `error`.
        progress: As for `error`.

    Returns:
        Fraction of the pairs, from 0 to 1. Whether the class is right does not matter.

    Raises:
        ValueError: If not exactly one of `max_shift` and `shifts` is given, or the model does not
            return scores of 2 or more classes.

    Example:
        >>> images = np.zeros((3, 5, 4, 2))
        >>> images[:, 2, 2, 1] = 1
        >>> pooled = lambda x: np.asarray(x).max(axis=(1, 2))
        >>> shift_consistency(pooled, images, max_shift=1)
        1.0

    Reference:
        Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019 (which takes
        random crops of a larger image; here the vacated pixels are filled or wrapped).
    """
    if (max_shift is None) == (shifts is None):
        raise ValueError(
            "One of `max_shift` and `shifts` must be given, and not both. Received: "
            f"{received('max_shift', max_shift)} and {received('shifts', shifts)}."
        )
    classes = _Classes(Features(model, None, data_format, "shift_consistency"), wrap, fill)
    stream = batches(images, None, batch_size, progress)
    if shifts is not None:
        moves = _checked(shifts)
        if len(moves) < 2:
            raise ValueError(
                f"`shifts` must hold at least 2 shifts to compare. Received: shifts={shifts!r}."
            )
        return _consistency_of(classes, stream, moves)
    largest, pairs = positive_int("max_shift", max_shift), positive_int("pairs", pairs)
    seed = whole_number("seed", seed, 0)
    agreeing, number = 0, 0
    for pictures, _ in stream:
        drawn = np.stack(
            [
                np.random.default_rng([seed, number + index]).integers(
                    -largest, largest, size=(pairs, 2, 2), endpoint=True
                )
                for index in range(len(pictures))
            ]
        )
        for pair in range(pairs):
            first, second = (classes.of_each(pictures, drawn[:, pair, one]) for one in (0, 1))
            agreeing += int((first == second).sum())
        number += len(pictures)
    return agreeing / (number * pairs)


def _consistency_of(
    classes: "_Classes", stream: Iterator, shifts: Sequence[tuple[int, int]]
) -> float:
    agreeing, number = 0, 0
    for pictures, _ in stream:
        found = [classes.of_all(pictures, shift) for shift in shifts]
        for one, other in itertools.combinations(found, 2):
            agreeing += int((one == other).sum())
            number += len(pictures)
    return agreeing / number


def accuracy_under_shifts(
    model: Measured,
    images: Any,
    labels: Any = None,
    shifts: Sequence[int | tuple[int, int]] = (0,),
    batch_size: int = 32,
    *,
    wrap: bool = False,
    fill: float = 0.0,
    data_format: str | None = None,
    progress: bool | None = None,
) -> Curve:
    """Returns how often a classifier is right on shifted images, for each shift.

    `accuracy(s) = mean over images n of [argmax f(T_s x[n]) == label[n]]`. The mean over diagonal
    shifts, `accuracy_under_shifts(..., shifts=range(-32, 33)).mean.mean()`, is a diagonal-shift
    accuracy.

    Args:
        model: Keras model, or function of a batch, that returns scores `(batch, classes)`.
        images: Array, or stream of batches `(images, labels)`.
        labels: Classes `(examples,)` counted from 0, or one-hot, of an array of images.
        shifts: Shifts of `(rows, columns)`; a number means as many of both, along the diagonal.
        batch_size: Images at a time.
        wrap: Whether what leaves on one side comes in on the other.
        fill: Value of the vacated pixels otherwise.
        data_format: As for `error`.
        progress: As for `error`.

    Returns:
        `Curve` of the shifts' amounts and of 1 (right) or 0 for each shift and example: its `mean`
        is the accuracy.

    Raises:
        ValueError: If there are no labels, or the model does not return scores of 2 or more
            classes.

    Example:
        >>> images = np.eye(4)[:, None, :, None]  # one bright pixel, whose column is the class
        >>> columns = lambda x: np.asarray(x)[:, 0, :, 0]
        >>> accuracy_under_shifts(columns, images, range(4), [(0, 0), (0, 1)], wrap=True).mean
        array([1., 0.])
    """
    moves = _checked(shifts)
    features = Features(model, None, data_format, "accuracy_under_shifts")
    classes = _Classes(features, wrap, fill)
    found = []
    answers = None if labels is None else array("labels", labels, "K")
    for pictures, right in batches(images, answers, batch_size, progress):
        if right is None:
            raise ValueError(
                "accuracy_under_shifts() needs labels: as `labels` for an array of images, or in "
                "the items (images, labels) of a stream. Received: images alone."
            )
        wanted = right.argmax(axis=-1) if right.ndim > 1 and right.shape[-1] > 1 else right.ravel()
        found.append([classes.of_all(pictures, move) == wanted for move in moves])
    values = np.array([Shift(*move).amount for move in moves])
    return Curve(values, np.concatenate(found, axis=1).astype(float))


def _checked(shifts: Any) -> list[tuple[int, int]]:
    """Returns the rows and columns of each shift."""
    given = sequence("shifts", shifts, "shifts (rows, columns)")
    if not given:
        raise ValueError("`shifts` must hold at least one shift. Received: shifts=[].")
    found = [per_axis("shifts", shift, 2, least=None) for shift in given]
    return [(rows, columns) for rows, columns in found]


class _Classes:
    """The classes that a model assigns to shifted images."""

    def __init__(self, scores: Features, wrap: bool, fill: float) -> None:
        self.scores = scores
        self.wrap = boolean("wrap", wrap)
        self.fill = real_number("fill", fill)

    def of_all(self, images: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
        """Returns the classes of images that are all shifted by the same amount."""
        move = Shift(*map(int, shift), wrap=self.wrap, fill=self.fill)
        return self._of(move(self.scores.channels_last(images)))

    def of_each(self, images: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        """Returns the classes of images that are each shifted by an amount of its own."""
        maps = self.scores.channels_last(images)
        moved = [
            Shift(*map(int, shift), wrap=self.wrap, fill=self.fill)(one[None])
            for one, shift in zip(maps, shifts, strict=True)
        ]
        return self._of(np.concatenate(moved))

    def _of(self, maps: np.ndarray) -> np.ndarray:
        scores = self.scores(np.ascontiguousarray(self.scores.original(maps)))
        if scores.ndim != 2 or scores.shape[1] < 2:
            raise ValueError(
                f"{self.scores.caller}() needs scores of shape (batch, classes), of 2 or more "
                f"classes. Received: outputs of shape {scores.shape}."
            )
        return scores.argmax(axis=1)
