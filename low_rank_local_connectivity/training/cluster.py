"""The processes of a job, as `TF_CONFIG` lists them, and their meeting before TensorFlow starts.

TensorFlow waits for ever for a process that does not start, holds the interpreter's lock meanwhile,
and trains whatever the processes were started with. So they meet first: each takes the port that
TensorFlow will have there, all but the first connect to the first one's, and it compares what they
say of themselves. A line of JSON is sent in each direction.
"""

import contextlib
import dataclasses
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from low_rank_local_connectivity.training.endings import RunError

# What the first process says to whoever connects, and the most that is read of an answer.
GREETING = "low-rank-local-connectivity workers meet here"
LONGEST = 1 << 20
# Seconds that a process waits for one that is there to say something, and between two attempts.
PATIENCE, PAUSE = 3.0, 0.1


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes of a job.

    Args:
        names: What `TF_CONFIG` calls each, such as `"worker 1"`; the chief first.
        addresses: The host and port of each.
        index: The place of this one among them.
    """

    names: tuple[str, ...]
    addresses: tuple[str, ...]
    index: int


def cluster_of(text: str) -> Cluster | None:
    """Returns the cluster that a `TF_CONFIG` describes; None if it describes none.

    Raises:
        RunError: If it is not one of workers, of which this process is one.

    Example:
        >>> found = cluster_of(
        ...     '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}'
        ... )
        >>> found.names, found.index
        (('worker 0', 'worker 1'), 1)
    """
    try:
        told = json.loads(text or "{}")
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        _refuse(text, "it is no JSON object")
    if not told.get("cluster"):
        return None
    cluster = told["cluster"]
    _check_cluster(text, cluster)
    kinds = ("chief", "worker")
    tasks = [(kind, place) for kind in kinds for place in range(_count(cluster, kind))]
    addresses = tuple(cluster[kind][place] for kind, place in tasks)
    _check_addresses(text, addresses)
    task = _task(text, told.get("task"), cluster)
    names = tuple(f"{kind} {place}" for kind, place in tasks)
    return Cluster(names, addresses, tasks.index(task))


def _count(cluster: Mapping[str, Any], kind: str) -> int:
    return len(cluster.get(kind, ()))


def _check_cluster(text: str, cluster: Any) -> None:
    if not isinstance(cluster, dict):
        _refuse(text, "its cluster is no object")
    if other := sorted(set(cluster) - {"chief", "worker"}):
        _refuse(text, f"its cluster has tasks of the type {other[0]!r} beside chief and worker")
    for kind, addresses in cluster.items():
        if not isinstance(addresses, list) or not addresses:
            _refuse(text, f"its cluster's {kind} is no list of addresses")
    if _count(cluster, "chief") > 1:
        _refuse(text, "it has several chiefs")


def _check_addresses(text: str, addresses: tuple[Any, ...]) -> None:
    for address in addresses:
        host, colon, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
        is_port = port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16
        if not (host and colon and is_port):
            _refuse(text, f"{address!r} is no address as in 'host:12345'")
    if len(set(addresses)) < len(addresses):
        twice = next(one for one in addresses if addresses.count(one) > 1)
        _refuse(text, f"it has the address {twice} twice")


def _task(text: str, task: Any, cluster: Mapping[str, Any]) -> tuple[str, int]:
    if not isinstance(task, dict) or not {"type", "index"} <= set(task):
        _refuse(text, "it does not say by its task's type and index which process this one is")
    kind, index = task["type"], task["index"]
    if kind not in ("chief", "worker") or kind not in cluster:
        _refuse(text, f"its cluster has no task of the type {kind!r}")
    whole = isinstance(index, int) and not isinstance(index, bool)
    if not whole or not 0 <= index < _count(cluster, kind):
        last = _count(cluster, kind) - 1
        _refuse(text, f"its task's index is {index!r}, and not from 0 to {last}")
    return kind, index


def _refuse(text: str, why: str) -> NoReturn:
    raise RunError(
        "TF_CONFIG must be a JSON object that names the cluster's workers and which of them this "
        f"process is. Received: TF_CONFIG={text}: {why}. See docs/scaling.md for an example."
    )


def meet(cluster: Cluster, facts: Mapping[str, Any], timeout: float) -> None:
    """Waits until all processes are there, and checks that they agree; collective.

    Args:
        cluster: The processes.
        facts: What must be the same for all, by its name in sentences; values are for JSON.
        timeout: Seconds to wait for the others.

    Raises:
        RunError: If one is missing in the end, is there twice, cannot have its port, or differs.
    """
    print(  # noqa: T201
        f"Waiting up to {timeout:.0f} s for {len(cluster.addresses)} workers: "
        f"{', '.join(cluster.addresses)}.",
        file=sys.stderr,
        flush=True,
    )
    until = time.monotonic() + timeout
    hello = {"index": cluster.index, "facts": json.loads(json.dumps(facts)), "refused": None}
    try:
        with _listening(cluster) as listener:
            if cluster.index == 0:
                _receive_all(cluster, hello, listener, until)
                return
            _introduce(cluster, hello, until)
    except _TakenError as taken:
        # To the first one, whose port it may be that is taken: it tells the others.
        told = _introduce(cluster, {**hello, "refused": str(taken)}, time.monotonic() + PATIENCE)
        raise RunError(told or str(taken)) from None


class _TakenError(Exception):
    """This process cannot have its port."""


@contextlib.contextmanager
def _listening(cluster: Cluster) -> Iterator[socket.socket]:
    address = cluster.addresses[cluster.index]
    try:
        listener = _server(int(address.rpartition(":")[2]))
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise _TakenError(
            "Each worker of a job must be started once, where its port is free. Received: "
            f"{cluster.names[cluster.index]}, whose {address} cannot be used: {why}. "
            "End what uses it, or choose another port in TF_CONFIG."
        ) from None
    with listener:
        yield listener


def _server(port: int) -> socket.socket:
    """Returns a socket that listens at a port of every address of this machine."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    return socket.create_server(("", port))


def _receive_all(
    cluster: Cluster, hello: dict[str, Any], listener: socket.socket, until: float
) -> None:
    """Receives the others, compares them, and tells them what is found; the first one's part."""
    there: dict[int, tuple[socket.socket, dict[str, Any]]] = {}
    refused = None
    try:
        while refused is None and len(there) < len(cluster.addresses) - 1:
            refused = _receive_one(cluster, hello, listener, until, there)
        for connection, _ in there.values():
            _send(connection, {"refused": refused})
        for connection, _ in there.values():
            _line(connection)  # it closes first, which leaves the port free
    finally:
        for connection, _ in there.values():
            connection.close()
    if refused:
        raise RunError(refused)


def _receive_one(
    cluster: Cluster,
    hello: dict[str, Any],
    listener: socket.socket,
    until: float,
    there: dict[int, tuple[socket.socket, dict[str, Any]]],
) -> str | None:
    """Receives one more process; returns why the job is refused, if it is."""
    listener.settimeout(max(until - time.monotonic(), 0.01))
    try:
        connection, _ = listener.accept()
    except TimeoutError:
        missing = [name for index, name in enumerate(cluster.names) if index not in {0, *there}]
        return _missing(", ".join(missing))
    _send(connection, {"greeting": GREETING})
    said = _line(connection)
    index = said.get("index") if said else None
    if not isinstance(index, int) or not 0 <= index < len(cluster.addresses):
        connection.close()  # it is something else
        return None
    twice = index == 0 or index in there
    there[index if not twice else -1 - len(there)] = (connection, said or {})
    if twice:
        return (
            "Each worker of a job must be started once. Received: "
            f"{cluster.names[index]} twice. Give each process another task in TF_CONFIG."
        )
    return (said or {}).get("refused") or _difference(cluster, index, hello, said or {})


def _missing(names: str) -> str:
    return (
        "All workers of a job must start within --peers_timeout seconds. Received: nothing from "
        f"{names}. Start all of them, where the addresses in TF_CONFIG can be reached."
    )


def _difference(
    cluster: Cluster, index: int, first: dict[str, Any], other: dict[str, Any]
) -> str | None:
    """Returns in a sentence what two processes disagree on, if they do."""
    ours, theirs = first["facts"], other.get("facts", {})
    different = [
        f"{name} is {ours.get(name)} in {cluster.names[0]} and {theirs.get(name)} in "
        f"{cluster.names[index]}"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]
    if not different:
        return None
    return (
        "All workers of a job must have the same flags, versions and folder. Received: "
        f"{'; '.join(different)}. Start them again with the same command."
    )


def _introduce(cluster: Cluster, hello: dict[str, Any], until: float) -> str | None:
    """Tells the first process of this one; returns its refusal of the port that this one lacks.

    Raises:
        RunError: If the job is refused, or the first process does not answer in time.
    """
    while (left := until - time.monotonic()) > 0:
        with contextlib.suppress(OSError), _connected(cluster.addresses[0], left) as connection:
            greeting = _line(connection)
            if greeting is None or greeting.get("greeting") != GREETING:
                return _strange(cluster, hello)
            _send(connection, hello)
            answer = _line(connection, until)
            if answer is not None and answer.get("refused"):
                raise RunError(answer["refused"])
            if answer is not None:
                return None
        time.sleep(PAUSE)
    if hello["refused"]:
        return None
    raise RunError(_missing(cluster.names[0]))


def _strange(cluster: Cluster, hello: dict[str, Any]) -> str | None:
    if hello["refused"]:
        return None
    raise RunError(
        f"The first worker of a job must be started where its port is free. Received: "
        f"{cluster.addresses[0]}, where something else answers for {cluster.names[0]}. End it, "
        "or choose another port in TF_CONFIG."
    )


def _connected(address: str, seconds: float) -> socket.socket:
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host.strip("[]"), int(port)), min(seconds, PATIENCE))
    connection.settimeout(PATIENCE)
    return connection


def _send(connection: socket.socket, said: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        connection.settimeout(PATIENCE)
        connection.sendall(f"{json.dumps(said)}\n".encode())


def _line(connection: socket.socket, until: float | None = None) -> dict[str, Any] | None:
    """Returns what the other side says; None if it says nothing in time, or something else."""
    until = time.monotonic() + PATIENCE if until is None else until
    text = b""
    try:
        while not text.endswith(b"\n") and len(text) < LONGEST:
            connection.settimeout(max(until - time.monotonic(), 0.01))
            received = connection.recv(1 << 16)
            if not received:
                return None
            text += received
        said = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def cluster_here() -> Cluster | None:
    """Returns the cluster of this process's `TF_CONFIG`; None if there is none."""
    return cluster_of(os.environ.get("TF_CONFIG", ""))
