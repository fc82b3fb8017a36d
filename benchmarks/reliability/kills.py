"""Runs are killed at random moments and at calls on their files, until they finish as any other."""

import contextlib
import dataclasses
import itertools
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.reliability.outcomes import differences
from benchmarks.reliability.processes import (
    KILLED_AFTER,
    KILLED_BEFORE,
    Command,
    Ended,
    Harm,
    finished,
)
from benchmarks.reliability.setups import SETUPS, Setup, make_data
from benchmarks.reliability.tally import Tally

# Kills of a run before it may finish, and starts until it must have.
MOST_KILLS, MOST_STARTS = 8, 40
SIGNALS = (signal.SIGKILL,) * 4 + (signal.SIGTERM, signal.SIGINT)
# Seconds that a worker may take to notice that another one is gone.
NOTICED = 60


@dataclasses.dataclass(frozen=True)
class Whole:
    """An undisturbed run: what it left, how long it took, and its calls on files."""

    outcome: dict[str, Any]
    seconds: float
    calls: int


def run(minutes: float, seed: int, folder: Path) -> Tally:
    """Kills runs of each set-up in turn until the time is over."""
    tally = Tally("Kills")
    until = time.monotonic() + 60 * minutes
    draw = random.Random(seed)
    make_data(folder / "data")
    wholes: dict[str, Whole] = {}
    for name in in_turn(draw):
        if time.monotonic() > until:
            break
        if name not in wholes:
            wholes[name] = undisturbed(SETUPS[name], folder)
        kills, wrong = killed(SETUPS[name], wholes[name], folder, draw)
        tally.add(name, "otherwise" if wrong else "equal in the end", wrong)
        tally.kinds[name]["kills"] += kills
        tally.counts["kills"] += kills
    return tally


def in_turn(draw: random.Random) -> Iterator[str]:
    """Yields the names of set-ups for ever, each once in every round."""
    for _ in itertools.count():
        yield from draw.sample(list(SETUPS), len(SETUPS))


def started(setup: Setup, folder: Path, harms: dict[int, Harm] | None = None) -> list[Command]:
    """Starts the processes of a set-up, some of which come to harm."""
    data = folder.parent / "data"
    return [
        Command(words, variables, (harms or {}).get(index), setup.fresh)
        for index, (words, variables) in enumerate(setup.commands(folder, data))
    ]


def undisturbed(setup: Setup, parent: Path) -> Whole:
    """Returns what becomes of a set-up that nothing happens to."""
    folder, log = parent / "whole", parent / "calls.log"
    shutil.rmtree(folder, ignore_errors=True)
    log.unlink(missing_ok=True)
    begun = time.monotonic()
    ended = [finished(command) for command in started(setup, folder, {0: Harm(folder, log=log)})]
    if any(one.status for one in ended):
        raise RuntimeError(f"{setup}: {ended}")
    seconds = time.monotonic() - begun
    calls = len(log.read_text().splitlines()) if log.exists() else 0
    return Whole(setup.outcome(folder), seconds, calls)


def killed(setup: Setup, whole: Whole, parent: Path, draw: random.Random) -> tuple[int, str | None]:
    """Kills a run up to some times, then lets it finish; returns the kills and what is wrong."""
    folder = parent / "run"
    shutil.rmtree(folder, ignore_errors=True)
    plans, kills = [], 0
    for _ in range(draw.randint(1, MOST_KILLS)):
        plan, ended, happened = kill_once(setup, whole, folder, draw)
        plans.append(plan)
        kills += happened
        if problem := problem_of(ended):
            return kills, f"{plans}: {problem}"
    return kills, wrong_of(setup, whole, folder, plans)


def kill_once(
    setup: Setup, whole: Whole, folder: Path, draw: random.Random
) -> tuple[str, list[Ended], bool]:
    """Starts a set-up and kills it; returns how, its endings, and whether it was still running."""
    victims = draw.choice([[0], [1], [0, 1]]) if setup.workers > 1 else [0]
    at_call = whole.calls > 0 and draw.random() < 0.5
    # An interpreter that imports shows where it was interrupted, which is all it has to lose.
    number = signal.SIGKILL if setup.fresh else draw.choice(SIGNALS)
    if at_call:
        call, when = draw.randint(1, whole.calls), draw.choice((KILLED_BEFORE, KILLED_AFTER))
        commands = started(setup, folder, {0: Harm(folder, call, when)})
        ended = [finished(command) for command in commands]
        happened = ended[0].status == -signal.SIGKILL
        return f"call {call} {'before' if when == KILLED_BEFORE else 'after'}", ended, happened
    moment = draw.uniform(0, whole.seconds)
    commands = started(setup, folder)
    wait(commands, moment)
    hit = [one for index, one in enumerate(commands) if index in victims and not one.ended()]
    whom = send(setup, hit, number, draw)
    ended = [finished(command) for command in commands]
    plan = f"{signal.Signals(number).name} to {whom} after {moment:.2f} s"
    return plan, ended, bool(hit)


def wait(commands: list[Command], seconds: float) -> None:
    """Waits for some time, or until all have ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not all(command.ended() for command in commands):
        time.sleep(0.005)


def send(setup: Setup, hit: list[Command], number: int, draw: random.Random) -> str:
    """Sends a signal to processes, of a sweep also to its run; returns to whom."""
    if not setup.is_sweep:
        for command in hit:
            command.kill(number)
        return f"{len(hit)} of {setup.workers}"
    whom = draw.choice(("the sweep", "its run", "both"))
    for command in hit:
        runs = children(command.pid)
        if whom != "its run":
            command.kill(number)
        for run in runs if whom != "the sweep" else ():
            kill_run(run, number)
    return whom


def kill_run(pid: int, number: int) -> None:
    """Sends a signal to a run of a sweep, if it still runs."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def children(pid: int) -> list[int]:
    """Returns the processes that a process has started."""
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def problem_of(ended: list[Ended]) -> str | None:
    """Returns what is not allowed about the endings of processes that were killed or left alone."""
    for one in ended:
        if one.has_traceback:
            return f"a traceback, {one.errors.strip().splitlines()[-8:]}"
        if one.status > 0 and not one.errors.strip() and not one.output.strip():
            return f"status {one.status} without a sentence"
    return None


def wrong_of(setup: Setup, whole: Whole, folder: Path, plans: list[str]) -> str | None:
    """Lets a set-up finish; returns what is not allowed about it, if anything."""
    for _ in range(MOST_STARTS):
        ended = [finished(command) for command in started(setup, folder)]
        if problem := problem_of(ended):
            return f"{plans}, at the end: {problem}"
        if any(one.status for one in ended):
            return f"{plans}, at the end: {[one.errors[-400:] for one in ended]}"
        # The run of a sweep that was killed goes on by itself, and is another's until it ends.
        if not setup.is_sweep or "trained by other" not in ended[0].output:
            break
        time.sleep(1)
    different = differences(setup.outcome(folder), whole.outcome)
    return f"{plans}: other {', '.join(different)}" if different else None
