"""Sweeps on Ray: each run is a task of a cluster, in the order of the sweep as resources allow.

A task does for its run what a sweep does in a shared folder, with the same locks, logs and records;
so a run is trained once, however often its task is tried, and the two kinds of sweep can share a
folder. Every node must see the folder, and have this package in the same environment.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from low_rank_local_connectivity.experiments.backend import PROJECT
from low_rank_local_connectivity.experiments.sweeping import (
    Gathered,
    Outcome,
    Run,
    attempt,
    gathered,
    say,
    tell,
)
from low_rank_local_connectivity.training.endings import RunError, StoppedError

# Seconds between two looks at whether a signal has come.
POLL = 0.5
# Seconds in which a cluster must answer.
ANSWER = 10.0
# Settings of frameworks that reach the runs, wherever the nodes were started.
PASSED_ON = ("KERAS_", "JAX_", "XLA_", "TF_", "TORCH_", "PYTORCH_", "MLFLOW_", "WANDB_")
# A process that becomes a run. Ray starts its workers with SIGINT blocked; and Linux sends the run
# SIGTERM when its worker ends, so that it saves its state and leaves its processors to others.
BECOMING_A_RUN = """
import ctypes, os, signal, sys
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(signal.SIGTERM))
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Where the runs of a sweep are trained, and what each of them gets.

    Args:
        address: Address of a cluster; None to start one on this machine.
        cpus: Processors of each run, of which parts below 1 are possible.
        gpus: GPUs of each run, likewise.
        retries: How often a run is tried again after its worker, or a signal, ended it.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    retries: int = 3


class InterruptedRunError(Exception):
    """A run was ended by a signal; trying again, it goes on."""

    @property
    def outcome(self) -> Outcome:
        """What became of the run, if it is not tried again."""
        return self.args[0]


def check_ray() -> None:
    """Raises a `ValueError` if Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ValueError(
            "--sweep_engine=ray needs a package that is not installed: "
            f"pip install '{PROJECT}[ray]'."
        )


def sweep_on_ray(cluster: Cluster, runs: Sequence[Run], folder: Path) -> Gathered:
    """Trains the runs that are not recorded, as `sweep` does, in tasks of Ray.

    Args:
        cluster: Where.
        runs: The runs, in order.
        folder: The sweep's folder.

    Returns:
        As `sweep` does; runs of other processes are waited for.

    Raises:
        RunError: If there is no such cluster.
        StoppedError: If a signal asked the sweep to stop; its runs have saved their states.
    """
    import ray  # pyright: ignore[reportMissingImports]  # an extra

    with connected(ray, cluster):
        outcomes = follow(ray, cluster, runs, folder.absolute())
    return gathered(runs, folder, outcomes)


@contextlib.contextmanager
def connected(ray: Any, cluster: Cluster) -> Iterator[None]:
    """Within this context, tasks can be given to a cluster.

    Raises:
        RunError: If there is none at its address, or one on which the runs do not fit.
    """
    variables = {name: os.environ[name] for name in os.environ if name.startswith(PASSED_ON)}
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if cluster.address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        quiet["include_dashboard"] = False
    try:
        require_answer(cluster.address)
        ray.init(cluster.address or "local", runtime_env={"env_vars": variables}, **quiet)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise RunError(_refusal(cluster.address, error)) from None
    try:
        check_room_for_a_run(ray, cluster)
        yield
    finally:
        ray.shutdown()


def require_answer(address: str | None) -> None:
    """Raises an `OSError` if nothing answers at an address, for which Ray would wait minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), ANSWER).close()


def _refusal(address: str | None, error: Exception) -> str:
    first = (str(error).strip().splitlines() or ["no message"])[0].removesuffix(".")
    if address is None:
        return (
            "Ray must be able to start on this machine, or --ray_address name a cluster. Received: "
            f"{type(error).__name__}, {first}."
        )
    return (
        "--ray_address must be the address of a running cluster with the same releases of Ray and "
        f"Python. Received: --ray_address={address}: {first}."
    )


def check_room_for_a_run(ray: Any, cluster: Cluster) -> None:
    """Checks that a run fits on a node; on a cluster that may grow, says only that none does now.

    Raises:
        RunError: If the cluster is this machine alone, and has less.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(
        node.get("CPU", 0) >= cluster.cpus and node.get("GPU", 0) >= cluster.gpus for node in nodes
    ):
        return
    has = "; ".join(f"{node.get('CPU', 0):g} and {node.get('GPU', 0):g}" for node in nodes)
    if cluster.address is None:
        raise RunError(
            "--cpus_per_run and --gpus_per_run must be no more than this machine has. Received: "
            f"{cluster.cpus:g} and {cluster.gpus:g}, where it has {has}."
        )
    say(
        f"No node has the {cluster.cpus:g} CPUs and {cluster.gpus:g} GPUs that each run needs: the "
        f"nodes have {has}. Waiting for one that does."
    )


def follow(ray: Any, cluster: Cluster, runs: Sequence[Run], folder: Path) -> dict[str, Outcome]:
    """Gives each run to the cluster as a task, and tells what becomes of them as they end.

    Args:
        ray: Ray's module.
        cluster: What each run gets.
        runs: The runs, in order.
        folder: The sweep's folder, as an absolute path.

    Returns:
        The outcomes by the names of the runs.

    Raises:
        StoppedError: If a signal asked the sweep to stop; its runs have saved their states.
    """
    given: dict[str, Any] = {"num_cpus": cluster.cpus, "num_gpus": cluster.gpus}
    given |= {"max_retries": cluster.retries, "retry_exceptions": [InterruptedRunError]}
    task = ray.remote(**given)(train)
    there = Path.cwd()
    waiting = {
        task.options(name=run.name).remote(run, folder, there): (run, f"{number}/{len(runs)}")
        for number, run in enumerate(runs, 1)
    }
    outcomes = {}
    with noting_signals(functools.partial(cancel, ray, waiting)) as received:
        while waiting:
            ended, _ = ray.wait([*waiting], num_returns=1, timeout=POLL)
            for one in ended:
                run, place = waiting.pop(one)
                outcomes[run.name] = outcome_of(ray, one)
                if not received:
                    tell(outcomes[run.name], run, place)
    if received:
        raise StoppedError(
            f"Stopped by {signal.Signals(received[0]).name}; the runs have saved what they could "
            f"(their logs are in {folder / 'logs'}). The same command goes on from there."
        )
    return outcomes


def train(run: Run, folder: Path, there: Path) -> Outcome:
    """Trains a run in a process of Ray's, and waits for one that trains it already.

    Args:
        run: The run.
        folder: The sweep's folder, as an absolute path.
        there: Where the sweep was started, from which the paths in flags start.

    Raises:
        InterruptedRunError: If a signal has ended the run.
    """
    os.chdir(there)
    command = [sys.executable, "-c", BECOMING_A_RUN, *run.command]
    try:
        outcome = attempt(dataclasses.replace(run, command=command), folder, patient=True)
    except StoppedError as stopped:
        outcome = Outcome((str(stopped),), failed=True, interrupted=True)
    if outcome.interrupted:
        raise InterruptedRunError(outcome)
    return outcome


def outcome_of(ray: Any, task: Any) -> Outcome:
    """Returns the outcome of the run of a task that has ended."""
    try:
        return ray.get(task)
    except InterruptedRunError as interrupted:
        return interrupted.outcome
    except ray.exceptions.RayError as error:
        return Outcome((f"failed: {_in_a_line(error)}",), failed=True)


def _in_a_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}, {lines[-1] if lines else 'no message'}"


def cancel(ray: Any, tasks: Iterable[Any]) -> None:
    """Asks the runs of tasks to save their state and end, and those that wait not to start."""
    for task in [*tasks]:
        ray.cancel(task, force=False)


@contextlib.contextmanager
def noting_signals(react: Callable[[], None]) -> Iterator[list[int]]:
    """Within this context, the first SIGINT or SIGTERM has a reaction; yields those received.

    Args:
        react: Function that is called.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)
        if len(received) == 1:
            react()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
