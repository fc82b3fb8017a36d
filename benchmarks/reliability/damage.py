"""Reads damaged and hostile files of every kind, in forks that are watched from outside.

    python -m benchmarks.reliability.damage --minutes=10 --seed=1

A file may be refused with its name, or loaded: equal to the whole one, or as the damaged one says
itself, where its format has no checksum. Whatever else comes of it is not allowed: another error,
a crash, 2 GB of memory or 30 s of computing, or that a file beside it is opened. The exit status
is 1 if any came of it. Needs Linux.
"""

import argparse
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability import damages
from benchmarks.reliability.hostile import CONSTRUCTIONS
from benchmarks.reliability.tally import Tally
from benchmarks.reliability.watching import Attempt, attempted

# What may come of a file.
REFUSED, EQUAL, AS_IT_SAYS = "refused", "equal", "as it says"


def main() -> None:
    """Runs the campaign and prints its table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--attempts", type=int, help="how many at the most; as many as there is time"
    )
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory(prefix="damage-") as folder:
        tally = run(given.minutes, given.seed, Path(folder), given.attempts)
    print(tally.in_markdown())
    sys.exit(1 if tally.wrong else 0)


def run(minutes: float, seed: int, folder: Path, attempts: int | None = None) -> Tally:
    """Reads damaged files until a time is over.

    Args:
        minutes: The time.
        seed: Of the damages.
        folder: An empty folder for the files.
        attempts: How many files at the most; None for as many as there is time for.
    """
    from benchmarks.reliability import readers

    tally = Tally("Damaged files")
    whole, elsewhere = folder / "whole", folder / "elsewhere"
    for path in (whole, elsewhere):
        path.mkdir()
    write_elsewhere(elsewhere)
    made = attempted(_made, whole, elsewhere=elsewhere)
    if made.ending != "told":
        raise RuntimeError(f"The whole files could not be written: {made}")
    expected = {kind: _loaded(kind, whole, elsewhere) for kind in readers.READERS}
    until = time.monotonic() + 60 * minutes
    for number, (kind, name, copy) in enumerate(_files(whole, elsewhere, folder, seed)):
        if time.monotonic() > until or number == attempts:
            shutil.rmtree(copy)
            break
        attempt = attempted(readers.told_by, kind, copy, elsewhere=elsewhere)
        ending, wrong = judged(attempt, expected[kind])
        tally.add(kind, ending, wrong and f"{name}, number {number} of seed {seed}: {wrong}")
        shutil.rmtree(copy, ignore_errors=True)
    tally.remarks.append(f"{sum(tally.counts.values()):,} files, seed {seed}.")
    return tally


def _made(whole: Path) -> None:
    from benchmarks.reliability import readers

    readers.write_whole(whole)


def _loaded(kind: str, whole: Path, elsewhere: Path) -> list[str]:
    from benchmarks.reliability import readers

    attempt = attempted(readers.told_by, kind, whole, elsewhere=elsewhere)
    if attempt.ending != "told" or "loaded" not in attempt.told:
        raise RuntimeError(f"The whole file of the kind {kind!r} could not be read: {attempt}")
    return attempt.told["loaded"]


def write_elsewhere(folder: Path) -> None:
    """Writes files that hostile ones refer to, and that nothing may open."""
    import h5py

    (folder / "secret").write_bytes(b"what nobody else is to read" * 999)
    with h5py.File(folder / "other.h5", "w") as file:
        file["kernel"] = np.ones((3, 3))


def _files(
    whole: Path, elsewhere: Path, folder: Path, seed: int
) -> Iterator[tuple[str, str, Path]]:
    """Yields kinds, names of damages, and copies of the folder of whole files with one damaged.

    Every hostile construction comes once, and then damages without end, one of each kind in turn.
    """
    from benchmarks.reliability import readers

    count = itertools.count()
    for kind, reader in readers.READERS.items():
        for construct in CONSTRUCTIONS:
            copy = _copy(whole, folder, next(count))
            if construct(copy / reader.file, elsewhere):
                yield kind, construct.__name__, copy
            else:
                shutil.rmtree(copy)
    for round_ in itertools.count():
        for kind, reader in readers.READERS.items():
            rng = np.random.default_rng([seed, round_, *kind.encode()])
            ways = (damages.outside, damages.one_bit, *reader.inside * 3)
            way = ways[rng.integers(len(ways))]
            copy = _copy(whole, folder, next(count))
            path = copy / reader.file
            path.write_bytes(way(rng, path.read_bytes()))
            yield kind, getattr(way, "__name__", "inside"), copy


def _copy(whole: Path, folder: Path, number: int) -> Path:
    copy = folder / f"copy{number}"
    shutil.copytree(whole, copy)
    return copy


def judged(attempt: Attempt, expected: list[str]) -> tuple[str, str | None]:
    """Returns how an attempt ended, and what is not allowed about it."""
    if attempt.opened:
        return "opened another", "it opened another file"
    if attempt.ending != "told":
        return attempt.ending, attempt.ending
    return _judged(attempt.told, expected)


def _judged(told: dict[str, Any], expected: list[str]) -> tuple[str, str | None]:
    if "raised" in told:
        return "another error", told["raised"]
    if "refused" in told:
        named = told["named"]
        return REFUSED, None if named else f"refused without the file's name: {told['refused']}"
    if told["loaded"] == expected:
        return EQUAL, None
    if told["says"] == ["anything"] or {*told["loaded"]} <= {*told["says"]}:
        return AS_IT_SAYS, None
    return "other numbers", "loaded with other numbers than the file's"


if __name__ == "__main__":
    main()
