"""The folder of a run: whose it is, and the result of a finished run in it."""

import hashlib
import json
from pathlib import Path
from typing import Any

from data import DATASETS
from experiments.experiment import PLACES, SAVING, Experiment


def check_folder(experiment: Experiment, allow_other_flags: bool = False) -> dict[str, Any] | None:
    """Makes sure that the run's folder is its own.

    Args:
        experiment: The run.
        allow_other_flags: Whether the run in it may have been begun with other flags.

    Returns:
        The result, if the run is finished.

    Raises:
        ValueError: If the folder holds another run, or files that are not a run's.
    """
    folder = Path(experiment.model_dir)
    config_path, result_path = folder / "config.json", folder / "result.json"
    if not config_path.exists():
        if folder.exists() and (not folder.is_dir() or _visible(folder)):
            raise ValueError(
                "--model_dir must be a new folder or hold a run of this script. Received: "
                f"--model_dir={folder}, which holds something else. Choose another."
            )
        return None
    try:
        there = _with_later_flags(dict(json.loads(config_path.read_text())))
    except (ValueError, TypeError, RecursionError):
        raise ValueError(
            f"A run's flags must be readable. Received: {config_path}, which is damaged. Put it "
            "back, or choose another --model_dir."
        ) from None
    here = experiment.config()
    different = [
        f"--{name} is {there.get(name)} there and {here.get(name)} here"
        for name in sorted(set(there) | set(here))
        if name not in (*PLACES, *SAVING) and there.get(name) != here.get(name)
    ]
    if different and not allow_other_flags:
        raise ValueError(
            "--model_dir must not hold a run with other flags. Received: "
            f"--model_dir={folder}, where {'; '.join(different)}. Choose another, or continue it "
            "all the same with --allow_other_flags."
        )
    return read_result(result_path) if result_path.exists() else None


def _with_later_flags(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a run's flags, with those that came later as the run was trained without them."""
    dataset = DATASETS.get(config.get("dataset", ""))
    of_files = dataset is not None and dataset.encoded
    cropped = {"augment": ["crop", "flip"], "eval_crop": 0.875}
    return {**(cropped if of_files else {"augment": [], "eval_crop": None}), **config}


def _visible(folder: Path) -> list[str]:
    """Returns what is in a folder, but for locks and what a killed process left half-written."""
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]


def digest(result: dict[str, Any]) -> str:
    """Returns a SHA-256 of a result, which stands in its file beside it."""
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()


def read_result(path: Path) -> dict[str, Any]:
    """Returns the result of a finished run, without loading a framework.

    Raises:
        ValueError: If the file is not as it was written.
    """
    try:
        result = json.loads(path.read_text())
        if result.pop("digest") == digest(result):
            return result
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        pass
    raise ValueError(
        f"A finished run's result must be as it was written. Received: {path}, which is damaged. "
        "Remove it, and the same command scores the trained model again."
    )
