"""How a layer computes what it is asked for, where there are several ways: plans, as values.

A layer states a `Request`, `choose` picks the plan that is estimated to be the fastest of those
that fit into memory, and the layer applies it. A new plan is an entry in its layer's table
(`LOW_RANK`, `DEPTHWISE_LOW_RANK`, `LOW_RANK_TRANSPOSE`, `LOCALLY_CONNECTED`, `KRONECKER`,
`CONDITIONAL`), its measured costs in `coefficients.json`, and the `Work` that it is, which decides
on devices where none has been measured.
"""

from low_rank_local_connectivity.plans.conditional import CONDITIONAL
from low_rank_local_connectivity.plans.kronecker import KRONECKER, KroneckerRequest, multiply_adds
from low_rank_local_connectivity.plans.locally_connected import LOCALLY_CONNECTED
from low_rank_local_connectivity.plans.low_rank import (
    DEPTHWISE_LOW_RANK,
    LOW_RANK,
    LowRankRequest,
)
from low_rank_local_connectivity.plans.low_rank_transpose import (
    LOW_RANK_TRANSPOSE,
    LowRankTransposeRequest,
)
from low_rank_local_connectivity.plans.machine import Machine, present_machine
from low_rank_local_connectivity.plans.plan import Plan, choose, estimated_cost, names_of
from low_rank_local_connectivity.plans.request import Request
from low_rank_local_connectivity.plans.work import Work

__all__ = [
    "CONDITIONAL",
    "DEPTHWISE_LOW_RANK",
    "KRONECKER",
    "LOCALLY_CONNECTED",
    "LOW_RANK",
    "LOW_RANK_TRANSPOSE",
    "KroneckerRequest",
    "LowRankRequest",
    "LowRankTransposeRequest",
    "Machine",
    "Plan",
    "Request",
    "Work",
    "choose",
    "estimated_cost",
    "multiply_adds",
    "names_of",
    "present_machine",
]
