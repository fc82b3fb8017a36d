"""Exporting trained models for servers: conversion, writing and verification.

Importing this loads the table of formats; what needs Keras is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from low_rank_local_connectivity.export.formats import FORMATS

if TYPE_CHECKING:
    from low_rank_local_connectivity.export.exporting import MANIFEST, export_model

__all__ = [
    "FORMATS",
    "MANIFEST",
    "export_model",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Loads what needs Keras when it is first used."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        exporting = importlib.import_module(f"{__name__}.exporting")
        globals().update({one: getattr(exporting, one) for one in ("MANIFEST", "export_model")})
        return globals()[name]
