"""The scale space of a network on a scale space; importing this loads no framework."""

import dataclasses
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Scales:
    """A scale space, and how convolutions read it.

    Args:
        number: Number of levels.
        base: Factor from one level to the next.
        zero_scale: Standard deviation, in pixels, of the smoothness of the images.
        interaction: Levels that each convolution reads.
        method: `"gaussian"` for smoothed levels, `"bilinear"` for resized ones.
        pyramid: Whether coarser levels are smaller, and convolved without dilation.
        rounding: None, or `"floor"` to round down the dilations of a base that is not whole.

    Example:
        >>> Scales(3, interaction=2).lifting()["num_scales"]
        3
    """

    number: int = 4
    base: float = 2
    zero_scale: float = 0.5
    interaction: int = 1
    method: Literal["gaussian", "bilinear"] = "gaussian"
    pyramid: bool = False
    rounding: Literal["floor"] | None = None

    def lifting(self) -> dict[str, Any]:
        """Returns the arguments of a `ScaleSpaceLifting2D`."""
        names = ("base", "zero_scale", "method", "pyramid")
        return {"num_scales": self.number, **{name: getattr(self, name) for name in names}}

    def convolution(self) -> dict[str, Any]:
        """Returns the arguments of a `ScaleConv2D` that concern the scales."""
        return {name: getattr(self, name) for name in ("interaction", "base", "rounding")}
