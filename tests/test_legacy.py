"""Models saved by Keras 2: loaded without it, they predict the same."""

import contextlib
import json
import math
import shutil
import zipfile
from pathlib import Path

import commands
import keras
import numpy as np
import pytest
from backends import WITHOUT_XLA, call, to_numpy

from low_rank_local_connectivity import layers, legacy

TENSORFLOW = keras.backend.backend() == "tensorflow"
tf_keras = pytest.importorskip("tf_keras", reason="tf_keras is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
K2 = tf_keras.layers
FORMATS = ("h5", "keras", "tf")
# Written by the tf.keras of TensorFlow 2.12 and 2.15.
OLD = Path(__file__).parent / "saved_models"
# What each implementation allows.
KINDS = [(1, "valid"), (2, "valid"), (3, "valid"), (2, "same"), (3, "same")]
SAVED_WHOLE = [(1, "channels_last"), (2, "channels_first"), (1, "channels_first")]
SAVED_WHOLE += [(2, "channels_last"), (1, "channels_last")]


def save(model, folder, kind):
    """Saves a model of Keras 2 in one of its formats."""
    path = str(folder / {"h5": "model.h5", "keras": "model.keras", "tf": "model"}[kind])
    model.save(path, save_format=kind)
    return path


def save_weights(model, folder, kind):
    path = str(folder / {"h5": "weights.h5", "keras": "w.weights.h5", "tf": "checkpoint"}[kind])
    model.save_weights(path, save_format={"h5": "h5", "tf": "tf"}.get(kind))
    return path


def randomized(model, rng):
    """Gives every weight a value that is not its initial one."""
    for weight in model.weights:
        weight.assign(weight + rng.uniform(0.05, 0.3, weight.shape).astype("float32"))
    return model


def assert_equal_predictions(loaded, original, inputs):
    expected = original(inputs, training=False)
    given = [keras.ops.convert_to_tensor(one) for one in inputs] if type(inputs) is list else inputs
    found = call(loaded, given, training=False)
    if not isinstance(expected, list):
        expected, found = [expected], [found]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-5, atol=1e-5)


def local_model(dimensions, implementation, padding, data_format):
    """A locally connected layer and what Keras 2 would put after it."""
    shape, kernel, strides = ((9, 8, 3), (3, 2), (2, 1)) if dimensions == 2 else ((11, 3), 4, 2)
    if data_format == "channels_first":
        shape = (shape[-1], *shape[:-1])
    layer = getattr(K2, f"LocallyConnected{dimensions}D")
    arguments = {"implementation": implementation, "padding": padding, "data_format": data_format}
    local = layer(4, kernel, strides=strides, activation="tanh", **arguments)
    return shape, tf_keras.Sequential([K2.Input(shape), local, K2.Flatten(), K2.Dense(5)])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(("implementation", "padding"), KINDS)
@pytest.mark.parametrize("dimensions", [1, 2])
def test_a_saved_model_predicts_the_same_in_every_format(
    dimensions, implementation, padding, data_format, tmp_path, rng
):
    shape, model = local_model(dimensions, implementation, padding, data_format)
    randomized(model, rng)
    inputs = rng.normal(size=(3, *shape)).astype("float32")
    # Writing a SavedModel takes long: one of each kind, with each number of dimensions and format.
    whole = SAVED_WHOLE[KINDS.index((implementation, padding))] == (dimensions, data_format)
    for kind in FORMATS if whole else FORMATS[:2]:
        loaded = legacy.load_model(save(model, tmp_path, kind))
        assert_equal_predictions(loaded, model, inputs)
        local = next(
            one
            for one in loaded.layers
            if isinstance(one, layers.LocallyConnected2D | layers.LocallyConnected1D)
        )
        assert local.name == model.layers[0].name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("implementation", "padding"), KINDS)
def test_weights_alone_are_loaded_into_a_rebuilt_model(implementation, padding, tmp_path, rng):
    shape, model = local_model(2, implementation, padding, "channels_last")
    randomized(model, rng)
    inputs = rng.normal(size=(3, *shape)).astype("float32")
    arguments = {"strides": (2, 1), "padding": padding, "activation": "tanh"}
    local = layers.LocallyConnected2D(4, (3, 2), **arguments)
    rebuilt = keras.Sequential(
        [keras.Input(shape), local, keras.layers.Flatten(), keras.layers.Dense(5)]
    )
    before = [to_numpy(weight) for weight in rebuilt.weights]
    for kind in FORMATS:
        loaded = legacy.load_weights(rebuilt, save_weights(model, tmp_path, kind))
        assert_equal_predictions(loaded, model, inputs)
        assert (loaded is rebuilt) == (padding == "valid")
    if padding == "same":
        for weight, value in zip(rebuilt.weights, before, strict=True):
            np.testing.assert_array_equal(to_numpy(weight), value)


def test_a_rebuilt_model_whose_windows_differ_is_told(tmp_path, rng):
    shape, model = local_model(2, 3, "same", "channels_last")
    path = save_weights(randomized(model, rng), tmp_path, "h5")
    local = layers.LocallyConnected2D(4, (3, 2), strides=(2, 1), padding="same", name="local")
    rebuilt = keras.Sequential(
        [keras.Input(shape), local, keras.layers.Flatten(), keras.layers.Dense(5)]
    )
    sentence = (
        "Keras 2 placed the windows of 'local' under padding='same' otherwise: use the model "
    )
    sentence += r"that load_weights\(\) returns, in which a zero padding precedes it."
    with pytest.warns(UserWarning, match=sentence):
        legacy.load_weights(rebuilt, path)


def intricate_model():
    """Two inputs and outputs, a shared layer, models within the model, one of them frozen."""
    one, two = K2.Input((9, 8, 3), name="one"), K2.Input((9, 8, 3), name="two")
    shared = K2.LocallyConnected2D(4, 3, name="shared", implementation=3)
    plain = [K2.Conv2D(4, 3, padding="same", input_shape=(7, 6, 4)), K2.BatchNormalization()]
    inner = tf_keras.Sequential([*plain, K2.LeakyReLU(0.2)], name="inner")
    x = K2.Concatenate()([K2.Add()([shared(one), inner(shared(two))]), shared(one)])
    hidden = K2.Input((7, 6, 8))
    separable = K2.SeparableConv2D(8, 3, padding="same")(K2.LocallyConnected2D(8, 1)(hidden))
    frozen = tf_keras.Model(hidden, separable, name="frozen")
    frozen.trainable = False
    x = K2.Reshape((42, 8))(frozen(frozen(x)))
    x = K2.LocallyConnected1D(3, 5, strides=2, name="local", kernel_regularizer="l2")(x)
    x = K2.LayerNormalization()(K2.Add()([x, K2.MultiHeadAttention(2, 4)(x, x)]))
    x = K2.Bidirectional(K2.LSTM(4, return_sequences=True))(x)
    x = K2.GRU(5, dropout=0.1)(K2.TimeDistributed(K2.Dense(3))(x))
    x = K2.Dropout(0.3)(K2.PReLU()(x))
    return tf_keras.Model([one, two], [K2.Dense(2)(x), K2.Dense(1, activation="sigmoid")(x)])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kinds", [("h5", "keras"), pytest.param(("tf",), marks=pytest.mark.slow)], ids=str
)
def test_an_intricate_model_keeps_its_wiring_names_and_flags(kinds, tmp_path, rng):
    model = randomized(intricate_model(), rng)
    inputs = [rng.normal(size=(3, 9, 8, 3)).astype("float32") for _ in range(2)]
    for kind in kinds:
        loaded = legacy.load_model(save(model, tmp_path, kind))
        assert_equal_predictions(loaded, model, inputs)
        assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
        trainable = [
            sum(math.prod(w.shape) for w in one.trainable_weights) for one in (loaded, model)
        ]
        assert trainable[0] == trainable[1]
        assert loaded.get_layer("local").kernel_regularizer is not None
        for weight in loaded.weights:
            weight.assign(np.zeros(weight.shape))
        legacy.load_weights(loaded, save_weights(model, tmp_path, kind))
        assert_equal_predictions(loaded, model, inputs)


@pytest.mark.filterwarnings("ignore")
def test_layers_whose_arguments_changed_are_loaded(tmp_path, rng):
    x = inputs = K2.Input((8, 9, 1))
    x = K2.RandomFlip()(K2.Rescaling(0.1)(x))
    x = K2.LocallyConnected2D(3, 3, kernel_initializer=tf_keras.initializers.HeNormal())(x)
    x = K2.SpatialDropout2D(0.2)(K2.DepthwiseConv2D(3)(K2.MaxPooling2D()(K2.ZeroPadding2D(1)(x))))
    x = K2.ELU()(
        K2.UpSampling2D()(K2.ReLU(6.0)(K2.Conv2DTranspose(2, 2)(K2.Activation("swish")(x))))
    )
    model = tf_keras.Model(inputs, K2.Softmax()(K2.GlobalAveragePooling2D()(x)))
    randomized(model, rng)
    for kind in FORMATS:
        loaded = legacy.load_model(save(model, tmp_path, kind))
        assert_equal_predictions(loaded, model, rng.normal(size=(3, 8, 9, 1)).astype("float32"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FORMATS)
def test_local_layers_within_wrappers_and_after_embeddings_are_loaded(kind, tmp_path, rng):
    frames = K2.Input((6, 5, 7, 3))
    local = K2.LocallyConnected2D(4, 2, implementation=3)
    model = randomized(tf_keras.Model(frames, K2.TimeDistributed(local)(frames)), rng)
    loaded = legacy.load_model(save(model, tmp_path, kind))
    assert_equal_predictions(loaded, model, rng.normal(size=(2, 6, 5, 7, 3)).astype("float32"))
    words = K2.Input((7,), dtype="int32")
    x = K2.LocallyConnected1D(5, 3, activation="relu")(K2.Embedding(20, 6, input_length=7)(words))
    model = randomized(tf_keras.Model(words, K2.SimpleRNN(3)(x)), rng)
    (tmp_path / "words").mkdir()
    loaded = legacy.load_model(save(model, tmp_path / "words", kind))
    assert_equal_predictions(loaded, model, rng.integers(20, size=(2, 7)).astype("int32"))


def wrapped_with_same_padding(wrapper):
    frames = K2.Input((6, 5, 7, 3))
    local = K2.LocallyConnected2D(4, 2, implementation=3, padding="same", name="local")
    return tf_keras.Model(frames, wrapper(local)(frames))


@pytest.mark.filterwarnings("ignore")
def test_a_zero_padding_is_put_before_a_layer_in_time_distributed(tmp_path, rng):
    model = randomized(wrapped_with_same_padding(K2.TimeDistributed), rng)
    loaded = legacy.load_model(save(model, tmp_path, "h5"))
    assert_equal_predictions(loaded, model, rng.normal(size=(2, 6, 5, 7, 3)).astype("float32"))


@pytest.mark.filterwarnings("ignore")
def test_in_another_wrapper_where_none_can_be_put_it_is_refused(tmp_path):
    class Frames(K2.TimeDistributed):
        pass

    path = save(wrapped_with_same_padding(Frames), tmp_path, "h5")
    frames = type("Frames", (keras.layers.TimeDistributed,), {})
    with pytest.raises(ValueError, match="it stands within a wrapper") as error:
        legacy.load_model(path, custom_objects={"Frames": frames})
    assert str(error.value) == (
        f"The layer 'local' in {path!r} cannot be loaded: Keras 2 placed its windows under "
        "padding='same' otherwise, and it stands within a wrapper, where no zero padding can be "
        "put before it."
    )


@pytest.mark.filterwarnings("ignore")
def test_a_normalization_layer_uses_what_it_loaded(tmp_path, rng):
    normalization = K2.Normalization()
    normalization.adapt(rng.normal(2, 3, size=(50, 4)).astype("float32"))
    model = tf_keras.Sequential([K2.Input((4,)), normalization, K2.Dense(3)])
    for kind in FORMATS:
        loaded = legacy.load_model(save(model, tmp_path, kind))
        assert_equal_predictions(loaded, model, rng.normal(size=(5, 4)).astype("float32"))


def test_a_loaded_model_trains_and_is_saved_as_keras_3_saves(tmp_path, rng):
    shape, model = local_model(2, 3, "same", "channels_last")
    randomized(model, rng)
    loaded = legacy.load_model(save(model, tmp_path, "h5"))
    inputs = rng.normal(size=(8, *shape)).astype("float32")
    loaded.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), **WITHOUT_XLA
    )
    before = [to_numpy(weight) for weight in loaded.trainable_weights]
    losses = loaded.fit(inputs, np.arange(8) % 5, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    for weight, value in zip(loaded.trainable_weights, before, strict=True):
        assert not np.array_equal(to_numpy(weight), value)
    loaded.save(tmp_path / "new.keras")
    again = keras.saving.load_model(tmp_path / "new.keras")
    np.testing.assert_allclose(again.predict(inputs, verbose=0), loaded.predict(inputs, verbose=0))


@pytest.mark.filterwarnings("ignore:Keras 2 placed the windows")
@pytest.mark.parametrize("version", ["2.12", "2.15"])
@pytest.mark.parametrize("name", ["model.h5", "model.keras", "model", "w.weights.h5"])
def test_files_of_older_versions_are_loaded(version, name):
    folder = OLD / f"keras-{version}"
    with np.load(folder / "expected.npz") as file:
        inputs, expected = file["inputs"], file["outputs"]
    if name == "w.weights.h5":
        second = layers.LocallyConnected2D(2, 2, padding="same", activation="relu")
        parts = [layers.LocallyConnected2D(2, (3, 2)), second, keras.layers.Flatten()]
        x = made = keras.Input((6, 5, 2))
        for layer in (*parts, keras.layers.Dense(3), keras.layers.Dense(2)):
            x = layer(x)
        loaded = legacy.load_weights(keras.Model(made, x), folder / name)
    else:
        loaded = legacy.load_model(folder / name)
    np.testing.assert_allclose(call(loaded, inputs), expected, rtol=1e-5, atol=1e-5)


def test_neither_tf_keras_nor_tensorflow_is_needed(tmp_path, rng):
    _, model = local_model(1, 2, "valid", "channels_last")
    paths = [save(randomized(model, rng), tmp_path, kind) for kind in ("h5", "keras", "tf")]
    code = (
        "import sys\n"
        "assert not {'tf_keras', 'tensorflow'} & {*sys.modules}\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('tf_keras', 'tensorflow'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from low_rank_local_connectivity import legacy\n"
        "for path in sys.argv[1:]:\n"
        "    print(legacy.load_model(path).count_params())\n"
    )
    done = commands.server_beneath_keras().python("-c", code, *paths, KERAS_BACKEND="jax")
    assert done.stdout.split() == [str(legacy.load_model(paths[0]).count_params())] * 3, done.stderr


class Doubled(keras.layers.Layer):
    """A user's layer, for Keras 3."""

    def call(self, inputs):  # noqa: D102
        return 2 * inputs


def with_custom_layer(folder):
    class Doubled(K2.Layer):
        """The same for Keras 2."""

        def call(self, inputs):
            return 2 * inputs

    model = tf_keras.Sequential(
        [K2.Input((5, 2)), K2.LocallyConnected1D(3, 2), Doubled(name="twice")]
    )
    return model, save(model, folder, "h5")


def test_a_users_layer_is_taken_from_custom_objects(tmp_path, rng):
    model, path = with_custom_layer(tmp_path)
    loaded = legacy.load_model(path, custom_objects={"Doubled": Doubled})
    assert_equal_predictions(loaded, model, rng.normal(size=(3, 5, 2)).astype("float32"))


def lambda_model(folder):
    layer = K2.Lambda(lambda x: 2 * x, name="twice")
    return save(tf_keras.Sequential([K2.Input((5, 2)), layer]), folder, "h5")


def function_model(folder):
    inputs = K2.Input((5, 2))
    import tensorflow as tf

    return save(tf_keras.Model(inputs, tf.math.erf(inputs)), folder, "h5")


def subclassed_model(folder):
    class Mine(tf_keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = K2.Dense(2)

        def call(self, inputs):
            return self.dense(inputs)

    model = Mine()
    model(np.ones((1, 3), "float32"))
    return save(model, folder, "tf")


def new_model(folder):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.save(folder / "new.keras")
    return str(folder / "new.keras")


def removed_layer(folder):
    model = tf_keras.Sequential([K2.Input((6, 5, 2)), K2.RandomHeight(0.2, name="old")])
    return save(model, folder, "keras")


def renormalized(folder):
    layer = K2.BatchNormalization(renorm=True, name="norm")
    return save(tf_keras.Sequential([K2.Input((5, 2)), layer]), folder, "h5")


def unbuilt(folder):
    """As Keras 2 before 2.2.3 saved a model that had never been called."""
    import h5py

    path = save(tf_keras.Sequential([K2.Input((5,)), K2.Dense(2)], name="early"), folder, "h5")
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        del config["config"]["layers"][0]
        file.attrs["model_config"] = json.dumps(config)
    return path


def weights_only(folder):
    return save_weights(tf_keras.Sequential([K2.Input((5,)), K2.Dense(2)]), folder, "h5")


def nothing(folder):
    return str(folder / "nothing.h5")


def text_file(folder):
    (folder / "notes.h5").write_text("not a model")
    return str(folder / "notes.h5")


def empty_folder(folder):
    return str(folder)


def exported(folder):
    shutil.copytree(OLD / "keras-2.12" / "model", folder / "served")
    (folder / "served" / "keras_metadata.pb").unlink()
    return str(folder / "served")


REBUILD = "Build the model again in Keras 3 and use load_weights()."
CODE = f"no code from a file is run. {REBUILD}"


def of_layer(name, kind, reason):
    return f"The layer {name!r}, a {kind}, in {{path!r}} cannot be loaded: {reason}"


REFUSED = {
    lambda_model: of_layer("twice", "Lambda", f"it holds Python code, and {CODE}"),
    function_model: of_layer(
        "tf.math.erf",
        "TFOpLambda",
        f"it calls a function of TensorFlow, which Keras 3 has in keras.ops. {REBUILD}",
    ),
    subclassed_model: (
        f"The model in {{path!r}} is a Mine, which says in Python what it does, and {CODE}"
    ),
    new_model: (
        f"{{path!r}} was saved by Keras {keras.__version__}. Load it with "
        "keras.saving.load_model()."
    ),
    removed_layer: of_layer(
        "old",
        "RandomHeight",
        "Keras 3 has no 'RandomHeight'. Pass it by that name in custom_objects, or register it.",
    ),
    renormalized: of_layer("norm", "BatchNormalization", "Keras 3 has no renorm=True."),
    unbuilt: (
        "The model 'early' in {path!r} was saved before it was built, so it has no weights to load."
    ),
    weights_only: (f"{{path!r}} holds weights without a description of their model. {REBUILD}"),
    nothing: "There is no file or folder to load at {path!r}.",
    text_file: (
        "{path!r} is damaged, or not a file of Keras: it is neither HDF5 nor a .keras archive."
    ),
    empty_folder: (
        "The folder {path!r} is not a SavedModel: it holds no saved_model.pb. Give the folder that "
        "does."
    ),
    exported: (
        "The SavedModel {path!r} holds no keras_metadata.pb, and so no description of its layers: "
        f"it was exported for serving, not saved by Keras 2's model.save(). {REBUILD}"
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_what_cannot_be_loaded_is_refused_with_the_layer_and_the_reason(make, tmp_path):
    path = make(tmp_path)
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole text is compared)
        legacy.load_model(path)
    assert str(error.value) == REFUSED[make].format(path=path)


def test_a_layer_of_ones_own_is_refused_with_what_to_do(tmp_path):
    _, path = with_custom_layer(tmp_path)
    with pytest.raises(ValueError, match="'twice', a Doubled") as error:
        legacy.load_model(path)
    assert str(error.value).endswith(
        "Keras 3 has no 'Doubled'. Pass it by that name in custom_objects, or register it."
    )


def rebuilt_as(*parts):
    return keras.Sequential([keras.Input((5, 2)), *parts])


OTHER_SHAPE = """{path!r} holds an array of shape (4, 4, 3) for 'kernel' of the layer \
'a', whose shape is (2, 2, 3)."""
FEWER = "{path!r} holds 2 weights for the layer 'a', which has 1."
MORE = """{path!r} holds weights of 1 layers (local), and the model 'sequential' has 2 with \
weights (a, b)."""
EARLY = """What load_weights() is given must be built. Received: 'early', which is not. Call it on \
inputs first, or its build(input_shape)."""
WRONG = {
    "another kind": (lambda: rebuilt_as(keras.layers.Conv1D(3, 2, name="a")), OTHER_SHAPE),
    "no bias": (
        lambda: rebuilt_as(layers.LocallyConnected1D(3, 2, use_bias=False, name="a")),
        FEWER,
    ),
    "more layers": (
        lambda: rebuilt_as(
            layers.LocallyConnected1D(3, 2, name="a"), keras.layers.Dense(2, name="b")
        ),
        MORE,
    ),
    "not built": (lambda: keras.Sequential([keras.layers.Dense(2)], name="early"), EARLY),
}


@pytest.mark.parametrize("what", WRONG)
def test_weights_of_another_model_are_refused_and_change_nothing(what, tmp_path):
    local = K2.LocallyConnected1D(3, 2, name="local")
    path = save_weights(tf_keras.Sequential([K2.Input((5, 2)), local]), tmp_path, "h5")
    make, sentence = WRONG[what]
    model = make()
    if what == "more layers":
        sentence = sentence.replace("sequential", model.name)
    before = [to_numpy(weight) for weight in model.weights]
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole text is compared)
        legacy.load_weights(model, path)
    assert str(error.value) == sentence.format(path=path)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), value)


def test_code_in_a_description_is_not_run(tmp_path, rng):
    """A description that names Python functions is refused, whatever it names."""
    _, model = local_model(1, 1, "valid", "channels_last")
    path = save(randomized(model, rng), tmp_path, "keras")
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    evil = {
        "module": "os",
        "class_name": "function",
        "config": "system",
        "registered_name": "system",
    }
    for harm in ({**evil}, {"class_name": "__lambda__", "config": {"value": ["x", None, None]}}):
        config = json.loads(members["config.json"])
        config["config"]["layers"][1]["config"]["activation"] = harm
        with zipfile.ZipFile(tmp_path / "evil.keras", "w") as archive:
            for name, value in members.items():
                archive.writestr(name, json.dumps(config) if name == "config.json" else value)
        with pytest.raises(
            ValueError, match=r"LocallyConnected1D.* cannot be loaded: Keras 3 has no"
        ):
            legacy.load_model(tmp_path / "evil.keras")


@pytest.mark.once
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_are_refused_in_a_sentence(kind, tmp_path, rng):
    """Bytes cut, flipped, zeroed or repeated: nothing but a ValueError comes of it."""
    from test_fuzz import outside

    source = Path(
        OLD / "keras-2.15" / {"h5": "model.h5", "keras": "model.keras", "tf": "model"}[kind]
    )
    for number in range(60):
        copy = tmp_path / f"{number}{source.suffix}"
        if source.is_dir():
            shutil.copytree(source, copy)
            files = sorted(file for file in copy.rglob("*") if file.is_file())
            file = files[rng.integers(len(files))]
        else:
            shutil.copy(source, copy)
            file = copy
        whole = file.read_bytes()
        file.write_bytes(outside(rng, whole) if whole else b"x")
        with contextlib.suppress(ValueError):
            legacy.load_model(copy)
