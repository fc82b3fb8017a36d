"""The folder of a run: whose it is, and the result of a finished run in it."""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from data import DATASETS
from experiments.experiment import PLACES, SAVING, Experiment

# What `config.json` has not always told, and how what is no flag is spelled.
UNTOLD_ONCE = ("backend", "images")
SPELLED = {"backend": "KERAS_BACKEND", "images": "--data_dir"}


def check_folder(experiment: Experiment, allow_other_flags: bool = False) -> dict[str, Any] | None:
    """Makes sure that the run's folder is its own.

    Args:
        experiment: The run.
        allow_other_flags: Whether the run in it may have been begun with other flags.

    Returns:
        The result, if the run is finished.

    Raises:
        ValueError: If the folder holds another run, or files that are not a run's, or a finished
            run is to be continued that has as many epochs behind it as it shall have.
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
    there, here = read_config(config_path), experiment.config()
    different = differences(there, here)
    if different and not allow_other_flags:
        raise ValueError(
            "--model_dir must not hold a run with other flags. Received: "
            f"--model_dir={folder}, where {'; '.join(different)}. Choose another, or continue it "
            "all the same with --allow_other_flags."
        )
    if not result_path.exists():
        return None
    if different and not here["epochs"] > there.get("epochs", 0):
        raise ValueError(refusal_of_other_flags(folder, different))
    return None if different else read_result(result_path)


def refusal_of_other_flags(folder: Path, different: list[str]) -> str:
    """Returns why a run that is trained to its end cannot go on with other flags."""
    return (
        "A trained run can go on with other flags only if these give it more epochs. Received: "
        f"--model_dir={folder}, where {'; '.join(different)}. Choose another --model_dir, or more "
        "--epochs."
    )


def read_config(path: Path) -> dict[str, Any]:
    """Returns the flags that a run was begun with.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        return _with_later_flags(dict(json.loads(path.read_text())))
    except (ValueError, TypeError, RecursionError):
        raise ValueError(
            f"A run's flags must be readable. Received: {path}, which is damaged. Put it "
            "back, or choose another --model_dir."
        ) from None


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Returns in words what makes one run another one than what was begun.

    Args:
        there: What `config.json` says. One from before it told of something has nothing to say
            about that.
        here: What it would say now.
    """
    told = {name: here[name] for name in UNTOLD_ONCE if name in here} | there
    return [
        f"{SPELLED.get(name, f'--{name}')} is {told.get(name)} there and {here.get(name)} here"
        for name in sorted(set(told) | set(here))
        if name not in (*PLACES, *SAVING) and told.get(name) != here.get(name)
    ]


def check_writable(folder: Path) -> None:
    """Makes sure that files can be written to a folder, which is made if need be.

    Raises:
        ValueError: If they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"--model_dir must be a folder that can be written to. Received: --model_dir={folder}: "
            f"{error.strerror or error}. Choose another."
        ) from None


def _with_later_flags(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a run's flags, with those that came later as the run was trained without them."""
    dataset = DATASETS.get(config.get("dataset", ""))
    of_files = dataset is not None and dataset.encoded
    cropped = {"augment": ["crop", "flip"], "eval_crop": 0.875}
    return {**(cropped if of_files else {"augment": [], "eval_crop": None}), **config}


def _visible(folder: Path) -> list[str]:
    """Returns what is in a folder, but for locks and what a killed process left half-written."""
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]


def result_digest(result: dict[str, Any]) -> str:
    """Returns a SHA-256 of a result, which stands in its file beside it."""
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Writes the result of a run, with a digest of it, in one step; a framework must be there."""
    from low_rank_local_connectivity.training import write_json

    write_json(folder / "result.json", {**result, "digest": result_digest(result)})


def read_result(path: Path) -> dict[str, Any]:
    """Returns the result of a finished run, without loading a framework.

    Raises:
        ValueError: If the file is not as it was written.
    """
    try:
        result = json.loads(path.read_text())
        if result.pop("digest") == result_digest(result):
            return result
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        pass
    raise ValueError(
        f"A finished run's result must be as it was written. Received: {path}, which is damaged. "
        "Remove it, and the same command scores the trained model again."
    )
