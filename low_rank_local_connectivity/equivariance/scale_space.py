"""The action of a change of scale on images and on the features of a scale space."""

import dataclasses
from typing import Any

import numpy as np

from low_rank_local_connectivity.layers.data_format import standardize_data_format
from low_rank_local_connectivity.ops.arguments import (
    number_above,
    positive_int,
    sequence,
    whole_number,
)
from low_rank_local_connectivity.ops.scale_space import gaussian_matrix, level_variances


@dataclasses.dataclass(frozen=True)
class ScaleSpaceAction:
    """Makes images smaller by whole steps of a scale space, and moves its levels to match.

    Images: `(T x)[p] = (G[t] * x)[base^n p]`, smoothed as level `n` of `ScaleSpaceLifting2D` is,
    then every `base^n`th row and column. Features: `(T' f)[k, p] = f[k + n, base^n p]`. Pass it to
    `error` or `curve` as `transform`, from which its action on the outputs follows. The model must
    also take images of the smaller size.

    The levels that count are those that exist in `T' f` and that read no level beyond the last,
    neither in `f(T x)` nor in `f(x)`.

    Args:
        base: Factor of the lifting, a whole number above 1.
        steps: Number of levels, `n`, at least 1.
        zero_scale: That of the lifting; None to subsample images without smoothing.
        reach: How many coarser levels an output reads: the sum over the layers of
            `interaction - 1`.
        margin: Positions of the smaller features to leave out at each side. The margin of `error`
            itself does not apply to the axes of a scale space and must be 0.
        levels: Levels of the smaller features to count, among those that exist; all if None.
        data_format: Where images and features have their channels; Keras's global setting if None.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> import keras
        >>> from low_rank_local_connectivity import ScaleConv2D, ScaleSpaceLifting2D
        >>> from low_rank_local_connectivity.equivariance import error
        >>> model = keras.Sequential([ScaleSpaceLifting2D(4), ScaleConv2D(5, 3)])
        >>> rows, columns = np.mgrid[:48, :64] / 8
        >>> images = np.sin(rows + np.cos(columns))[None, :, :, None].astype("float32")
        >>> bool(error(model, images, ScaleSpaceAction(margin=6))[0] < 1e-3)
        True

    Reference:
        Worrall and Welling, "Deep Scale-spaces: Equivariance Over Scale", NeurIPS 2019; the error:
        Sosnovik et al., "Scale-Equivariant Steerable Networks", ICLR 2020.
    """

    base: int = 2
    steps: int = 1
    zero_scale: float | None = 0.5
    reach: int = 0
    margin: int = 0
    levels: tuple[int, ...] | None = None
    data_format: str | None = None

    def __post_init__(self) -> None:
        if positive_int("base", self.base) < 2:
            raise ValueError(
                f"`base` must be an integer of at least 2. Received: base={self.base}."
            )
        positive_int("steps", self.steps)
        whole_number("reach", self.reach, 0)
        whole_number("margin", self.margin, 0)
        if self.zero_scale is not None:
            number_above("zero_scale", self.zero_scale, 0)
        if self.levels is not None:
            for level in sequence("levels", self.levels, "levels counted from 0"):
                whole_number("levels", level, 0)
        standardize_data_format(self.data_format)

    @property
    def factor(self) -> int:
        """How many times smaller images become."""
        return self.base**self.steps

    @property
    def amount(self) -> float:
        """The scale of the images, `1 / factor`, as a curve shows it."""
        return 1 / self.factor

    @property
    def _spatial_axes(self) -> tuple[int, int]:
        """Rows and columns, counted from the end: the same with and without an axis of scales."""
        return (
            (-3, -2) if standardize_data_format(self.data_format) == "channels_last" else (-2, -1)
        )

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Makes a batch of images smaller; integers become float32."""
        if self.zero_scale is None:
            return self._subsampled(images)
        variance = level_variances(self.steps + 1, self.base, self.zero_scale)[-1]
        dtype = np.float64 if images.dtype == np.float64 else np.float32
        for axis in self._spatial_axes:
            matrix = gaussian_matrix(images.shape[axis], variance, self.factor)
            images = np.moveaxis(np.moveaxis(images, axis, -1) @ matrix.T, -1, axis)
        return images.astype(dtype)

    def _subsampled(self, maps: np.ndarray) -> np.ndarray:
        chosen: list[Any] = [slice(None)] * maps.ndim
        for axis in self._spatial_axes:
            chosen[axis] = slice(None, None, self.factor)
        return maps[tuple(chosen)]

    def on_features(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Moves the levels of a batch of features.

        Args:
            features: Array `(batch, scales, height, width, channels)` or `(batch, channels, scales,
                height, width)`.

        Returns:
            The features with as many levels as before, those that do not exist being 0, and
            booleans of the shape of an example, true where they count.

        Raises:
            ValueError: If they are not of a scale space, or nothing is left to count.
        """
        if features.ndim != 5:
            raise ValueError(
                "A ScaleSpaceAction moves the levels of features of 5 axes. Received: features of "
                f"shape {features.shape}. Name a layer before the scale pooling, or ask for "
                "kind='invariance'."
            )
        axis = 1 if self._spatial_axes == (-3, -2) else 2
        scales = features.shape[axis]
        smaller = self._subsampled(features)
        moved = np.zeros_like(smaller)
        levels = np.moveaxis(moved, axis, 0)
        levels[: max(scales - self.steps, 0)] = np.moveaxis(smaller, axis, 0)[self.steps :]
        exist = range(scales - self.steps - self.reach)
        chosen = list(exist if self.levels is None else set(exist) & set(self.levels))
        counted = np.zeros(smaller.shape[1:], bool)
        by_level = np.moveaxis(counted, axis - 1, 0)
        inside = np.zeros(by_level.shape[1:], bool)
        interior: list[Any] = [slice(None)] * inside.ndim
        for spatial in self._spatial_axes:
            interior[spatial] = slice(self.margin, inside.shape[spatial] - self.margin)
        inside[tuple(interior)] = True
        by_level[chosen] = inside
        if not counted.any():
            raise ValueError(
                f"No level or position is left to count. Received: features of shape "
                f"{features.shape} for {self}. Use more scales, larger images, fewer steps or a "
                "smaller margin."
            )
        return moved, counted
