"""Names that Keras 3 does not allow, and the networks of Keras 2 that have them."""

import contextlib

import keras
import numpy as np
import pytest
from backends import call

from low_rank_local_connectivity import legacy

tf_keras = pytest.importorskip("tf_keras", reason="tf_keras is not installed")
K2 = tf_keras.layers
FILES = ("m.h5", "m.keras", "m")
SAVING = "ignore:You are saving your model as an HDF5 file"


def randomized(model, rng):
    """Gives biases and statistics, most of which begin as 0 or 1, values of their own."""
    noise = [
        rng.uniform(0.05, 0.3, one.shape) if one.ndim == 1 else 0 for one in model.get_weights()
    ]
    both = zip(model.get_weights(), noise, strict=True)
    model.set_weights([weight + more for weight, more in both])
    return model


def assert_predicts(loaded, model, inputs):
    expected = model.predict(inputs, verbose=0)
    scale = abs(expected).max()
    np.testing.assert_allclose(
        loaded.predict(inputs, verbose=0), expected, rtol=1e-5, atol=1e-5 * max(scale, 1)
    )


def with_slashes():
    """As in Keras 2's DenseNet and MobileNetV3: slashes in names, operators, a model within."""
    x = inputs = K2.Input((9, 8, 3), name="in/put")
    x = K2.BatchNormalization(name="conv1/bn")(K2.Conv2D(4, 3, name="conv1/conv")(x))
    x = K2.Multiply(name="x/times")([x, K2.ReLU(6.0, name="x/relu")(x + 3.0) * (1.0 / 6.0)])
    hidden = K2.Input((7, 6, 4))
    inner = K2.Conv2D(4, 1, name="b/c")(K2.Conv2D(4, 1, name="b/d")(hidden))
    x = tf_keras.Model(hidden, inner, name="in/ner")(x)
    x = K2.Flatten(name="x_relu")(K2.LocallyConnected2D(2, 3, name="local/one")(x))
    return tf_keras.Model(inputs, K2.Dense(5, name="head/logits")(x), name="small/net")


TOLD = """Keras 3 allows no '/' in the name of a layer. In the model loaded from {path!r}, \
'in/put' is now 'in_put', 'conv1/conv' is now 'conv1_conv', 'conv1/bn' is now 'conv1_bn', \
'x/relu' is now 'x_relu_1', 'x/times' is now 'x_times', and 6 more likewise."""
NAMES = ("small_net", "in_put", "conv1_conv", "conv1_bn", "x_relu_1", "x_times", "in_ner", "b_d")
NAMES = (*NAMES, "b_c", "local_one", "head_logits")


@pytest.mark.filterwarnings(SAVING)
@pytest.mark.parametrize("file", FILES)
def test_slashes_in_names_are_replaced_and_told(file, tmp_path, rng):
    model, path = randomized(with_slashes(), rng), str(tmp_path / file)
    inputs = rng.normal(size=(3, 9, 8, 3)).astype("float32")
    model.save(path)
    with pytest.warns(UserWarning, match="Keras 3 allows no '/'") as told:
        loaded = legacy.load_model(path)
    assert TOLD.format(path=path) in {str(one.message) for one in told}
    assert_predicts(loaded, model, inputs)
    named = [layer.name for layer in loaded._flatten_layers()]
    assert set(NAMES) <= set(named)
    loaded.save(tmp_path / "new.keras")
    again = keras.saving.load_model(tmp_path / "new.keras")
    np.testing.assert_array_equal(call(again, inputs), call(loaded, inputs))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", ["w.h5", "w.weights.h5", "checkpoint"])
def test_weights_of_layers_with_slashes_are_loaded_into_layers_without(file, tmp_path, rng):
    model = randomized(with_slashes(), rng)
    model.save(tmp_path / "m.h5")
    rebuilt = legacy.load_model(tmp_path / "m.h5")
    for weight in rebuilt.weights:
        weight.assign(np.zeros(weight.shape))
    rebuilt.get_layer("in_ner").get_layer("b_c").trainable = False
    path = str(tmp_path / file)
    model.save_weights(path)
    inputs = rng.normal(size=(3, 9, 8, 3)).astype("float32")
    assert_predicts(legacy.load_weights(rebuilt, path), model, inputs)


# One network of each kind, and all the others.
KINDS = ["ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "InceptionV3"]
KINDS += ["InceptionResNetV2", "MobileNet", "MobileNetV2", "MobileNetV3Small", "NASNetMobile"]
KINDS += ["RegNetX002", "RegNetY002", "ResNet50", "ResNet50V2", "ResNetRS50", "VGG16", "Xception"]
NETWORKS = [
    name
    for name, made in sorted(vars(tf_keras.applications).items())
    if callable(made) and name not in KINDS
]
# The smallest images that a network takes, where they are larger than 32 x 32.
SIZES = {"Xception": 71, "InceptionV3": 75, "InceptionResNetV2": 75}


# So deep that rounding, which grows from layer to layer, decides in float32 what they predict.
DEEPEST = ("EfficientNetV2M", "EfficientNetV2L", "ResNetRS200", "ResNetRS420")


@contextlib.contextmanager
def floats(dtype):
    """Has both releases of Keras make layers of this type."""
    for one in (tf_keras.backend, keras.backend):
        one.clear_session()
        one.set_floatx(dtype)
    try:
        yield
    finally:
        for one in (tf_keras.backend, keras.backend):
            one.set_floatx("float32")


def assert_network_is_loaded(name, path, rng):
    with floats("float64" if name in DEEPEST else "float32"):
        assert_network_predicts(name, path, rng)


def assert_network_predicts(name, path, rng):
    size = SIZES.get(name, 32)
    make = getattr(tf_keras.applications, name)
    model = randomized(make(weights=None, input_shape=(size, size, 3), classes=7), rng)
    model.save(path)
    inputs = rng.uniform(0, 1, size=(2, size, size, 3)).astype(keras.backend.floatx())
    assert_predicts(legacy.load_model(path), model, inputs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", KINDS)
def test_a_network_of_each_kind_is_loaded_in_every_format(name, file, tmp_path, rng):
    assert_network_is_loaded(name, tmp_path / file, rng)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
def test_every_other_network_is_loaded(name, tmp_path, rng):
    """They differ in width and depth alone, and some have 350 million weights."""
    assert_network_is_loaded(name, tmp_path / "m.h5", rng)
