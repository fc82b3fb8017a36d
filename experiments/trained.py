"""A trained network and how its inputs are made, from the folder of its run."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from low_rank_local_connectivity.data import DATASETS, Dataset
from low_rank_local_connectivity.experiments.experiment import Experiment
from low_rank_local_connectivity.experiments.folder import read_config
from low_rank_local_connectivity.untrusted.sizes import read_text

# What turns a file into an input, written beside the model so that it can leave its data.
INPUTS = "inputs.json"
KEPT = ("image_shape", "class_names", "value_range", "stored_range", "canvas", "eval_crop")
RUN = "Give the folder of a finished run, or the model.keras in it."


def write_inputs(folder: Path, dataset: Dataset) -> None:
    """Writes how the inputs of a run's network are made; needs a framework."""
    from low_rank_local_connectivity.training import write_json

    kept = {name: getattr(dataset, name) for name in KEPT}
    write_json(folder / INPUTS, {"dataset": dataset.name, **kept})


def folder_of(model: str | None) -> Path:
    """Returns the folder of the run that a `--model` names.

    Raises:
        ValueError: If there is none.
    """
    path = Path(model or "")
    folder = path if path.is_dir() else path.parent
    missing = [name for name in ("config.json", "model.keras") if not (folder / name).is_file()]
    if model is None or missing or (path != folder and path.name != "model.keras"):
        told = f"without {' and '.join(missing)}" if missing else "another file"
        received = f"--model={model}, {told}" if model is not None else "no --model"
        raise ValueError(f"--model must be a trained network. Received: {received}. {RUN}")
    return folder


def dataset_of(folder: Path) -> Dataset:
    """Returns the dataset of a run as its inputs were made, without reading any data.

    Raises:
        ValueError: If the description is damaged.
    """
    path = folder / INPUTS
    try:
        told = json.loads(read_text(path))
        kept = {name: _tuples(told[name]) for name in KEPT}
        if all(HOLDS[name](kept[name]) for name in KEPT):
            return dataclasses.replace(DATASETS[told["dataset"]], **kept)
    except FileNotFoundError:
        return _dataset_of_an_older_run(folder)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise ValueError(
        f"The description of a run's inputs must be as it was written. Received: {path}, which is "
        "damaged. Put it back, or train the run again."
    )


def _are_sizes(value: Any) -> bool:
    return isinstance(value, tuple) and all(type(one) is int and one > 0 for one in value)


def _are_names(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, str) for one in value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _are_bounds(value: Any) -> bool:
    """Whether these are a smallest and a largest value, or a tuple of each for the channels."""
    if not isinstance(value, tuple) or len(value) != 2:
        return False
    each = [bound if isinstance(bound, tuple) else (bound,) for bound in value]
    return all(map(_is_number, (*each[0], *each[1])))


# What must hold of each, whatever was written.
HOLDS: dict[str, Callable[[Any], bool]] = {
    "image_shape": lambda value: _are_sizes(value) and len(value) in (2, 3, 4),
    "class_names": lambda value: _are_names(value) and len(value) > 0,
    "value_range": _are_bounds,
    "stored_range": lambda value: _are_bounds(value) and all(map(_is_number, value)),
    "canvas": lambda value: value is None or (_are_sizes(value) and len(value) == 2),
    "eval_crop": lambda value: value is None or (_is_number(value) and 0 < value <= 1),
}


def _dataset_of_an_older_run(folder: Path) -> Dataset:
    """Returns the dataset of a run that has no description of its inputs, from its flags."""
    config = read_config(folder / "config.json")
    names = {one.name for one in dataclasses.fields(Experiment)}
    given = {name: _tuples(value) for name, value in config.items() if name in names}
    return Experiment(**given).data


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def load_network(folder: Path, max_bytes: int | None = None) -> Any:
    """Returns the network of a run; no code from its file is run.

    Args:
        folder: The folder of the run.
        max_bytes: Bytes that its arrays may take in memory, or None for the usual limit.

    Raises:
        ValueError: If the file is damaged or another than the run wrote.
    """
    from low_rank_local_connectivity import training
    from low_rank_local_connectivity.experiments.folder import read_result

    result, dataset = read_result(folder / "result.json"), dataset_of(folder)
    training.ignore_keras_json()
    path = folder / "model.keras"
    if "model_sha256" not in result:
        raise ValueError(
            f"A run must have saved its network. Received: {folder}, whose result names none. Give "
            "the command that trained it once more."
        )
    network = training.load(path, result["model_sha256"], max_bytes)
    shapes = network.input_shape, network.output_shape
    expected = (None, *dataset.input_shape), (None, dataset.num_classes)
    if shapes != expected:
        raise ValueError(
            f"A run's network must fit its inputs and classes. Received: {path} with shapes "
            f"{shapes[0]} to {shapes[1]} for {expected[0]} to {expected[1]} in {folder / INPUTS}. "
            "Put the right one back, or train the run again."
        )
    return network
