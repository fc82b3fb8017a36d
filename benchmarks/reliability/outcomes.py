"""What a run has left, as far as two runs of the same flags must have it alike, bit for bit."""

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from low_rank_local_connectivity.data.unreadable import skipped_images

# Times and speeds, which no two runs have alike, and digests that depend on them.
MEASURED = ("seconds", "first_step_seconds", "median_step_seconds", "images_per_second")
MEASURED += ("peak_memory_bytes", "digest", "model_sha256")


def outcome_of_run(folder: Path) -> dict[str, Any]:
    """Returns the weights, metrics, record and exports that a run has left."""
    result = json.loads((folder / "result.json").read_text())
    found: dict[str, Any] = {
        "result": {name: value for name, value in result.items() if name not in MEASURED},
        "metrics": metrics(folder / "metrics.csv"),
        "state": state(max((folder / "checkpoints").glob("step_*.npz"))),
        "best": state(folder / "checkpoints" / "best.npz"),
        "model": weights(folder / "model.keras"),
        "unfinished": sorted(path.name for path in folder.rglob(".*") if path.name != ".lock"),
        "evaluation": _text(folder / "evaluation.json"),
        "pictures": [(folder / name).exists() for name in PICTURES],
        "skipped": skipped_images(folder / "skipped.txt"),
    }
    manifest = folder / "saved_model" / "manifest.json"
    return {**found, "exports": exports(manifest) if manifest.exists() else None}


PICTURES = ("combining_weights.png", "confusion.png")


def metrics(path: Path) -> list[dict[str, str]]:
    """Returns the rows of metrics.csv without speeds."""
    rows = csv.DictReader(path.read_text().splitlines())
    return [{name: row[name] for name in row if name not in MEASURED} for row in rows]


def state(path: Path) -> dict[str, str]:
    """Returns a digest of every array of a checkpoint."""
    with np.load(path) as file:
        names = [name for name in file.files if name != "about"]
        return {name: digest(file[name].tobytes()) for name in names}


def weights(path: Path) -> dict[str, str]:
    """Returns a digest of every array in a `.keras` file, whose own times differ."""
    with zipfile.ZipFile(path) as archive:
        stored = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(stored, "r") as file:
        return {name: digest(array.tobytes()) for name, array in _arrays(file)}


def _arrays(group: Any, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for name in group:
        if isinstance(group[name], h5py.Dataset):
            yield f"{path}/{name}", group[name][()]
        else:
            yield from _arrays(group[name], f"{path}/{name}")


def exports(manifest: Path) -> dict[str, Any]:
    """Returns what the exports are, but for the form, which is chosen by what was measured."""
    told = json.loads(manifest.read_text())
    kept = ("model", "inputs", "outputs", "class_names")
    files = {
        name: (manifest.parent / one["file"]).exists() for name, one in told["formats"].items()
    }
    return {**{name: told.get(name) for name in kept}, "files": files}


def digest(content: bytes) -> str:
    """Returns a short digest."""
    return hashlib.sha256(content).hexdigest()[:16]


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Returns the names of what two outcomes have not alike."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def outcome_of_sweep(folder: Path) -> dict[str, Any]:
    """Returns the records of a sweep, and the outcome of each of its runs."""
    lines = (folder / "records.jsonl").read_text().splitlines()
    records = {record["name"]: record for record in map(json.loads, lines)}
    found: dict[str, Any] = {"count": len(lines), "names": sorted(records)}
    for name, record in records.items():
        result = {key: record["result"][key] for key in record["result"] if key not in MEASURED}
        found[name] = [record["config"], result, outcome_of_run(folder / name)]
    return found


def outcome_of_report(folder: Path) -> dict[str, Any]:
    """Returns the texts of a report and the names of its files."""
    texts = {path.name: path.read_text() for path in folder.glob("*.[cm][sd]*")}
    return {**texts, "names": sorted(path.name for path in folder.iterdir())}
