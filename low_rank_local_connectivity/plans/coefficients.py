"""The measured costs of plans: `coefficients.json`, read once.

A record of the file says what was measured where and when: backend, kind of device, machine, date,
the command that measured, and for every plan what one of each of its terms costs, in inference
and in a training step. A plan that a record's machine should never take has no costs in it.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# For one mode of a plan, the cost of each term; for a plan, that in either mode.
Costs = dict[str, dict[str, float]]
RECORDS: list[dict[str, Any]] = json.loads(
    Path(__file__).with_name("coefficients.json").read_text(encoding="utf-8")
)


def _by_machine() -> dict[tuple[str, str], dict[str, Costs]]:
    """Returns the costs of all plans for each backend and kind of device."""
    found: dict[tuple[str, str], dict[str, Costs]] = {}
    for record in RECORDS:
        found.setdefault((record["backend"], record["device"]), {}).update(record["costs"])
    return found


# Read before anything is traced: PyTorch's compiler would look into the file.
COEFFICIENTS = _by_machine()


def measured_costs(names: Iterable[str], backend: str, device: str) -> dict[str, Costs]:
    """Returns the costs of the plans that have been measured, by their names.

    Args:
        names: Names of the plans of one layer.
        backend: Keras's name of a backend.
        device: Kind of device. Where none of the plans has been measured with the backend on a
            CPU, the costs are TensorFlow's; an accelerator has its own or none.

    Example:
        >>> sorted(measured_costs(["dense", "factored"], "tensorflow", "cpu"))
        ['dense', 'factored']
    """
    names = list(names)
    places = [(backend, device)]
    if device == "cpu":
        places.append(("tensorflow", "cpu"))
    for place in places:
        measured = COEFFICIENTS.get(place, {})
        found = {name: measured[name] for name in names if name in measured}
        if found:
            return found
    return {}
