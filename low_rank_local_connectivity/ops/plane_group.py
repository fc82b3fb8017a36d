"""The rotations and reflections that turned filters are turned by, as permutations."""

import dataclasses
from typing import NamedTuple


class PlaneElement(NamedTuple):
    """A mirroring that swaps left and right, or none, and then a rotation.

    Args:
        turns: Steps of the rotation, counter-clockwise.
        mirrored: Whether the mirroring comes before it.
    """

    turns: int
    mirrored: bool = False


@dataclasses.dataclass(frozen=True)
class PlaneGroup:
    """The rotations by multiples of `360 / order` degrees, C_N; with reflections D_N.

    Orientation `r` is the rotation by `r` steps; with reflections, orientation `order + r` is a
    mirroring followed by that rotation.

    Args:
        order: Number of rotations, `N`.
        reflections: Whether every rotation is there with a mirroring before it, too.
    """

    order: int
    reflections: bool = False

    @property
    def size(self) -> int:
        """Number of elements, which is that of orientations.

        Example:
            >>> PlaneGroup(4).size, PlaneGroup(4, reflections=True).size
            (4, 8)
        """
        return self.order * len(self._sides)

    @property
    def _sides(self) -> tuple[bool, ...]:
        return (False, True) if self.reflections else (False,)

    def elements(self) -> list[PlaneElement]:
        """Returns the elements in the order of the orientations.

        Example:
            >>> [tuple(one) for one in PlaneGroup(2, reflections=True).elements()]
            [(0, False), (1, False), (0, True), (1, True)]
        """
        return [PlaneElement(turns, side) for side in self._sides for turns in range(self.order)]

    def moved_from(self, element: PlaneElement) -> list[int]:
        """Returns, for each orientation of moved maps, which one of the maps it was.

        `(T_g x)[p, h] = x[g^-1 p, g^-1 h]`: the orientation `h` of the moved maps is `g^-1 h`.

        Example:
            >>> PlaneGroup(4).moved_from(PlaneElement(1))
            [3, 0, 1, 2]
            >>> PlaneGroup(4, reflections=True).moved_from(PlaneElement(0, mirrored=True))
            [4, 7, 6, 5, 0, 3, 2, 1]
        """
        turns, mirrored = element
        return [
            self.order * (side != mirrored)
            + (turns - own if mirrored else own - turns) % self.order
            for own, side in self.elements()
        ]

    def describe(self, element: PlaneElement) -> str:
        """Returns what an element does to an image, in words.

        Example:
            >>> PlaneGroup(8, reflections=True).describe(PlaneElement(1, mirrored=True))
            'reflection, then rotation by 45 degrees'
        """
        rotation = f"rotation by {360 * element.turns / self.order:g} degrees"
        if not element.mirrored:
            return rotation
        return f"reflection, then {rotation}" if element.turns else "reflection"
