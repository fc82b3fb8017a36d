"""The folder of a run: which run it belongs to, and the result of a finished run in it."""

import errno
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from low_rank_local_connectivity.data import DATASETS
from low_rank_local_connectivity.experiments.experiment import (
    LATER,
    PLACES,
    SAVING,
    WATCHING,
    Experiment,
    defaults_of,
)

# In which archives date their files; a time zone may be a day behind.
FIRST_YEAR = 1980
# What `config.json` has not always told, and how what is no flag is spelled.
UNTOLD_ONCE = ("backend", "images")
SPELLED = {
    "backend": "KERAS_BACKEND",
    "images": "--data_dir",
    "weights_sha256": "the digest of the file of --weights",
}


def check_folder(experiment: Experiment, allow_other_flags: bool = False) -> dict[str, Any] | None:
    """Checks that a folder is new or belongs to this run.

    Args:
        experiment: The run.
        allow_other_flags: Whether the run in it may have been started with different flags.

    Returns:
        The result, if the run is finished.

    Raises:
        ValueError: If the folder has another run or files that are not a run's, or a finished run
            is to be continued without more epochs.
    """
    folder = Path(experiment.model_dir)
    config_path, result_path = folder / "config.json", folder / "result.json"
    if not config_path.exists():
        if folder.exists() and (not folder.is_dir() or _visible(folder)):
            raise ValueError(
                "--model_dir must be a new folder or contain a run of this script. Received: "
                f"--model_dir={folder}, which contains something else. Choose another."
            )
        return None
    there, here = read_config(config_path), experiment.config()
    different = differences(there, here)
    if different and not allow_other_flags:
        raise ValueError(
            "--model_dir must not contain a run with different flags. Received: "
            f"--model_dir={folder}, where {'; '.join(different)}. Choose another, or continue it "
            "anyway with --allow_other_flags."
        )
    if not result_path.exists():
        return None
    if different and not here["epochs"] > there.get("epochs", 0):
        raise ValueError(refusal_of_other_flags(folder, different))
    return None if different else read_result(result_path)


def refusal_of_other_flags(folder: Path, different: list[str]) -> str:
    """Returns why a completely trained run cannot be continued with different flags."""
    return (
        "A trained run can be continued with different flags only for more epochs. Received: "
        f"--model_dir={folder}, where {'; '.join(different)}. Choose another --model_dir, or more "
        "--epochs."
    )


def read_config(path: Path) -> dict[str, Any]:
    """Returns the flags with which a run was started.

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
    """Returns in words how a run differs from the one that was started.

    Args:
        there: The content of `config.json`; an older file has fewer entries, and those that it
            lacks are not compared.
        here: What its content would be now.
    """
    told = {name: here[name] for name in UNTOLD_ONCE if name in here} | there
    if "weights_sha256" not in here:  # a file that is gone is needed no more
        told.pop("weights_sha256", None)
    return [
        f"{SPELLED.get(name, f'--{name}')} is {told.get(name)} there and {here.get(name)} here"
        for name in sorted(set(told) | set(here))
        if name not in (*PLACES, *SAVING, *WATCHING) and told.get(name) != here.get(name)
    ]


def check_writable(folder: Path) -> None:
    """Checks that files can be written to a folder, which is created if necessary.

    Raises:
        ValueError: If they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _not_writable(folder, error.strerror or str(error)) from None


def check_clock() -> None:
    """Checks that files can be dated in archives, as models are, in which 1980 is the first year.

    Raises:
        ValueError: If the clock of this machine is earlier.
    """
    now = time.gmtime()
    if now.tm_year <= FIRST_YEAR:
        raise ValueError(
            "The clock of this machine must be right, as a model's file cannot be of a time before "
            f"1980. Received: {time.strftime('%Y-%m-%d', now)}. Set the clock."
        )


def check_room(folder: Path) -> None:
    """Checks that files could be written to a folder, without creating anything.

    Raises:
        ValueError: If they could not.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise _not_writable(folder, os.strerror(errno.ENOTDIR))
    if not os.access(there, os.W_OK | os.X_OK):
        raise _not_writable(folder, os.strerror(errno.EACCES))


def _not_writable(folder: Path, why: str) -> ValueError:
    return ValueError(
        f"--model_dir must be a folder that can be written to. Received: --model_dir={folder}: "
        f"{why}. Choose another."
    )


def _with_later_flags(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a run's flags, in which newer flags have the values that older runs amount to."""
    dataset = DATASETS.get(config.get("dataset", ""))
    of_files = dataset is not None and dataset.encoded
    cropped = {"augment": ["crop", "flip"], "eval_crop": 0.875}
    plain = cropped if of_files else {"augment": [], "eval_crop": None}
    return {**plain, **defaults_of(LATER), **config}


def _visible(folder: Path) -> list[str]:
    """Returns the files in a folder, except locks and half-written files of a killed process."""
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]


def result_digest(result: dict[str, Any]) -> str:
    """Returns a SHA-256 of a result, which its file contains too."""
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Writes the result of a run and its digest in one step; needs a framework."""
    from low_rank_local_connectivity.training import write_json

    write_json(folder / "result.json", {**result, "digest": result_digest(result)})


def read_result(path: Path) -> dict[str, Any]:
    """Returns the result of a finished run, without loading a framework.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        result = json.loads(path.read_text())
        if result.pop("digest") == result_digest(result):
            return result
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        pass
    raise ValueError(
        f"A finished run's result must be as it was written. Received: {path}, which is damaged. "
        "Remove it, and the same command evaluates the trained model again."
    )
