"""What is counted once for each of many cells and kept in a file, so that a run can go on."""

import csv
import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

# What was counted for each cell, a frozen dataclass of texts and whole numbers.
Counts = dict[Any, dict[str, int]]


def read(path: Path, kind: type) -> Counts:
    """Returns what a file holds: nothing if there is none, no numbers where none could be had.

    Args:
        path: The file.
        kind: The class of its cells.
    """
    if not path.exists():
        return {}
    makers: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(kind)}
    found: Counts = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            cell = kind(**{name: make(row.pop(name)) for name, make in makers.items()})
            found[cell] = {name: int(value) for name, value in row.items() if value}
    return found


def write(path: Path, found: Counts, counted: Sequence[str], order: Iterable[Any]) -> None:
    """Writes a file, all of it or nothing.

    Args:
        path: The file.
        found: What was counted.
        counted: The names of the numbers.
        order: Cells as they shall stand; any others follow.
    """
    places = {cell: index for index, cell in enumerate(order)}
    rows = sorted(found, key=lambda cell: places.get(cell, len(places)))
    fields = [field.name for field in dataclasses.fields(rows[0])]
    part = path.with_suffix(".part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*fields, *counted], lineterminator="\n")
        writer.writeheader()
        writer.writerows(dataclasses.asdict(cell) | found[cell] for cell in rows)
    part.replace(path)


def fill(
    path: Path,
    wanted: Sequence[Any],
    count: Callable[[Any], dict[str, int]],
    counted: Sequence[str],
    order: Iterable[Any],
    again: bool = False,
) -> None:
    """Counts what a file lacks, cell by cell, and writes each into it.

    Args:
        path: The file.
        wanted: The cells.
        count: Function of a cell to its numbers, none if they cannot be had.
        counted: Names of the numbers.
        order: Cells as they shall stand in the file.
        again: Whether to count what the file has, too.
    """
    known = {} if again else read(path, type(wanted[0]))
    for cell in (cell for cell in wanted if cell not in known):
        started = time.perf_counter()
        numbers = count(cell)
        # Read again, since another run may have written meanwhile.
        write(path, read(path, type(cell)) | {cell: numbers}, counted, order)
        print(f"{cell}: {time.perf_counter() - started:.0f} s", flush=True)
