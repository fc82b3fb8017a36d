"""A plan as a value, and the choice of one."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from low_rank_local_connectivity.ops.arguments import (
    instance_of,
    one_of,
    received,
    sequence,
    text,
    whole_number,
)
from low_rank_local_connectivity.plans.coefficients import Costs, measured_costs
from low_rank_local_connectivity.plans.request import Request
from low_rank_local_connectivity.plans.work import PEAKS, Work, least_seconds


@dataclasses.dataclass(frozen=True)
class Plan:
    """One way to compute what a layer is asked for.

    Args:
        name: What it does, as the layer's argument spells it.
        allowed: Function of a request to whether `choose` may take the plan for it.
        terms: Function of a request to how often each of the plan's costs arises.
        memory: Function of a request to the bytes that the plan holds at once beside inputs,
            outputs and weights.
        apply: Function of a request, the channels-last inputs and the layer's tensors to the
            channels-last outputs.
        work: Function of a request to the `Work` that a step is on an accelerator, where no plan
            has been measured; None if it is not known, so that the plan is not taken there.
        measured_as: Name of its costs in `coefficients.json`; `name` if empty.

    Raises:
        ValueError: If an argument is of another kind.

    Example:
        >>> def nothing(request):
        ...     return 0
        >>> def once(request):
        ...     return {"call": 1}
        >>> Plan("copy", bool, once, nothing, lambda request, inputs: inputs)
        Plan(name='copy')
    """

    name: str
    allowed: Callable[[Any], bool] = dataclasses.field(repr=False)
    terms: Callable[[Any], dict[str, float]] = dataclasses.field(repr=False)
    memory: Callable[[Any], int] = dataclasses.field(repr=False)
    apply: Callable[..., Any] = dataclasses.field(repr=False)
    work: Callable[[Any], Work] | None = dataclasses.field(default=None, repr=False)
    measured_as: str = dataclasses.field(default="", repr=False)

    def __post_init__(self) -> None:
        text("name", self.name)
        text("measured_as", self.measured_as)
        needed = ("allowed", "terms", "memory", "apply")
        for name in needed if self.work is None else (*needed, "work"):
            if not callable(getattr(self, name)):
                raise ValueError(
                    f"`{name}` of a plan must be a function. Received: "
                    f"{received(name, getattr(self, name))}."
                )


def names_of(plans: Sequence[Plan]) -> tuple[str, ...]:
    """Returns the names of plans.

    Raises:
        ValueError: If something else is given than plans.
    """
    return tuple(plan.name for plan in _checked(plans))


def estimated_cost(plans: Sequence[Plan], request: Request) -> list[float]:
    """Returns what each plan costs.

    Where plans have been measured on the request's backend and device, it is the sum of how often
    each term arises times its coefficient, for inference or for a training step. Where none has,
    an accelerator takes as long as it moves the plan's bytes, or as long as it computes if that is
    longer; and what is unknown of a backend on a CPU is taken from TensorFlow. Only ratios between
    plans of one layer mean anything.

    Args:
        plans: The plans of one layer.
        request: What is asked for.

    Returns:
        A number for each plan; infinity for one of which nothing is known where something is of
        others.

    Raises:
        ValueError: If an argument is of another kind.
    """
    plans, request = _checked(plans), instance_of("request", request, Request)
    names = [plan.measured_as or plan.name for plan in plans]
    measured = measured_costs(names, request.backend, request.device)
    if not measured:
        return [_least_seconds(plan, request) for plan in plans]
    pairs = zip(plans, names, strict=True)
    return [_sum_of_terms(plan, request, measured.get(name)) for plan, name in pairs]


def _least_seconds(plan: Plan, request: Request) -> float:
    if plan.work is None or request.device not in PEAKS:
        return math.inf
    return least_seconds(plan.work(request), request.device)


def _sum_of_terms(plan: Plan, request: Request, measured: Costs | None) -> float:
    if measured is None:
        return math.inf
    each = measured["training" if request.training else "inference"]
    return sum(each[term] * count for term, count in plan.terms(request).items())


def choose(
    plans: Sequence[Plan], request: Request, limit: int | None = None, name: str = "auto"
) -> Plan:
    """Returns the plan that is estimated to be the fastest, of those that fit into memory.

    Args:
        plans: The plans of one layer; of two that cost the same the first is taken.
        request: What is asked for.
        limit: Bytes that a plan may hold; any number if None. If no plan fits, the one that
            needs the least is taken.
        name: A plan's name, to be taken whatever it costs, or `"auto"`.

    Raises:
        ValueError: If an argument is of another kind, or no plan is allowed.

    Example:
        >>> from low_rank_local_connectivity.ops import Windows
        >>> from low_rank_local_connectivity.plans import LOW_RANK, LowRankRequest
        >>> windows = Windows((3, 3), (1, 1), (1, 1), "valid")
        >>> request = LowRankRequest(windows, (128, 28, 28, 64), 64, rank=30, training=True)
        >>> choose(LOW_RANK, request).name
        'combine_then_convolve'
    """
    plans, request = _checked(plans), instance_of("request", request, Request)
    if one_of("name", name, ("auto", *names_of(plans))) != "auto":
        return next(plan for plan in plans if plan.name == name)
    allowed = [plan for plan in plans if plan.allowed(request)]
    if len(allowed) == 1:
        return allowed[0]
    if not allowed:
        raise ValueError(
            f"One of `plans` must be allowed for the request. Received: plans={plans} and "
            f"request={request}."
        )
    if limit is not None:
        allowed = _within(whole_number("limit", limit, 0), allowed, request)
    costs = estimated_cost(allowed, request)
    return allowed[costs.index(min(costs))]


def _within(limit: int, plans: list[Plan], request: Request) -> list[Plan]:
    """Returns the plans that fit into memory, or the one that needs the least."""
    needed = [plan.memory(request) for plan in plans]
    fitting = [plan for plan, size in zip(plans, needed, strict=True) if size <= limit]
    return fitting or [plans[needed.index(min(needed))]]


def _checked(plans: Any) -> list[Plan]:
    return [instance_of("plans", plan, Plan) for plan in sequence("plans", plans, "plans")]
