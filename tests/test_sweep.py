"""Sweeps from the outside, and the records that several processes write."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import commands
import numpy as np
import pytest

from low_rank_local_connectivity.experiments import sweeping as sweep
from low_rank_local_connectivity.experiments.folder import result_digest
from low_rank_local_connectivity.experiments.paper.statistics import mean_and_error
from low_rank_local_connectivity.training import StoppedError, records

pytestmark = pytest.mark.once
ROOT = Path(__file__).parents[1]
FLAGS = ("--epochs=1", "--filters=4", "--batch_size=256", "--export_formats=none")
FLAGS = (
    *FLAGS,
    "--noevaluation",
    "--train_examples=256",
    "--layer_types=low_rank_locally_connected2d",
)


def command(folder, *flags):
    script = str(ROOT / "run_experiment.py")
    return [sys.executable, script, f"--model_dir={folder}", *FLAGS, *flags]


def fake_run(folder, name, code, rank=1, seed=0):
    """A run whose command is a line of Python."""
    return sweep.Run(
        name, {"spatial_rank": rank, "seed": seed}, [sys.executable, "-c", code], folder / name
    )


def writing(folder, name, valid, test=0.5):
    result = {"valid_accuracy": valid, "test_accuracy": test, "train_accuracy": 1.0}
    result |= {"parameters": 7, "seconds": 0.5}
    result["digest"] = result_digest(result)
    target = folder / name
    return (
        f"import json, pathlib; p = pathlib.Path({str(target)!r}); p.mkdir(); "
        f"(p / 'result.json').write_text(json.dumps({result}))"
    )


@pytest.mark.slow
def test_a_stopped_sweep_continues_and_two_share_the_work(tmp_path):
    """One sweep is killed in its second run; two started again at once finish it together."""
    folder = tmp_path / "sweep"
    flags = ("--spatial_ranks=1,2", "--num_seeds=2")
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command(folder, *flags), **quiet) as first:
        assert "[1/4]" in first.stdout.readline()
        first.kill()
    path = folder / "records.jsonl"
    (before,) = records.read_records(path)
    both = [
        subprocess.Popen(
            command(folder, *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    # The killed sweep's run goes on by itself; until it ends it is another's, and not recorded.
    for _ in range(20):
        found = records.read_records(path)
        if len(found) == 4:
            break
        time.sleep(1)
        subprocess.run(command(folder, *flags), capture_output=True, check=True)
    assert before in found
    points = sorted((r["config"]["spatial_rank"], r["config"]["seed"]) for r in found)
    assert points == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert all("done before" in output for output in outputs)
    again = subprocess.run(command(folder, *flags), capture_output=True, text=True, check=True)
    assert again.stdout.count("done before") == 4
    best = sweep.choose_rank(found)
    assert again.stdout.strip().endswith(f"Chosen on the validation split: rank {best}.")
    results = json.loads(next(folder.glob("*-rank2-seed1/result.json")).read_text())
    del results["digest"]
    assert results in [record["result"] for record in found]
    text = path.read_text()
    assert str(tmp_path) not in text, "records should not tell of a machine's paths"


def test_a_failing_run_is_told_and_tried_again_and_stops_no_other(tmp_path, capfd):
    runs = [
        fake_run(tmp_path, "bad", "raise SystemExit('the data is not there')"),
        fake_run(tmp_path, "good", writing(tmp_path, "good", 0.5)),
    ]
    found, failed, elsewhere = sweep.sweep(runs, tmp_path)
    assert [record["name"] for record in found] == ["good"]
    assert (failed, elsewhere) == (["bad"], [])
    assert "bad: failed: exit status 1, the data is not there" in capfd.readouterr().out
    runs[0] = fake_run(tmp_path, "bad", writing(tmp_path, "bad", 0.6))
    found, failed, _ = sweep.sweep(runs, tmp_path)
    assert len(found) == 2
    assert not failed


def test_a_run_whose_export_fails_is_recorded_and_its_export_tried_again(tmp_path, capfd):
    result = {"valid_accuracy": 0.5, "test_accuracy": 0.25, "train_accuracy": 1.0}
    result |= {"parameters": 7, "seconds": 0.5}
    failed = {**result, "failed": {"export": "No room."}}
    whole, lacking = ({**one, "digest": result_digest(one)} for one in (result, failed))
    target = tmp_path / "one"
    code = (
        "import json, pathlib\n"
        f"folder, whole, lacking = pathlib.Path({str(target)!r}), {whole}, {lacking}\n"
        "again = (folder / 'result.json').exists()\n"
        "folder.mkdir(exist_ok=True)\n"
        "(folder / 'result.json').write_text(json.dumps(whole if again else lacking))\n"
        "raise SystemExit(0 if again else 'The export failed: No room.')\n"
    )
    run = fake_run(tmp_path, "one", code)
    found, failed, _ = sweep.sweep([run], tmp_path)
    assert failed == ["one"]
    assert found[0]["result"] == result
    output = capfd.readouterr().out
    assert "one: valid 0.5000, test 0.2500" in output
    assert "one: failed: exit status 1, The export failed: No room." in output
    again, failed, _ = sweep.sweep([run], tmp_path)
    assert (again, failed) == (found, [])
    sweep.sweep([run], tmp_path)
    assert "one: done before" in capfd.readouterr().out
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sweep_that_is_asked_to_stop_lets_its_run_save_and_says_so(number, tmp_path):
    ready, saved = tmp_path / "ready", tmp_path / "saved"
    code = (
        "import pathlib, signal, sys, time\n"
        "def stop(*_):\n"
        # Longer than a parent would wait that ends at once.
        "    time.sleep(1)\n"
        f"    pathlib.Path({str(saved)!r}).touch()\n"
        "    sys.exit(75)\n"
        f"signal.signal({int(number)}, stop)\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(60)\n"
    )
    runs = [fake_run(tmp_path, name, code) for name in ("one", "two")]

    def interrupt():
        while not ready.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(StoppedError) as caught:
        sweep.sweep(runs, tmp_path)
    thread.join()
    assert saved.exists()
    assert str(caught.value) == (
        f"Stopped by {signal.Signals(number).name} in the run one, which has saved what it could "
        f"({tmp_path / 'logs' / 'one.log'}). The same command goes on from there."
    )
    assert signal.getsignal(number) == before
    assert not (tmp_path / "logs" / "two.log").exists()


def test_a_run_that_another_process_trains_is_left_alone(tmp_path):
    run = fake_run(tmp_path, "one", writing(tmp_path, "one", 0.5))
    with sweep.claimed(tmp_path / "locks" / "one") as lock:
        assert lock is not None
        assert sweep.sweep([run], tmp_path) == ([], [], ["one"])
    assert not run.folder.exists()
    found, _, _ = sweep.sweep([run], tmp_path)
    assert len(found) == 1


def test_a_killed_sweeps_run_keeps_its_lock(tmp_path):
    """The child goes on without its parent, and nobody starts it a second time."""
    code = (
        "import sys, pathlib\n"
        "from low_rank_local_connectivity.experiments import sweeping as sweep\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "child = 'import time; print(1, flush=True); time.sleep(60)'\n"
        "run = sweep.Run('one', {}, [sys.executable, '-c', child], folder / 'one')\n"
        "sweep.sweep([run], folder)\n"
    )
    parent = commands.start("-c", code)
    log = tmp_path / "logs" / "one.log"
    while not (log.exists() and log.read_text()):
        time.sleep(0.05)
    (child,) = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    parent.kill()
    parent.communicate()
    run = fake_run(tmp_path, "one", writing(tmp_path, "one", 0.5))
    assert sweep.sweep([run], tmp_path)[2] == ["one"]
    os.kill(int(child), 9)
    while Path(f"/proc/{child}").exists() and "Z" not in _state(child):
        time.sleep(0.05)
    assert len(sweep.sweep([run], tmp_path)[0]) == 1


def _state(process: str) -> str:
    return Path(f"/proc/{process}/stat").read_text().split(")")[1].split()[0]


def test_many_processes_add_to_one_file_without_damage(tmp_path):
    path = tmp_path / "records.jsonl"
    code = (
        "import sys, pathlib\n"
        "from low_rank_local_connectivity.training.records import append_record\n"
        "for index in range(15):\n"
        "    name = f'{sys.argv[1]}-{index}'\n"
        f"    append_record(pathlib.Path({str(path)!r}), {{'name': name, 'x': 'y' * 3000}})\n"
        f"    append_record(pathlib.Path({str(path)!r}), {{'name': f'shared-{{index}}'}})\n"
    )
    started = [commands.start("-c", code, writer) for writer in range(2)]
    for process in started:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    names = [json.loads(line)["name"] for line in path.read_text().splitlines()]
    assert len(names) == len(set(names)) == 45


def test_a_line_left_unfinished_is_left_out_and_closed_off(tmp_path):
    path = tmp_path / "records.jsonl"
    assert records.append_record(path, {"name": "a"})
    with path.open("a") as file:
        file.write('{"name": "b", "resu')
    with pytest.warns(UserWarning, match=r"Line 2 of .* is not a record and is left out"):
        assert records.append_record(path, {"name": "c"})
    with pytest.warns(UserWarning, match="Line 2"):
        assert not records.append_record(path, {"name": "c"})
    with pytest.warns(UserWarning, match="Line 2"):
        assert [record["name"] for record in records.read_records(path)] == ["a", "c"]


def test_the_rank_is_chosen_on_validation_alone():
    def record(rank, seed, valid, test):
        result = {"valid_accuracy": valid, "test_accuracy": test, "train_accuracy": 1.0}
        return {"config": {"spatial_rank": rank, "seed": seed}, "result": result}

    found = [
        record(2, 0, 0.90, 0.1),
        record(2, 1, 0.80, 0.3),
        record(4, 0, 0.85, 0.9),
        record(4, 1, 0.84, 0.9),
    ]
    assert sweep.choose_rank(found) == 2
    lines = sweep.summary(found).splitlines()
    assert lines[2] == "| 2 | 2 | 85.00 ± 5.00 | 20.00 ± 10.00 | 100.00 ± 0.00 |"


def test_standard_errors_are_scipys(rng):
    from scipy import stats

    values = rng.normal(size=7)
    mean, error = mean_and_error(values)
    assert mean == pytest.approx(np.mean(values))
    assert error == pytest.approx(stats.sem(values))
    assert np.isnan(mean_and_error([0.5])[1])
