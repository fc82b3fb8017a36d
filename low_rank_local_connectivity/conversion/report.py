"""Reports of what a conversion replaced, what it kept, and how large the result is."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

# The most layers that were kept to name in the text, each with its reason.
SHOWN = 5


@dataclasses.dataclass(frozen=True)
class ConversionReport:
    """What a conversion did to a model; `print` shows it in words.

    Args:
        function: The function that converted it.
        model: The model's name.
        kind: The kind of layers that the function looks for, in the plural; `"layers"` for any.
        replaced: The paths of the layers of that kind that were replaced; a layer within another
            has the path `"outer/inner"`.
        left: The paths of those that were not, and the reason for each.
        parameters: The model's number of parameters before and after.
        bytes: Their size in memory before and after.
    """

    function: str
    model: str
    kind: str
    replaced: Sequence[str]
    left: Mapping[str, str]
    parameters: tuple[int, int]
    bytes: tuple[int, int]

    def __str__(self) -> str:
        before, after = map(_readable, self.bytes)
        lines = [
            f"{self.function}() replaced {self._count()} of {self.model!r}.",
            f"Its weights took {before} and take {after}.",
            *(f"Left {path!r}: {why}." for path, why in list(self.left.items())[:SHOWN]),
        ]
        more = len(self.left) - SHOWN
        return "\n".join(lines + [f"Left {more} more, which `left` names."] * (more > 0))

    def _count(self) -> str:
        """Returns how many layers were replaced, and, if the rule's kind is known, of how many."""
        if self.kind == "layers":
            return f"{len(self.replaced)} layers"
        return f"{len(self.replaced)} of {len(self.replaced) + len(self.left)} {self.kind}"


def sizes(model: Any) -> tuple[int, int]:
    """Returns a model's number of parameters and the bytes that they take."""
    counts = [(math.prod(weight.shape), weight.dtype) for weight in model.weights]
    widths = {dtype: _bytes_each(dtype) for _, dtype in counts}
    return sum(count for count, _ in counts), sum(count * widths[dtype] for count, dtype in counts)


def _bytes_each(dtype: str) -> int:
    bits = {"bool": 8, "bfloat16": 16, "float8_e4m3fn": 8, "float8_e5m2": 8}
    return bits.get(dtype, int("".join(filter(str.isdigit, dtype)) or 32)) // 8


def _readable(count: int) -> str:
    """Returns bytes in the unit that suits their number, as `model.summary()` does."""
    power = min(max(int(math.log(max(count, 1), 1024)), 0), 4)
    return f"{count / 1024**power:.{2 if power else 0}f} {('B', 'KB', 'MB', 'GB', 'TB')[power]}"
