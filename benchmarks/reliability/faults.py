"""Every call that a run makes on its files fails once, as SQLite is tested.

After each failure the run must have ended in a sentence, or as if nothing had failed, and started
again it must end as an undisturbed one.
"""

import collections
import errno
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.reliability.outcomes import differences, outcome_of_run
from benchmarks.reliability.processes import SCRIPT, Command, Ended, Harm, finished
from benchmarks.reliability.tally import Tally

FLAGS = ("--train_examples=192", "--batch_size=64", "--epochs=1", "--filters=4")
FLAGS += ("--checkpoint_steps=1", "--spatial_rank=2")
# What each call may fail with: of a full disk and quota, a bad disk, a file system that is
# read-only, has no locks or is another one, and a process with too many files.
WRITING = ("ENOSPC", "EDQUOT", "EIO", "EROFS")
ERRORS = {
    "open_to_write": (*WRITING, "EMFILE"),
    "open_to_read": ("EIO", "EMFILE"),
    "opendir": ("EIO", "EMFILE"),
    "flock": ("ENOLCK", "EIO", "EOPNOTSUPP", "ENOSYS"),
    "rename": (*WRITING, "EXDEV"),
    **dict.fromkeys(("write", "pwrite64", "pwrite", "writev", "fwrite", "fflush"), WRITING[:3]),
    **dict.fromkeys(("fsync", "fdatasync", "close", "fclose"), WRITING[:3]),
    **dict.fromkeys(("mkdir", "mkdirat", "ftruncate", "ftruncate64"), WRITING),
    **dict.fromkeys(("unlink", "unlinkat", "rmdir", "chmod", "fchmod"), ("EIO", "EROFS")),
}
OTHERS = ("EIO",)
# What the calls of a continued run fail with, and how many of them do in turn.
OF_ANY, LATER = ("EIO", "ENOSPC", "EROFS", "EDQUOT", "EMFILE"), 3
ENDINGS = (0, 1, 2, 75)


def run(minutes: float, seed: int, folder: Path) -> Tally:
    """Fails calls, each once before any twice, until the time is over."""
    tally = Tally("Faults")
    until = time.monotonic() + 60 * minutes
    finished(Command([SCRIPT, f"--model_dir={folder / 'whole'}", *FLAGS]))
    whole = outcome_of_run(folder / "whole")
    log = folder / "calls.log"
    harm = Harm(folder / "logged", log=log)
    finished(Command([SCRIPT, f"--model_dir={harm.folder}", *FLAGS], harm=harm))
    calls = [line.split()[1] for line in log.read_text().splitlines()]
    told = collections.Counter(calls).most_common()
    print(f"{len(calls)} calls: {', '.join(f'{count} {name}' for name, count in told)}", flush=True)
    done: set[int] = set()
    for number, name, error in plan(calls, random.Random(seed)):
        if time.monotonic() > until:
            break
        fail(folder / "run", (number, name, error), calls, whole, tally)
        done.add(number)
    tally.remarks.append(f"{len(done)} of the {len(calls)} calls of a run failed at least once.")
    return tally


def plan(calls: Sequence[str], draw: random.Random) -> Iterator[tuple[int, str, str]]:
    """Yields the number and name of a call and an error: each call once, then with other errors."""
    left = {
        number: draw.sample(ERRORS.get(name, OTHERS), len(ERRORS.get(name, OTHERS)))
        for number, name in enumerate(calls, 1)
    }
    while left:
        for number in draw.sample(sorted(left), len(left)):
            yield number, calls[number - 1], left[number].pop()
        left = {number: errors for number, errors in left.items() if errors}


def fail(
    folder: Path, first: tuple[int, str, str], calls: Sequence[str], whole: dict, tally: Tally
) -> None:
    """Fails a call of a run, then others of the same run continued, which must end as any other.

    Args:
        folder: Where to run.
        first: The number and name of the call that fails first, and its error.
        calls: The calls of an undisturbed run.
        whole: What that left.
        tally: Counts how each ended.
    """
    shutil.rmtree(folder, ignore_errors=True)
    words, told = [SCRIPT, f"--model_dir={folder}", *FLAGS], []
    draw = random.Random(first[0])
    later = (draw.randint(1, len(calls)) for _ in range(LATER))
    cases = [first, *((number, "any", draw.choice(OF_ANY)) for number in later)]
    for number, name, error in cases:
        log = folder.parent / "calls.log"
        log.unlink(missing_ok=True)
        ended = finished(Command(words, harm=Harm(folder, number, getattr(errno, error), log)))
        told.append(f"call {number}, {name}, {error}: {ended.errors.strip()[-200:]!r}")
        if problem := problem_of(ended):
            tally.add(error, "otherwise", f"{told}: {problem}")
            return
        if log.exists() and len(log.read_text().splitlines()) < number:
            continue  # a run that had less to do, and did not come to the call
        tally.add(error, "no harm" if ended.status == 0 else "a sentence")
    if wrong := wrong_of(finished(Command(words)), folder, whole):
        tally.add(first[2], "otherwise", f"{told}, started again: {wrong}")


def problem_of(ended: Ended) -> str | None:
    """Returns what is not allowed about the ending of a run that a call failed in."""
    last = (ended.errors.strip().splitlines() or [""])[-1]
    if ended.has_traceback:
        return f"a traceback, {last}"
    if ended.status not in ENDINGS:
        return f"status {ended.status}, {last}"
    if ended.status and not any(
        line.startswith("run_experiment.py: ") for line in ended.errors.splitlines()
    ):
        return f"status {ended.status} without a sentence, {last}"
    return None


def wrong_of(ended: Ended, folder: Path, whole: dict) -> str | None:
    """Returns what is not allowed about a run that was started again, if anything."""
    if ended.status:
        return f"status {ended.status}, {ended.errors.strip().splitlines()[-1:]}"
    different = differences(outcome_of_run(folder), whole)
    return f"other {', '.join(different)}" if different else None
