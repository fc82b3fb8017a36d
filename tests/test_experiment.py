"""run_experiment.py from the outside: what it refuses, and what it leaves behind."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import time
from typing import Any

import commands
import keras
import numpy as np
import pytest

from low_rank_local_connectivity.experiments.experiment import Experiment
from low_rank_local_connectivity.experiments.running import hint_at_few_steps
from low_rank_local_connectivity.training.watching import RATE

SMALL = ("--epochs=2", "--filters=8", "--batch_size=128")
# The same training, after which nothing is exported or drawn.
TRAINED = (*SMALL, "--export_formats=none", "--noevaluation")
# All that a run keeps from step to step, or draws at each.
OPTIONS = ("--optimizer=adamw", "--weight_decay=0.01", "--use_ema", "--ema_momentum=0.5")
OPTIONS += ("--gradient_accumulation_steps=2", "--global_clipnorm=1", "--label_smoothing=0.1")
OPTIONS += ("--augment=flip,erasing,mixup",)
REFUSED = {
    "--dataset=imagenet": "flag --dataset=imagenet: value should be one of <digits|mnist|cifar10",
    "--dataset=imagenet2012 --train_examples=100": "--train_examples needs examples that can be "
    "chosen one by one. Received: --train_examples=100.",
    "--image_size=32": "--image_size needs a dataset of images of any size, not "
    "digits. Received: --image_size=32.",
    "--augment=crop,rotate": "--augment takes crop, flip, randaugment, erasing, mixup, cutmix, "
    "each once, the last four with a strength above 0 and up to 1 if wanted, as in mixup:0.4; or "
    "none. Received: --augment=crop,rotate.",
    "--augment=mixup:2": "--augment takes crop, flip, randaugment, erasing, mixup, cutmix, "
    "each once, the last four with a strength above 0 and up to 1 if wanted, as in mixup:0.4; or "
    "none. Received: --augment=mixup:2.",
    "--eval_crop=0.5": "--eval_crop needs a dataset of images of any size, not digits. Received: "
    "--eval_crop=0.5.",
    "--dataset=imagenet2012 --eval_crop=1.5": "--eval_crop must be above 0 and at most 1. "
    "Received: --eval_crop=1.5.",
    "--dataset=folder": "The dataset 'folder' needs a folder. Received: --data_dir=None.",
    "--network=vgg": "flag --network=vgg: value should be one of <simple_network|",
    "--train_examples=0": "--train_examples must be from 1 to the 1257 training examples of "
    "digits. Received: --train_examples=0.",
    "--canvas_size=24": "--canvas_size needs --translate and must be at least the images' 16 "
    "pixels. Received: --canvas_size=24.",
    "--translate --canvas_size=15": "--canvas_size needs --translate and must be at least the "
    "images' 16 pixels. Received: --canvas_size=15.",
    "--replace=conv5": "--replace needs a ResNet, not simple_network. Received: --replace=conv5.",
    "--insert_layer=conv2d": "--insert_layer needs a ResNet, not simple_network. "
    "Received: --insert_layer=conv2d.",
    "--network=resnet18 --replace=conv6": "--replace takes stages among conv2, conv3, conv4, "
    "conv5, or all. Received: --replace=conv6.",
    "--network=resnet18 --filters=32": "--filters belongs to simple_network, and resnet18 has "
    "--insert_layer and --replace instead. Received: --filters=32.",
    "--network=resnet18 --replace=conv5 --spatial_rank=4": "--spatial_rank must be at most the "
    "layer's number of positions, 1. Received: --spatial_rank=4.",
    "--network=resnet18 --insert_layer=full_conv2d": "--insert_layer changes sizes, so only a "
    "whole ResNet can be full: --network=full_resnet18. Received: --insert_layer=full_conv2d.",
    "--stem=cifar": "--stem needs a ResNet that is not full, not simple_network. Received: "
    "--stem=cifar.",
    "--network=resnet18 --dataset=synthetic --image_size=32 --stem=cifar --replace=conv5 "
    "--spatial_rank=17": "--spatial_rank must be at most the layer's number of positions, 16. "
    "Received: --spatial_rank=17.",
    "--network=bagnet33": "--network must see no more than the 16x16 pixels of the images. "
    "Received: --network=bagnet33.",
    "--network=scale_resnet18 --filters=32": "--filters does not apply to scale_resnet18, "
    "which has layers of its own. Received: --filters=32.",
    "--network=scale_network --layer_types=conv2d": "--layer_types does not apply to "
    "scale_network, which has layers of its own. Received: --layer_types=conv2d.",
    "--network=group_network --layer_types=conv2d": "--layer_types does not apply to "
    "group_network, which has layers of its own. Received: --layer_types=conv2d.",
    "--network=group_resnet18 --filters=32": "--filters does not apply to group_resnet18, "
    "which has layers of its own. Received: --filters=32.",
    "--network=group_network --replace=conv5": "--replace needs a ResNet whose layers can be "
    "replaced, not group_network. Received: --replace=conv5.",
    "--network=group_network --kernel_size=4": "--kernel_size must be odd in group_network. "
    "Received: --kernel_size=4.",
    "--momentum=1": "--momentum must be from 0 to below 1. Received: --momentum=1.0.",
    "--label_smoothing=-1": "--label_smoothing must be from 0 to below 1. "
    "Received: --label_smoothing=-1.0.",
    "--weight_decay=-1": "--weight_decay must be at least 0. Received: --weight_decay=-1.0.",
    "--clipnorm=0": "--clipnorm must be positive. Received: --clipnorm=0.0.",
    "--clipvalue=1 --global_clipnorm=2": "--clipvalue must be given without --global_clipnorm: one "
    "limit applies. Received: --clipvalue=1.0.",
    "--gradient_accumulation_steps=0": "--gradient_accumulation_steps must be at least 1. "
    "Received: --gradient_accumulation_steps=0.",
    "--use_ema --ema_momentum=1": "--ema_momentum must be from 0 to below 1. "
    "Received: --ema_momentum=1.0.",
    "--validation_every=0": "--validation_every must be at least 1. "
    "Received: --validation_every=0.",
    "--num_seeds=0": "--num_seeds must be at least 1. Received: 0.",
    "--spatial_ranks=2,x": "--spatial_ranks takes integers. Received: 2,x.",
    "--spatial_ranks=2,101": "--spatial_rank must be at most the layer's number of positions, "
    "100. Received: --spatial_rank=101.",
    "--seed=4294967295 --num_seeds=2": "--seed must be from 0 to 4294967295. "
    "Received: --seed=4294967296.",
    "--spatial_rank=0": "--spatial_rank must be at least 1. Received: --spatial_rank=0.",
    "--spatial_rank=101": "--spatial_rank must be at most the layer's number of positions, 100. "
    "Received: --spatial_rank=101.",
    "--epochs=0": "--epochs must be at least 1. Received: --epochs=0.",
    "--epochs=few": "flag --epochs=few: invalid literal for int() with base 10: 'few'",
    "--batch_size=0": "--batch_size must be at least 1. Received: --batch_size=0.",
    "--batch_size=1258": "--batch_size must be at most the 1257 training examples. "
    "Received: --batch_size=1258.",
    "--filters=-1": "--filters must be at least 1. Received: --filters=-1.",
    "--kernel_size=7": "--kernel_size must leave 3 layers a position in 16x16 images. "
    "Received: --kernel_size=7.",
    "--peak_learning_rate=0": "--peak_learning_rate must be a positive number. "
    "Received: --peak_learning_rate=0.0.",
    "--warmup_epochs=30": "--warmup_epochs must be from 0 to below --epochs=30. "
    "Received: --warmup_epochs=30.",
    "--seed=-1": "--seed must be from 0 to 4294967295. Received: --seed=-1.",
    "--layer_types=conv2d,conv3d": "--layer_types takes names among conv2d, wide_conv2d, "
    "coord_conv2d, full_conv2d, deformable_conv2d, deformable_conv2d_v1, locally_connected2d, "
    "low_rank_locally_connected2d. Received: --layer_types=conv2d,conv3d.",
    "--layer_types=conv2d,conv2d,conv2d,conv2d": "--layer_types must name at most the 3 layers of "
    "simple_network. Received: --layer_types=conv2d,conv2d,conv2d,conv2d.",
    "--input_dependent --share_row_combining_weights": "--input_dependent needs "
    "--share_row_combining_weights and --share_col_combining_weights off. "
    "Received: --input_dependent=True.",
    "--normalize_weights=max": "flag --normalize_weights=max: value should be one of "
    "<softmax|norm|none>",
    "--combining_weights_initializer=he": "flag --combining_weights_initializer=he: value should "
    "be one of <conv_init|glorot_normal|",
    "--strategy=slurm": "flag --strategy=slurm: value should be one of <auto|one_device|mirrored|"
    "multi_worker|tpu>",
    "--keep_checkpoints=0": "--keep_checkpoints must be at least 1. "
    "Received: --keep_checkpoints=0.",
    "--checkpoint_steps=0": "--checkpoint_steps must be at least 1. "
    "Received: --checkpoint_steps=0.",
    "--checkpoint_minutes=0": "--checkpoint_minutes must be positive. "
    "Received: --checkpoint_minutes=0.0.",
    "--callbacks=watch": "--callbacks must be a module and a function, MODULE:FUNCTION. Received: "
    "--callbacks=watch.",
    "--callbacks=no_such.module:watch": "--callbacks must name a function of a module that is "
    "installed or in this folder. Received: --callbacks=no_such.module:watch, where no_such is",
    "--profile=3,2": "--profile must be two steps in order, the first at least 1: START,END. "
    "Received: --profile=3,2.",
    "--profile=0,2": "--profile must be two steps in order, the first at least 1: START,END. "
    "Received: --profile=0,2.",
    "--profile=2": "--profile must be two steps in order, the first at least 1: START,END. "
    "Received: --profile=2.",
    "--virtual_devices=0": "--virtual_devices must be at least 1. Received: --virtual_devices=0.",
    "--export_formats=pickle": "--export_formats takes tf_saved_model, onnx, litert, litert_int8, "
    "or none for no export. Received: --export_formats=pickle.",
    "--serving_batch_size=0": "--serving_batch_size must be at least 1. "
    "Received: --serving_batch_size=0.",
    "--rank=4": "Unknown command line flag 'rank'",
    "digits": "Only flags are taken. Received: digits.",
    "--dataset=mnist --data_dir=nowhere": "The dataset 'mnist' must be prepared in --data_dir. "
    "Looked for nowhere/mnist/<version>/dataset_info.json and found none.",
}


def script(*arguments, **environment):
    """Runs run_experiment.py and returns the finished process."""
    return commands.python(commands.SCRIPT, *arguments, **environment)


def finish(folder, *arguments, **environment):
    """Runs an experiment to its end and returns what it printed."""
    done = script(f"--model_dir={folder}", *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    done = script(f"--model_dir={folder}", *SMALL)
    assert done.returncode == 0, done.stderr
    # What converts JAX's functions to TensorFlow's warns.
    assert not done.stderr or keras.backend.backend() == "jax"
    return folder, done.stdout


@pytest.mark.once
@pytest.mark.parametrize("flags", REFUSED)
def test_flags_that_make_no_sense_are_refused_in_a_sentence_before_a_framework_loads(
    flags, tmp_path
):
    code = (
        "import sys, runpy\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        assert name not in ('tensorflow', 'keras', 'jax', 'torch'), f'imports {name}'\n"
        "assert not {'tensorflow', 'keras', 'jax', 'torch'} & {*sys.modules}\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "sys.argv = ['run_experiment.py', *sys.argv[1:]]\n"
        f"runpy.run_path({commands.SCRIPT!r}, run_name='__main__')\n"
    )
    done = commands.light_server().python("-c", code, *flags.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"run_experiment.py: {REFUSED[flags]}")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.once
def test_help_lists_every_kind_of_layer_without_a_framework(tmp_path):
    done = commands.new_python(commands.SCRIPT, "--help", PYTHONPATH=str(tmp_path))
    for name in ("low_rank_locally_connected2d", "wide_conv2d", "--spatial_rank", "mnist"):
        assert name in done.stdout


def test_a_run_leaves_its_files_and_prints_its_result_last(finished):
    folder, output = finished
    names = {path.name for path in folder.iterdir()}
    if os.environ.get("KERAS_BACKEND") == "torch":
        names.add("saved_model")  # Keras writes none there; the run says so
    assert names == {
        ".lock",
        "checkpoints",
        "combining_weights.png",
        "config.json",
        "confusion.png",
        "evaluation.json",
        "inputs.json",
        "metrics.csv",
        "model.keras",
        "result.json",
        "run.flags",
        "saved_model",
        "tensorboard",
    }
    result = json.loads((folder / "result.json").read_text())
    assert 0 <= result["valid_accuracy"] <= 1
    assert 0 <= result["test_accuracy"] <= 1
    assert result["seconds"] > 0
    assert {"python", "keras", "backend"} <= set(result["versions"])
    last = output.strip().splitlines()[-1]
    assert last.startswith(f"Result: test accuracy {result['test_accuracy']:.4f}")
    assert f"{result['parameters']:,} parameters" in last


def test_the_default_network_is_exported_by_default(finished):
    folder, output = finished
    manifest = folder / "saved_model" / "manifest.json"
    if keras.backend.backend() == "torch":
        assert "No tf_saved_model: it cannot be written on torch." in output
        assert not manifest.exists()
        return
    found = json.loads(manifest.read_text())["formats"]["tf_saved_model"]
    assert np.isfinite(found["difference"])


def test_metrics_have_a_line_for_each_epoch_and_tensorboard_events(finished):
    folder, _ = finished
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= set(rows[0])
    for part in ("train", "validation"):
        assert list((folder / "tensorboard" / part).glob("events.out.tfevents*"))


def test_a_run_says_how_fast_it_was_and_what_memory_it_took(finished):
    folder, output = finished
    result = json.loads((folder / "result.json").read_text())
    for name in ("median_step_seconds", "first_step_seconds"):
        assert 0 < result[name] < result["seconds"]
    rate = 128 / result["median_step_seconds"]
    assert result["images_per_second"] == pytest.approx(rate, rel=0.01)
    assert 2**25 < result["peak_memory_bytes"] < 2**40
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    assert all(float(row["images_per_second"]) > 0 for row in rows)
    assert f"images_per_second: {float(rows[-1]['images_per_second']):.4f}" in output


def test_tensorboard_shows_the_settings_and_maps_of_every_epoch(finished):
    event_file_loader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_file_loader"
    )
    from PIL import Image
    from tensorboard.plugins.hparams import plugin_data_pb2

    folder, _ = finished
    (file,) = (folder / "tensorboard").glob("events.out.tfevents*")
    events = [*event_file_loader.LegacyEventFileLoader(str(file)).Load()]
    values = [(event.step, value) for event in events for value in event.summary.value]
    (_, settings), *maps = values
    told = plugin_data_pb2.HParamsPluginData.FromString(settings.metadata.plugin_data.content)
    found = told.session_start_info.hparams
    assert found["batch_size"].number_value == 128
    assert found["layer_types"].string_value == "conv2d,conv2d,low_rank_locally_connected2d"
    assert "model_dir" not in found
    assert [(step, value.tag) for step, value in maps] == [
        (epoch, "combining_weights/layer_3") for epoch in (0, 1)
    ]
    with Image.open(io.BytesIO(maps[0][1].image.encoded_image_string)) as picture:
        # Four banks of 10 x 10 positions and lines between them.
        assert picture.size == (44 * (picture.height // 10), picture.height)


def test_the_configuration_is_complete(finished):
    folder, _ = finished
    config = json.loads((folder / "config.json").read_text())
    assert config["epochs"] == 2
    assert config["warmup_epochs"] == 0
    assert config["layer_types"] == ["conv2d", "conv2d", "low_rank_locally_connected2d"]
    documented = (
        "dataset data_dir network layer_types spatial_rank kernel_size filters normalize_weights "
        "combining_weights_initializer share_row_combining_weights share_col_combining_weights "
        "input_dependent use_spatial_bias coord_conv batch_size epochs peak_learning_rate "
        "warmup_epochs seed strategy model_dir export_formats"
    )
    assert set(documented.split()) <= set(config)


def test_a_file_of_flags_repeats_the_run(finished, tmp_path):
    folder, _ = finished
    finish(tmp_path / "again", f"--flagfile={folder / 'run.flags'}", "--export_formats=none")
    assert metrics_of(folder) == metrics_of(tmp_path / "again")


def test_the_saved_model_and_the_keras_model_reach_the_recorded_accuracy(finished):
    import keras
    import tensorflow as tf

    import low_rank_local_connectivity as package
    from low_rank_local_connectivity.data import DATASETS

    assert package.LowRankLocallyConnected2D
    folder, _ = finished
    dataset = DATASETS["digits"]
    test: Any = dataset.load()["test"]
    images = dataset.prepare(test.images).astype("float32")
    model = keras.models.load_model(folder / "model.keras")
    logits = model.predict(images, verbose=0)
    recorded = json.loads((folder / "result.json").read_text())["test_accuracy"]
    assert np.mean(logits.argmax(-1) == test.labels) == pytest.approx(recorded)
    if (folder / "saved_model" / "1").exists():
        loaded = tf.saved_model.load(str(folder / "saved_model" / "1"))
        (served,) = loaded.signatures["serving_default"](tf.constant(images)).values()
        np.testing.assert_allclose(served.numpy(), logits, rtol=1e-4, atol=1e-4)
    else:
        assert keras.backend.backend() == "torch"


def test_a_run_ends_with_the_evaluation_of_its_network_s_own_answers(finished):
    from sklearn import metrics

    from low_rank_local_connectivity.data import DATASETS

    folder, _ = finished
    dataset = DATASETS["digits"]
    test: Any = dataset.load()["test"]
    model = keras.models.load_model(folder / "model.keras")
    images = dataset.prepare(test.images).astype("float32")
    logits = model.predict(images, verbose=0)
    found = json.loads((folder / "evaluation.json").read_text())
    assert (found["dataset"], found["split"], found["examples"]) == ("digits", "test", 360)
    labels, answers = test.labels, logits.argmax(-1)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, answers))
    balanced = metrics.recall_score(labels, answers, average="macro")
    assert found["balanced_accuracy"] == pytest.approx(balanced)
    among_five = metrics.top_k_accuracy_score(labels, logits, k=5)
    assert found["top_5_accuracy"] == pytest.approx(among_five)


def test_a_finished_run_is_told_and_not_touched(finished):
    folder, output = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert finish(folder, *SMALL) == output.strip().splitlines()[-1] + "\n"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_another_run_does_not_overwrite_one(finished, tmp_path):
    folder, _ = finished
    done = script(f"--model_dir={folder}", *SMALL, "--spatial_rank=5", "--seed=3")
    assert done.returncode == 2
    assert done.stderr == (
        "run_experiment.py: --model_dir must not contain a run with different flags. Received: "
        f"--model_dir={folder}, where --seed is 0 there and 3 here; --spatial_rank is 4 there and "
        "5 here. Choose another, or continue it anyway with --allow_other_flags.\n"
    )
    (tmp_path / "thesis.txt").write_text("all of it")
    done = script(f"--model_dir={tmp_path}")
    assert done.returncode == 2
    assert "which contains something else. Choose another." in done.stderr


def metrics_of(folder):
    """The metrics of each epoch but for its speed."""
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    return [{name: row[name] for name in row if name != RATE} for row in rows]


# What two runs of the same experiment need not have alike; models have a time stamp.
MEASURED = ("seconds", "first_step_seconds", "median_step_seconds", RATE, "peak_memory_bytes")
OWN = (*MEASURED, "digest", "model_sha256")


def outcome(folder):
    """All that two runs of the same experiment must have alike, bit for bit."""
    result = json.loads((folder / "result.json").read_text())
    result = {name: value for name, value in result.items() if name not in OWN}
    newest = max((folder / "checkpoints").glob("step_*.npz"))
    with np.load(newest) as file:
        arrays = {name: file[name].tobytes() for name in file.files if name != "about"}
    return result, metrics_of(folder), newest.name, arrays


KILLING = """
import os, runpy, sys
import numpy as np
save, kill_at, count = np.savez, int(sys.argv.pop(1)), 0

def kill(path, **arrays):
    global count
    count += 1
    save(path, **arrays)
    if count == kill_at:
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), 9)

np.savez = kill
sys.argv[0] = {script!r}
runpy.run_path({script!r}, run_name="__main__")
"""


def killed_while_writing(count, folder, *flags):
    """Runs until it has half-written its `count`-th checkpoint; returns what it printed."""
    code = KILLING.format(script=commands.SCRIPT)
    done = commands.python("-c", code, count, f"--model_dir={folder}", *flags)
    assert done.returncode == -9, done.stderr
    return done.stdout


def test_a_run_killed_while_it_writes_or_asked_to_stop_ends_as_if_it_had_not_been(tmp_path):
    folder, other = tmp_path / "whole", tmp_path / "run"
    flags = (*TRAINED, *OPTIONS, "--checkpoint_steps=4")
    finish(folder, *flags)
    process = commands.start(commands.SCRIPT, f"--model_dir={other}", *flags)
    # From here on the handler is there; the first step is being compiled.
    process.wait_for("Epoch 1/2\n")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 75
    assert "Stopped by SIGINT after step 1, which is saved. The same command goes on" in output
    output = killed_while_writing(3, other, *flags)
    assert "Continuing after step 1 of epoch 1 of 2." in output
    assert not (other / "result.json").exists()
    output = finish(other, *flags)
    assert "Continuing after step 8 of epoch 1 of 2." in output
    assert outcome(other) == outcome(folder)
    assert not [path.name for path in other.rglob(".writing-*")]


@pytest.mark.slow
def test_a_run_killed_at_twenty_random_moments_ends_as_if_it_had_not_been(tmp_path):
    """The moments are anywhere from the start of the process to its end."""
    flags = (*SMALL, "--epochs=12", "--checkpoint_steps=2", "--export_formats=none")
    started = time.monotonic()
    finish(tmp_path / "whole", *flags)
    longest = time.monotonic() - started
    rng = np.random.default_rng(0)
    kills = 0
    for moment in rng.uniform(0, longest, size=60):
        process = commands.start(commands.SCRIPT, *flags, f"--model_dir={tmp_path / 'parts'}")
        try:
            process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
        if kills == 20:
            break
        if (tmp_path / "parts" / "result.json").exists():
            assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
            shutil.rmtree(tmp_path / "parts")
    assert kills == 20
    finish(tmp_path / "parts", *flags)
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


@pytest.mark.once
def test_a_folder_is_trained_by_one_process_at_a_time(tmp_path):
    import fcntl

    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = script(f"--model_dir={tmp_path}", *SMALL)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "run_experiment.py: --model_dir must be trained by one process at a time. Received: "
        f"--model_dir={tmp_path}, which another process is training. Wait for it, or choose "
        "another."
    )


@pytest.mark.once
def test_other_flags_continue_a_run_only_if_told_to(finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "checkpoints" / "step_000000018.npz").unlink()
    flags = (*TRAINED, "--peak_learning_rate=0.002")
    done = script(f"--model_dir={tmp_path / 'run'}", *flags)
    assert done.returncode == 2
    assert "--peak_learning_rate is 0.01 there and 0.002 here" in done.stderr
    output = finish(tmp_path / "run", *flags, "--allow_other_flags")
    assert "Continuing after epoch 1 of 2." in output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["peak_learning_rate"] == 0.002


@pytest.mark.once
@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("result.json", ""),
        ("result.json", '{"test_accuracy": 1.0}'),
        ("result.json", "[" * 100_000),
        ("config.json", '{"epochs": 2'),
        ("config.json", "[1, 2]"),
    ],
)
def test_a_damaged_file_is_told_and_nothing_is_done(finished, file, text, tmp_path):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / file).write_text(text)
    done = script(f"--model_dir={tmp_path / 'run'}", *SMALL)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(tmp_path / "run" / file) in done.stderr
    assert (tmp_path / "run" / file).read_text() == text


@pytest.mark.once
@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ["--layer_types=low_rank_locally_connected2d", "--input_dependent", "--spatial_rank=2"],
        [
            "--layer_types=locally_connected2d,wide_conv2d,coord_conv2d",
            "--coord_conv",
            "--locally_connected_fan=kernel",
        ],
        [
            "--layer_types=conv2d,low_rank_locally_connected2d,low_rank_locally_connected2d",
            "--normalize_weights=norm",
            "--noshare_col_combining_weights",
            "--nouse_spatial_bias",
            "--combining_weights_initializer=random_normal",
            "--export_formats=none",
            "--kernel_size=2",
        ],
    ],
)
def test_every_kind_of_layer_trains_from_flags(flags, tmp_path):
    finish(tmp_path / "run", "--epochs=1", "--filters=4", "--batch_size=512", *flags)
    drawn = any("low_rank" in flag for flag in flags)
    assert (tmp_path / "run" / "combining_weights.png").exists() == drawn
    exported = "--export_formats=none" not in flags and os.environ.get("KERAS_BACKEND") != "torch"
    assert (tmp_path / "run" / "saved_model" / "1").exists() == exported


@pytest.mark.once
def test_initializers_named_by_the_flag_exist():
    import keras

    from low_rank_local_connectivity.experiments.fields import about
    from low_rank_local_connectivity.experiments.flags import FIELDS

    names = about(FIELDS["combining_weights_initializer"]).accepted.choices
    for name in set(names) - {"conv_init"}:
        assert callable(keras.initializers.get(name))


def write_images(folder, class_names):
    """Writes a few small images of each class, as people have them."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for label, name in enumerate(class_names):
        for part, count in (("train", 16), ("valid", 4), ("test", 4)):
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(80 * label, 80 * label + 90, (40, 50, 3), "uint8")
                file = folder / part / name / f"{index}.png"
                Image.fromarray(pixels).save(file)


FOLDER = (
    "--noevaluation",
    "--dataset=folder",
    "--image_size=16",
    "--batch_size=8",
    "--epochs=1",
    "--filters=4",
)


@pytest.mark.once
def test_an_unreadable_image_to_be_scored_ends_the_run_with_its_name(tmp_path):
    write_images(tmp_path / "images", ("cats", "dogs"))
    for name in ("test/dogs/2.png", "valid/cats/0.png", "test/dogs/3.png"):
        (tmp_path / "images" / name).write_text("a poem")
    flags = (*FOLDER, f"--data_dir={tmp_path / 'images'}", "--export_formats=none")
    done = script(f"--model_dir={tmp_path / 'run'}", *flags)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("run_experiment.py: Every image that is scored must be readable.")
    assert "Received: 3 that are not: " in last
    assert all(name in last for name in ("valid/cats/0", "test/dogs/2.png", "test/dogs/3.png"))
    assert "Epoch" not in done.stdout
    assert not (tmp_path / "run" / "result.json").exists()


@pytest.fixture(scope="module")
def run_on_images(tmp_path_factory):
    """A run on people's own images and what it printed.

    Two of the classes have names that few expect, and two files are no images.
    """
    folder = tmp_path_factory.mktemp("images")
    write_images(folder / "images", ("cats", "c\udce9\nts", "d" * 255))
    (folder / "images" / "train" / "cats" / "0.png").write_bytes(b"")
    (folder / "images" / "train" / "cats" / "scan.heic").write_bytes(b"")
    flags = (*FOLDER, "--layer_types=conv2d", f"--data_dir={folder / 'images'}")
    done = script(f"--model_dir={folder / 'run'}", *flags, "--export_formats=none")
    assert done.returncode == 0, done.stderr
    return folder, done, flags


@pytest.mark.once
def test_peoples_own_images_train_and_unreadable_ones_are_skipped_and_told(run_on_images):
    folder, done, _ = run_on_images
    assert "folder: 48 train, 12 valid, 12 test" in done.stdout
    assert "1 training images could not be read and were skipped: " in done.stdout
    assert "Ignored in --data_dir, by format or place: 1 files: train/cats/scan.heic" in done.stdout
    assert "train/cats/0.png" in done.stdout
    result = json.loads((folder / "run" / "result.json").read_text())
    assert result["skipped_images"] == 1
    assert "ran out of data" not in done.stderr
    for file in ("config.json", "result.json"):
        text = (folder / "run" / file).read_text()
        assert json.dumps(json.loads(text), ensure_ascii=False).encode()


@pytest.mark.once
@pytest.mark.slow
def test_classes_of_any_name_are_trained_exported_and_named_to_a_server(run_on_images):
    import tensorflow as tf

    folder, _, flags = run_on_images
    finish(folder / "exported", *flags)
    names = ["c\\xe9\nts", "cats", "d" * 255]
    text = (folder / "exported" / "saved_model" / "manifest.json").read_text()
    assert json.dumps(json.loads(text), ensure_ascii=False).encode()
    assert json.loads(text)["class_names"] == names
    loaded = tf.saved_model.load(str(folder / "exported" / "saved_model" / "1"))
    image = next((folder / "images" / "test").glob("*/*.png")).read_bytes()
    (answer,) = loaded.signatures["serving_bytes"](tf.constant([image]))["class"].numpy()
    assert answer.decode() in names


@pytest.mark.once
@pytest.mark.slow
def test_a_residual_network_trains_from_flags(tmp_path):
    flags = ["--network=resnet18", "--insert_layer=coord_conv2d", "--replace=conv4"]
    flags += ["--spatial_rank=1", "--optimizer=sgd", "--weight_decay=0.0001", "--momentum=0.8"]
    flags += ["--label_smoothing=0.1", "--precision=mixed_bfloat16", "--schedule=steps"]
    flags += ["--train_examples=64", "--batch_size=32", "--epochs=1", "--export_formats=none"]
    output = finish(tmp_path / "run", *flags)
    assert "resnet18, coord_conv2d inserted and low_rank_locally_connected2d in conv4" in output


@pytest.mark.once
@pytest.mark.slow
def test_translated_images_train_from_flags(tmp_path):
    flags = ["--translate", "--canvas_size=20", "--epochs=1", "--filters=4", "--batch_size=128"]
    output = finish(tmp_path / "run", *flags, "--layer_types=conv2d", "--export_formats=none")
    assert "digits" in output
    import keras

    assert keras.models.load_model(tmp_path / "run" / "model.keras").input_shape[1:3] == (20, 20)


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "epochs"), [({"epochs": 2}, 3), ({"epochs": 3}, None), ({"weights": "a"}, None)]
)
def test_a_run_of_few_steps_that_loads_nothing_says_how_many_are_enough(options, epochs, capsys):
    """Digits have 19 batches of 64."""
    hint_at_few_steps(Experiment(**{"epochs": 1, **options}), steps=19)
    told = capsys.readouterr().out
    assert bool(told) == (epochs is not None)
    if epochs:
        assert told.startswith("This run takes 38 steps, in which the moving statistics of ")
        assert f"--epochs={epochs} takes {19 * epochs} steps; a smaller --batch_size" in told
