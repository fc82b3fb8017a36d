"""Rotations of maps that have orientations."""

import dataclasses

import numpy as np

from low_rank_local_connectivity.equivariance.transforms import Rotation
from low_rank_local_connectivity.ops.arguments import positive_int


@dataclasses.dataclass(frozen=True)
class GroupRotation(Rotation):
    """Rotates images as `Rotation` does; for maps with orientations, these are shifted too.

    With `g = degrees * order / 360`, `(T x)[p, r] = x[turn_g^-1(p), (r - g) % order]` of maps
    `(batch, height, width, order, channels)`. `GroupLiftConv2D` and `GroupConv2D` commute with
    this.

    Args:
        degrees: As for `Rotation`; a multiple of `360 / order`.
        interpolation: As for `Scale`.
        fill: As for `Scale`.
        order: How many orientations maps have, at least 1.

    Raises:
        ValueError: As `Rotation`, or if the angle is not one of the group's, or maps have another
            number of orientations.

    Example:
        >>> maps = np.arange(4.0).reshape(1, 1, 1, 4, 1)
        >>> GroupRotation(90)(maps).ravel().tolist()
        [3.0, 0.0, 1.0, 2.0]
    """

    order: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        positive_int("order", self.order)
        if not np.isclose(self.degrees * self.order % 360, [0, 360]).any():
            raise ValueError(
                "`degrees` of a GroupRotation must be a multiple of 360 / order, here "
                f"{360 / self.order:g}. Received: degrees={self.degrees!r} with "
                f"order={self.order}."
            )

    def __call__(self, maps: np.ndarray) -> np.ndarray:
        """Rotates images, or maps and their orientations."""
        turned = super().__call__(maps)
        if maps.ndim < 5:
            return turned
        if maps.shape[3] != self.order:
            raise ValueError(
                "Maps must have the orientations of the GroupRotation along axis 3. Received: maps "
                f"of shape {maps.shape} with order={self.order}."
            )
        return np.roll(turned, round(self.degrees * self.order / 360), axis=3)
