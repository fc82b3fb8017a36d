"""What `low_rank_local_connectivity.inspection` has of costs, by its earlier name."""

from low_rank_local_connectivity.inspection import (
    LayerCost,
    layer_costs,
    step_bytes,
    total_cost,
    weight_bytes,
)

__all__ = ["LayerCost", "layer_costs", "step_bytes", "total_cost", "weight_bytes"]
