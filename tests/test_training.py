"""Schedule, records, recovery, export and pictures."""

import json

import keras
import numpy as np
import pytest
from backends import randomize, to_numpy

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.export import export_model
from low_rank_local_connectivity.plots import combining_weight_maps
from low_rank_local_connectivity.training import Plan, records, recovery, session
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
    return lambda start: dataset.repeat(4 - start)


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
    plan = Plan(4, 3, 0.1, 0, schedule="constant", optimizer="sgd", momentum=0.9)
    variable = keras.Variable(np.array([1.0, 2.0], "float32"))
    optimizer = session.make_optimizer(plan)
    value, velocity = np.array([1.0, 2.0]), np.zeros(2)
    for gradient in np.array([[0.5, -1.0], [0.25, 2.0]]):
        optimizer.apply([keras.ops.convert_to_tensor(gradient.astype("float32"))], [variable])
        velocity = 0.9 * velocity - 0.1 * gradient
        value = value + 0.9 * velocity - 0.1 * gradient
    np.testing.assert_allclose(to_numpy(variable), value, rtol=1e-5)


def test_validation_is_spaced_out_but_never_misses_the_end(tmp_path, rng):
    plan = Plan(4, 3, 0.01, 1, validation_every=3, label_smoothing=0.1, optimizer="sgd")
    assert plan.validated_epochs() == [3, 4]
    stream = batches_of(*examples(rng))
    done = session.train(small_model(), plan, stream, stream(3), tmp_path)
    assert ["val_loss" in row for row in done.rows] == [False, False, True, True]
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert len({line.count(",") for line in rows}) == 1
    assert "val_accuracy" in rows[0]


def test_a_saved_model_loads_without_what_trained_it(tmp_path, rng):
    plan = Plan(1, 3, 0.01, 0, schedule="steps", label_smoothing=0.1, optimizer="sgd")
    stream = batches_of(*examples(rng))
    model = small_model()
    session.train(model, plan, stream, stream(3), tmp_path / "run")
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


def test_recovery_restores_weights_optimizer_and_seeds(tmp_path, rng):
    plan = Plan(epochs=4, steps_per_epoch=3, peak_learning_rate=0.01, warmup_epochs=1)
    images, labels = examples(rng)
    stream = batches_of(images, labels)

    def run(folder, stop_after=None):
        keras.utils.set_random_seed(3)
        model = small_model()
        if stop_after is not None:
            keep = recovery.Recovery.on_epoch_end

            def stop(self, epoch, logs=None):
                keep(self, epoch, logs)
                if epoch + 1 == stop_after:
                    raise KeyboardInterrupt

            recovery.Recovery.on_epoch_end = stop
            try:
                with pytest.raises(KeyboardInterrupt):
                    session.train(model, plan, stream, stream(3), folder)
            finally:
                recovery.Recovery.on_epoch_end = keep
            return run(folder)
        done = session.train(model, plan, stream, stream(3), folder)
        return model, done

    whole, whole_recovery = run(tmp_path / "whole")
    parts, parts_recovery = run(tmp_path / "parts", stop_after=2)
    for one, other in zip(whole.variables, parts.variables, strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other))
    assert whole_recovery.rows == parts_recovery.rows
    assert parts_recovery.seconds > 0


def test_recovery_refuses_the_state_of_another_model(tmp_path, rng):
    plan = Plan(epochs=4, steps_per_epoch=3, peak_learning_rate=0.01, warmup_epochs=1)
    stream = batches_of(*examples(rng))
    session.train(small_model(), plan, stream, stream(3), tmp_path)
    other = small_model(spatial_rank=2)
    with pytest.raises(ValueError, match="must be continued on the backend and with the model"):
        session.train(other, plan, stream, stream(3), tmp_path)


def test_a_loss_that_is_not_a_number_ends_the_run_and_is_not_kept(tmp_path, rng):
    plan = Plan(epochs=4, steps_per_epoch=3, peak_learning_rate=0.01, warmup_epochs=1)
    images, labels = examples(rng)
    images[:] = np.nan
    stream = batches_of(images, labels)
    with pytest.raises(
        RuntimeError, match=r"The loss must stay finite\. Received: NaN in epoch 1\."
    ):
        session.train(small_model(), plan, stream, stream(3), tmp_path)
    assert not (tmp_path / "checkpoints" / "state.npz").exists()


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras exports it not from PyTorch")
@pytest.mark.parametrize("input_dependent", [False, pytest.param(True, marks=pytest.mark.once)])
def test_an_exported_model_computes_the_same_for_any_batch_size(input_dependent, tmp_path, rng):
    import tensorflow as tf

    model = small_model(input_dependent=input_dependent)
    randomize(model, rng)
    manifest = export_model(model, tmp_path / "served")
    assert manifest["tf_saved_model"]["difference"] < 1e-5
    loaded = tf.saved_model.load(manifest["tf_saved_model"]["path"])
    for batch in (1, 2, 7, 64):
        images = rng.normal(size=(batch, 9, 8, 2)).astype("float32")
        (served,) = loaded.signatures["serving_default"](image=tf.constant(images)).values()
        expected = to_numpy(model(images, training=False))
        np.testing.assert_allclose(served.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="stored by TensorFlow's way")
def test_an_export_stores_every_weight_once(tmp_path):
    model = small_model()
    export_model(model, tmp_path)
    stored = (tmp_path / "1" / "variables" / "variables.data-00000-of-00001").stat().st_size
    assert stored < 1.5 * 4 * model.count_params() + 2000


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras exports it not from PyTorch")
def test_an_export_that_differs_is_not_kept(tmp_path):
    with pytest.raises(ValueError, match="must compute what the model computes"):
        export_model(small_model(), tmp_path / "served", tolerance=-1.0)
    assert list((tmp_path / "served").iterdir()) == []


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras exports it not from PyTorch")
def test_an_export_replaces_nothing_and_knows_its_formats(tmp_path):
    (tmp_path / "1").mkdir()
    with pytest.raises(ValueError, match="must not replace another one"):
        export_model(small_model(), tmp_path)
    with pytest.raises(ValueError, match="`formats` must be among 'tf_saved_model'"):
        export_model(small_model(), tmp_path, ["caffe"])


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
@pytest.mark.parametrize("rank", [2, 11])
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
