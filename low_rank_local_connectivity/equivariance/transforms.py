"""Transforms of images and of feature maps: shifts, scalings and rotations, in NumPy.

Maps have shape `(batch, height, width, ...)`, the channels last. The centre of a map is
`((height - 1) / 2, (width - 1) / 2)`.
"""

import abc
import dataclasses

import numpy as np

from low_rank_local_connectivity.ops.arguments import (
    boolean,
    finite_number,
    integer,
    number_above,
    one_of,
    real_number,
    received,
)
from low_rank_local_connectivity.ops.interpolation import (
    INTERPOLATIONS,
    Interpolation,
    between,
    sample,
    taps,
    turned_coordinates,
)


class Transform(abc.ABC):
    """Base class of transforms, defined by where each position of a transformed map is read from.

    `(T x)[p] = x[source(p)]`; what would be read from outside the map has the value `fill`.
    """

    fill: float

    @property
    @abc.abstractmethod
    def amount(self) -> float:
        """The parameter, for a curve."""

    @abc.abstractmethod
    def source(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the row and the column, each `(height, width)`, that each position reads."""

    @abc.abstractmethod
    def __call__(self, maps: np.ndarray) -> np.ndarray:
        """Transforms maps `(batch, height, width, ...)` without changing their shape."""

    def on_features(
        self,
        image_size: tuple[int, int],  # noqa: ARG002, what a shift needs and others do not
        feature_size: tuple[int, int],  # noqa: ARG002
        strides: tuple[int, int] | None,  # noqa: ARG002
    ) -> "Transform":
        """Returns the counterpart of the transform on feature maps of another resolution."""
        return self

    def counted(self, height: int, width: int, margin: int = 0) -> np.ndarray:
        """Returns which positions of a transformed map read only from inside the map.

        Args:
            height: Rows of the map.
            width: Columns of the map.
            margin: Rows and columns at each side that count as outside, both for the position
                itself and for those that it reads.

        Returns:
            Booleans of shape `(height, width)`.
        """
        inside = np.ones((height, width), bool)
        grids = np.indices((height, width))
        sources = self.source(height, width)
        for length, own, read in zip((height, width), grids, sources, strict=True):
            inside &= (own >= margin) & (own < length - margin)
            for index, weight in taps(read, self._interpolation):
                outside = (index < margin) | (index >= length - margin)
                inside &= ~(outside & (weight != 0))
        return inside

    @property
    def _interpolation(self) -> Interpolation:
        return getattr(self, "interpolation", "bilinear")


@dataclasses.dataclass(frozen=True)
class Shift(Transform):
    """Moves what is seen down and to the right by whole positions.

    `(T x)[i, j] = x[i - rows, j - columns]`.

    Args:
        rows: Positions down; up if negative.
        columns: Positions to the right; to the left if negative.
        wrap: Whether what leaves on one side comes in on the other.
        fill: Value of the vacated positions; ignored if `wrap`.

    Raises:
        ValueError: If a number of positions is not whole.

    Example:
        >>> Shift(0, 1)(np.array([[[1, 2, 3]]])).tolist()
        [[[0, 1, 2]]]
        >>> Shift(0, 1, wrap=True)(np.array([[[1, 2, 3]]])).tolist()
        [[[3, 1, 2]]]
    """

    rows: int = 0
    columns: int = 0
    wrap: bool = False
    fill: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            if integer(getattr(self, name)) is None:
                raise ValueError(
                    f"`{name}` of a Shift must be a whole number of positions. "
                    f"Received: {received(name, getattr(self, name))}."
                )
        boolean("wrap", self.wrap)
        real_number("fill", self.fill)

    @property
    def amount(self) -> float:
        """The larger of the shifts along the two axes, with its sign."""
        return float(self.rows if abs(self.rows) >= abs(self.columns) else self.columns)

    def source(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the row and the column that each position reads."""
        rows, columns = np.indices((height, width))
        rows, columns = rows - self.rows, columns - self.columns
        return (rows % height, columns % width) if self.wrap else (rows, columns)

    def __call__(self, maps: np.ndarray) -> np.ndarray:
        """Moves the maps without changing their dtype."""
        moved = np.roll(maps, (self.rows, self.columns), axis=(1, 2))
        if not self.wrap:
            rows, columns = self.source(*maps.shape[1:3])
            height, width = maps.shape[1:3]
            inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
            moved[:, ~inside] = self.fill
        return moved

    def on_features(
        self,
        image_size: tuple[int, int],
        feature_size: tuple[int, int],
        strides: tuple[int, int] | None,
    ) -> "Shift":
        """Returns the shift of feature maps whose positions are `strides` pixels apart."""
        if strides is None:
            raise ValueError(
                "How far a shift of the images moves the features depends on the total stride "
                "between them, which is not known here. Received: images of size "
                f"{tuple(image_size)} and features of size {tuple(feature_size)}. Give `strides`."
            )
        if self.rows % strides[0] or self.columns % strides[1]:
            raise ValueError(
                f"A shift by (rows, columns) pixels moves features whose strides are {strides} by "
                f"whole positions only if it is a multiple of {strides}. "
                f"Received: Shift({self.rows}, {self.columns})."
            )
        covered = tuple(n * s for n, s in zip(feature_size, strides, strict=True))
        if self.wrap and covered != tuple(image_size):
            raise ValueError(
                "A shift that wraps around the images wraps around the features only if these "
                f"cover the images. Received: images of size {tuple(image_size)}, and features of "
                f"size {tuple(feature_size)} and strides {strides}. Use wrap=False."
            )
        return dataclasses.replace(
            self, rows=self.rows // strides[0], columns=self.columns // strides[1]
        )


@dataclasses.dataclass(frozen=True)
class _Resampling(Transform):
    """A transform that reads between the positions."""

    def __call__(self, maps: np.ndarray) -> np.ndarray:
        """Resamples the maps; integers become float32."""
        sources = self.source(*maps.shape[1:3])
        return sample(maps, *sources, self._interpolation, self.fill)


@dataclasses.dataclass(frozen=True)
class Scale(_Resampling):
    """Enlarges what is seen about the centre; the map keeps its size.

    `(T x)[p] = x[centre + (p - centre) / factor]`, interpolated without prior smoothing: details
    finer than a pixel of a reduced image are aliased.

    Args:
        factor: How many times larger, above 0. Below 1 it reduces the image, which is then
            surrounded by `fill`.
        interpolation: `"bilinear"`, or `"bicubic"` (Keys's kernel with `a = -1/2`, exact for
            polynomials of degree 2).
        fill: Value outside the map, also for the interpolation across its edge.

    Raises:
        ValueError: If the factor is not above 0, or the interpolation is unknown.

    Example:
        >>> Scale(2.0)(np.array([[[4.0, 8.0, 4.0]]])).tolist()
        [[[6.0, 8.0, 6.0]]]
    """

    factor: float
    interpolation: Interpolation = "bilinear"
    fill: float = 0.0

    def __post_init__(self) -> None:
        number_above("factor", self.factor, 0)
        one_of("interpolation", self.interpolation, INTERPOLATIONS)
        real_number("fill", self.fill)

    @property
    def amount(self) -> float:
        """The factor."""
        return float(self.factor)

    def source(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the row and the column that each position reads."""
        rows, columns = np.indices((height, width))
        return (
            between(height, (rows - (height - 1) / 2) / self.factor),
            between(width, (columns - (width - 1) / 2) / self.factor),
        )


@dataclasses.dataclass(frozen=True)
class Rotation(_Resampling):
    """Rotates what is seen about the centre; the map keeps its size.

    With `u` rows below and `v` columns right of the centre, position `(u, v)` reads
    `(u cos + v sin, v cos - u sin)`. Multiples of 90 degrees on square maps, and of 180 degrees on
    all maps, are exact: they only rearrange the positions.

    Args:
        degrees: The angle, counter-clockwise when the image is shown with row 0 at the top.
        interpolation: As for `Scale`.
        fill: As for `Scale`.

    Raises:
        ValueError: If the angle is not finite, or the interpolation is unknown.

    Example:
        >>> Rotation(90)(np.array([[[1, 2], [3, 4]]])).tolist()
        [[[2, 4], [1, 3]]]
    """

    degrees: float
    interpolation: Interpolation = "bilinear"
    fill: float = 0.0

    def __post_init__(self) -> None:
        finite_number("degrees", self.degrees)
        one_of("interpolation", self.interpolation, INTERPOLATIONS)
        real_number("fill", self.fill)

    @property
    def amount(self) -> float:
        """The angle in degrees."""
        return float(self.degrees)

    def source(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the row and the column that each position reads."""
        return turned_coordinates(height, width, self.degrees)

    def __call__(self, maps: np.ndarray) -> np.ndarray:
        """Rotates the maps; integers become float32 unless positions are only rearranged."""
        quarters, rest = divmod(self.degrees, 90)
        square = maps.shape[1] == maps.shape[2]
        if rest == 0 and (square or quarters % 2 == 0):
            return np.rot90(maps, int(quarters) % 4, axes=(1, 2))
        return super().__call__(maps)
