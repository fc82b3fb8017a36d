"""From a trained model to what a server runs: converted, written, verified."""

from low_rank_local_connectivity.export.exporting import MANIFEST as MANIFEST
from low_rank_local_connectivity.export.exporting import export_model as export_model
from low_rank_local_connectivity.export.formats import FORMATS as FORMATS
