"""Models of any precision are served in float32, from a copy that no test of theirs has seen."""

import keras
import numpy as np
import pytest
from backends import randomize, to_numpy
from runtimes import OPEN

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.export import FORMATS, export_model
from low_rank_local_connectivity.export.precision import in_float32, policies
from low_rank_local_connectivity.keras_settings import changed_settings

BACKEND = keras.backend.backend()
WRITABLE = [name for name in OPEN if BACKEND in FORMATS[name].backends]
POLICIES = ["mixed_bfloat16", "mixed_float16", "bfloat16", "float16"]
# JAX has no type of 64 bits unless it is configured to.
WIDE = [] if keras.backend.backend() == "jax" else ["float64"]
POLICIES += WIDE


@pytest.fixture
def use():
    """Sets Keras's defaults to a policy, as a run does, and puts them back."""
    before = keras.config.floatx(), keras.config.dtype_policy()

    def set_defaults(policy):
        keras.config.set_dtype_policy(policy)
        keras.config.set_floatx(
            policy if policy in ("bfloat16", "float16", "float64") else "float32"
        )

    yield set_defaults
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


def network():
    """A network under the default policy: a model within it, a shared layer, a wrapper, a cast."""
    inputs = keras.Input((9, 8, 2), name="image")
    inner = [keras.Input((9, 8, 2)), keras.layers.Conv2D(5, 1), keras.layers.BatchNormalization()]
    x = keras.Sequential(inner, name="inner")(inputs)
    shared = layers.LocallyConnected2D(5, 1, name="shared")
    x = shared(shared(x))
    x = layers.LowRankLocallyConnected2D(4, 3, spatial_rank=3, name="low_rank")(x)
    x = keras.layers.TimeDistributed(keras.layers.Dense(3, activation="relu"))(x)
    x = keras.ops.cast(x, keras.config.floatx())
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(6, name="logits")(x), name="network")


def weights_from(model, other):
    for one, weight in zip(model.variables, other.variables, strict=True):
        one.assign(keras.ops.cast(weight, one.dtype))
    return model


@pytest.mark.parametrize("policy", POLICIES)
def test_the_copy_is_the_model_that_float32_would_have_built(policy, use, rng):
    use("float32")
    built = network()
    use(policy)
    model = network()
    randomize(model, rng, 0.3)
    weights_from(built, model)
    with changed_settings(floatx="float32", dtype_policy="float32"):
        copy = in_float32(model)
    assert policies(copy) == ["float32"]
    assert {weight.dtype for weight in copy.weights} == {"float32"}
    assert copy.inputs[0].dtype == copy.outputs[0].dtype == "float32"
    assert (keras.config.dtype_policy().name, copy.name) == (policy, "network")
    images = rng.normal(size=(6, 9, 8, 2)).astype("float32")
    expected = to_numpy(built(images, training=False))
    np.testing.assert_allclose(to_numpy(copy(images, training=False)), expected, atol=1e-6)


@pytest.mark.once
def test_a_float32_model_is_not_copied():
    model = network()
    assert in_float32(model) is model


@pytest.mark.parametrize(
    "name",
    # What is written is the same copy of the model in every format.
    [pytest.param(name, marks=[pytest.mark.slow] if name != "onnx" else []) for name in WRITABLE],
)
def test_a_run_in_mixed_precision_is_exported_in_float32(name, use, tmp_path, rng):
    use("float32")
    built = network()
    use("mixed_bfloat16")
    model = network()
    randomize(model, rng, 0.3)
    weights_from(built, model)
    manifest = export_model(model, tmp_path, [name])
    assert manifest["precision"]["model"] == ["mixed_bfloat16"]
    assert manifest["precision"]["served"] == "float32"
    assert 1e-4 < manifest["precision"]["difference"] < 0.05
    assert manifest["formats"][name]["difference"] < 1e-5
    types, run = OPEN[name](tmp_path / manifest["formats"][name]["file"])
    assert types == {"image": "float32"}
    images = rng.normal(size=(6, 9, 8, 2)).astype("float32")
    expected = to_numpy(built(images, training=False))
    np.testing.assert_allclose(run({"image": images})["logits"], expected, atol=1e-5)


@pytest.mark.parametrize("policy", ["bfloat16", "float16", *WIDE])
def test_the_manifest_says_how_far_the_copy_is_from_the_model(policy, use, tmp_path, rng):
    use(policy)
    model = network()
    randomize(model, rng, 0.3)
    manifest = export_model(model, tmp_path, ())
    found = manifest["precision"]
    assert (found["model"], found["served"]) == ([policy], "float32")
    assert manifest["input"]["dtype"] == "float32"
    # The coarser the model's numbers, the farther: 8, 11 and 53 bits.
    low, high = {"bfloat16": (1e-3, 5e-2), "float16": (1e-4, 5e-3), "float64": (0, 1e-5)}[policy]
    assert low <= found["difference"] < high


@keras.saving.register_keras_serializable("tests")
class Forgetful(keras.layers.Layer):
    """Its configuration does not say how many units it has."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(units, dtype=self.dtype_policy)

    def build(self, input_shape):
        """Builds the layer within."""
        self.dense.build(input_shape)

    def call(self, inputs):
        """Applies the layer within."""
        return self.dense(inputs)

    def get_config(self):
        """Returns too little."""
        return keras.layers.Layer.get_config(self)


@pytest.mark.once
def test_a_layer_that_cannot_be_copied_is_named(use, tmp_path):
    use("mixed_bfloat16")
    model = keras.Sequential([keras.Input((3,)), Forgetful(2, name="forgetful")])
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        export_model(model, tmp_path, ())
    assert str(caught.value) == (
        "A model of another precision is served as its float32 copy, so each layer must be what "
        "its get_config() says. Received: layer 'forgetful' of dtype policy 'mixed_bfloat16': "
        "Forgetful.__init__() missing 1 required positional argument: 'units'. Train and save it "
        "in float32, or mend its get_config()."
    )
