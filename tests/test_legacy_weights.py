"""Weights of Keras 2 go to the layers that they belong to, whatever was frozen when."""

import keras
import numpy as np
import pytest
from backends import call, to_numpy

from low_rank_local_connectivity import legacy

tf_keras = pytest.importorskip("tf_keras", reason="tf_keras is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
K2, K3 = tf_keras.layers, keras.layers
FORMATS = ("w.h5", "w.weights.h5", "checkpoint")


def randomized(model, rng):
    """Gives every weight of a model of Keras 2 a value of its own."""
    model.set_weights([rng.uniform(0.1, 1.0, one.shape) for one in model.get_weights()])
    return model


def assert_loaded(rebuilt, model, path, *inputs):
    model.save_weights(path)
    inputs = inputs[0] if len(inputs) == 1 else list(inputs)
    expected = model(inputs, training=False).numpy()
    given = [keras.ops.convert_to_tensor(one) for one in inputs] if type(inputs) is list else inputs
    found = legacy.load_weights(rebuilt, path)(given, training=False)
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-5, atol=1e-5)


def layers_alike(kind):
    """Two layers, of equal shapes, whose order in a file depends on which is frozen."""
    if kind == "dense":
        return lambda k, **names: k.Dense(4, **names)
    if kind == "normalized":
        return lambda k, **names: k.BatchNormalization(**names)
    if kind == "bidirectional":
        return lambda k, **names: k.Bidirectional(k.SimpleRNN(2, return_sequences=True), **names)
    return lambda k, **names: k.SeparableConv1D(4, 3, padding="same", **names)


def nested(module, make, frozen, names=("first", "second")):
    """A model within a model, with a layer in front of it and behind."""
    inner = module.Sequential(
        [module.Input((5, 4)), *(make(module.layers, **({"name": n} if n else {})) for n in names)],
        name="inner",
    )
    for number in frozen:
        inner.layers[number].trainable = False
    return module.Sequential([module.Input((5, 4)), inner, module.layers.Dense(3, name="head")])


def frozen_model(module, names=("first", "second", "third")):
    """A frozen model whose second layer is not, within a model, and in another frozen one."""
    inputs = module.Input((4,))
    x = inputs
    for name in names:
        x = module.layers.Dense(4, **({"name": name} if name else {}))(x)
    inner = module.Model(inputs, x, name="inner")
    hidden = module.Input((4,))
    outer = module.Model(hidden, module.layers.BatchNormalization(name="bn")(inner(hidden)))
    outer.trainable = False
    inner.layers[2].trainable = True
    first = module.Input((4,))
    return module.Model(first, module.layers.Dense(3, name="head")(outer(first)))


def flags(model):
    """What every layer with weights says of being trained, by name, at any depth."""
    layers = {layer.name: layer for layer in model._flatten_layers(include_self=False)}
    kept = ("inner", "first", "second", "third", "bn", "head")
    return {name: layers[name].trainable for name in kept}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", ["m.h5", "m.keras", "m"])
def test_a_frozen_model_s_layers_are_frozen_or_not_as_the_file_says(file, tmp_path, rng):
    model = randomized(frozen_model(tf_keras), rng)
    model.save(tmp_path / file)
    loaded = legacy.load_model(tmp_path / file)
    assert flags(loaded) == flags(model)
    assert flags(loaded)["second"]
    assert not flags(loaded)["first"]
    assert len(loaded.trainable_weights) == len(model.trainable_weights) == 2
    inputs = rng.normal(size=(3, 4)).astype("float32")
    np.testing.assert_allclose(
        to_numpy(loaded(inputs)), model(inputs, training=False).numpy(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.filterwarnings("ignore")
def test_weights_of_a_frozen_model_whose_layers_are_not_come_in_keras_2_s_order(tmp_path, rng):
    tf_keras.backend.clear_session()
    keras.backend.clear_session()
    model = randomized(frozen_model(tf_keras, (None, None, None)), rng)
    rebuilt = frozen_model(keras, (None, None, None))
    inputs = rng.normal(size=(3, 4)).astype("float32")
    assert_loaded(rebuilt, model, str(tmp_path / "w.h5"), inputs)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["dense", "normalized", "bidirectional", "separable"])
def test_layers_within_a_model_are_matched_by_name_whatever_is_frozen(kind, tmp_path, rng):
    make, inputs = layers_alike(kind), rng.normal(size=(2, 5, 4)).astype("float32")
    frozen = (((0,), ()), ((), (0,)), ((1,), (0,)), ((0, 1), (1,)))
    for saved, rebuilt in frozen if kind == "dense" else frozen[2:]:
        model = randomized(nested(tf_keras, make, saved), rng)
        for file in FORMATS if (kind, saved) == ("dense", (1,)) else ("w.h5",):
            assert_loaded(nested(keras, make, rebuilt), model, str(tmp_path / file), inputs)


@pytest.mark.filterwarnings("ignore")
def test_a_saved_model_frozen_in_part_is_loaded_in_every_format(tmp_path, rng):
    inputs = rng.normal(size=(2, 5, 4)).astype("float32")
    model = randomized(nested(tf_keras, layers_alike("normalized"), (0,)), rng)
    for name in ("m.h5", "m.keras", "m"):
        model.save(tmp_path / name)
        loaded = legacy.load_model(tmp_path / name)
        expected = model(inputs, training=False).numpy()
        np.testing.assert_allclose(call(loaded, inputs), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_names_that_differ_in_their_numbers_alone_are_matched_by_number(tmp_path, rng):
    make, inputs = layers_alike("dense"), rng.normal(size=(2, 5, 4)).astype("float32")
    for frozen in ((), (0,), (0, 1)):
        tf_keras.backend.clear_session()
        for _ in range(2):  # The next is dense_2.
            K2.Dense(1)
        model = randomized(nested(tf_keras, make, frozen, (None, None)), rng)
        assert [layer.name for layer in model.layers[0].layers] == ["dense_2", "dense_3"]
        keras.backend.clear_session()
        rebuilt = nested(keras, make, frozen, (None, None))
        assert_loaded(rebuilt, model, str(tmp_path / "w.h5"), inputs)


UNCERTAIN = (
    "{path!r} holds weights of the layers within 'inner' in an order that depends on which of them "
    "were frozen, and the model has layers of other names: {names} in the file. Name the layers of "
    "the model so."
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("frozen", [(), (0,)])
def test_layers_alike_of_other_names_are_not_guessed(frozen, tmp_path, rng):
    make, path = layers_alike("dense"), str(tmp_path / "w.h5")
    randomized(nested(tf_keras, make, frozen, ("left", "right")), rng).save_weights(path)
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole text is compared)
        legacy.load_weights(nested(keras, make, ()), path)
    names = "right, left" if frozen else "left, right"
    assert str(error.value) == UNCERTAIN.format(path=path, names=names)


def stacked(module):
    """An RNN of a list of cells, and wrappers around models and recurrent layers."""
    k = module.layers
    cells = [k.GRUCell(4), k.LSTMCell(4), k.GRUCell(4)]
    inner = module.Sequential([module.Input((4,)), k.Dense(3), k.BatchNormalization()])
    inputs = module.Input((5, 4))
    x = k.Bidirectional(k.RNN(cells, return_sequences=True), name="both")(inputs)
    x = k.TimeDistributed(k.Dense(4), name="each")(x)
    return module.Model(inputs, k.LSTM(2)(k.TimeDistributed(inner, name="model")(x)))


@pytest.mark.filterwarnings("ignore")
def test_cells_and_wrapped_models_get_their_weights(tmp_path, rng):
    inputs = rng.normal(size=(2, 5, 4)).astype("float32")
    model, rebuilt = randomized(stacked(tf_keras), rng), stacked(keras)
    for file in FORMATS:
        for weight in rebuilt.weights:
            weight.assign(np.zeros(weight.shape))
        assert_loaded(rebuilt, model, str(tmp_path / file), inputs)


def shared(module):
    """A layer that stands in a model and in a model within, and others of its class around it."""
    k = module.layers
    both = k.Dense(4, name="both")
    hidden = module.Input((4,))
    inner = module.Model(hidden, k.Dense(4, name="inside")(both(hidden)), name="inner")
    inputs = module.Input((4,))
    x = both(inner(k.Dense(4, name="before")(inputs)))
    return module.Model(inputs, k.Dense(4, name="after")(x))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", FORMATS)
def test_a_layer_shared_with_a_model_within_is_found_where_it_was_stored(file, tmp_path, rng):
    model = randomized(shared(tf_keras), rng)
    inputs = rng.normal(size=(3, 4)).astype("float32")
    assert_loaded(shared(keras), model, str(tmp_path / file), inputs)


def with_operators(module):
    """Operators between layers, which Keras 2 made layers of and Keras 3 does not."""
    k = module.layers
    inputs = module.Input((4,))
    first = k.Dense(4)(inputs)
    second = k.Dense(4)(first * 2.0)
    third = k.Dense(4)(second + first)
    return module.Model(inputs, k.Dense(3)(third - first))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", [*FORMATS, "model"])
def test_operators_between_layers_do_not_shift_the_weights(file, tmp_path, rng):
    model = randomized(with_operators(tf_keras), rng)
    inputs = rng.normal(size=(3, 4)).astype("float32")
    if file != "model":
        assert_loaded(with_operators(keras), model, str(tmp_path / file), inputs)
        return
    model.save(tmp_path / file)
    for loaded in (
        legacy.load_weights(with_operators(keras), tmp_path / file),
        legacy.load_model(tmp_path / file),
    ):
        expected = model(inputs).numpy()
        np.testing.assert_allclose(call(loaded, inputs), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_normalization_within_a_model_within_uses_what_it_loaded(tmp_path, rng):
    layer = K2.Normalization()
    layer.adapt(rng.normal(2, 3, size=(50, 4)).astype("float32"))
    inner = tf_keras.Sequential([K2.Input((4,)), layer, K2.Dense(3)])
    model = tf_keras.Sequential([K2.Input((4,)), inner])
    inputs = rng.normal(size=(5, 4)).astype("float32")
    model.save(tmp_path / "m.h5")
    loaded = legacy.load_model(tmp_path / "m.h5")
    np.testing.assert_allclose(call(loaded, inputs), model(inputs), rtol=1e-5, atol=1e-5)
