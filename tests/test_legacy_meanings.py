"""What Keras 3 calls as Keras 2 did and computes otherwise: loaded, it predicts the same."""

import json
import math

import keras
import numpy as np
import pytest
from backends import call, to_numpy

from low_rank_local_connectivity import activations, legacy

tf_keras = pytest.importorskip("tf_keras", reason="tf_keras is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")
K2 = tf_keras.layers
FILES = ("m.h5", "m.keras", "m")
HARD = {"recurrent_activation": "hard_sigmoid"}


def randomized(model, rng):
    """Gives the weights values that are none of their initial ones; variances stay positive."""
    for weight in model.weights:
        if "int" not in weight.dtype.name:
            weight.assign(weight + rng.uniform(0.05, 0.3, weight.shape).astype("float32"))
    return model


def assert_loaded(model, path, inputs):
    """Loads what is saved at a path and compares its predictions with the model's."""
    loaded = legacy.load_model(path)
    given = [keras.ops.convert_to_tensor(one) for one in inputs] if type(inputs) is list else inputs
    expected, found = model(inputs, training=False), loaded(given, training=False)
    both = zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True)
    for number, (one, other) in enumerate(both):
        message = f"output {number} of {path}"
        np.testing.assert_allclose(to_numpy(one), other.numpy(), 1e-5, 1e-5, err_msg=message)
    return loaded


def with_hard_sigmoids():
    """Layers that name it, or have it by default: some of them, and more."""
    image, frames, words = K2.Input((6, 5, 2)), K2.Input((3, 5, 4, 2)), K2.Input((5, 3))
    function = tf_keras.activations.hard_sigmoid
    cells = [K2.LSTMCell(3, **HARD), K2.GRUCell(2, **HARD)]
    few = [
        K2.LocallyConnected2D(3, 2, activation="hard_sigmoid")(image),
        K2.Conv2D(3, 2, activation=function)(image),
        K2.LSTM(3, **HARD)(words),
    ]
    more = [
        K2.ConvLSTM2D(2, 3)(frames),
        K2.Activation("hard_sigmoid")(image),
        K2.ConvLSTM1D(2, 3)(K2.Reshape((3, 5, 8))(frames)),
        K2.Bidirectional(K2.GRU(3, **HARD))(words),
        K2.RNN(cells)(words),
        K2.TimeDistributed(K2.Dense(2, activation="hard_sigmoid"))(words),
        K2.SimpleRNN(2, activation="hard_sigmoid")(words),
    ]
    inputs = [image, frames, words]
    return tf_keras.Model([image, words], few), tf_keras.Model(inputs, few + more)


def test_hard_sigmoid_is_keras_2s_in_every_format_and_saved_anew(tmp_path, rng):
    few, model = with_hard_sigmoids()
    randomized(model, rng)
    inputs = [2 * rng.normal(size=(3, *one.shape[1:])).astype("float32") for one in model.inputs]
    few.save(tmp_path / "m")  # As SavedModel, recurrent layers take their time.
    assert_loaded(few, tmp_path / "m", [inputs[0], inputs[2]])
    for file in FILES[:2]:
        model.save(tmp_path / file)
        loaded = assert_loaded(model, tmp_path / file, inputs)
    loaded.save(tmp_path / "new.keras")
    again = keras.saving.load_model(tmp_path / "new.keras")
    for one, other in zip(again(inputs), loaded(inputs), strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_hard_sigmoid_is_tf_keras_s_and_keeps_the_dtype(dtype):
    inputs = np.linspace(-4, 4, 33, dtype=dtype)
    found = activations.keras2_hard_sigmoid(keras.ops.convert_to_tensor(inputs))
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    expected = tf_keras.activations.hard_sigmoid(tf_keras.backend.constant(inputs, dtype)).numpy()
    tolerance = 1e-3 if dtype == "float16" else 1e-7
    np.testing.assert_allclose(to_numpy(found), expected, atol=tolerance)


def test_another_hard_sigmoid_may_be_given(tmp_path):
    layer = K2.Activation("hard_sigmoid")
    tf_keras.Sequential([K2.Input((4,)), layer]).save(tmp_path / "m.h5")
    custom = {"hard_sigmoid": keras.activations.hard_sigmoid}
    loaded = legacy.load_model(tmp_path / "m.h5", custom_objects=custom)
    inputs = np.linspace(-4, 4, 12, dtype="float32").reshape(3, 4)
    expected = np.clip(inputs / 6 + 0.5, 0, 1)
    np.testing.assert_allclose(call(loaded, inputs), expected, rtol=1e-6, atol=1e-6)


def edited(path, change):
    """Changes the description of the only layer of a model in an HDF5 file."""
    import h5py

    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        described = config["config"]["layers"][-1]
        change(described)
        file.attrs["model_config"] = json.dumps(config)
    return path


def without(*arguments):
    return lambda described: [described["config"].pop(one) for one in arguments]


def renamed(class_name):
    return lambda described: described.update(class_name=class_name)


# Layers, and what a file of an early Keras 2 has otherwise than one of tf_keras.
EARLY = {
    "LSTM": (lambda: K2.LSTM(3, **HARD), (5, 4), without("recurrent_activation")),
    "GRU": (
        lambda: K2.GRU(3, reset_after=False, **HARD),
        (5, 4),
        without("recurrent_activation", "reset_after"),
    ),
    "ConvLSTM2D": (lambda: K2.ConvLSTM2D(2, 3), (3, 5, 4, 2), without("recurrent_activation")),
    "BatchNormalizationV1": (K2.BatchNormalization, (5, 4), renamed("BatchNormalizationV1")),
    "BatchNormalizationV2": (K2.BatchNormalization, (5, 4), renamed("BatchNormalizationV2")),
    "Conv1D": (lambda: K2.Conv1D(3, 2), (5, 4), without("data_format", "groups")),
    "Flatten": (K2.Flatten, (5, 4), without("data_format")),
}


@pytest.mark.parametrize("name", EARLY)
def test_what_an_early_description_leaves_out_means_what_it_meant(name, tmp_path, rng):
    make, shape, change = EARLY[name]
    model = randomized(tf_keras.Sequential([K2.Input(shape), make()]), rng)
    model.save(tmp_path / "m.h5")
    inputs = rng.normal(size=(2, *shape)).astype("float32")
    keras.config.set_image_data_format("channels_first")
    try:
        assert_loaded(model, edited(tmp_path / "m.h5", change), inputs)
        assert keras.config.image_data_format() == "channels_first"
    finally:
        keras.config.set_image_data_format("channels_last")


# Those by which Keras 3 resizes on the backend as TensorFlow does.
INTERPOLATIONS = {"torch": [], "jax": ["lanczos3", "lanczos5"]}.get(
    keras.backend.backend(), ["bicubic", "lanczos3", "lanczos5", "area"]
)
INTERPOLATIONS = ["nearest", "bilinear", *INTERPOLATIONS]


def of_images(image):
    """Layers of images, with arguments whose spelling or default changed."""
    sizes = (5, 4)
    for interpolation in INTERPOLATIONS:
        yield K2.Resizing(9, 11, interpolation=interpolation)(image)
    for interpolation in ("nearest", "bilinear"):
        yield K2.UpSampling2D((2, 3), interpolation=interpolation)(image)
    for crop in (sizes, (4, 5), (10, 12)):
        yield K2.CenterCrop(*crop)(image)
    yield K2.Resizing(5, 5, crop_to_aspect_ratio=True)(image)
    yield K2.Rescaling(2.0, offset=0.5)(image)
    for layer in (K2.RandomFlip(), K2.RandomRotation(0.2), K2.RandomZoom(0.2)):
        yield layer(image)
    for layer in (K2.RandomContrast(0.2), K2.RandomBrightness(0.2), K2.RandomTranslation(0.2, 0.2)):
        yield layer(image)
    for layer in (K2.BatchNormalization(axis=2), K2.BatchNormalization(fused=False)):
        yield layer(image)
    yield tf_keras.layers.experimental.SyncBatchNormalization()(image)
    yield K2.LayerNormalization(axis=[1, 3])(image)
    yield K2.GroupNormalization(groups=3, epsilon=0.1)(image)
    yield K2.UnitNormalization(axis=[1, 2])(image)
    yield K2.SeparableConv2D(4, 3, depth_multiplier=2)(image)
    yield K2.DepthwiseConv2D(3, dilation_rate=2)(image)
    yield K2.Conv2DTranspose(4, 3, strides=2, output_padding=1)(image)
    yield K2.ZeroPadding2D(((1, 2), (0, 3)))(image)
    yield K2.AveragePooling2D((2, 3), strides=(2, 1), padding="same")(image)
    yield K2.PReLU(shared_axes=[1, 2])(image)


def of_sequences(words, others):
    """Layers of sequences and elementwise ones."""
    names = ("elu", "exponential", "gelu", "mish", "relu", "selu", "sigmoid", "softmax", "softplus")
    for name in (*names, "softsign", "swish", "tanh"):
        yield K2.Activation(name)(words)
    for layer in (K2.LeakyReLU(), K2.LeakyReLU(0.1), K2.ThresholdedReLU(0.4), K2.ELU(0.3)):
        yield layer(words)
    yield K2.ReLU(max_value=2, negative_slope=0.1, threshold=0.3)(words)
    yield K2.Softmax(axis=[1, 2])(words)
    for noise in (K2.AlphaDropout, K2.GaussianDropout, K2.GaussianNoise):
        yield noise(0.3)(words)
    yield K2.GRU(3)(words)
    yield K2.GRU(3, reset_after=False, go_backwards=True, return_sequences=True)(words)
    yield K2.LSTM(3, implementation=1)(K2.Masking()(K2.ReLU()(words)))
    yield K2.RNN([K2.LSTMCell(3), K2.GRUCell(2)])(words)
    yield K2.Attention(use_scale=True)([words, others])
    yield K2.Attention(score_mode="concat")([words, others])
    yield K2.AdditiveAttention()([words, others])
    yield K2.MultiHeadAttention(2, 3, output_shape=7)(words, others)
    yield K2.Dot(axes=(2, 2), normalize=True)([words, others])
    yield K2.Discretization(bin_boundaries=[-0.5, 0.0, 0.7], output_mode="one_hot")(
        K2.Reshape((1,))(K2.GlobalMaxPooling1D()(K2.Dense(1)(words)))
    )


def with_states(words, others):
    """Recurrent layers that begin in states given as tensors."""
    *_, h, c = K2.LSTM(4, return_state=True)(words)
    yield K2.LSTM(4)(others, initial_state=[h, c])
    yield K2.LSTM(4)([others, h, c])
    yield K2.GRU(4)(others, initial_state=h)
    _, *states = K2.Bidirectional(K2.LSTM(4, return_state=True))(words)
    yield K2.Bidirectional(K2.LSTM(4))(others, initial_state=states)


@pytest.mark.parametrize("layers", [of_images, of_sequences, with_states])
def test_layers_compute_what_they_computed(layers, tmp_path, rng):
    shapes = [(8, 7, 3)] if layers is of_images else [(6, 4), (5, 4)]
    inputs = [K2.Input(shape) for shape in shapes]
    model = randomized(tf_keras.Model(inputs, list(layers(*inputs))), rng)
    given = [rng.normal(size=(2, *shape)).astype("float32") for shape in shapes]
    given = given if len(given) > 1 else given[0]
    for file in FILES[:2]:
        model.save(tmp_path / file)
        assert_loaded(model, tmp_path / file, given)


CROP = (
    "at inference Keras 2's takes the central part at the crop's aspect ratio and resizes it, and "
    "Keras 3's leaves images as they are. Build the model again in Keras 3 with Resizing(height, "
    "width, crop_to_aspect_ratio=True) in its place and use load_weights()."
)
ADAPTED = (
    "its bin boundaries were adapted to data and are stored as a weight, where Keras 3 has an "
    "argument. Save the model again in Keras 2 with Discretization(bin_boundaries=...)."
)
REFUSED = {
    "a RandomCrop": (lambda: K2.RandomCrop(4, 3, name="a"), CROP),
    "a Resizing": (
        lambda: K2.Resizing(4, 3, interpolation="mitchellcubic", name="a"),
        "Keras 3 has no interpolation='mitchellcubic'.",
    ),
    "an UpSampling2D": (
        lambda: K2.UpSampling2D(2, interpolation="gaussian", name="a"),
        "Keras 3 has no interpolation='gaussian'.",
    ),
    "a Discretization": (lambda: adapted(K2.Discretization(num_bins=3, name="a")), ADAPTED),
}


def adapted(layer):
    layer.adapt(np.arange(30, dtype="float32").reshape(-1, 1))
    return layer


@pytest.mark.parametrize("kind", REFUSED)
def test_what_keras_3_would_compute_otherwise_is_refused(kind, tmp_path):
    (make, reason), path = REFUSED[kind], str(tmp_path / "m.h5")
    tf_keras.Sequential([K2.Input((8, 7, 3)), make()]).save(path)
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole text is compared)
        legacy.load_model(path)
    layer = f"The layer 'a', a {kind.split()[1]}, in {path!r} cannot be loaded: "
    assert str(error.value) == layer + reason


def test_an_interpolation_that_depends_on_the_backend_is_refused_where_it_does(tmp_path):
    path, backend = str(tmp_path / "m.h5"), keras.backend.backend()
    layer = K2.Resizing(4, 3, interpolation="bicubic", name="a")
    tf_keras.Sequential([K2.Input((8, 7, 3)), layer]).save(path)
    if "bicubic" in INTERPOLATIONS:
        legacy.load_model(path)
        return
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole text is compared)
        legacy.load_model(path)
    assert str(error.value) == (
        f"The layer 'a', a Resizing, in {path!r} cannot be loaded: with interpolation='bicubic' "
        f"Keras 3 does not compute on {backend} what it does on tensorflow. Load it there."
    )


def test_an_unevenly_padded_average_is_refused_on_pytorch(tmp_path, rng):
    path = str(tmp_path / "m.h5")
    layer = K2.AveragePooling2D(3, strides=2, padding="same", name="a")
    model = tf_keras.Sequential([K2.Input((8, 7, 3)), layer])
    model.save(path)
    if keras.backend.backend() != "torch":
        assert_loaded(model, path, rng.normal(size=(2, 8, 7, 3)).astype("float32"))
        return
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole text is compared)
        legacy.load_model(path)
    assert str(error.value) == (
        f"The layer 'a', an AveragePooling2D, in {path!r} cannot be loaded: where padding='same' "
        "pads unevenly, Keras 3 does not compute on torch what it does on tensorflow. Load it "
        "there."
    )


def twice(x):
    return 2 * x


@pytest.mark.parametrize("file", FILES)
def test_functions_of_ones_own_are_taken_from_custom_objects(file, tmp_path, rng):
    model = tf_keras.Sequential([K2.Input((4,)), K2.Dense(3, activation=twice)])
    model.save(tmp_path / file)
    with pytest.raises(ValueError, match="Keras 3 has no 'twice'"):
        legacy.load_model(tmp_path / file)
    loaded = legacy.load_model(tmp_path / file, custom_objects={"twice": twice})
    inputs = rng.normal(size=(5, 4)).astype("float32")
    np.testing.assert_allclose(call(loaded, inputs), model(inputs), rtol=1e-5, atol=1e-5)


def with_operators(inputs, other):
    """What Keras 2 made layers of, between layers."""
    import tensorflow as tf

    yield from (
        inputs + other,
        2.0 * inputs,
        1.0 - inputs,
        inputs / 2.0,
        -inputs,
        inputs * [3.0, 1],
    )
    yield from (inputs[:, 0], inputs[:, 1:5:2], inputs[:, None], inputs**2)
    yield tf.concat([inputs, other], axis=-1)
    yield tf.matmul(inputs, other, transpose_b=True)
    yield tf.reshape(tf.transpose(inputs, (0, 2, 1)), (-1, 12))
    yield tf.squeeze(tf.expand_dims(inputs, 1), 1)
    yield from (tf.nn.relu(inputs), tf.nn.gelu(inputs), tf.nn.softmax(inputs), tf.exp(inputs))
    yield from (tf.reduce_mean(inputs, axis=1, keepdims=True), tf.reduce_max(inputs, axis=[1, 2]))
    yield from (tf.clip_by_value(inputs, -0.5, 0.5), tf.maximum(inputs, other), abs(inputs))
    yield from (tf.add_n([inputs, other, other]), tf.stack([inputs, other], axis=1))
    yield tf.tile(inputs, (1, 2, 1))


def test_operators_between_layers_compute_what_they_computed(tmp_path, rng):
    inputs = [K2.Input((6, 2)), K2.Input((6, 2))]
    outputs = list(with_operators(*inputs))
    model = tf_keras.Model(inputs, outputs)
    given = [rng.normal(size=(3, 6, 2)).astype("float32") for _ in inputs]
    for file in FILES:
        model.save(tmp_path / file)
        loaded = assert_loaded(model, tmp_path / file, given)
    # Keras 2 cannot save an ellipsis in its own format.
    model = tf_keras.Model(inputs, [*outputs, inputs[0][..., :1]])
    model.save(tmp_path / "dots.h5")
    assert_loaded(model, tmp_path / "dots.h5", given)
    loaded.save(tmp_path / "new.keras")
    again = keras.saving.load_model(tmp_path / "new.keras")
    for one, other in zip(again(given), loaded(given), strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other))
    assert math.prod(loaded.outputs[0].shape[1:]) == 12
