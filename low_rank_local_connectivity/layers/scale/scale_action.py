"""How a change of scale moves scale spaces, and how exactly layers commute with it."""

from typing import Any

import numpy as np
from keras import ops

from low_rank_local_connectivity.layers.relative_error import relative_error
from low_rank_local_connectivity.layers.scale_levels import is_pyramid, join_levels, levels_of
from low_rank_local_connectivity.ops.arguments import array
from low_rank_local_connectivity.ops.scale_space import gaussian_matrix


class CommutesWithScaling:
    """What layers of scale spaces have that commute with a change of scale: a measurement of it."""

    data_format: str
    base: float
    name: str

    def check_equivariance(self, inputs: Any) -> dict[str, float]:
        """Returns how far the layer is from commuting with each change of scale.

        With the layer `f` and the change of scale by `n` levels `T_n`, for `n` from 1:

        `error[n] = ||T_n f(x) - f(T_n x)|| / ||T_n f(x)||`,

        in the L2 norm over all that is compared; its square is of the kind that
        `equivariance.error` returns.
        Of a scale space in one tensor, `(T_n x)[k, p] = x[k + n, base^n p]`, with zeros at the
        levels that do not exist, which are not compared, nor are levels that the layer does not
        compute; of a pyramid, the finest `n` levels become the coarsest. A convolution commutes
        with that exactly, and the error is rounding: about 1e-7 in float32.

        Args:
            inputs: What the layer is called with. A layer that is not built is built for it.

        Returns:
            The error by the change of scale, such as `"subsampling by 4"`.

        Raises:
            ValueError: If the layer refuses the inputs, or `base` is not whole.

        Example:
            >>> from low_rank_local_connectivity import ScaleConv2D
            >>> layer = ScaleConv2D(5, 3, interaction=2)
            >>> errors = layer.check_equivariance(np.random.rand(2, 3, 8, 9, 4))
            >>> list(errors), max(errors.values()) < 1e-5
            (['subsampling by 2', 'subsampling by 4'], True)
        """
        base = whole_base(self)
        pyramid = is_pyramid(inputs)
        levels = arrays_of(levels_of(self._checked(inputs), self.data_format))
        outputs = self._levels_made_of(levels, pyramid)
        errors = {}
        # In a pyramid whose levels all are computed, none is lost.
        whole = pyramid and len(outputs) == len(levels)
        for steps in range(1, len(outputs)):
            factor = 1 if pyramid else base**steps
            exist = len(outputs) - (0 if whole else steps)
            found = self._levels_made_of(moved_levels(levels, steps, factor), pyramid)
            expected = moved_levels(outputs, steps, factor)
            error = error_of_levels(found[:exist], expected[:exist])
            errors[f"subsampling by {base**steps}"] = error
        return errors

    def _checked(self, inputs: Any) -> Any:
        """Returns a scale space as tensors, if it holds values."""
        if is_pyramid(inputs):
            return [ops.convert_to_tensor(array("inputs", one, "bhwc")) for one in inputs]
        return ops.convert_to_tensor(array("inputs", inputs, "bshwc"))

    def _levels_made_of(self, levels: list[np.ndarray], pyramid: bool) -> list[np.ndarray]:
        layer: Any = self
        tensors = [ops.convert_to_tensor(level) for level in levels]
        found = layer(join_levels(tensors, self.data_format, pyramid), training=False)
        return arrays_of(levels_of(found, self.data_format))


def whole_base(layer: Any) -> int:
    """Returns the factor from one level to the next, by which images are subsampled."""
    if not isinstance(layer.base, int):
        raise ValueError(
            "check_equivariance() compares with every `base`th row and column, so `base` must be a "
            f"whole number. Received: layer {layer.name!r} with base={layer.base}."
        )
    return layer.base


def arrays_of(levels: list[Any]) -> list[np.ndarray]:
    """Copies levels to NumPy."""
    return [np.asarray(ops.convert_to_numpy(level)) for level in levels]


def moved_levels(levels: list[np.ndarray], steps: int, factor: int) -> list[np.ndarray]:
    """Returns levels as a change of scale moves them.

    Args:
        levels: The levels, channels last.
        steps: By how many levels.
        factor: How many times smaller their positions become; 1 for a pyramid, whose finest levels
            become the coarsest. Otherwise levels that do not exist are 0.

    Example:
        >>> levels = [np.full((1, 1, 1, 1), float(value)) for value in (5, 6, 7)]
        >>> [level.item() for level in moved_levels(levels, 1, 2)]
        [6.0, 7.0, 0.0]
    """
    kept = [level[:, ::factor, ::factor] for level in levels[steps:]]
    if factor == 1:
        return kept + levels[:steps]
    return kept + [np.zeros_like(kept[0])] * steps


def made_smaller(images: np.ndarray, variance: float, factor: int) -> np.ndarray:
    """Returns channels-last images, smoothed and then subsampled.

    Args:
        images: The images.
        variance: Of the Gaussian, as in `discrete_gaussian`.
        factor: How many times smaller they become.
    """
    height, width = images.shape[1:3]
    rows = gaussian_matrix(height, variance, factor, "float64")
    columns = gaussian_matrix(width, variance, factor, "float64")
    found = np.einsum("ph,bhwc,qw->bpqc", rows, images.astype(float), columns, optimize=True)
    return found.astype(images.dtype)


def inside(levels: list[np.ndarray], margins: list[int]) -> list[np.ndarray]:
    """Returns the positions of each level that are at least so far from the border.

    Raises:
        ValueError: If there are none.
    """
    pairs = zip(levels, margins, strict=True)
    found = [one[:, n : one.shape[1] - n, n : one.shape[2] - n] for one, n in pairs]
    if not any(level.size for level in found):
        sizes = [level.shape[1:3] for level in levels]
        raise ValueError(
            "`inputs` must be large enough for a position that the border does not reach. "
            f"Received: levels of {sizes} positions after subsampling, of which {margins} at each "
            "side do not count. Use larger images or fewer scales."
        )
    return found


def error_of_levels(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Returns the relative error over all levels together."""
    both = [np.concatenate([level.ravel() for level in levels]) for levels in (found, expected)]
    return relative_error(*both)
