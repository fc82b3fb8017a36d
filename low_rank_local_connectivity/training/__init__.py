"""Training: it receives models and data, and imports neither `models` nor `data`.

Importing this loads what reads and writes records; what needs Keras is loaded when it is first
used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from low_rank_local_connectivity.training.claims import check_claims, claimed
from low_rank_local_connectivity.training.endings import (
    STOPPED_STATUS,
    RunError,
    StoppedError,
    full_disk,
    out_of_memory,
    refused_file,
)
from low_rank_local_connectivity.training.records import versions, write_json
from low_rank_local_connectivity.unfinished import remove_unfinished

if TYPE_CHECKING:
    from low_rank_local_connectivity.training.event_log import RunLog
    from low_rank_local_connectivity.training.freezing import Frozen
    from low_rank_local_connectivity.training.recovery import LostError, Recovery
    from low_rank_local_connectivity.training.session import (
        Recipe,
        answers,
        file_digest,
        ignore_keras_json,
        load,
        make_deterministic,
        save,
        score,
        set_precision,
        share_right,
        train,
    )
    from low_rank_local_connectivity.training.strategy import Placement, lost_peer, place
    from low_rank_local_connectivity.training.watching import Speed, Trace, peak_memory_bytes

__all__ = [
    "STOPPED_STATUS",
    "Frozen",
    "LostError",
    "Placement",
    "Recipe",
    "Recovery",
    "RunError",
    "RunLog",
    "Speed",
    "StoppedError",
    "Trace",
    "answers",
    "check_claims",
    "claimed",
    "file_digest",
    "full_disk",
    "ignore_keras_json",
    "load",
    "lost_peer",
    "make_deterministic",
    "out_of_memory",
    "peak_memory_bytes",
    "place",
    "refused_file",
    "remove_unfinished",
    "save",
    "score",
    "set_precision",
    "share_right",
    "train",
    "versions",
    "write_json",
]

# A plan is a way to compute a layer, and nothing else; the name here still means what it did.
_MOVED = {"Plan": "Recipe"}
# Where the names are that need Keras.
_HOMES = ("recovery", "session", "strategy", "watching", "event_log", "freezing")

# A type checker that saw `__getattr__` would take any name for one of the package's.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Loads what needs Keras when it is first used."""
        wanted = _MOVED.get(name, name)
        if wanted in __all__:
            for home in _HOMES:
                module = importlib.import_module(f"{__name__}.{home}")
                if hasattr(module, wanted):
                    globals()[wanted] = getattr(module, wanted)
                    return globals()[wanted]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
