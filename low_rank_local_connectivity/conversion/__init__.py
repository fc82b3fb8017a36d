"""Conversion of single layers and whole models into equivalent ones of other kinds.

A trained low-rank layer becomes a locally connected one for serving; a locally connected layer is
factorised; a convolution becomes a low-rank layer that starts as that convolution; a layer is
adapted to another image size. `convert` applies any of these throughout a model.
"""

from low_rank_local_connectivity.conversion.cascade import merge_cascade
from low_rank_local_connectivity.conversion.factorization import (
    spatial_spectrum,
    to_locally_connected,
    to_low_rank,
    truncation_error,
)
from low_rank_local_connectivity.conversion.folding import (
    fold_batch_normalization,
)
from low_rank_local_connectivity.conversion.models import convert, for_serving
from low_rank_local_connectivity.conversion.orientations import (
    to_plain_convolutions,
)
from low_rank_local_connectivity.conversion.relaxation import from_convolution, relaxing
from low_rank_local_connectivity.conversion.report import ConversionReport
from low_rank_local_connectivity.conversion.resizing import resize

__all__ = [
    "ConversionReport",
    "convert",
    "fold_batch_normalization",
    "for_serving",
    "from_convolution",
    "merge_cascade",
    "relaxing",
    "resize",
    "spatial_spectrum",
    "to_locally_connected",
    "to_low_rank",
    "to_plain_convolutions",
    "truncation_error",
]
