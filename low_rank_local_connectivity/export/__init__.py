"""From a trained model to what a server runs: converted, written, verified."""

from low_rank_local_connectivity.export.exporting import MANIFEST, export_model
from low_rank_local_connectivity.export.formats import FORMATS

__all__ = [
    "FORMATS",
    "MANIFEST",
    "export_model",
]
