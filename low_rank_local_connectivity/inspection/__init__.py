"""What can be said of a model without running it: what its positions read, and what it costs.

Layers of this library answer for themselves (`windows`, `operations`); for Keras's own classes
there are tables here.
"""

from low_rank_local_connectivity.inspection.costs import (
    LayerCost,
    layer_costs,
    step_bytes,
    total_cost,
    weight_bytes,
)
from low_rank_local_connectivity.inspection.operation_rules import operations
from low_rank_local_connectivity.inspection.receptive_fields import (
    ReceptiveField,
    receptive_field,
)

__all__ = [
    "LayerCost",
    "ReceptiveField",
    "layer_costs",
    "operations",
    "receptive_field",
    "step_bytes",
    "total_cost",
    "weight_bytes",
]
