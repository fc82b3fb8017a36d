"""What the two plans of low-rank local convolution cost, and which to take."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

from low_rank_local_connectivity.ops.arguments import (
    backend_name,
    boolean,
    instance_of,
    whole_number,
)
from low_rank_local_connectivity.ops.local_convolution import slab_count
from low_rank_local_connectivity.ops.memory import memory_bytes
from low_rank_local_connectivity.ops.windows import Windows

Plan = Literal["convolve_then_combine", "combine_then_convolve"]
PLANS: tuple[Plan, ...] = ("convolve_then_combine", "combine_then_convolve")

# What Keras's `fit` and `predict` take when they are not told.
ASSUMED_BATCH = 32

# Nanoseconds for one of each of `terms`, in inference and in a training step, fitted by
# benchmarks/plans.py on two CPU cores in float32. Only their ratios decide.
COSTS: dict[str, dict[tuple[str, bool], dict[str, float]]] = {
    "tensorflow": {
        ("convolve_then_combine", False): {
            "call": 874000.0,
            "bank": 0.0,
            "weight": 1.07,
            "product": 0.0142,
            "response": 1.37,
        },
        ("convolve_then_combine", True): {
            "call": 1380000.0,
            "bank": 0.0,
            "weight": 3.3,
            "product": 0.0413,
            "response": 5.75,
        },
        ("combine_then_convolve", False): {
            "call": 920000.0,
            "filter": 0.706,
            "mixing": 0.00861,
            "product": 0.0148,
            "patch": 1.02,
            "output": 3.06,
        },
        ("combine_then_convolve", True): {
            "call": 1100000.0,
            "filter": 1.95,
            "mixing": 0.0569,
            "product": 0.0427,
            "patch": 3.99,
            "output": 7.75,
        },
    },
    "jax": {
        ("convolve_then_combine", False): {
            "call": 139000.0,
            "bank": 24900.0,
            "weight": 2.19,
            "product": 0.0239,
            "response": 1.72,
        },
        ("convolve_then_combine", True): {
            "call": 779000.0,
            "bank": 19600.0,
            "weight": 9.98,
            "product": 0.0701,
            "response": 9.96,
        },
        ("combine_then_convolve", False): {
            "call": 0.0,
            "filter": 0.62,
            "mixing": 0.0472,
            "product": 0.102,
            "patch": 0.0552,
            "output": 1.01,
        },
        ("combine_then_convolve", True): {
            "call": 0.0,
            "filter": 3.49,
            "mixing": 0.119,
            "product": 0.189,
            "patch": 3.73,
            "output": 3.72,
        },
    },
    "torch": {
        ("convolve_then_combine", False): {
            "call": 966000.0,
            "bank": 378000.0,
            "weight": 4.32,
            "product": 0.016,
            "response": 1.77,
        },
        ("convolve_then_combine", True): {
            "call": 2510000.0,
            "bank": 0.0,
            "weight": 8.99,
            "product": 0.046,
            "response": 6.91,
        },
        ("combine_then_convolve", False): {
            "call": 1580000.0,
            "filter": 1.32,
            "mixing": 0.0276,
            "product": 0.0147,
            "patch": 1.18,
            "output": 1.76,
        },
        ("combine_then_convolve", True): {
            "call": 4350000.0,
            "filter": 4.63,
            "mixing": 0.0779,
            "product": 0.0098,
            "patch": 6.48,
            "output": 6.6,
        },
    },
}


@dataclasses.dataclass(frozen=True)
class Request:
    """The numbers that a plan's cost follows from.

    Args:
        batch: Examples.
        positions: Output positions, `P`.
        reads: Numbers that one filter reads, `R`: taps times channels.
        filters: Filters at each position, `F`.
        rank: Filter banks, `K`.
        slabs: Into how many slabs the taps are split.
        training: Whether gradients are wanted.
        itemsize: Bytes of a number.

    Raises:
        ValueError: If a number is not whole or out of range.
    """

    batch: int
    positions: int
    reads: int
    filters: int
    rank: int
    slabs: int
    training: bool = False
    itemsize: int = 4

    def __post_init__(self) -> None:
        for name in ("batch", "positions", "reads", "filters", "rank", "slabs", "itemsize"):
            whole_number(name, getattr(self, name), 0 if name in ("batch", "positions") else 1)
        boolean("training", self.training)

    @classmethod
    def of(
        cls,
        windows: Windows,
        sizes: Sequence[int | None],
        channels: int,
        filters: int,
        rank: int,
        batch: int | None,
        training: bool = False,
    ) -> "Request":
        """Counts for inputs of spatial size `sizes`; an unknown batch is taken as 32."""
        return cls(
            batch=ASSUMED_BATCH if batch is None else batch,
            positions=math.prod(windows.static_output_shape(sizes)),
            reads=windows.taps * channels,
            filters=filters,
            rank=rank,
            slabs=slab_count(windows, channels),
            training=training,
        )

    @property
    def local_filters(self) -> int:
        """Numbers in the filters of all positions."""
        return self.positions * self.reads * self.filters


def terms(plan: Plan, request: Request) -> dict[str, float]:
    """Returns how often each cost of a plan arises: `choose_plan` says which."""
    batch, rank = request.batch, request.rank
    outputs = batch * request.positions * request.filters
    if plan == "convolve_then_combine":
        return {
            "call": 1,
            "bank": rank,
            "weight": rank * request.reads * request.filters,
            "product": rank * batch * request.local_filters,
            "response": rank * outputs,
        }
    return {
        "call": 1,
        "filter": request.local_filters,
        "mixing": rank * request.local_filters,
        "product": batch * request.local_filters,
        "patch": batch * request.positions * request.reads / request.slabs,
        "output": request.slabs * outputs,
    }


def nanoseconds(plan: Plan, request: Request, backend: str | None = None) -> float:
    """Returns a plan's estimated time on two CPU cores."""
    measured = COSTS.get(backend_name(backend), COSTS["tensorflow"])
    costs = measured[plan, request.training]
    return sum(costs[name] * count for name, count in terms(plan, request).items())


def memory_needed(plan: Plan, request: Request) -> int:
    """Returns the bytes that a plan holds at once beside inputs and outputs.

    Training keeps what each step made, its gradient, and a third copy while one is computed.
    """
    outputs = request.batch * request.positions * request.filters
    copies = 3 if request.training else 1
    if plan == "convolve_then_combine":
        held = copies * request.rank * outputs if request.training else 2 * outputs
    else:
        patches = request.batch * request.positions * request.reads // request.slabs
        held = copies * (request.local_filters + patches)
    return held * request.itemsize


def choose_plan(request: Request, backend: str | None = None) -> Plan:
    """Returns the plan that is estimated to be faster, of those that fit into memory.

    With `P` positions, filters that read `R` numbers each, `F` filters, `K` banks, `b` examples
    and `s` slabs (1, or the taps along the first axis), the time of

    * convolving with every bank, then mixing the responses, is
      `call + bank K + weight K R F + product K b P R F + response K b P F`;
    * mixing the banks, then applying each position's filter, is
      `call + filter P R F + mixing K P R F + product b P R F + patch b P R / s + output s b P F`.

    The coefficients are `COSTS`, other ones for inference than for a training step. So the first
    costs `K` convolutions; the second about one, and reading one filter for every position,
    which a large batch shares: it wins from `K` of about 3 on, at batch 1 from many more.

    Args:
        request: The shapes.
        backend: Keras's name of a backend; the present one if None.

    Returns:
        The plan's name.

    Raises:
        ValueError: If `request` is no `Request`, or `backend` no name of a backend.

    Example:
        >>> windows = Windows((3, 3), (1, 1), (1, 1), "valid")
        >>> request = Request.of(windows, (28, 28), 64, 64, rank=30, batch=128, training=True)
        >>> choose_plan(request)
        'combine_then_convolve'
    """
    request, backend = instance_of("request", request, Request), backend_name(backend)
    limit = memory_bytes()
    fitting: list[Plan] = [
        plan for plan in PLANS if limit is None or memory_needed(plan, request) <= limit
    ]
    # Not `min`, whose key PyTorch's compiler does not know.
    if not fitting:
        return sorted(PLANS, key=lambda plan: memory_needed(plan, request))[0]
    return sorted(fitting, key=lambda plan: nanoseconds(plan, request, backend))[0]
