"""Runs that start from the weights of a trained network."""

import dataclasses
import itertools
import json
import os
import shutil
import signal

import commands
import keras
import numpy as np
import pytest
from backends import randomize, to_numpy
from test_experiment import finish, killed_while_writing, outcome, script
from test_training import EVERYTHING, RECIPE, assert_same_variables, batches_of, examples

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.experiments import warm_start
from low_rank_local_connectivity.experiments.experiment import Experiment
from low_rank_local_connectivity.training import RunError, checkpoints, endings, recovery, session
from low_rank_local_connectivity.training.freezing import Frozen

FLAGS = ("--filters=4", "--train_examples=512", "--batch_size=128", "--export_formats=none")
FLAGS += ("--noevaluation",)
CONVOLUTIONS = "--layer_types=conv2d,conv2d,conv2d"


def built(kind="conv2d", **changes):
    return Experiment(filters=4, layer_types=("conv2d", "conv2d", kind), **changes).build()


def put_in(model, source):
    found = warm_start.match(model, source, "here")
    for pair in found.pairs:
        warm_start.assign(pair, seed=3)
    return found


@pytest.mark.parametrize("normalize_weights", ["softmax", "norm", None])
@pytest.mark.parametrize("rank", [1, 3])
def test_a_low_rank_network_starts_as_the_convolutional_one(rank, normalize_weights, rng):
    how = {"spatial_rank": rank, "normalize_weights": normalize_weights}
    initial = {"combining_weights_initializer": "random_normal"}
    source, model = built(), built("low_rank_locally_connected2d", **how, **initial)
    randomize(source, rng)
    randomize(model, rng)
    found = put_in(model, source)
    assert [pair.layer.name for pair in found.pairs if pair.relaxes] == ["layer_3"]
    images = rng.normal(size=(3, 16, 16, 1)).astype("float32")
    np.testing.assert_allclose(to_numpy(model(images)), to_numpy(source(images)), atol=1e-5)


def test_layers_of_the_same_kind_are_loaded_bit_for_bit_and_others_told(rng):
    source, model = built("low_rank_locally_connected2d"), built("low_rank_locally_connected2d")
    randomize(source, rng)
    more = keras.layers.Dense(2, name="more")(source.output)
    found = put_in(model, keras.Model(source.input, more))
    for ours, theirs in zip(model.weights, source.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(ours), to_numpy(theirs))
    assert found.told("a.keras") == (
        "Loaded from a.keras: layer_1, batch_norm_1, layer_2, batch_norm_2, layer_3, batch_norm_3, "
        "logits; not loaded, and new: none; not used: more."
    )


def plain(units=3, name="layer_1", **changes):
    """A model of plain Keras, whose first layer has the name of one of the network's."""
    how = {"filters": 4, "kernel_size": 3, "use_bias": False, "name": name, **changes}
    inputs = keras.Input((16, 16, 1))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(**how)(inputs))
    return keras.Model(inputs, keras.layers.Dense(units, name="logits")(x))


def test_a_model_of_plain_keras_gives_the_layers_that_fit_but_not_other_classes():
    model, source = built(), plain()
    before = to_numpy(model.get_layer("logits").kernel)
    found = put_in(model, source)
    assert found.told("a.keras") == (
        "Loaded from a.keras: layer_1; not loaded, and new: batch_norm_1, layer_2, batch_norm_2, "
        "layer_3, batch_norm_3, logits; not used: logits."
    )
    kernels = [to_numpy(one.get_layer("layer_1").kernel) for one in (model, source)]
    np.testing.assert_array_equal(*kernels)
    np.testing.assert_array_equal(to_numpy(model.get_layer("logits").kernel), before)


MISFITS = {
    "filters": ({"filters": 5}, "Conv2D with weights of 3x3x1x5"),
    "strides": ({"strides": 2}, "Conv2D with weights of 3x3x1x4"),
    "activation": ({"activation": "relu"}, "Conv2D with weights of 3x3x1x4"),
    "bias": ({"use_bias": True}, "Conv2D with weights of 3x3x1x4, 4"),
}


@pytest.mark.parametrize("kind", ["conv2d", "low_rank_locally_connected2d"])
@pytest.mark.parametrize("what", MISFITS)
def test_a_layer_that_computes_something_else_is_refused(what, kind):
    changes, words = MISFITS[what]
    model = Experiment(filters=4, layer_types=(kind,)).build()
    with pytest.raises(RunError, match=f"where layer_1 is {words}, and the network's is "):
        warm_start.match(model, plain(**changes), "a.keras")


def test_a_file_in_which_nothing_fits_is_refused():
    sentence = "Received: weights=a.keras, with other, logits, for layer_1, batch_norm_1, layer_2,"
    with pytest.raises(RunError, match=sentence):
        warm_start.match(built(), plain(name="other"), "a.keras")


def normalized_model():
    inputs = keras.Input((9, 8, 2), name="image")
    x = layers.LowRankLocallyConnected2D(4, 3, spatial_rank=3, name="low_rank")(inputs)
    x = keras.layers.BatchNormalization(momentum=0.5, name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Dropout(0.3, seed=1)(x))
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))


def trained(folder, recipe, stop_after=()):
    """A model whose first layers are frozen for two epochs of four, stopped and continued."""
    stream = batches_of(*examples(np.random.default_rng(7)))
    for stop in (*stop_after, None):
        keras.utils.set_random_seed(3)
        model = normalized_model()
        frozen = Frozen([model.get_layer("low_rank"), model.get_layer("norm")], epochs=2)
        keep = recovery.Recovery(folder, 3, every_steps=1, keep=12)
        if stop is None:
            session.train(model, recipe, stream, stream(9), keep, frozen=frozen)
            return model
        taken = keep.on_train_batch_end

        def ask(batch, logs=None, keep=keep, taken=taken, stop=stop):
            if keep.step + 1 == stop:
                os.kill(os.getpid(), signal.SIGTERM)
            taken(batch, logs)

        keep.on_train_batch_end = ask
        with pytest.raises(endings.StoppedError):
            session.train(model, recipe, stream, stream(9), keep, frozen=frozen)
    return None


def states(folder, model):
    """The weights of a model after each of its 12 steps, by their paths."""
    for step in range(1, 13):
        arrays, _ = checkpoints.read(folder / "checkpoints" / f"step_{step:09d}.npz")
        yield step, dict(zip((one.path for one in model.variables), arrays, strict=False))


PLAIN = dataclasses.replace(RECIPE, warmup_epochs=0)
RECIPES = {
    "adam": PLAIN,
    "sgd": dataclasses.replace(PLAIN, optimizer="sgd"),
    "adamw": dataclasses.replace(PLAIN, optimizer="adamw", weight_decay=0.1),
    "everything": dataclasses.replace(EVERYTHING, gradient_accumulation_steps=2, warmup_epochs=0),
}


# "everything" has what the others have; what keeps the most state is stopped where it changes.
@pytest.mark.parametrize(
    ("name", "stops"),
    [
        ("everything", ()),
        *(pytest.param(name, (2, 6, 8), marks=pytest.mark.slow) for name in RECIPES),
    ],
)
def test_frozen_layers_do_not_move_by_a_bit_and_learn_afterwards(name, stops, tmp_path):
    model = trained(tmp_path / "whole", RECIPES[name])
    keras.utils.set_random_seed(3)
    first = {one.path: to_numpy(one) for one in normalized_model().variables}
    for step, state in states(tmp_path / "whole", model):
        for path, value in state.items():
            if path.startswith(("low_rank/", "norm/")):
                same = np.array_equal(value, first[path])
                assert same if step <= 6 else (not same or step < 8), (path, step)
            elif path.startswith("logits/") and step > 1:
                assert not np.array_equal(value, first[path]), (path, step)
    if stops:
        parts = trained(tmp_path / "parts", RECIPES[name], stop_after=stops)
        assert_same_variables(model, parts)


@pytest.mark.slow
def test_adams_steps_after_the_frozen_epochs_are_no_larger_than_its_rate(tmp_path):
    """Its moments have followed the gradients; from zero they would be six times as large."""
    recipe = dataclasses.replace(PLAIN, schedule="constant")
    model = trained(tmp_path, recipe)
    kernels = [state["low_rank/kernel_bases"] for _, state in states(tmp_path, model)]
    steps = [np.abs(after - before).max() for before, after in itertools.pairwise(kernels)]
    assert 0 < max(steps[5:]) < 2 * recipe.peak_learning_rate
    assert max(steps[:5]) == 0


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The folder of a run of convolutions, on three classes."""
    folder = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    names = ("x_train", "x_test")
    data = {name: rng.integers(0, 256, (60, 16, 16, 1), "uint8") for name in names}
    data |= {name: np.arange(60) % 3 for name in ("y_train", "y_test")}
    np.savez(folder / "data.npz", **data)
    flags = ("--dataset=npz", f"--data_dir={folder / 'data.npz'}", "--batch_size=20", "--epochs=1")
    finish(folder / "run", CONVOLUTIONS, *FLAGS[:1], *FLAGS[3:], *flags)
    return folder / "run"


@pytest.mark.slow
def test_a_run_killed_before_within_and_after_the_frozen_epochs_ends_as_if_it_had_not_been(
    source, tmp_path
):
    flags = (*FLAGS, "--epochs=4", "--freeze_epochs=2", "--checkpoint_steps=3")
    flags += ("--keep_checkpoints=99", f"--weights={tmp_path / 'source'}")
    shutil.copytree(source, tmp_path / "source")
    output = finish(tmp_path / "whole", *flags)
    assert (
        f"Loaded from {tmp_path / 'source'}: layer_1, batch_norm_1, layer_2, batch_norm_2, "
        "layer_3, batch_norm_3; convolutions that became low-rank layers: layer_3; not loaded, and "
        "new: logits; not used: logits.\n"
    ) in output
    assert "Loaded from" in killed_while_writing(1, tmp_path / "run", *flags)
    assert "Loaded from" in killed_while_writing(2, tmp_path / "run", *flags)
    shutil.rmtree(tmp_path / "source")
    output = killed_while_writing(4, tmp_path / "run", *flags)
    assert "Continuing after step 3 of epoch 1 of 4." in output
    output = finish(tmp_path / "run", *flags)
    assert "Continuing after epoch 2 of 4." in output
    assert "Loaded from" not in output
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    model = built("low_rank_locally_connected2d")
    trained = keras.models.load_model(source / "model.keras", compile=False)
    arrays, _ = checkpoints.read(tmp_path / "run" / "checkpoints" / "step_000000008.npz")
    state = dict(zip((one.path for one in model.variables), arrays, strict=False))
    for layer in ("layer_1", "batch_norm_1", "layer_2", "batch_norm_3"):
        for weight in trained.get_layer(layer).weights:
            np.testing.assert_array_equal(state[weight.path], to_numpy(weight))


@pytest.mark.slow
def test_frozen_epochs_on_two_devices_of_jax_end_as_on_one(source, tmp_path):
    flags = (*FLAGS, "--epochs=3", "--freeze_epochs=2", f"--weights={source}")
    runs = {"one": ("--strategy=one_device",), "two": ("--virtual_devices=2",)}
    outputs = {
        name: finish(tmp_path / name, *flags, *own, "--keep_checkpoints=9", KERAS_BACKEND="jax")
        for name, own in runs.items()
    }
    assert "2 replicas." in outputs["two"]
    assert "2 replicas." not in outputs["one"]
    first = keras.models.load_model(source / "model.keras", compile=False).get_layer("layer_1")
    kernels = []
    for epoch in (1, 2, 3):
        both = [weights_after(tmp_path / name, epoch) for name in runs]
        for ours, theirs in zip(*both, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
        kernels.append(both[1][0])
    assert kernels[0].shape == first.kernel.shape
    np.testing.assert_array_equal(kernels[0], to_numpy(first.kernel))
    np.testing.assert_array_equal(kernels[1], kernels[0])
    assert np.abs(kernels[2] - kernels[1]).max() > 1e-3


def weights_after(folder, epoch):
    """The network's weights after an epoch of four steps, the first layer's kernel first."""
    path = folder / "checkpoints" / f"step_{4 * epoch:09d}.npz"
    return checkpoints.read(path)[0][: len(built("low_rank_locally_connected2d").variables)]


@pytest.mark.once
def test_another_file_under_the_same_name_is_noticed(source, tmp_path):
    shutil.copytree(source, tmp_path / "source")
    path = tmp_path / "source" / "model.keras"
    flags = (*FLAGS, "--epochs=1", f"--weights={path}")
    finish(tmp_path / "run", *flags)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["weights_sha256"]
    path.write_bytes(path.read_bytes() + b"x")
    done = script(f"--model_dir={tmp_path / 'run'}", *flags)
    assert done.returncode == 2
    assert "where the digest of the file of --weights is " in done.stderr
    path.unlink()
    assert "Result: test accuracy" in finish(tmp_path / "run", *flags)


REFUSED = {
    "--weights=absent.keras": "which does not exist.",
    "--weights=empty": "which has no model.keras.",
    "--weights=words.keras": "which is not such a file.",
    "--weights=zipped.keras": "which is not such a file.",
}


@pytest.mark.once
@pytest.mark.parametrize("flags", REFUSED)
def test_weights_that_are_not_there_are_refused_before_a_framework_loads(flags, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "words.keras").write_text("words")
    np.savez(tmp_path / "zipped.npz", zeros=np.zeros(3))
    (tmp_path / "zipped.npz").rename(tmp_path / "zipped.keras")
    given = (*flags.split(), f"--model_dir={tmp_path / 'run'}")
    done = commands.python(commands.SCRIPT, *given, cwd=tmp_path, KERAS_BACKEND="absent")
    sentence = "run_experiment.py: --weights must be a .keras file, or the folder of a run with its"
    assert done.stderr.startswith(sentence)
    assert done.stderr.endswith(f"{REFUSED[flags]}\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.once
@pytest.mark.parametrize("dry", [(), ("--dry_run",)])
def test_a_run_and_a_dry_run_refuse_what_does_not_fit(dry, source, tmp_path):
    given = (*FLAGS, f"--weights={source}", f"--model_dir={tmp_path / 'run'}", *dry)
    done = script(*given, "--filters=5")
    assert done.returncode == 2
    assert "where layer_1 is Conv2D with weights of 3x3x1x4, and the network's is" in done.stderr
    own = ("--dataset=npz", f"--data_dir={source.parent / 'data.npz'}", "--freeze_epochs=1")
    done = script(*given, *own, "--train_examples=50", "--batch_size=20")
    assert done.returncode == 2
    assert done.stderr == (
        "run_experiment.py: --freeze_epochs needs a layer that is not loaded, as only such a layer "
        f"learns in them. Received: --freeze_epochs=1 with all layers loaded from {source}. Leave "
        "it out.\n"
    )


@pytest.mark.once
def test_a_damaged_file_is_refused_in_a_sentence(source, tmp_path):
    content = bytearray((source / "model.keras").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "damaged.keras").write_bytes(content)
    with pytest.raises(RunError, match=r"damaged\.keras: "):
        warm_start.read(str(tmp_path / "damaged.keras"))


@pytest.mark.once
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"freeze_epochs": 1}, "needs --weights"),
        ({"freeze_epochs": 31, "weights": "a.keras"}, "must be at most --epochs=30"),
        ({"freeze_epochs": -1, "weights": "a.keras"}, "must be at least 0"),
    ],
)
def test_frozen_epochs_that_make_no_sense_are_refused(given, words):
    sentence = f"--freeze_epochs {words}. Received: --freeze_epochs={given['freeze_epochs']}."
    with pytest.raises(ValueError, match=sentence):
        Experiment(**given)
