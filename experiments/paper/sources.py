"""Records of runs: from the files of sweeps, and from the folders of runs."""

import csv
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from low_rank_local_connectivity.data import DATASETS
from low_rank_local_connectivity.experiments.experiment import recorded
from low_rank_local_connectivity.experiments.folder import is_config, read_config, read_result
from low_rank_local_connectivity.training.records import read_records
from low_rank_local_connectivity.untrusted.sizes import MOST_RECORDS, read_text

Record = dict[str, Any]
# Name of a sweep's file of records.
RECORDS = "records.jsonl"

# Fields that, with the rank, define a method; all others define the budget.
METHOD = (
    "layer_types",
    "insert_layer",
    "replace",
    "replace_with",
    "normalize_weights",
    "combining_weights_initializer",
    "share_row_combining_weights",
    "share_col_combining_weights",
    "input_dependent",
    "use_spatial_bias",
    "locally_connected_fan",
    "coord_conv",
)
# What every record's config and result must have.
SETTINGS = ("dataset", "network", "spatial_rank", "seed", *METHOD)
MEASURED = ("valid_accuracy", "test_accuracy", "train_accuracy", "parameters")
NEITHER = ("spatial_rank", "seed", "strategy", "export_formats", "serving_batch_size")


def budget_of(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the flags that are set and not part of a method.

    Flags that are off are left out, so that a record from before a flag existed has the same
    budget as a later one.
    """
    return {
        name: value
        for name, value in config.items()
        if name not in (*METHOD, *NEITHER, "dataset") and value not in (None, False, [])
    }


def read(paths: Sequence[Path]) -> tuple[list[Record], list[str]]:
    """Reads records of runs; a run that occurs several times counts once.

    Args:
        paths: Files of records, and folders of runs, of sweeps, or of several of them. A record
            has its run's `metrics`, a row of numbers for each epoch, where the run's folder is
            beside its file.

    Returns:
        The records, and a sentence for each that was left out.

    Raises:
        ValueError: If one cannot be read or has no record, or two records of one run differ.
    """
    found: dict[tuple, Record] = {}
    remarks = []
    for path in paths:
        records, left_out = _of_folder(path) if path.is_dir() else _of_file(path)
        remarks += left_out
        for record in records:
            run = _run(record["config"])
            first = found.setdefault(run, record)
            if any(first["result"][name] != record["result"][name] for name in MEASURED):
                raise ValueError(
                    "A run may be recorded once, or twice with the same result. Received: "
                    f"{record['name']!r} in {str(path)!r}, which has the settings of "
                    f"{first['name']!r} and another result. Report on them apart."
                )
            if "metrics" in record:
                first.setdefault("metrics", record["metrics"])
    return list(found.values()), remarks


def _run(config: dict[str, Any]) -> tuple:
    """Returns what distinguishes one run from others."""
    return tuple(sorted((name, str(value)) for name, value in budget_of(config).items())) + tuple(
        str(config[name]) for name in SETTINGS
    )


def _of_folder(folder: Path) -> tuple[list[Record], list[str]]:
    """Returns the records of a folder: a run's, a sweep's, or those of all folders within."""
    if (folder / RECORDS).exists():
        return _of_file(folder / RECORDS)
    if (folder / "config.json").exists():
        if not (folder / "result.json").exists():
            return [], [f"The run in {folder} is not finished and is left out."]
        return _whole([_record_of_run(folder)], folder)
    parts = [_of_folder(one) for one in sorted(_runs_within(folder))]
    if not parts:
        raise ValueError(
            "A folder must be that of a run or of a sweep, or hold such folders. Received: "
            f"{str(folder)!r}, which has neither config.json nor {RECORDS}. Give another."
        )
    return [one for records, _ in parts for one in records], [
        one for _, remarks in parts for one in remarks
    ]


def _runs_within(folder: Path) -> Iterator[Path]:
    """Yields the outermost folders of runs and sweeps within a folder."""
    for one in folder.iterdir():
        if one.is_dir():
            mine = any((one / name).exists() for name in (RECORDS, "config.json"))
            yield from [one] if mine else _runs_within(one)


def _record_of_run(folder: Path) -> Record:
    """Returns what a sweep would have recorded of a finished run, and its metrics."""
    config = recorded(read_config(folder / "config.json"))
    result = read_result(folder / "result.json")
    return with_metrics({"name": folder.name, "config": config, "result": result}, folder)


def with_metrics(record: Record, folder: Path) -> Record:
    """Returns a record with the metrics of each epoch, if they are in the run's folder."""
    try:
        lines = read_text(folder / "metrics.csv", MOST_RECORDS).decode().splitlines()
        rows = [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(lines)
        ]
    except (OSError, ValueError, TypeError, AttributeError):  # none, or not as it was written
        return record
    return {**record, "metrics": rows}


def _of_file(path: Path) -> tuple[list[Record], list[str]]:
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            records = read_records(path)
    except OSError as error:
        raise ValueError(
            "Records must be files that can be read. Received: "
            f"{str(path)!r} ({error.strerror}). Give the {RECORDS} of a sweep, or a run's folder."
        ) from error
    whole, remarks = _whole(records, path)
    if not whole:
        raise ValueError(
            "A file of records has a line of JSON for each run, with its name, config and result. "
            f"Received: {str(path)!r}, which has none. Give the {RECORDS} of a sweep, or a run's "
            "folder."
        )
    found = [with_metrics(record, path.parent / str(record["name"])) for record in whole]
    return found, [str(warning.message) for warning in caught] + remarks


def _whole(records: Sequence[Record], path: Path) -> tuple[list[Record], list[str]]:
    """Returns the records that have all a report needs, and a sentence for each other one."""
    remarks = [
        f"The record {record['name']!r} of {path} has no {_lacks(record)} and is left out."
        for record in records
        if _lacks(record)
    ]
    return [record for record in records if not _lacks(record)], remarks


def _lacks(record: Record) -> str | None:
    """Returns what a report needs and a record lacks."""
    for part, names in (("config", SETTINGS), ("result", MEASURED)):
        values = record.get(part)
        if not isinstance(values, dict):
            return part
        for name in names:
            if name not in values:
                return f"{name!r} in its {part}"
    if not is_config(record["config"]) or record["config"]["dataset"] not in DATASETS:
        return "known settings in its config"
    for name in MEASURED:
        value = record["result"][name]
        if type(value) not in (int, float) or not math.isfinite(value):
            return f"number as {name!r} in its result"
    return None
