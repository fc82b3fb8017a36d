"""Records of measured costs for `low_rank_local_connectivity/plans/coefficients.json`."""

import datetime as dt
import json
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

from low_rank_local_connectivity.plans import present_machine
from low_rank_local_connectivity.plans.plan import Plan


def fitted(plan: Plan, requests: Sequence[Any], seconds: Sequence[float]) -> dict[str, float]:
    """Fits a plan's costs by non-negative least squares on relative errors, and says how well.

    Args:
        plan: The plan.
        requests: What was asked for, for each measurement.
        seconds: What the plan took, for each measurement.

    Returns:
        Nanoseconds of every term.
    """
    from scipy.optimize import nnls

    terms = np.array([list(plan.terms(request).values()) for request in requests])
    taken = np.array(seconds)
    solution, _ = nnls(terms / taken[:, None], np.ones(len(taken)))
    error = np.median(np.abs(terms @ solution / taken - 1))
    print(f"{plan.name}, {len(taken)} cells: median error {error:.0%}")
    names = plan.terms(requests[0])
    return {name: float(f"{1e9 * cost:.3g}") for name, cost in zip(names, solution, strict=True)}


def print_record(command: str, costs: dict[str, dict[str, dict[str, float]]]) -> None:
    """Prints what was measured on this machine, as the file of coefficients holds it.

    Args:
        command: What measured it.
        costs: Nanoseconds by plan, kind of step and term.
    """
    machine = present_machine()
    record = {
        "backend": machine.backend,
        "device": machine.device,
        "machine": platform.processor() or platform.machine(),
        "date": dt.date.today().isoformat(),
        "command": command,
        "costs": costs,
    }
    print(json.dumps(record, indent=2))
