"""Training over several devices and processes equals training on one, and survives a lost one."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import commands
import keras
import numpy as np
import pytest
from backends import stored_arrays

from low_rank_local_connectivity.training import session, strategy
from low_rank_local_connectivity.training.watching import RATE

TENSORFLOW = keras.backend.backend() == "tensorflow"
only_tensorflow = pytest.mark.skipif(not TENSORFLOW, reason="strategies are TensorFlow's")
# An epoch of one step: metrics.csv has the loss of every step.
STEPS = ("--train_examples=64", "--batch_size=64", "--epochs=4", "--filters=8", "--optimizer=sgd")
STEPS = (*STEPS, "--peak_learning_rate=0.05", "--export_formats=none")
# What is evaluated during and after training; the steps remain the same.
STEPS = (*STEPS, "--use_ema", "--ema_momentum=0.5")
ALONE = ("--strategy=one_device", "--noevaluation")
SYNCHRONIZED = ("--synchronized_batch_norm",) if TENSORFLOW else ()


def run(folder, *flags, **environment):
    done = commands.python(commands.SCRIPT, f"--model_dir={folder}", *flags, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def columns(folder):
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    names = [name for name in rows[0] if name != RATE]
    return {name: np.array([float(row[name]) for row in rows]) for name in names}


def assert_same_training(one, other):
    first, second = columns(one), columns(other)
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(first[name], second[name], atol=1e-5, rtol=0)
    # One example more or less would be 3e-3; the order of a sum in float32 is not.
    np.testing.assert_allclose(first["val_accuracy"], second["val_accuracy"], atol=1e-6, rtol=0)
    results = [json.loads((folder / "result.json").read_text()) for folder in (one, other)]
    accuracies = [result["test_accuracy"] for result in results]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=1e-6)
    # Of which one is Keras's own, and the other the share of right answers.
    evaluation = json.loads((other / "evaluation.json").read_text())
    assert evaluation["accuracy"] == pytest.approx(accuracies[0], abs=1e-6)
    assert evaluation["examples"] == sum(one["examples"] for one in evaluation["classes"]) == 360


def free_ports(count):
    with_sockets = [socket.socket() for _ in range(count)]
    for opened in with_sockets:
        opened.bind(("localhost", 0))
    ports = [opened.getsockname()[1] for opened in with_sockets]
    for opened in with_sockets:
        opened.close()
    return ports


def start_workers(folder, flags, count=2, only=None):
    """Starts the processes of a job; of `only` these, if given."""
    addresses = [f"localhost:{port}" for port in free_ports(count)]
    workers = []
    for index in range(count) if only is None else only:
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        command = (commands.SCRIPT, f"--model_dir={folder}", *flags)
        workers.append(commands.start(*command, TF_CONFIG=json.dumps(task)))
    return workers


def finish_workers(folder, flags):
    workers = start_workers(folder, flags)
    outputs = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    return [output for output, _ in outputs]


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "run"
    run(folder, *STEPS, *SYNCHRONIZED, *ALONE)
    return folder


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch trains on one device here")
def test_two_devices_train_as_one(on_one_device, tmp_path):
    flags = ("--strategy=mirrored", *SYNCHRONIZED) if TENSORFLOW else ()
    output = run(tmp_path / "run", *STEPS, *flags, "--virtual_devices=2")
    assert "2 replicas" in output
    assert_same_training(on_one_device, tmp_path / "run")


# Steps on tensors of 8 MB, and how often the system had to give a page to the last epoch's.
# Where pages are large, or TensorFlow leaves the C library as it is, a step costs no page faults
# either way: the limit is set here too, and then the library is asked what it takes anew.
FAULTS = """
import ctypes, resource
import keras, numpy as np, tensorflow as tf
from low_rank_local_connectivity.training import session, strategy
placement = strategy.place("mirrored")
with placement.scope():
    plain = keras.Sequential([keras.Input((64, 64, 1)), keras.layers.Conv2D(32, 1)])
    model = placement.model(keras.Model(plain.inputs, plain.outputs))
    model.compile("sgd", "mse", jit_compile=False)
pair = np.ones((16, 64, 64, 1), "float32"), np.ones((16, 64, 64, 32), "float32")
faults = [0]
class Count(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
class Blocks(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost")]
library = ctypes.CDLL(None)
library.mallinfo2.restype, library.malloc.restype = Blocks, ctypes.c_void_p
library.mallopt(-3, 128 * 1024)  # M_MMAP_THRESHOLD, as TensorFlow sets it
batches = tf.data.Dataset.from_tensors(pair).repeat()
model.fit(batches, epochs=4, steps_per_epoch=8, verbose=0, callbacks=[Count()])
before = library.mallinfo2().hblks
library.malloc(ctypes.c_size_t(2**20))
print((faults[-1] - faults[-2]) // 8, library.mallinfo2().hblks - before)
"""


@only_tensorflow
@pytest.mark.once
@pytest.mark.skipif(sys.platform != "linux", reason="TensorFlow changes glibc's malloc on Linux")
def test_a_step_under_a_strategy_keeps_its_memory():
    done = commands.python("-c", FAULTS)
    faults, blocks = map(int, done.stdout.split())
    pages = 8 * 1024 // 4
    assert faults < pages / 2, done.stderr
    assert blocks == 0


@pytest.mark.slow  # two devices of a process are placed by the same code, and are trained above
@only_tensorflow
def test_two_processes_train_as_one_and_only_the_chief_writes(on_one_device, tmp_path):
    flags = (*STEPS, *SYNCHRONIZED, "--strategy=multi_worker")
    chief, other = finish_workers(tmp_path / "run", flags)
    assert_same_training(on_one_device, tmp_path / "run")
    assert "Epoch 1/4" in chief
    assert "Epoch 1/4" not in other
    # "Result: ..., 1.2 s, in FOLDER": each worker has its own clock.
    first, second = (output.splitlines()[-1].split(", ") for output in (chief, other))
    assert [*first[:-2], first[-1]] == [*second[:-2], second[-1]]
    events = list((tmp_path / "run" / "tensorboard" / "train").iterdir())
    assert len(events) == 1


@only_tensorflow
@pytest.mark.slow
def test_without_synchronisation_replicas_have_statistics_of_their_own(on_one_device, tmp_path):
    run(tmp_path / "run", *STEPS, "--strategy=mirrored", "--virtual_devices=2")
    difference = columns(tmp_path / "run")["loss"] - columns(on_one_device)["loss"]
    assert np.abs(difference).max() > 1e-4


# Four steps in each of twelve epochs, every one of them saved; batch statistics of their own.
SAVED = ("--train_examples=256", "--batch_size=64", "--epochs=12", "--filters=8")
SAVED += ("--export_formats=none", "--noevaluation")
SAVED += ("--checkpoint_steps=1", "--strategy=multi_worker")


@pytest.fixture(scope="module")
def by_two_workers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    finish_workers(folder, SAVED)
    return folder


def start_and_get_going(folder):
    workers = start_workers(folder, SAVED)
    while len(list((folder / "checkpoints").glob("step_*"))) < 2:
        assert all(worker.poll() is None for worker in workers)
        time.sleep(0.05)
    time.sleep(1)
    return workers


def assert_the_same_job(whole, parts):
    end = "checkpoints/step_000000048.npz"
    ends = [stored_arrays(folder / end) for folder in (whole, parts)]
    for name in ends[0].keys() - {"about"}:
        np.testing.assert_array_equal(ends[0][name], ends[1][name])
    for name, values in columns(whole).items():
        np.testing.assert_array_equal(values, columns(parts)[name])
    results = [json.loads((folder / "result.json").read_text()) for folder in (whole, parts)]
    assert results[0]["test_accuracy"] == results[1]["test_accuracy"]


@only_tensorflow
@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_job_that_loses_a_worker_ends_and_goes_on_when_started_again(
    killed, by_two_workers, tmp_path
):
    parts = tmp_path / "parts"
    workers = start_and_get_going(parts)
    workers[killed].kill()
    started = time.monotonic()
    _, errors = workers[1 - killed].communicate(timeout=60)
    assert time.monotonic() - started < 30
    assert workers[1 - killed].returncode == 1
    assert "All workers of a job must run until it ends." in errors
    workers[killed].communicate()
    assert not (parts / "result.json").exists()
    outputs = finish_workers(parts, SAVED)
    assert all("Continuing after" in output for output in outputs)
    assert_the_same_job(by_two_workers, parts)


@only_tensorflow
@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_a_signal_to_one_worker_saves_and_stops_the_job(told, by_two_workers, tmp_path):
    parts = tmp_path / "parts"
    workers = start_and_get_going(parts)
    workers[told].send_signal(signal.SIGTERM)
    outputs = [worker.communicate(timeout=60)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [75, 75]
    assert "Stopped by SIGTERM after step" in outputs[told]
    assert "Stopped by a signal to another worker after step" in outputs[1 - told]
    finish_workers(parts, SAVED)
    assert_the_same_job(by_two_workers, parts)


@only_tensorflow
@pytest.mark.slow
def test_what_several_workers_score_is_what_they_save(by_two_workers):
    from low_rank_local_connectivity.data import DATASETS
    from low_rank_local_connectivity.data.pipeline import evaluation_batches

    result = json.loads((by_two_workers / "result.json").read_text())
    model = session.load(by_two_workers / "model.keras", result["model_sha256"])
    dataset = DATASETS["digits"]
    batches = evaluation_batches(dataset, dataset.load(None, False)["test"], 64, 0)
    right = [model(images).numpy().argmax(-1) == labels for images, labels in batches]
    assert result["test_accuracy"] == pytest.approx(np.concatenate(right).mean())


@only_tensorflow
@pytest.mark.slow
def test_a_worker_that_never_starts_ends_the_wait_in_time(tmp_path):
    flags = (*STEPS, "--strategy=multi_worker", "--peers_timeout=15")
    (worker,) = start_workers(tmp_path / "run", flags, only=[0])
    started = time.monotonic()
    _, errors = worker.communicate(timeout=120)
    assert time.monotonic() - started < 60
    assert worker.returncode == 2
    assert "Waiting up to 15 s for 2 workers: localhost:" in errors
    assert "Received: nothing from worker 1. Start all of them" in errors.splitlines()[-1]


@pytest.mark.once
def test_batches_that_replicas_cannot_share_are_refused():
    placement = strategy.Placement("mirrored", replicas=4)
    with pytest.raises(ValueError, match=re.escape("a multiple of the 4 replicas. Received: b")):
        placement.check_batch_size(30)
    placement.check_batch_size(32)


@pytest.mark.once
def test_a_tpu_is_set_up_by_its_own_steps(monkeypatch):
    import tensorflow as tf

    called = []

    class Resolver:
        def __init__(self, tpu):
            called.append(f"resolve {tpu}")

    class Strategy:
        num_replicas_in_sync = 8

        def __init__(self, resolver):
            assert isinstance(resolver, Resolver)
            called.append("strategy")

    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", Resolver)
    monkeypatch.setattr(
        tf.config, "experimental_connect_to_cluster", lambda _: called.append("connect")
    )
    monkeypatch.setattr(
        tf.tpu.experimental, "initialize_tpu_system", lambda _: called.append("initialize")
    )
    monkeypatch.setattr(tf.distribute, "TPUStrategy", Strategy)
    placement = strategy.place("auto", tpu="my-tpu")
    assert (placement.name, placement.replicas, placement.chief) == ("tpu", 8, True)
    assert called == ["resolve my-tpu", "connect", "initialize", "strategy"]


@pytest.mark.once
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", r"TF_CONFIG must be a JSON object that names the cluster's workers and which "),
        ("{}", r"needs the addresses of all workers in TF_CONFIG\. Received: TF_CONFIG without"),
    ],
)
def test_a_cluster_without_addresses_is_refused(config, message, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match=message):
        strategy.place("multi_worker")


@pytest.mark.skipif(TENSORFLOW, reason="TensorFlow has these strategies")
def test_other_backends_refuse_tensorflows_strategies():
    with pytest.raises(ValueError, match=r"strategy=mirrored needs TensorFlow\. Received: KERAS_"):
        strategy.place("mirrored")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_upstream_still_fails_where_replicated_model_helps():
    """Fails once Keras itself trains on an odd last batch: then see what may go."""
    code = (
        "import numpy as np, keras, tensorflow as tf\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "parts = [tf.config.LogicalDeviceConfiguration()] * 2\n"
        "tf.config.set_logical_device_configuration(cpu, parts)\n"
        "with tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1']).scope():\n"
        "    inputs = keras.Input((8, 8, 1))\n"
        "    x = keras.layers.Flatten()(keras.layers.Conv2D(2, 3)(inputs))\n"
        "    model = keras.Model(inputs, keras.layers.Dense(3)(x))\n"
        "    model.compile('sgd', 'mse', jit_compile=False)\n"
        "data = tf.data.Dataset.from_tensor_slices((np.ones((7, 8, 8, 1), 'float32'), "
        "np.ones((7, 3), 'float32')))\n"
        "model.evaluate(data.batch(7), verbose=0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
    )
    assert done.returncode != 0
    assert "InvalidArgumentError" in done.stderr
