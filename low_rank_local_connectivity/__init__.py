"""Layers for Keras 3 that relax, keep or restore spatial invariance.

The names are those of `public`. Keras is loaded when the first of them is used, not before, so that
datasets and experiments can be described and checked without it. Wherever this package and Keras
are both imported, in either order, Keras can load models that hold these layers.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from low_rank_local_connectivity.registration import register_with_keras

__version__ = "0.1.0"

if TYPE_CHECKING:
    from low_rank_local_connectivity.public import *  # noqa: F403
else:

    def __getattr__(name: str) -> Any:
        """Returns a public name or a part of the package, which is loaded then."""
        if name.startswith("_") and name != "__all__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if importlib.util.find_spec(f"{__name__}.{name}") is not None:
            return importlib.import_module(f"{__name__}.{name}")
        return _public_name(name)


def _public_name(name: str) -> Any:
    public = vars(importlib.import_module(f"{__name__}.public"))
    names = [known for known in public if not known.startswith("_")]
    if name == "__all__":
        return names
    if name not in names:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return public[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_public_name("__all__")})


register_with_keras(__name__, f"{__name__}.public")
