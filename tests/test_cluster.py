"""Workers of a job: what `TF_CONFIG` may say, and their meeting before TensorFlow starts."""

import json
import socket
import threading
import time

import pytest

from low_rank_local_connectivity.training import RunError, cluster
from low_rank_local_connectivity.training.cluster import Cluster, cluster_of, meet

pytestmark = pytest.mark.once


def config(workers=("a:1", "b:2"), kind="worker", index=0, **cluster):
    told = {"worker": list(workers), **cluster}
    return json.dumps({"cluster": told, "task": {"type": kind, "index": index}})


WRONG = {
    "{": "it is no JSON object",
    "[" * 100_000: "it is no JSON object",
    "[1]": "it is no JSON object",
    '{"cluster": ["a:1"]}': "its cluster is no object",
    '{"cluster": {"worker": "a:1"}}': "its cluster's worker is no list of addresses",
    '{"cluster": {"worker": []}}': "its cluster's worker is no list of addresses",
    config(ps=["c:3"]): "its cluster has tasks of the type 'ps' beside chief and worker",
    config(evaluator=["c:3"]): "its cluster has tasks of the type 'evaluator' beside",
    config(chief=["c:3", "d:4"]): "it has several chiefs",
    config(["a:1", 2]): "2 is no address as in 'host:12345'",
    config(["a:1", "b"]): "'b' is no address as in 'host:12345'",
    config(["a:1", ":2"]): "':2' is no address as in 'host:12345'",
    config(["a:1", "b:0"]): "'b:0' is no address as in 'host:12345'",
    config(["a:1", "b:65536"]): "'b:65536' is no address as in 'host:12345'",
    config(["a:1", "b:two"]): "'b:two' is no address as in 'host:12345'",
    config(["a:1", "a:1"]): "it has the address a:1 twice",
    '{"cluster": {"worker": ["a:1"]}}': "it does not say by its task's type and index which",
    '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker"}}': "it does not say by its task",
    config(kind="chief"): "its cluster has no task of the type 'chief'",
    config(kind=["worker"]): "its cluster has no task of the type ['worker']",
    config(index=2): "its task's index is 2, and not from 0 to 1",
    config(index=-1): "its task's index is -1, and not from 0 to 1",
    config(index="1"): "its task's index is '1', and not from 0 to 1",
    config(index=True): "its task's index is True, and not from 0 to 1",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_cluster_is_refused_in_a_sentence(text):
    with pytest.raises(RunError) as error:
        cluster_of(text)
    assert str(error.value).startswith("TF_CONFIG must be a JSON object that names the cluster's")
    assert f"Received: TF_CONFIG={text}: {WRONG[text]}" in str(error.value)
    assert str(error.value).endswith("See docs/scaling.md for an example.")


def test_the_chief_is_the_first_and_a_cluster_may_be_missing():
    found = cluster_of(config(index=1, chief=["c:3"]))
    assert found == Cluster(("chief 0", "worker 0", "worker 1"), ("c:3", "a:1", "b:2"), 2)
    assert [cluster_of(text) for text in ("", "{}", '{"environment": "cloud"}')] == [None] * 3


def addresses_of(count):
    opened = [socket.create_server(("", 0)) for _ in range(count)]
    addresses = tuple(f"localhost:{one.getsockname()[1]}" for one in opened)
    for one in opened:
        one.close()
    return addresses


def met(addresses, *processes, timeout=20.0):
    """What becomes of processes with these indices and facts: the sentence of each, if any."""
    names = tuple(f"worker {index}" for index in range(len(addresses)))
    found = [""] * len(processes)

    def join(place, index, facts):
        try:
            meet(Cluster(names, addresses, index), facts, timeout)
        except RunError as error:
            found[place] = str(error)

    threads = [
        threading.Thread(target=join, args=(place, *process))
        for place, process in enumerate(processes)
    ]
    started = time.monotonic()
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    return found, time.monotonic() - started


SAME = {"--seed": 1, "the version of keras": "3"}


def test_workers_that_agree_meet_in_any_order_and_leave_their_ports_free():
    addresses = addresses_of(3)
    for _ in range(2):
        found, _ = met(addresses, (2, SAME), (0, SAME), (1, SAME))
        assert found == [""] * 3


def test_workers_that_differ_are_told_in_what_and_all_end():
    found, _ = met(addresses_of(3), (0, SAME), (1, SAME), (2, {**SAME, "--seed": 4}))
    sentence = (
        "All workers of a job must have the same flags, versions and folder. Received: --seed is 1 "
        "in worker 0 and 4 in worker 2. Start them again with the same command."
    )
    assert found == [sentence] * 3


@pytest.mark.parametrize("twice", [0, 1])
def test_a_worker_that_is_there_twice_ends_the_job_at_once(twice):
    found, seconds = met(addresses_of(3), (0, SAME), (1, SAME), (twice, SAME))
    assert seconds < 5
    sentence = (
        f"Each worker of a job must be started once. Received: worker {twice} twice. Give each "
        "process another task in TF_CONFIG."
    )
    assert found == [sentence] * 3


@pytest.mark.parametrize("taken", [0, 1])
def test_a_port_in_use_is_told_on_both_sides_at_once(taken, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    addresses = addresses_of(2)
    with socket.create_server(("", int(addresses[taken].partition(":")[2]))):
        (chief, other), seconds = met(addresses, (0, SAME), (1, SAME))
    assert seconds < 5
    whose = f"worker {taken}, whose {addresses[taken]} cannot be used: Address already in use"
    assert whose in chief
    something = f"{addresses[0]}, where something else answers for worker 0"
    assert (whose if taken else something) in other


def test_a_worker_that_does_not_start_is_named_in_time():
    addresses = addresses_of(3)
    found, seconds = met(addresses, (0, SAME), (2, SAME), timeout=0.6)
    assert seconds < 5
    assert "seconds. Received: nothing from worker 1. Start all of them" in found[0]
    assert found[1] == found[0] or "nothing from worker 0" in found[1]


def test_what_is_no_worker_is_left_alone(monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 0.3)
    addresses = addresses_of(2)

    def knock():
        time.sleep(0.1)
        for text in (b"GET / HTTP/1.1\r\n\r\n", b'{"index": 7}\n', b"[1]\n", b""):
            port = int(addresses[0].partition(":")[2])
            with socket.create_connection(("localhost", port)) as connection:
                connection.sendall(text)

    threading.Thread(target=knock).start()
    late = threading.Timer(1.5, lambda: later.append(met(addresses, (1, SAME))[0]))
    later = []
    late.start()
    found, _ = met(addresses, (0, SAME))
    late.join()
    assert found == later[0] == [""]
