"""Rotations of maps that have orientations."""

import dataclasses

import numpy as np

from low_rank_local_connectivity.equivariance.transforms import Rotation
from low_rank_local_connectivity.ops.arguments import boolean, positive_int
from low_rank_local_connectivity.ops.plane_group import PlaneElement, PlaneGroup


@dataclasses.dataclass(frozen=True)
class GroupRotation(Rotation):
    """Rotates images as `Rotation` does; for maps with orientations, these are shifted too.

    With `g = degrees * order / 360`, `(T x)[p, r] = x[turn_g^-1(p), (r - g) % order]` of maps
    `(batch, height, width, order, channels)`. `GroupLiftConv2D` and `GroupConv2D` commute with
    this. With `reflections` maps have mirrored orientations, too, as those layers make them, and
    with `mirror` left and right are swapped before the rotation.

    Args:
        degrees: As for `Rotation`; a multiple of `360 / order`.
        interpolation: As for `Scale`.
        fill: As for `Scale`.
        order: How many rotations the group has, at least 1.
        reflections: Whether it has as many reflections, too.
        mirror: Whether left and right are swapped first; only with `reflections`.

    Raises:
        ValueError: As `Rotation`, or if the angle is not one of the group's, or maps have another
            number of orientations.

    Example:
        >>> maps = np.arange(4.0).reshape(1, 1, 1, 4, 1)
        >>> GroupRotation(90)(maps).ravel().tolist()
        [3.0, 0.0, 1.0, 2.0]
        >>> reflection = GroupRotation(0, order=2, reflections=True, mirror=True)
        >>> reflection(maps).ravel().tolist()
        [2.0, 3.0, 0.0, 1.0]
    """

    order: int = 4
    reflections: bool = False
    mirror: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        positive_int("order", self.order)
        boolean("reflections", self.reflections)
        if boolean("mirror", self.mirror) and not self.reflections:
            raise ValueError(
                "A GroupRotation swaps left and right only if its group has reflections. Received: "
                "mirror=True with reflections=False. Use reflections=True."
            )
        if not np.isclose(self.degrees * self.order % 360, [0, 360]).any():
            raise ValueError(
                "`degrees` of a GroupRotation must be a multiple of 360 / order, here "
                f"{360 / self.order:g}. Received: degrees={self.degrees!r} with "
                f"order={self.order}."
            )

    def source(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the row and the column that each position reads."""
        rows, columns = super().source(height, width)
        return rows, width - 1 - columns if self.mirror else columns

    def __call__(self, maps: np.ndarray) -> np.ndarray:
        """Rotates images, or maps and their orientations."""
        rotation = Rotation(self.degrees, self.interpolation, self.fill)
        turned = rotation(maps[:, :, ::-1] if self.mirror else maps)
        if maps.ndim < 5:
            return turned
        group = PlaneGroup(self.order, self.reflections)
        if maps.shape[3] != group.size:
            raise ValueError(
                "Maps must have the orientations of the GroupRotation along axis 3. Received: maps "
                f"of shape {maps.shape} with order={self.order}"
                f"{' and reflections' if self.reflections else ''}."
            )
        turns = round(self.degrees * self.order / 360) % self.order
        return turned[:, :, :, group.moved_from(PlaneElement(turns, self.mirror))]
