"""How a layer computes what it is asked for, where there are several ways: plans, as values.

A layer states a `Request`, `choose` picks the plan that is estimated to be the fastest of those
that fit into memory, and the layer applies it. A new plan is an entry in its layer's table
(`LOW_RANK`, `KRONECKER`, `CONDITIONAL`) and its measured costs in `coefficients.json`.
"""

from low_rank_local_connectivity.plans.conditional import CONDITIONAL as CONDITIONAL
from low_rank_local_connectivity.plans.kronecker import KRONECKER as KRONECKER
from low_rank_local_connectivity.plans.kronecker import KroneckerRequest as KroneckerRequest
from low_rank_local_connectivity.plans.kronecker import multiply_adds as multiply_adds
from low_rank_local_connectivity.plans.low_rank import LOW_RANK as LOW_RANK
from low_rank_local_connectivity.plans.low_rank import LowRankRequest as LowRankRequest
from low_rank_local_connectivity.plans.machine import Machine as Machine
from low_rank_local_connectivity.plans.machine import present_machine as present_machine
from low_rank_local_connectivity.plans.plan import Plan as Plan
from low_rank_local_connectivity.plans.plan import choose as choose
from low_rank_local_connectivity.plans.plan import estimated_cost as estimated_cost
from low_rank_local_connectivity.plans.plan import names_of as names_of
from low_rank_local_connectivity.plans.request import Request as Request
