"""Checkpoints: written atomically and checked when read; the newest few and the best are kept.

A checkpoint is one `.npz` file of arrays, each with a checksum, which is read without unpickling.
Its name contains the step, so the newest is found by name alone.
"""

import errno
import hashlib
import json
import math
import re
import shutil
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from low_rank_local_connectivity.training.endings import RunError
from low_rank_local_connectivity.training.records import replacing

NAME = re.compile(r"step_(\d{9})\.npz")
BEST = "best.npz"
# Errors of reading a damaged file: not a zip file, or a member's wrong checksum, header or size.
DAMAGE = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    EOFError,
    MemoryError,
    NotImplementedError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
)


class DamagedError(ValueError):
    """A checkpoint that cannot be used, and why."""


class Checkpoints:
    """The checkpoints in a folder.

    Args:
        folder: The folder; created with the first checkpoint.
        keep: How many of the newest to keep, at least 1.

    Example:
        >>> import tempfile
        >>> checkpoints = Checkpoints(Path(tempfile.mkdtemp()), keep=2)
        >>> for step in (10, 20, 30):
        ...     path = checkpoints.save(step, [np.full(3, step)], {"step": step})
        >>> [path.name for path in checkpoints.paths()]
        ['step_000000020.npz', 'step_000000030.npz']
        >>> arrays, about = checkpoints.newest([(3,)])
        >>> about["step"], arrays[0].tolist()
        (30, [30, 30, 30])
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep

    def paths(self) -> list[Path]:
        """Returns the files of checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if NAME.fullmatch(path.name))

    def save(
        self, step: int, arrays: Sequence[np.ndarray], about: dict[str, Any], best: bool = False
    ) -> Path:
        """Writes a checkpoint, then removes those that are no longer kept.

        Args:
            step: Number of steps done.
            arrays: The state.
            about: Further facts that belong to it, for JSON.
            best: Whether to keep it as the best one as well.

        Returns:
            Its path.

        Raises:
            RunError: If it cannot be written; earlier checkpoints are still there.
        """
        path = self.folder / f"step_{step:09d}.npz"
        named: dict[str, Any] = {f"array_{i}": array for i, array in enumerate(arrays)}
        text = json.dumps({**about, "arrays": len(arrays), "digest": arrays_digest(arrays, about)})
        try:
            with replacing(path) as temporary:
                np.savez(temporary, about=np.array(text), **named)
                # Before the other: a run that is killed in between does both again.
                if best:
                    with replacing(self.folder / BEST) as copy:
                        shutil.copyfile(temporary, copy)
        except OSError as error:
            left = self.paths()
            rest = f"{left[-1]} is intact" if left else "There is no earlier one"
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise RunError(
                f"The checkpoint {path} must be writable. Received: {error.strerror or error}. "
                f"{rest}; {'make room' if full else 'see to it'} and run the same command again."
            ) from error
        for old in self.paths()[: -self.keep]:
            old.unlink(missing_ok=True)
        return path

    def newest(
        self, shapes: Sequence[tuple[int, ...]]
    ) -> tuple[list[np.ndarray], dict[str, Any]] | None:
        """Reads the newest checkpoint that is whole.

        Args:
            shapes: The shapes that its first arrays must have.

        Returns:
            Arrays and the facts that belong to them; None if there are no checkpoints at all.

        Raises:
            RunError: If there are checkpoints and none can be used.
        """
        paths = self.paths()[::-1]
        problems = []
        for path in paths:
            try:
                found = read(path, shapes)
            except DamagedError as problem:
                problems.append(str(problem))
                continue
            if problems:
                warnings.warn(f"{' '.join(problems)} Continuing from {path} instead.", stacklevel=2)
            return found
        if problems:
            raise RunError(
                f"A run that was begun must have a checkpoint that can be read. Received: "
                f"{' '.join(problems)} Give another `model_dir` to start over."
            )
        return None


def read(
    path: Path, shapes: Sequence[tuple[int, ...]] | None = None
) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Reads a checkpoint and checks that it is intact and fits.

    Args:
        path: The file.
        shapes: The shapes that its first arrays must have; not checked if None.

    Returns:
        Arrays, and the facts that belong to them.

    Raises:
        DamagedError: If it is damaged, does not fit or contains numbers that are not finite.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            about = json.loads(str(file["about"][()]))
            count, expected = about.pop("arrays"), about.pop("digest")
            arrays = [file[f"array_{index}"] for index in range(count)]
    except DAMAGE as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DamagedError(f"{path} is damaged ({why}).") from error
    if any(array.dtype.kind not in "fiub" for array in arrays):
        raise DamagedError(f"{path} holds arrays that are not numbers.")
    if arrays_digest(arrays, about) != expected:
        raise DamagedError(f"{path} is damaged (its digest does not fit its values).")
    _check(path, arrays, about, shapes)
    return arrays, about


def arrays_digest(arrays: Sequence[np.ndarray], about: dict[str, Any]) -> str:
    """Returns a SHA-256 of all numbers, shapes and types, and of the facts that belong to them."""
    found = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for array in arrays:
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _check(
    path: Path,
    arrays: Sequence[np.ndarray],
    about: Any,
    shapes: Sequence[tuple[int, ...]] | None,
) -> None:
    named = NAME.fullmatch(path.name)
    if named and about.get("step") != int(named[1]):
        raise DamagedError(f"{path} says that it is of step {about.get('step')}.")
    if not all_finite(arrays):
        raise DamagedError(f"{path} holds numbers that are not finite.")
    found = [array.shape for array in arrays]
    if shapes is not None and found[: len(shapes)] != list(shapes):
        count = f"{len(found)} arrays for {len(shapes)}"
        different = [pair for pair in zip(found, shapes, strict=False) if pair[0] != pair[1]]
        what = f"shape {different[0][0]} for {different[0][1]}" if different else count
        raise DamagedError(f"{path} belongs to another model ({what}).")


def all_finite(arrays: Sequence[np.ndarray]) -> bool:
    """Returns whether no number is infinite or not a number."""
    return all(
        math.isfinite(np.sum(array, dtype="float64")) or bool(np.isfinite(array).all())
        for array in arrays
    )
