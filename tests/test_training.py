"""Schedule, records, recovery and pictures."""

import dataclasses
import errno
import itertools
import json
import os
import re
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from backends import randomize, to_numpy

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.plots import combining_weight_maps
from low_rank_local_connectivity.training import (
    Recipe,
    checkpoints,
    endings,
    records,
    recovery,
    session,
)
from low_rank_local_connectivity.training.schedule import warmup_then


def small_model(**changes):
    arguments = {"filters": 4, "kernel_size": 3, "spatial_rank": 3, **changes}
    inputs = keras.Input((9, 8, 2), name="image")
    x = layers.LowRankLocallyConnected2D(**arguments, name="low_rank")(inputs)
    x = keras.layers.Dropout(0.3, seed=1)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def examples(rng, count=24):
    labels = np.arange(count) % 3
    images = rng.normal(size=(count, 9, 8, 2)) + labels[:, None, None, None]
    return images.astype("float32"), labels


def batches_of(images, labels):
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8, drop_remainder=True)
    return lambda start: dataset.repeat(4).skip(start)


@pytest.mark.once
def test_the_schedule_rises_linearly_and_falls_along_a_cosine():
    schedule = warmup_then("cosine", 0.01, total_steps=110, warmup_steps=10)
    found = [float(schedule(step)) for step in range(111)]
    rise = [0.01 * step / 10 for step in range(10)]
    fall = [0.005 * (1 + np.cos(np.pi * step / 100)) for step in range(101)]
    np.testing.assert_allclose(found, rise + fall, atol=1e-8)
    assert float(warmup_then("cosine", 0.01, 10, 0)(0)) == pytest.approx(0.01)


@pytest.mark.once
@pytest.mark.parametrize("warmup", [0, 10])
def test_the_schedule_falls_in_steps_or_not_at_all(warmup):
    steps = warmup_then("steps", 0.1, total_steps=100 + warmup, warmup_steps=warmup)
    constant = warmup_then("constant", 0.1, total_steps=100 + warmup, warmup_steps=warmup)
    for step in range(100 + warmup):
        rise = min(1.0, step / warmup) if warmup else 1.0
        falls = sum(step - warmup >= fall for fall in (33, 67, 89))
        assert float(steps(step)) == pytest.approx(0.1 * rise / 10**falls)
        assert float(constant(step)) == pytest.approx(0.1 * rise)
    again = type(steps).from_config(steps.get_config())
    assert float(again(50 + warmup)) == pytest.approx(0.01)


def test_a_warm_up_that_never_ends_is_refused():
    with pytest.raises(ValueError, match="Received: warmup_steps=10 with total_steps=10"):
        warmup_then("cosine", 0.01, 10, 10)
    with pytest.raises(ValueError, match="must be 'cosine', 'steps' or 'constant'"):
        warmup_then("linear", 0.01, 10, 1)


def test_label_smoothing_spreads_the_target(rng):
    logits = rng.normal(size=(5, 4)).astype("float32")
    labels = np.array([0, 3, 1, 1, 2])
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for smoothing in (0.0, 0.1):
        targets = np.eye(4)[labels] * (1 - smoothing) + smoothing / 4
        expected = -(targets * log_probabilities).sum(-1).mean()
        loss = session.smoothed_crossentropy(smoothing)
        found = float(np.mean(to_numpy(loss(labels, keras.ops.convert_to_tensor(logits)))))
        assert found == pytest.approx(expected, rel=1e-5)


def test_sgd_moves_by_nesterovs_momentum():
    recipe = Recipe(4, 3, 0.1, 0, schedule="constant", optimizer="sgd", momentum=0.9)
    variable = keras.Variable(np.array([1.0, 2.0], "float32"))
    optimizer = session.make_optimizer(recipe)
    value, velocity = np.array([1.0, 2.0]), np.zeros(2)
    for gradient in np.array([[0.5, -1.0], [0.25, 2.0]]):
        optimizer.apply([keras.ops.convert_to_tensor(gradient.astype("float32"))], [variable])
        velocity = 0.9 * velocity - 0.1 * gradient
        value = value + 0.9 * velocity - 0.1 * gradient
    np.testing.assert_allclose(to_numpy(variable), value, rtol=1e-5)


def test_validation_is_spaced_out_but_never_misses_the_end(tmp_path, rng):
    recipe = Recipe(4, 3, 0.01, 1, validation_every=3, label_smoothing=0.1, optimizer="sgd")
    assert recipe.validated_epochs() == [3, 4]
    stream = batches_of(*examples(rng))
    done = session.train(small_model(), recipe, stream, stream(9), recovery.Recovery(tmp_path, 3))
    assert ["val_loss" in row for row in done.rows] == [False, False, True, True]
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert len({line.count(",") for line in rows}) == 1
    assert "val_accuracy" in rows[0]


def test_a_saved_model_loads_without_what_trained_it(tmp_path, rng):
    recipe = Recipe(1, 3, 0.01, 0, schedule="steps", label_smoothing=0.1, optimizer="sgd")
    stream = batches_of(*examples(rng))
    model = small_model()
    session.train(model, recipe, stream, stream(9), recovery.Recovery(tmp_path / "run", 3))
    session.save(model, tmp_path / "model.keras")
    images = rng.normal(size=(3, 9, 8, 2)).astype("float32")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(to_numpy(loaded(images)), to_numpy(model(images)), rtol=1e-5)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "result.json"
    records.write_json(path, {"accuracy": 0.5})
    with pytest.raises(TypeError):
        records.write_json(path, {"accuracy": object()})
    assert json.loads(path.read_text()) == {"accuracy": 0.5}
    assert list(tmp_path.iterdir()) == [path]


RECIPE = Recipe(epochs=4, steps_per_epoch=3, peak_learning_rate=0.01, warmup_epochs=1)


def trained(folder, *stops, recipe=RECIPE, **saving):
    """A model trained for 4 epochs of 3 steps, stopped by signals after steps and continued."""
    stream = batches_of(*examples(np.random.default_rng(7)))
    keras.utils.set_random_seed(3)
    model = small_model()
    keep = recovery.Recovery(folder, 3, **saving)
    if not stops:
        return model, session.train(model, recipe, stream, stream(9), keep)
    stop_after, *later = stops
    taken = keep.on_train_batch_end

    def ask(batch, logs=None):
        if keep.step + 1 == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        taken(batch, logs)

    keep.on_train_batch_end = ask
    sentence = f"Stopped by SIGTERM after step {stop_after}, which is saved. The same command goes"
    with pytest.raises(endings.StoppedError, match=sentence):
        session.train(model, recipe, stream, stream(9), keep)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    return trained(folder, *later, recipe=recipe, **saving)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that came to its end: its folder, model and recovery."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, *trained(folder)


@pytest.fixture
def finished(whole, tmp_path):
    """The folder of a run that came to its end."""
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


def restored(folder, **changes):
    """A model in the state that a run has saved, and what the run does to continue."""
    model = small_model(**changes)
    recipe = Recipe(epochs=4, steps_per_epoch=3, peak_learning_rate=0.01, warmup_epochs=1)
    session.compile_model(model, recipe)
    keep = recovery.Recovery(folder, 3)
    keep.restore(model)
    return model, keep


def assert_same_variables(whole, parts):
    """Weights, seeds, and all that the optimizer keeps, bit for bit."""
    for one, other in zip(
        [*whole.variables, *whole.optimizer.variables],
        [*parts.variables, *parts.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other))


# Epochs have three steps: within the first, at its end, within the last, at its end.
@pytest.mark.parametrize(
    "stops",
    [
        (1, 3, 11, 12),  # within and at the end of an epoch, and of the last
        *(pytest.param((step,), marks=pytest.mark.slow) for step in (1, 3, 5, 11, 12)),
    ],
    ids=str,
)
def test_a_run_stopped_after_any_step_ends_as_if_it_had_not_been(stops, whole, tmp_path):
    """Weights, moments, seeds and the metrics of every epoch, bit for bit."""
    folder, whole, whole_recovery = whole
    parts, parts_recovery = trained(tmp_path, *stops)
    assert_same_variables(whole, parts)
    assert whole_recovery.rows == parts_recovery.rows
    assert whole_recovery.best == parts_recovery.best
    texts = [(path / "metrics.csv").read_text() for path in (folder, tmp_path)]
    assert texts[0] == texts[1]


AVERAGED = dataclasses.replace(RECIPE, use_ema=True, ema_momentum=0.7)
EVERYTHING = dataclasses.replace(
    AVERAGED,
    optimizer="lion",
    weight_decay=0.1,
    global_clipnorm=0.1,
    gradient_accumulation_steps=5,
)


# A command that is killed in test_experiment.py keeps averages and sums, too.
@pytest.mark.slow
def test_averages_and_sums_of_gradients_are_continued_bit_for_bit(tmp_path):
    whole, whole_recovery = trained(tmp_path / "whole", recipe=EVERYTHING)
    parts, parts_recovery = trained(tmp_path / "parts", 4, 12, recipe=EVERYTHING)
    assert_same_variables(whole, parts)
    assert whole_recovery.rows == parts_recovery.rows


def saved_weights(folder, step, model):
    arrays, _ = checkpoints.read(folder / "checkpoints" / f"step_{step:09d}.npz")
    return arrays[: len(model.variables)]


def test_averages_are_evaluated_and_left_while_training_goes_on_from_the_weights(whole, tmp_path):
    folder, plain, plain_recovery = whole
    model, done = trained(tmp_path, recipe=AVERAGED, every_steps=1, keep=12)
    average = None
    for step in range(1, 13):
        weights = saved_weights(tmp_path, step, model)
        average = (
            weights
            if average is None
            else [0.7 * old + 0.3 * new for old, new in zip(average, weights, strict=True)]
        )
    for variable, expected in zip(model.variables, average, strict=True):
        if variable.trainable:
            np.testing.assert_allclose(to_numpy(variable), expected, rtol=1e-5, atol=1e-6)
    for one, other in zip(saved_weights(folder, 12, plain), weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [row["loss"] for row in done.rows] == [row["loss"] for row in plain_recovery.rows]
    stream = batches_of(*examples(np.random.default_rng(7)))
    scored = model.evaluate(stream(9), verbose=0, return_dict=True)
    assert done.rows[-1]["val_loss"] == pytest.approx(scored["loss"], rel=1e-6)
    assert done.rows[-1]["val_loss"] != pytest.approx(plain_recovery.rows[-1]["val_loss"], rel=1e-3)


KERAS_S_OWN = {
    "adamw": (
        {"optimizer": "adamw", "weight_decay": 0.1},
        lambda rate: keras.optimizers.AdamW(rate, weight_decay=0.1),
    ),
    "lion": (
        {"optimizer": "lion", "weight_decay": 0.1, "clipnorm": 0.01},
        lambda rate: keras.optimizers.Lion(rate, weight_decay=0.1, clipnorm=0.01),
    ),
    "limited": (
        {"optimizer": "sgd", "clipvalue": 0.01, "gradient_accumulation_steps": 2},
        lambda rate: keras.optimizers.SGD(
            rate, 0.9, nesterov=True, clipvalue=0.01, gradient_accumulation_steps=2
        ),
    ),
    "averaged": (
        {"global_clipnorm": 0.02, "use_ema": True, "ema_momentum": 0.7},
        lambda rate: keras.optimizers.Adam(
            rate, global_clipnorm=0.02, use_ema=True, ema_momentum=0.7
        ),
    ),
}


def in_precisions():
    """Each with and without a scaled loss, in the quick suite every other one."""
    for index, (name, precision) in enumerate(
        itertools.product(KERAS_S_OWN, ("float32", "mixed_float16"))
    ):
        marks = (pytest.mark.slow,) if index % 4 in (1, 2) else ()
        yield pytest.param(name, precision, marks=marks)


@pytest.mark.parametrize(("name", "precision"), list(in_precisions()))
def test_optimizers_are_keras_s_own(name, precision, tmp_path, request):
    # The policy of the model, not of its layers, decides whether its loss is scaled.
    request.addfinalizer(lambda: keras.config.set_dtype_policy("float32"))
    keras.config.set_dtype_policy(precision)
    options, make = KERAS_S_OWN[name]
    images, labels = examples(np.random.default_rng(7))

    def model():
        keras.utils.set_random_seed(3)
        inputs = keras.Input((9, 8, 2))
        x = keras.layers.Dense(4)(keras.layers.Flatten()(inputs))
        return keras.Model(inputs, keras.layers.Dense(3, dtype="float32")(x))

    ours, theirs, stream = model(), model(), batches_of(images, labels)
    recipe = dataclasses.replace(RECIPE, epochs=2, warmup_epochs=0, **options)
    session.train(ours, recipe, stream, stream(9), recovery.Recovery(tmp_path, 3))
    optimizer = make(warmup_then("cosine", 0.01, 6, 0))
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    if precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    theirs.compile(optimizer, loss, jit_compile=session.choose_jit_compile(theirs))
    theirs.fit(stream(0), epochs=2, steps_per_epoch=3, shuffle=False, verbose=0)
    for one, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(to_numpy(one), to_numpy(other), rtol=1e-6, atol=1e-7)


@pytest.mark.once
@pytest.mark.parametrize("kind", ["low_rank_locally_connected2d", "deformable_conv2d"])
def test_decoupled_decay_is_of_what_penalties_are_of(kind):
    from low_rank_local_connectivity.experiments.experiment import Experiment

    def built(**changes):
        return Experiment(layer_types=(kind,), filters=4, weight_decay=0.1, **changes).build()

    penalised, decoupled = built(optimizer="sgd"), built(optimizer="adamw")
    assert not decoupled.losses
    decayed = {id(weight) for weight in decoupled.trainable_variables}
    decayed -= {id(weight) for weight in session.not_decayed(decoupled)}
    for one, other in zip(
        penalised.trainable_variables, decoupled.trainable_variables, strict=True
    ):
        assert (one.regularizer is not None) == (id(other) in decayed), one.path


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_the_last_few_checkpoints_and_the_best_are_kept(tmp_path):
    _, done = trained(tmp_path, every_steps=2, keep=3)
    steps = [f"step_{step:09d}.npz" for step in (9, 10, 12)]
    assert names(tmp_path) == ["best.npz", *steps]
    _, about = checkpoints.read(tmp_path / "checkpoints" / "best.npz")
    accuracies = [row["val_accuracy"] for row in done.rows]
    assert about["best"] == max(accuracies)
    assert about["step"] == 3 * (accuracies.index(max(accuracies)) + 1)


def test_the_best_checkpoint_stays_the_best_after_a_resume(finished):
    _, keep = restored(finished)
    before = (finished / "checkpoints" / "best.npz").read_bytes()
    keep.on_epoch_end(4, {"loss": 1.0, "val_accuracy": keep.best - 0.1})
    assert (finished / "checkpoints" / "best.npz").read_bytes() == before


def test_minutes_pass_between_checkpoints(tmp_path, monkeypatch):
    clock = iter(range(0, 100_000, 30))
    # Only what recovery asks: others read the clock too.
    monkeypatch.setattr(recovery, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    saved = []
    save = checkpoints.Checkpoints.save

    def note(self, step, *arguments):
        saved.append(step)
        return save(self, step, *arguments)

    monkeypatch.setattr(checkpoints.Checkpoints, "save", note)
    trained(tmp_path, every_minutes=0.9)
    assert saved == [2, 3, 5, 6, 8, 9, 11, 12]


def cut(whole):
    return whole[: len(whole) // 2]


def flip(whole):
    middle = len(whole) // 2
    return whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]


# What a full disk, a bad one and a hand do to a file, and within a file that stays a whole one.
BYTES = {"truncated": cut, "empty": lambda _: b"", "flipped": flip}
VALUES = {
    "nan": lambda array: np.full_like(array, np.nan),
    "other values": lambda array: array + 1,
    "other shape": lambda array: array.ravel(),
    "pickled": lambda _: np.array([object()], dtype=object),
}


def damaged(path, how):
    if how in BYTES:
        path.write_bytes(BYTES[how](path.read_bytes()))
        return
    with np.load(path) as file:
        arrays = dict(file)
    array = arrays.pop("array_0")
    if how in VALUES:
        arrays["array_0"] = VALUES[how](array)
    np.savez(path, **arrays)


HARMS = (
    "truncated",
    "empty",
    "flipped",
    "nan",
    "other values",
    "other shape",
    "pickled",
    "missing",
)


@pytest.mark.once
@pytest.mark.parametrize("how", HARMS)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning_that_names_both(how, finished):
    older, newer = (finished / "checkpoints" / f"step_{step:09d}.npz" for step in (9, 12))
    damaged(newer, how)
    continuing = re.escape(f"Continuing from {older} instead.")
    with pytest.warns(UserWarning, match=continuing) as told:
        _, keep = restored(finished)
    assert str(newer) in str(told[0].message)
    assert keep.step == 9
    damaged(older, how)
    with pytest.raises(ValueError, match="must have a checkpoint that can be read") as error:
        restored(finished)
    assert str(older) in str(error.value)
    assert str(newer) in str(error.value)


@pytest.mark.once
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(whole, finished):
    newest = finished / "checkpoints" / "step_000000012.npz"
    damaged(newest, "truncated")
    with pytest.warns(UserWarning, match="instead"):
        _, keep = trained(finished)
    assert keep.rows == whole[2].rows


@pytest.mark.once
def test_metrics_that_a_kill_after_the_last_checkpoint_left_out_are_written(whole, finished):
    path = finished / "metrics.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    trained(finished)
    assert path.read_text() == (whole[0] / "metrics.csv").read_text()


@pytest.mark.once
def test_a_run_whose_checkpoints_are_gone_does_not_start_over(finished):
    shutil.rmtree(finished / "checkpoints")
    with pytest.raises(ValueError, match="A run that was begun must have a checkpoint"):
        trained(finished)


@pytest.mark.once
def test_a_full_disk_is_told_and_leaves_earlier_checkpoints_whole(tmp_path, monkeypatch):
    save = np.savez
    count = itertools.count(1)

    def fill(path, **arrays):
        if next(count) > 4:
            Path(path).write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(path, **arrays)

    monkeypatch.setattr(np, "savez", fill)
    with pytest.raises(ValueError, match=r"Received: No space left on device\. .* is intact; make"):
        trained(tmp_path, every_steps=1)
    monkeypatch.undo()
    for name in names(tmp_path):
        checkpoints.read(tmp_path / "checkpoints" / name)
    assert not [name for name in names(tmp_path) if name.startswith(".")]


@pytest.mark.once
def test_the_best_checkpoint_is_never_behind_the_newest(tmp_path, monkeypatch):
    kept = checkpoints.Checkpoints(tmp_path)
    kept.save(1, [np.zeros(2)], {"step": 1}, best=True)
    replace = os.replace

    def killed(source, target):
        if Path(target).name != checkpoints.BEST:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        kept.save(2, [np.ones(2)], {"step": 2}, best=True)
    assert checkpoints.read(tmp_path / checkpoints.BEST)[1]["step"] == 2
    assert [path.name for path in kept.paths()] == ["step_000000001.npz"]


@pytest.mark.once
def test_errors_of_a_full_disk_are_said_in_a_sentence():
    import tensorflow as tf

    ours = OSError(errno.ENOSPC, "No space left on device")
    theirs = tf.errors.ResourceExhaustedError(None, None, "x.data; No space left on device")
    for error in (ours, theirs):
        assert endings.full_disk(error).startswith("The disk of `model_dir` must have room. Rec")
    assert endings.full_disk(OSError(errno.EACCES, "Permission denied")) is None


def test_recovery_refuses_the_state_of_another_model(finished):
    with pytest.raises(ValueError, match="belongs to another model"):
        restored(finished, spatial_rank=2)


@pytest.mark.once
def test_recovery_refuses_the_state_of_another_backend(finished, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="KERAS_BACKEND=jax for a run on tensorflow"):
        restored(finished)


def test_a_loss_that_is_not_a_number_ends_the_run_and_names_the_last_good_state(tmp_path, rng):
    recipe = Recipe(epochs=4, steps_per_epoch=3, peak_learning_rate=0.01, warmup_epochs=1)
    images, labels = examples(rng)
    good = batches_of(images, labels)
    bad = batches_of(images * np.nan, labels)

    def stream(start):
        return good(start).take(4).concatenate(bad(start))

    message = (
        r"Received: a loss of nan at step 5\. The last good checkpoint is .*step_000000003.npz"
    )
    with pytest.raises(ValueError, match=message):
        session.train(small_model(), recipe, stream, good(9), recovery.Recovery(tmp_path, 3))


def test_maps_of_fixed_weights_are_drawn_bank_by_bank(tmp_path, rng, monkeypatch):
    from matplotlib.axes import Axes

    shown = []
    draw = Axes.imshow

    def record(self, values, **kwargs):
        shown.append(np.array(values))
        return draw(self, values, **kwargs)

    monkeypatch.setattr(Axes, "imshow", record)
    model = small_model()
    randomize(model, rng)
    assert combining_weight_maps(model, tmp_path / "maps.png") == ["low_rank"]
    weights = to_numpy(model.get_layer("low_rank").combining_weights())
    np.testing.assert_array_equal(np.stack(shown, -1), weights)
    assert (tmp_path / "maps.png").stat().st_size > 1000


@pytest.mark.once
@pytest.mark.parametrize("rank", [2, pytest.param(11, marks=pytest.mark.slow)])
def test_maps_of_input_dependent_weights_stand_beside_their_examples(rank, tmp_path, rng):
    model = small_model(input_dependent=True, spatial_rank=rank, normalize_weights="norm")
    images = rng.normal(size=(6, 9, 8, 2)).astype("float32")
    with pytest.raises(ValueError, match="Give examples to draw them for"):
        combining_weight_maps(model, tmp_path / "maps.png")
    assert combining_weight_maps(model, tmp_path / "maps.png", images) == ["low_rank"]
    assert (tmp_path / "maps.png").stat().st_size > 1000


def test_a_model_without_combining_weights_leaves_no_picture(tmp_path):
    assert combining_weight_maps(small_model(spatial_rank=1), tmp_path / "maps.png") == []
    assert not list(tmp_path.iterdir())
