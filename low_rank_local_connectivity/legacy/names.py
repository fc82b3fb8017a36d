"""Names of Keras 2's layers that Keras 3 does not allow."""

import re
from typing import Any

SHOWN = 5


def allowed(name: str) -> str:
    """Returns a name that Keras 3 allows: `conv1_conv` for `conv1/conv` of Keras 2's DenseNet."""
    return name.replace("/", "_")


def stands_in(name: str, path: str) -> bool:
    """Whether a layer's name, of Keras 3 or Keras 2, is among the parts of a variable's path."""
    pattern = re.escape(name).replace("_", "[_/]")
    return re.search(f"(^|/){pattern}(/|$)", path) is not None


def _names(described: Any) -> set[str]:
    """Returns the names of all layers and models of a description."""
    if isinstance(described, list):
        return set().union(*map(_names, described))
    if not isinstance(described, dict):
        return set()
    own = {described["name"]} if isinstance(described.get("name"), str) else set()
    return own.union(*map(_names, described.values()))


class Names:
    """The names of a description's layers, as they are in Keras 3.

    Args:
        described: The description.
    """

    def __init__(self, described: Any):
        self.taken = _names(described)
        self.changed: dict[str, str] = {}

    def new(self, name: str) -> str:
        """Returns the name in Keras 3 of a layer that had this name in Keras 2."""
        if "/" not in name:
            return name
        if name not in self.changed:
            new, number = allowed(name), 0
            while new in self.taken:
                number += 1
                new = f"{allowed(name)}_{number}"
            self.taken.add(new)
            self.changed[name] = new
        return self.changed[name]

    def sentence(self, path: str) -> str:
        """Returns a warning's text about the names that were changed."""
        pairs = [f"{old!r} is now {new!r}" for old, new in self.changed.items()]
        more = f", and {len(pairs) - SHOWN} more likewise" if len(pairs) > SHOWN else ""
        return (
            f"Keras 3 allows no '/' in the name of a layer. In the model loaded from {path!r}, "
            f"{', '.join(pairs[:SHOWN])}{more}."
        )
