"""From one kind of layer to another that computes the same, for single layers and whole models.

A trained low-rank layer becomes a locally connected one for serving; a locally connected layer is
factorised; a convolution becomes the low-rank layer that starts as that convolution; a layer moves
to another image size. `convert` does any of it throughout a model.
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
from low_rank_local_connectivity.conversion.relaxation import from_convolution
from low_rank_local_connectivity.conversion.report import ConversionReport
from low_rank_local_connectivity.conversion.resizing import resize

__all__ = [
    "ConversionReport",
    "convert",
    "fold_batch_normalization",
    "for_serving",
    "from_convolution",
    "merge_cascade",
    "resize",
    "spatial_spectrum",
    "to_locally_connected",
    "to_low_rank",
    "to_plain_convolutions",
    "truncation_error",
]
