"""Sweeps on Ray: what a task does, what becomes of it, and a cluster of two nodes."""

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import commands
import pytest
from test_sweep import FLAGS, fake_run, writing

from low_rank_local_connectivity.experiments import ray_sweeping, sweeping
from low_rank_local_connectivity.experiments.ray_sweeping import Cluster, InterruptedRunError
from low_rank_local_connectivity.experiments.sweeping import Outcome
from low_rank_local_connectivity.training import RunError, StoppedError, records

pytestmark = pytest.mark.once


class RayError(Exception):
    """As Ray's own."""


class FakeRay(types.SimpleNamespace):
    """As much of Ray's module as a sweep uses; a task is run, or lost, when it is waited for."""

    def __init__(self, lost=(), nodes=({"CPU": 2.0},), refusal=None):
        super().__init__(exceptions=types.SimpleNamespace(RayError=RayError))
        self.lost, self.refusal, self.given, self.cancelled = lost, refusal, [], []
        self.found = [{"Alive": True, "Resources": node} for node in nodes]
        self.opened, self.while_waiting = False, lambda: None

    def init(self, address, **options):
        """Connects to a cluster."""
        if self.refusal is not None:
            raise self.refusal
        self.opened, self.address, self.options = True, address, options

    def shutdown(self):
        """Leaves it."""
        self.opened = False

    def nodes(self):
        """Returns its nodes."""
        return self.found

    def remote(self, **resources):
        """Returns what makes a task of a function."""
        self.resources = resources

        def task(function):
            def options(name):
                def submit(*arguments):
                    self.given.append(name)
                    return name, lambda: function(*arguments)

                return types.SimpleNamespace(remote=submit)

            return types.SimpleNamespace(options=options)

        return task

    def wait(self, tasks, num_returns, timeout):
        """Returns the tasks that have ended, and the others."""
        self.while_waiting()
        assert num_returns == 1
        assert timeout > 0
        return tasks[-1:], tasks[:-1]  # the last of them ends first

    def get(self, task):
        """Runs a task."""
        name, call = task
        if name in self.cancelled:
            raise RayError("This task was cancelled.")
        if name in self.lost:
            raise RayError("The worker died.\nIt was killed.")
        return call()

    def cancel(self, task, force):
        """Notes a task that is to end."""
        assert not force
        self.cancelled.append(task[0])


@pytest.fixture
def in_this_folder(tmp_path, monkeypatch):
    """The folder of a sweep, where tasks go; the tests stay where they are."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_sweep_on_ray_records_what_ends_and_tells_what_fails(in_this_folder, capsys):
    folder = in_this_folder
    names = ("one", "lost", "bad", "killed")
    codes = {
        "bad": "raise SystemExit('the data is not there')",
        "killed": "import os; os.kill(os.getpid(), 9)",
    }
    runs = [fake_run(folder, name, codes.get(name) or writing(folder, name, 0.5)) for name in names]
    ray = FakeRay(lost=["lost"])
    cluster = Cluster(cpus=0.5, gpus=0.25, retries=7)
    outcomes = ray_sweeping.follow(ray, cluster, runs, folder)
    assert ray.given == list(names)
    assert ray.resources == {
        "num_cpus": 0.5,
        "num_gpus": 0.25,
        "max_retries": 7,
        "retry_exceptions": [InterruptedRunError],
    }
    log = folder / "logs"
    assert capsys.readouterr().out.splitlines()[:3] == [
        f"[4/4] killed: failed: exit status -9, no output ({log / 'killed.log'})",
        f"[3/4] bad: failed: exit status 1, the data is not there ({log / 'bad.log'})",
        "[2/4] lost: failed: RayError, It was killed.",
    ]
    found, failed, elsewhere = sweeping.gathered(runs, folder, outcomes)
    assert [record["name"] for record in found] == ["one"]
    assert failed == ["lost", "bad", "killed"]
    assert not elsewhere
    ray_sweeping.follow(FakeRay(), Cluster(), runs[:1], folder)
    assert "[1/1] one: done before, valid 0.5000" in capsys.readouterr().out
    assert len(records.read_records(folder / "records.jsonl")) == 1


def test_only_a_run_that_a_signal_ended_is_tried_again(in_this_folder):
    folder = in_this_folder
    for name, code in {"killed": "os.kill(os.getpid(), 9)", "stopped": "sys.exit(75)"}.items():
        run = fake_run(folder, name, f"import os, sys; {code}")
        with pytest.raises(InterruptedRunError) as caught:
            ray_sweeping.train(run, folder, folder)
        assert caught.value.outcome.failed
    failing = fake_run(folder, "bad", "raise SystemExit(2)")
    assert ray_sweeping.train(failing, folder, folder).failed


def test_a_task_waits_for_the_process_that_trains_its_run(in_this_folder, monkeypatch):
    """As for the run of a worker that was killed, which saves its state while the next starts."""
    folder = in_this_folder
    run = fake_run(folder, "one", writing(folder, "one", 0.5))
    waits = []
    with sweeping.claimed(folder / "locks" / "one") as lock:

        def wait(seconds):
            waits.append(seconds)
            lock.close()

        sleep = time.sleep
        monkeypatch.setattr(
            time, "sleep", lambda seconds: wait(seconds) if not waits else sleep(seconds)
        )
        outcome = ray_sweeping.train(run, folder, folder)
    assert waits == [sweeping.PATIENCE]
    assert outcome.said[0].startswith("valid 0.5000, test 0.5000")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sweep_on_ray_that_is_asked_to_stop_stops_its_runs(number, in_this_folder, capsys):
    folder = in_this_folder
    runs = [fake_run(folder, name, writing(folder, name, 0.5)) for name in ("one", "two")]
    ray = FakeRay()
    ray.while_waiting = lambda: os.kill(os.getpid(), number)
    before = signal.getsignal(number)
    with pytest.raises(StoppedError) as caught:
        ray_sweeping.follow(ray, Cluster(), runs, folder)
    assert str(caught.value) == (
        f"Stopped by {signal.Signals(number).name}; the runs have saved what they could (their "
        f"logs are in {folder / 'logs'}). The same command goes on from there."
    )
    assert ray.cancelled == ["one", "two"]
    assert signal.getsignal(number) == before
    assert not (folder / "records.jsonl").exists()
    assert not capsys.readouterr().out


def test_a_run_is_asked_to_end_though_ray_blocks_a_signal():
    """And ends with its worker, so that nothing trains on processors of others."""
    code = "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, []), flush=True)"
    command = [sys.executable, "-c", ray_sweeping.BECOMING_A_RUN, sys.executable, "-c"]
    worker = (
        "import signal, subprocess, time\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\n"
        f"run = subprocess.Popen({[*command, code + '; import time; time.sleep(60)']!r})\n"
        "print(run.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", worker], stdout=subprocess.PIPE, text=True
    ) as process:
        run, blocked = process.stdout.readline(), process.stdout.readline()
        assert blocked == "set()\n"
        process.kill()
    if sys.platform == "linux":
        wait_until(lambda: not Path(f"/proc/{int(run)}/cmdline").exists() or gone(int(run)))


def gone(process):
    return "Z" in Path(f"/proc/{process}/stat").read_text().split(")")[1].split()[0]


def wait_until(holds, seconds=120):
    stop = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < stop
        time.sleep(0.05)


@pytest.fixture
def address():
    """An address where something answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_the_settings_of_frameworks_reach_the_runs(monkeypatch, address):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("UNRELATED", "value")
    ray = FakeRay()
    with ray_sweeping.connected(ray, Cluster(address)):
        assert ray.opened
        passed_on = ray.options["runtime_env"]["env_vars"]
        assert passed_on["KERAS_BACKEND"] == "jax"
        assert "UNRELATED" not in passed_on
        assert ray.address == address
    assert not ray.opened
    with ray_sweeping.connected(ray, Cluster()):
        assert ray.address == "local"


def test_a_cluster_that_is_not_there_is_refused_in_a_sentence(address):
    ray = FakeRay(refusal=ConnectionError("Could not connect.\nA long story."))
    with pytest.raises(RunError) as caught, ray_sweeping.connected(ray, Cluster(address)):
        pass
    sentence = (
        "--ray_address must be the address of a running cluster with the same releases of Ray and "
        "Python. Received: --ray_address="
    )
    assert str(caught.value) == f"{sentence}{address}: Could not connect."
    # Ray would try for minutes to reach what does not answer.
    unused = address.rpartition(":")[0] + ":1"
    with pytest.raises(RunError) as caught, ray_sweeping.connected(ray, Cluster(unused)):
        pass
    assert (
        str(caught.value) == f"{sentence}{unused}: [Errno {errno.ECONNREFUSED}] Connection refused."
    )
    ray = FakeRay(refusal=OSError("AF_UNIX path length cannot exceed 107 bytes"))
    with pytest.raises(RunError) as caught, ray_sweeping.connected(ray, Cluster()):
        pass
    assert str(caught.value) == (
        "Ray must be able to start on this machine, or --ray_address name a cluster. Received: "
        "OSError, AF_UNIX path length cannot exceed 107 bytes."
    )


def test_runs_that_fit_on_no_node_are_refused_here_and_told_of_elsewhere(capsys):
    nodes = ({"CPU": 2.0}, {"CPU": 4.0, "GPU": 1.0})
    ray_sweeping.check_room_for_a_run(FakeRay(nodes=nodes), Cluster("10.0.0.1:6379", 3, 1))
    assert not capsys.readouterr().out
    ray_sweeping.check_room_for_a_run(FakeRay(nodes=nodes), Cluster("10.0.0.1:6379", 3, 2))
    assert capsys.readouterr().out == (
        "No node has the 3 CPUs and 2 GPUs that each run needs: the nodes have 2 and 0; 4 and 1. "
        "Waiting for one that does.\n"
    )
    with pytest.raises(RunError) as caught:
        ray_sweeping.check_room_for_a_run(FakeRay(), Cluster(cpus=1, gpus=0.5))
    assert str(caught.value) == (
        "--cpus_per_run and --gpus_per_run must be no more than this machine has. Received: 1 and "
        "0.5, where it has 2 and 0."
    )


def test_ray_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ValueError, match="needs a package") as caught:
        ray_sweeping.check_ray()
    assert str(caught.value) == (
        "--sweep_engine=ray needs a package that is not installed: "
        "pip install 'low-rank-local-connectivity[ray]'."
    )


def test_an_outcome_travels_with_its_error():
    import pickle

    error = InterruptedRunError(Outcome(("failed",), failed=True, interrupted=True))
    assert pickle.loads(pickle.dumps(error)).outcome == error.outcome


TWO_NODES = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
print("address", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def two_nodes(monkeypatch):
    """The address of a cluster of two nodes, each with a processor, on this machine."""
    pytest.importorskip(
        "ray", reason="Ray is not installed: pip install 'low-rank-local-connectivity[ray]'"
    )
    # The path of a socket must be short.
    folder = tempfile.mkdtemp(dir="/tmp", prefix="ray")
    monkeypatch.setenv("RAY_TMPDIR", folder)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", TWO_NODES], **pipes) as process:
        address = ""
        while not address.startswith("address "):
            address = process.stdout.readline()
            assert address, "the cluster did not start"
        yield address.split()[1]
        process.communicate()
    shutil.rmtree(folder, ignore_errors=True)


def processes_of(folder):
    """The processes that train runs in a folder, by the names of the runs."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        place = f"--model_dir={folder}/"
        for word in words:
            if word.startswith(place) and ray_sweeping.BECOMING_A_RUN not in words:
                found[word.removeprefix(place)] = int(path.parent.name)
    return found


def parent_of(process):
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def epochs_begun(folder, run):
    log = folder / "logs" / f"{run}.log"
    return log.read_text(errors="replace").count("Epoch ") if log.exists() else 0


@pytest.mark.slow
def test_two_nodes_train_a_sweep_though_a_worker_and_a_run_are_killed(two_nodes, tmp_path):
    folder = tmp_path / "sweep"
    flags = [*FLAGS, "--epochs=60", "--spatial_ranks=1,2,3", f"--model_dir={folder}"]
    flags += ["--sweep_engine=ray", f"--ray_address={two_nodes}", "--retries=2"]
    command = [sys.executable, commands.SCRIPT, *flags]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as sweep:
        # Each node has a processor for one run.
        wait_until(lambda: len(processes_of(folder)) == 2)
        (first, of_first), (second, of_second) = processes_of(folder).items()
        wait_until(lambda: min(epochs_begun(folder, one) for one in (first, second)) > 3)
        os.kill(parent_of(of_first), signal.SIGKILL)
        os.kill(of_second, signal.SIGKILL)
        output, errors = sweep.communicate()
    assert sweep.returncode == 0, errors
    assert "Chosen on the validation split: rank " in output
    found = records.read_records(folder / "records.jsonl")
    assert sorted(one["config"]["spatial_rank"] for one in found) == [1, 2, 3]
    for one in found:
        log = (folder / "logs" / f"{one['name']}.log").read_text(errors="replace")
        assert log.count("Epoch 1/60") == 1
        assert ("Continuing after" in log) == (one["name"] in (first, second))
        assert len((folder / one["name"] / "metrics.csv").read_text().splitlines()) == 61
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout.count("done before") == 3
    assert records.read_records(folder / "records.jsonl") == found
