"""Training: it receives models and data, and imports neither `models` nor `data`."""

from typing import TYPE_CHECKING, Any

from low_rank_local_connectivity.training.records import (
    RunError,
    claimed,
    full_disk,
    out_of_memory,
    remove_unfinished,
    versions,
    write_json,
)
from low_rank_local_connectivity.training.recovery import STOPPED_STATUS, Recovery, StoppedError
from low_rank_local_connectivity.training.session import (
    Recipe,
    file_digest,
    ignore_keras_json,
    load,
    make_deterministic,
    save,
    score,
    set_precision,
    train,
)
from low_rank_local_connectivity.training.strategy import Placement, lost_peer, place

__all__ = [
    "STOPPED_STATUS",
    "Placement",
    "Recipe",
    "Recovery",
    "RunError",
    "StoppedError",
    "claimed",
    "file_digest",
    "full_disk",
    "ignore_keras_json",
    "load",
    "lost_peer",
    "make_deterministic",
    "out_of_memory",
    "place",
    "remove_unfinished",
    "save",
    "score",
    "set_precision",
    "train",
    "versions",
    "write_json",
]

# A plan is a way to compute a layer, and nothing else; the name here still means what it did.
_MOVED = ("Plan",)

# A type checker that saw `__getattr__` would take any name for one of the package's.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Returns what a moved name stands for."""
        if name in _MOVED:
            return Recipe
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
