"""What `low_rank_local_connectivity.inspection` has of receptive fields, by its earlier name."""

from low_rank_local_connectivity.inspection.receptive_fields import (
    SCATTERED,
    ReceptiveField,
    receptive_field,
)

__all__ = ["SCATTERED", "ReceptiveField", "receptive_field"]
