"""What watches a run: its speed, a profiler, TensorBoard and a function of the user's."""

import io
import json
import os
import sys
import time
import types
from typing import Any

import commands
import keras
import numpy as np
import pytest

from low_rank_local_connectivity.experiments.experiment import Experiment
from low_rank_local_connectivity.experiments.watching import users_callbacks
from low_rank_local_connectivity.training import Speed
from low_rank_local_connectivity.training.event_log import picture

FLAGS = ("--epochs=2", "--filters=3", "--batch_size=64", "--train_examples=128")
FLAGS += ("--export_formats=none", "--noevaluation", "--layer_types=conv2d")
MODULE = """
import keras
def watch(experiment):
    def tell(step, logs):
        print("step", step, "of seed", experiment.seed, flush=True)
    return [keras.callbacks.LambdaCallback(on_train_batch_end=tell)]
"""


def run(folder, *flags, **environment):
    flags = (*FLAGS, f"--model_dir={folder / 'run'}", *flags)
    done = commands.python(commands.SCRIPT, *flags, cwd=folder, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_is_watched_by_a_function_of_the_user_s_and_traced(tmp_path):
    (tmp_path / "mine.py").write_text(MODULE)
    output = run(tmp_path, "--callbacks=mine:watch", "--profile=2,3", "--seed=3")
    assert output.count("step 0 of seed 3\n") == output.count("step 1 of seed 3\n") == 2
    folder = tmp_path / "run" / "tensorboard"
    of_torch = keras.backend.backend() == "torch"
    pattern = "*.pt.trace.json" if of_torch else "plugins/profile/*/*.xplane.pb"
    (trace,) = folder.glob(pattern)
    assert trace.stat().st_size > 1000
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["callbacks"] == "mine:watch"
    # Watched in another way it is the same run.
    assert run(tmp_path, "--seed=3").startswith("Result: ")


def test_what_the_user_s_function_must_be_and_return(monkeypatch):
    module: Any = types.ModuleType("watched")
    module.__spec__ = types.SimpleNamespace(name="watched")
    monkeypatch.setitem(sys.modules, "watched", module)
    experiment = Experiment(callbacks="watched:watch")
    with pytest.raises(ValueError, match="and watched has no such function"):
        users_callbacks(experiment)
    given = []
    module.watch = lambda experiment: given.append(experiment) or keras.callbacks.Callback()
    (one,) = users_callbacks(experiment)
    assert isinstance(one, keras.callbacks.Callback)
    assert given == [experiment]
    module.watch = lambda _: ["words"]
    with pytest.raises(
        ValueError, match=r"must return Keras callbacks\. Received: --callbacks=wat"
    ):
        users_callbacks(experiment)
    assert users_callbacks(Experiment()) == []


def test_the_first_step_is_told_apart_and_validation_is_not_counted(monkeypatch):
    clock = iter([0.0, 5.0, 5.5, 6.5, 100.0, 100.5, 101.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    speed, rates = Speed(batch_size=8), []
    assert speed.told() == {}
    for epoch, steps in enumerate((3, 2)):
        speed.on_epoch_begin(epoch)
        for step in range(steps):
            logs = {"loss": 1.0}
            speed.on_train_batch_end(step, logs)
            rates.append(logs["images_per_second"])
        logs = {}
        speed.on_epoch_end(epoch, logs)
        assert logs == {"images_per_second": rates[-1]}
    assert rates == [1.6, 16, 10.7, 16, 16]
    assert speed.told() == {
        "first_step_seconds": 5.0,
        "median_step_seconds": 0.5,
        "images_per_second": 16.0,
    }


@pytest.mark.once
@pytest.mark.parametrize("sizes", [(5,), (4, 5), (2, 3, 5)])
def test_a_map_has_the_banks_side_by_side(sizes, rng):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    weights = rng.uniform(size=(*sizes, 3))
    height, width, encoded = picture(weights)
    rows, columns = int(np.prod(sizes[:-1])), sizes[-1]
    with image.open(io.BytesIO(encoded)) as opened:
        pixels = np.asarray(opened)
    assert pixels.shape == (height, width)
    times = height // rows
    small = pixels[::times, ::times].reshape(rows, 3, columns + 1)
    expected = np.moveaxis(weights.reshape(rows, columns, 3), -1, 1) / weights.max()
    np.testing.assert_allclose(small[..., :-1], 255 * expected, atol=0.5)
    assert (small[..., -1] == 255).all()


MLFLOW = """
import keras, mlflow
def watch(experiment):
    mlflow.set_experiment("digits")
    mlflow.start_run(run_name="first")
    mlflow.log_params({"filters": experiment.filters, "seed": experiment.seed})
    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: mlflow.log_metrics(logs, step=epoch),
        on_train_end=lambda logs: mlflow.end_run(),
    )
"""
READING = """
import json, mlflow
(run,) = mlflow.search_runs(experiment_names=["digits"], output_format="list")
history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "val_accuracy")
print(json.dumps([run.data.params, [[one.step, one.value] for one in history]]))
"""


@pytest.mark.slow
def test_mlflow_keeps_what_the_run_measured(tmp_path):
    pytest.importorskip("mlflow", reason="MLflow is not installed: pip install mlflow-skinny")
    (tmp_path / "mine.py").write_text(MLFLOW)
    store = {"MLFLOW_TRACKING_URI": f"file://{tmp_path / 'store'}", **os.environ}
    store["MLFLOW_ALLOW_FILE_STORE"] = "true"
    flags = (*FLAGS, f"--model_dir={tmp_path / 'run'}", "--callbacks=mine:watch")
    done = commands.new_python(commands.SCRIPT, *flags, cwd=tmp_path, **store)
    assert done.returncode == 0, done.stderr
    done = commands.new_python("-c", READING, **store)
    assert done.returncode == 0, done.stderr
    parameters, history = json.loads(done.stdout.splitlines()[-1])
    assert parameters == {"filters": "3", "seed": "0"}
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("val_accuracy")
    assert history == [[epoch, float(lines[epoch + 1].split(",")[column])] for epoch in (0, 1)]
