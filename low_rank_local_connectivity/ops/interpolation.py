"""Interpolation in NumPy: reading maps between their positions."""

from collections.abc import Iterator
from typing import Literal

import numpy as np

Interpolation = Literal["bilinear", "bicubic"]
INTERPOLATIONS = ("bilinear", "bicubic")


def taps(coordinates: np.ndarray, interpolation: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the positions along one axis that each coordinate reads, and their weights.

    They are two neighbours for bilinear interpolation, and four, weighted by Keys's kernel with
    `a = -1/2`, for bicubic.
    """
    below = np.floor(coordinates).astype(int)
    f = coordinates - below
    if interpolation == "bilinear":
        weights = {0: 1 - f, 1: f}
    else:
        weights = {
            -1: f * (-0.5 + f * (1 - 0.5 * f)),
            0: 1 + f**2 * (-2.5 + 1.5 * f),
            1: f * (0.5 + f * (2 - 1.5 * f)),
            2: f**2 * (-0.5 + 0.5 * f),
        }
    for offset, weight in weights.items():
        yield below + offset, weight


def sample(
    maps: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    interpolation: str = "bilinear",
    fill: float = 0.0,
) -> np.ndarray:
    """Reads maps at any coordinates.

    Everything outside a map has the value `fill`, also as a neighbour in an interpolation, as in
    `keras.ops.image.map_coordinates(fill_mode="constant")` and SciPy's `mode="grid-constant"`.

    Args:
        maps: Array `(batch, height, width, ...)`.
        rows: Row coordinates, of any shape.
        columns: Column coordinates, of the same shape.
        interpolation: `"bilinear"` or `"bicubic"`.
        fill: Value of what is outside.

    Returns:
        Array `(batch, *shape of rows, ...)`; float64 if the maps are, else float32.

    Example:
        >>> maps = np.array([[[0.0, 1.0], [2.0, 3.0]]])
        >>> sample(maps, np.array([0.5]), np.array([0.5])).tolist()
        [[1.5]]

    Reference:
        Keys, "Cubic convolution interpolation for digital image processing", 1981.
    """
    height, width = maps.shape[1:3]
    dtype = np.float64 if maps.dtype == np.float64 else np.float32
    trailing = (1,) * (maps.ndim - 3)
    read = np.full((len(maps), *rows.shape, *maps.shape[3:]), fill, dtype)
    for row, row_weight in taps(rows, interpolation):
        for column, column_weight in taps(columns, interpolation):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight = np.where(inside, row_weight * column_weight, 0)
            if weight.any():
                values = maps[:, np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
                # The weights of all neighbours, those outside included, add up to 1.
                read += weight.astype(dtype).reshape(*weight.shape, *trailing) * (
                    values - dtype(fill)
                )
    return read


def turned_coordinates(height: int, width: int, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the row and the column that each position of a rotated map is read from.

    With `u` rows below and `v` columns right of the centre, position `(u, v)` reads
    `(u cos + v sin, v cos - u sin)`.

    Args:
        height: Rows of the map.
        width: Columns of the map.
        degrees: Angle, counter-clockwise as the map is seen with row 0 at the top.

    Example:
        >>> rows, columns = turned_coordinates(3, 3, 90)
        >>> rows[0, 0].item(), columns[0, 0].item()
        (0.0, 2.0)
    """
    rows, columns = np.indices((height, width))
    below, right = rows - (height - 1) / 2, columns - (width - 1) / 2
    angle = np.deg2rad(degrees % 360)
    return (
        between(height, below * np.cos(angle) + right * np.sin(angle)),
        between(width, right * np.cos(angle) - below * np.sin(angle)),
    )


def between(length: int, offsets: np.ndarray) -> np.ndarray:
    """Returns coordinates from offsets from the centre, rounded where they are nearly whole."""
    return np.round((length - 1) / 2 + offsets, 9)
