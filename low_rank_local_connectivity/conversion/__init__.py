"""From one kind of layer to another that computes the same, for single layers and whole models.

A trained low-rank layer becomes a locally connected one for serving; a locally connected layer is
factorised; a convolution becomes the low-rank layer that starts as that convolution; a layer moves
to another image size. `convert` does any of it throughout a model.
"""

from low_rank_local_connectivity.conversion.cascade import merge_cascade as merge_cascade
from low_rank_local_connectivity.conversion.factorization import (
    spatial_spectrum as spatial_spectrum,
)
from low_rank_local_connectivity.conversion.factorization import (
    to_locally_connected as to_locally_connected,
)
from low_rank_local_connectivity.conversion.factorization import to_low_rank as to_low_rank
from low_rank_local_connectivity.conversion.factorization import (
    truncation_error as truncation_error,
)
from low_rank_local_connectivity.conversion.folding import (
    fold_batch_normalization as fold_batch_normalization,
)
from low_rank_local_connectivity.conversion.models import convert as convert
from low_rank_local_connectivity.conversion.models import for_serving as for_serving
from low_rank_local_connectivity.conversion.orientations import (
    to_plain_convolutions as to_plain_convolutions,
)
from low_rank_local_connectivity.conversion.relaxation import from_convolution as from_convolution
from low_rank_local_connectivity.conversion.report import ConversionReport as ConversionReport
from low_rank_local_connectivity.conversion.resizing import resize as resize
