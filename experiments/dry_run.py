"""What a run would train and what that costs, without training it or writing anything."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

from low_rank_local_connectivity.experiments.backend import load_framework
from low_rank_local_connectivity.experiments.experiment import Experiment
from low_rank_local_connectivity.experiments.memory import (
    GIBIBYTE,
    check_memory,
    needed_bytes,
    without_values,
)
from low_rank_local_connectivity.experiments.running import splits_of
from low_rank_local_connectivity.experiments.warm_start import check_fit, source_of

if TYPE_CHECKING:
    from low_rank_local_connectivity.training import Placement

MEBIBYTE = 2**20
HEADER = ("layer", "kind", "output", "parameters", "operations", "plan")


@dataclasses.dataclass(frozen=True)
class Row:
    """A layer of a network, as a dry run shows it.

    Args:
        name: Its name.
        kind: Its class.
        output: Shape of its output, without the batch.
        parameters: Trainable parameters.
        operations: Floating-point operations per example.
        plan: The plans that it takes in training and in inference, once if they are the same;
            empty if there is only one way to compute it.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    operations: int
    plan: str

    @property
    def cells(self) -> tuple[str, ...]:
        """Its words and numbers as they are printed."""
        sizes = "x".join(map(str, self.output))
        counts = (f"{self.parameters:,}", f"{self.operations:,}")
        return (self.name, self.kind, sizes, *counts, self.plan)


def dry_run(runs: Sequence[Experiment]) -> int:
    """Prints what the first run trains and costs, and the other networks of a sweep.

    Args:
        runs: A run, or those of a sweep.

    Returns:
        The exit status, 0.

    Raises:
        RunError: If a run would be refused when it starts.
    """
    load_framework(runs[0].virtual_devices)
    placement, splits = placed(runs[0]), splits_of(runs[0])
    networks = {run.spatial_rank: run for run in reversed(runs)}
    for run in reversed(networks.values()):
        model = without_values(run)
        needed = needed_bytes(run, model)
        check_memory(run, needed)
        check_fit(run, model, source_of(run))
        rows = rows_of(model, run.batch_size)
        told = "\n".join(in_columns([HEADER, *(row.cells for row in rows)]))
        first = beginning(run, placement, splits)
        print(f"{first}\n\n{told}\n\n{totals(run, rows, needed)}", flush=True)
    sweep = f" The sweep would have {len(runs)} runs." if len(runs) > 1 else ""
    print(f"Nothing was trained or written.{sweep}")
    return 0


def placed(experiment: Experiment) -> "Placement":
    """Returns where a run would be trained; of a job of several workers, this one alone.

    Raises:
        RunError: If its devices are missing, or cannot share batches.
    """
    from low_rank_local_connectivity import training

    alone = experiment.strategy == "multi_worker" or "TF_CONFIG" in os.environ
    name = "one_device" if alone else experiment.strategy
    placement = training.place(name, experiment.tpu, experiment.peers_timeout)
    placement.check_batch_size(experiment.batch_size)
    return placement


def beginning(experiment: Experiment, placement: "Placement", splits: Mapping[str, Sized]) -> str:
    """Returns what a run would be trained on and where."""
    sizes = ", ".join(f"{len(splits[name]):,} {name}" for name in splits)
    steps = len(splits["train"]) // experiment.batch_size
    shared = f" on {placement.replicas} replicas" if placement.replicas > 1 else ""
    return (
        f"{experiment.data.name}: {sizes}. {experiment.layers_in_words}: {experiment.epochs} "
        f"epochs of {steps:,} steps{shared}. Files in {Path(experiment.model_dir)}."
    )


def rows_of(model: Any, batch_size: int) -> list[Row]:
    """Returns the layers of a network, with the plans that they take in batches of this size."""
    from low_rank_local_connectivity.inspection import layer_costs
    from low_rank_local_connectivity.inspection.graph import opened_layers

    return [
        Row(
            cost.name,
            cost.kind,
            cost.output_size,
            cost.parameters,
            cost.flops,
            plans_of(layer, batch_size),
        )
        for layer, cost in zip(opened_layers(model), layer_costs(model), strict=True)
    ]


def plans_of(layer: Any, batch_size: int) -> str:
    """Returns the plans of a layer in training and inference, in words; empty if it has none."""
    if not hasattr(layer, "chosen_plan"):
        return ""
    shape = (batch_size, *layer.input.shape[1:])
    training, inference = (layer.chosen_plan(shape, training=one) for one in (True, False))
    return training if training == inference else f"{training}; {inference} in inference"


def in_columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    r"""Yields lines in which the cells of each column begin one under the other.

    Example:
        >>> print("\n".join(in_columns([("layer", "plan"), ("a", "")])))
        layer  plan
        a
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def totals(experiment: Experiment, rows: Sequence[Row], needed: tuple[int, int, int]) -> str:
    """Returns a network's parameters, operations and the memory of a step, in two lines."""
    parameters, for_weights, for_step = needed
    operations = sum(row.operations for row in rows)
    memory = (
        f"At least {_size(for_weights + for_step)} of memory per step: {_size(for_weights)} for "
        f"weights, gradients and moments, {_size(for_step)} kept of {experiment.batch_size} "
        "examples."
    )
    counts = f"{parameters:,} trainable parameters, {operations:,} operations per example"
    return f"{counts} in inference.\n{memory}"


def _size(number: int) -> str:
    unit, name = (GIBIBYTE, "GiB") if number >= GIBIBYTE else (MEBIBYTE, "MiB")
    return f"{number / unit:,.1f} {name}"
