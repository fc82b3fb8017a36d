"""Sweeps: many runs of one experiment with different seeds and ranks, each in its own process.

A sweep's folder has `records.jsonl`, with a line for each finished run, and a folder, a log and a
lock for each run. Started again, a sweep continues with the runs that are missing; several
processes, also on several machines that share the folder, divide the runs among them.
"""

import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

import numpy as np

from low_rank_local_connectivity.experiments.experiment import Experiment
from low_rank_local_connectivity.experiments.paper.statistics import mean_and_error, percent
from low_rank_local_connectivity.experiments.runs import command_line, run_name
from low_rank_local_connectivity.training.claims import claimed
from low_rank_local_connectivity.training.endings import STOPPED_STATUS, StoppedError
from low_rank_local_connectivity.training.records import append_record, read_records

# Seconds between two looks at this process's run, and at one that another process is training.
POLL, PATIENCE = 0.05, 1.0


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Args:
        name: Its name, unique within the folder.
        config: The values of its flags.
        command: The command that trains it in `folder`, or continues it, unless it is finished.
        folder: The run's folder, where the command writes `result.json`.
        locking: Whether to lock it, and the records; if not, no other process may use the folder.
    """

    name: str
    config: dict[str, Any]
    command: list[str]
    folder: Path
    locking: bool = True


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a run when it was its turn.

    Args:
        said: What to say of it, in lines.
        failed: Whether its command failed.
        elsewhere: Whether another process is training it.
        interrupted: Whether a signal ended its command, which would go on if started again.
    """

    said: tuple[str, ...]
    failed: bool = False
    elsewhere: bool = False
    interrupted: bool = False


# The records of some runs so far, the names of those that failed, and the names of those that
# other processes are training.
Gathered = tuple[list[dict[str, Any]], list[str], list[str]]


def run_sweep(
    runs: Sequence[Experiment],
    folder: Path,
    engine: Callable[[Sequence[Run], Path], Gathered] | None = None,
) -> int:
    """Trains all runs of a sweep that are not trained or being trained; returns an exit status.

    Args:
        runs: The runs, in order.
        folder: The sweep's folder.
        engine: What trains them; `sweep`, one after the other, if left out.
    """
    planned = [
        Run(
            run_name(run),
            run.recorded_config(),
            command_line(run),
            Path(run.model_dir),
            not run.no_lock,
        )
        for run in runs
    ]
    try:
        records, failed, elsewhere = (engine or sweep)(planned, folder)
    except StoppedError as stopped:
        say(str(stopped))
        return STOPPED_STATUS
    if records:
        say(f"\n{summary(records)}\n")
    if elsewhere:
        say(f"{len(elsewhere)} runs are being trained by other processes.")
    if failed:
        say(f"{len(failed)} runs failed: {', '.join(failed)}. The same command tries them again.")
    if len(records) == len(runs) and len({run.spatial_rank for run in runs}) > 1:
        say(f"Chosen on the validation split: rank {choose_rank(records)}.")
    return 1 if failed else 0


def sweep(runs: Sequence[Run], folder: Path) -> Gathered:
    """Trains the runs that are neither recorded nor being trained by another process.

    Args:
        runs: The runs, in order.
        folder: The sweep's folder.

    Returns:
        The records of these runs so far, the names of those that failed, and the names of those
        that other processes are training.

    Raises:
        StoppedError: If a signal asked the sweep to stop; the current run has saved its state.
    """
    outcomes = {}
    for number, run in enumerate(runs, 1):
        outcomes[run.name] = attempt(run, folder)
        tell(outcomes[run.name], run, f"{number}/{len(runs)}")
    return gathered(runs, folder, outcomes)


def attempt(run: Run, folder: Path, patient: bool = False) -> Outcome:
    """Trains a run, unless it is recorded or another process is training it.

    A run that has a result is recorded, whatever failed afterwards; that is tried again each time
    until the result no longer mentions a failure.

    Args:
        run: The run.
        folder: The sweep's folder.
        patient: Whether to wait for a process that is training it.

    Raises:
        StoppedError: If a signal asked this process to stop; the run has saved its state.
    """
    while True:
        with claimed(folder / "locks" / run.name, run.locking) as lock:
            if lock is not None:
                return _attempt_alone(run, folder, lock)
        if not patient:
            return Outcome(("another process is training it",), elsewhere=True)
        time.sleep(PATIENCE)


def _attempt_alone(run: Run, folder: Path, lock: IO) -> Outcome:
    path = folder / "records.jsonl"
    known = {record["name"]: record for record in _recorded(path)}
    if run.name in known and not _result(run).get("failed"):
        return Outcome((f"done before, {_accuracies(known[run.name]['result'])}",))
    started, log = time.monotonic(), folder / "logs" / f"{run.name}.log"
    status = _train(run, log, lock)
    result, said = _result(run), []
    if result and (status == 0 or "failed" in result):
        # A later failure is tried again, and is no part of the measurement.
        kept = {name: result[name] for name in result if name not in ("digest", "failed")}
        record = {"name": run.name, "config": run.config, "result": kept}
        append_record(path, record, run.locking)
        said = [f"{_accuracies(result)}, {time.monotonic() - started:.0f} s"]
    if status == 0:
        return Outcome((*said,))
    problem = f"failed: {_last_words(status, log)}"
    ended_by_signal = status < 0 or status == STOPPED_STATUS
    return Outcome((*said, problem), failed=True, interrupted=ended_by_signal)


def tell(outcome: Outcome, run: Run, place: str) -> None:
    """Prints what became of a run, and its place in the sweep."""
    for line in outcome.said:
        say(f"[{place}] {run.name}: {line}")


def gathered(runs: Sequence[Run], folder: Path, outcomes: dict[str, Outcome]) -> Gathered:
    """Returns what a sweep returns, from the outcomes of its runs by their names."""
    names = {run.name for run in runs}
    records = [one for one in _recorded(folder / "records.jsonl") if one["name"] in names]
    finished = {record["name"] for record in records}
    failed = [run.name for run in runs if outcomes[run.name].failed]
    elsewhere = [run.name for run in runs if outcomes[run.name].elsewhere]
    return records, failed, [name for name in elsewhere if name not in finished]


def _result(run: Run) -> dict[str, Any]:
    """Returns the result that a run has written; empty if there is none or it is damaged."""
    try:
        return dict(json.loads((run.folder / "result.json").read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _recorded(path: Path) -> list[dict[str, Any]]:
    return read_records(path) if path.exists() else []


def _train(run: Run, log: Path, lock: IO) -> int:
    """Runs the command; returns its exit status, negative if a signal ended it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        # The process inherits the lock, so that the run is not started again should this process
        # be killed. In a group of its own it gets the terminal's signals only from here, once; a
        # second one would end it immediately.
        process = subprocess.Popen(
            run.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(lock.fileno(),),
            process_group=0,
        )
        with passing_signals_on(process) as received:
            # Not in one wait, which the interrupt that Ray simulates in a worker does not end.
            while process.poll() is None:
                time.sleep(POLL)
    if received:
        name = signal.Signals(received[0]).name
        raise StoppedError(
            f"Stopped by {name} in the run {run.name}, which has saved what it could ({log}). The "
            "same command goes on from there."
        )
    return process.returncode


def _last_words(status: int, log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"exit status {status}, {lines[-1] if lines else 'no output'} ({log})"


@contextlib.contextmanager
def passing_signals_on(process: subprocess.Popen) -> Iterator[list[int]]:
    """Within this context, SIGINT and SIGTERM are passed on to a process; yields those received.

    Args:
        process: A process that ends by itself after a signal.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)
        process.send_signal(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _accuracies(result: dict[str, Any]) -> str:
    return f"valid {result['valid_accuracy']:.4f}, test {result['test_accuracy']:.4f}"


def say(line: str) -> None:
    """Prints a line at once."""
    print(line, file=sys.stdout, flush=True)


def choose_rank(records: Sequence[dict[str, Any]]) -> int:
    """Returns the rank whose mean validation accuracy is highest, the lowest such rank on a tie.

    The test split is not used.
    """
    ranks = sorted({record["config"]["spatial_rank"] for record in records})
    return max(ranks, key=lambda rank: _mean(records, rank, "valid_accuracy"))


def _mean(records: Sequence[dict[str, Any]], rank: int, key: str) -> float:
    chosen = [r["result"][key] for r in records if r["config"]["spatial_rank"] == rank]
    return float(np.mean(chosen))


def summary(records: Sequence[dict[str, Any]]) -> str:
    """Returns a Markdown table of a sweep's accuracies in percent, one line per rank."""
    lines = ["| rank | seeds | valid | test | train |", "|---|---|---|---|---|"]
    for rank in sorted({record["config"]["spatial_rank"] for record in records}):
        mine = [record["result"] for record in records if record["config"]["spatial_rank"] == rank]
        shown = [
            percent(*mean_and_error([result[key] for result in mine]))
            for key in ("valid_accuracy", "test_accuracy", "train_accuracy")
        ]
        lines.append(f"| {rank} | {len(mine)} | {' | '.join(shown)} |")
    return "\n".join(lines)
