"""A trained network and how its inputs are made, from the folder of its run."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from low_rank_local_connectivity.data import DATASETS, Dataset
from low_rank_local_connectivity.experiments.experiment import Experiment
from low_rank_local_connectivity.experiments.folder import read_config

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
        told = json.loads(path.read_text())
        kept = {name: _tuples(told[name]) for name in KEPT}
        return dataclasses.replace(DATASETS[told["dataset"]], **kept)
    except FileNotFoundError:
        return _dataset_of_an_older_run(folder)
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"The description of a run's inputs must be as it was written. Received: {path}, "
            "which is damaged. Put it back, or train the run again."
        ) from None


def _dataset_of_an_older_run(folder: Path) -> Dataset:
    """Returns the dataset of a run that has no description of its inputs, from its flags."""
    config = read_config(folder / "config.json")
    names = {one.name for one in dataclasses.fields(Experiment)}
    given = {name: _tuples(value) for name, value in config.items() if name in names}
    return Experiment(**given).data


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def load_network(folder: Path) -> Any:
    """Returns the network of a run; no code from its file is run.

    Raises:
        ValueError: If the file is damaged or another than the run wrote.
    """
    from low_rank_local_connectivity import training
    from low_rank_local_connectivity.experiments.folder import read_result

    result = read_result(folder / "result.json")
    training.ignore_keras_json()
    return training.load(folder / "model.keras", result["model_sha256"])
