"""The form of a model to serve: converted or not, as requested or as is fastest."""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from low_rank_local_connectivity.conversion import (
    ConversionReport,
    fold_batch_normalization,
    to_plain_convolutions,
)
from low_rank_local_connectivity.conversion import convert as convert_model
from low_rank_local_connectivity.conversion.checks import LOW_RANK
from low_rank_local_connectivity.conversion.orientations import has_orientations
from low_rank_local_connectivity.conversion.weights import copy_variables
from low_rank_local_connectivity.export.formats import FORMATS
from low_rank_local_connectivity.export.signatures import Served, input_structure
from low_rank_local_connectivity.layers.local.low_rank_locally_connected_transpose import (
    LowRankLocallyConnectedTranspose,
)

# Runs of each form, alternately, when they are measured.
RUNS = 15
# Times that differ by less than this factor count as equal: noise is not worth megabytes.
ABOUT_AS_FAST = 1.25


def choose_form(
    served: Served, convert: Any, batch: Mapping[str, np.ndarray], formats: Sequence[str]
) -> tuple[str, Any, dict[str, Any]]:
    """Returns the form of a model to serve, its name, and the measurements behind the choice.

    Args:
        served: The model, with its inputs and outputs.
        convert: As in `export_model`.
        batch: Inputs by name, of the batch size to measure at.
        formats: The formats to write; forms are measured in the first.
    """
    model = served.model
    if convert is False:
        return "unconverted", model, {}
    if has_orientations(model):
        model = to_plain_convolutions(model)
    if convert is True:
        return "converted", _folded(convert_model(model, report=None)), {}
    reports: list[ConversionReport] = []
    converted = convert_model(model, report=reports.append)
    if not reports[0].replaced:  # All forms would be the same.
        return "converted", _folded(converted), {}
    forms = {
        "unconverted": _folded(model),
        "bank by bank": _folded(convert_model(model, bank_by_bank, report=None)),
        "converted": _folded(converted),
    }
    milliseconds = _measure(served, forms, batch, formats)
    chosen = _smallest_of_the_fastest(milliseconds, forms)
    times = ", ".join(f"{time:.3g} ms {name}" for name, time in milliseconds.items())
    count = len(next(iter(batch.values())))
    fastest = milliseconds[chosen] == min(milliseconds.values())
    reason = "" if fastest else ", which is smaller than the fastest and about as fast"
    print(  # noqa: T201
        f"A batch of {count} takes {times}: the {chosen} form is served{reason}."
    )
    return chosen, forms[chosen], {"milliseconds": {"batch_size": count, **milliseconds}}


def _folded(model: Any) -> Any:
    return fold_batch_normalization(model, report=None)


def _smallest_of_the_fastest(milliseconds: Mapping[str, float], forms: Mapping[str, Any]) -> str:
    """Returns the form with the fewest parameters among those about as fast as the fastest."""
    limit = ABOUT_AS_FAST * min(milliseconds.values())
    near = [name for name, time in milliseconds.items() if time <= limit]
    return min(near, key=lambda name: (forms[name].count_params(), milliseconds[name]))


def bank_by_bank(layer: Any) -> Any:
    """Returns a low-rank layer that convolves with every bank, which suits small batches.

    By default a layer plans for 32 examples if the batch size is unknown, as it is for a server.
    """
    if not isinstance(layer, LOW_RANK) or layer.implementation != "auto":
        return None
    if layer.input_dependent:  # It does so in any case.
        return None
    transposed = isinstance(layer, LowRankLocallyConnectedTranspose)
    plan = "weigh_then_convolve" if transposed else "convolve_then_combine"
    copy = type(layer).from_config({**layer.get_config(), "implementation": plan})
    copy.build(layer.get_build_config()["input_shape"])
    copy_variables(layer, copy)
    return copy


def _measure(
    served: Served,
    forms: Mapping[str, Any],
    batch: Mapping[str, np.ndarray],
    formats: Sequence[str],
) -> dict[str, float]:
    """Returns the milliseconds that each form takes in the first format, run alternately."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: _runner(dataclasses.replace(served, model=form), Path(folder) / name, formats)
            for name, form in forms.items()
        }
        milliseconds: dict[str, list[float]] = {name: [] for name in forms}
        for run in runs.values():
            run(batch)  # compiles
        for _ in range(RUNS):
            for name, run in runs.items():
                started = time.perf_counter()
                run(batch)
                milliseconds[name].append(1000 * (time.perf_counter() - started))
    return {name: round(statistics.median(found), 3) for name, found in milliseconds.items()}


def _runner(served: Served, folder: Path, formats: Sequence[str]) -> Callable[[Any], Any]:
    """Returns a function that runs a form as served, or with Keras if there is no format."""
    if not formats:
        form, names = served.model, [port.name for port in served.inputs]
        return lambda batch: form.predict_on_batch(
            keras.tree.pack_sequence_as(input_structure(form), [batch[name] for name in names])
        )
    kind = FORMATS[formats[0]]
    folder.mkdir()
    kind.write(dataclasses.replace(served, preprocess=None), folder / kind.file)
    return kind.run(folder / kind.file, served)
