"""Networks and runs under a `keras.json` whose defaults are not Keras's own."""

import contextlib

import keras
import numpy as np
import pytest
from backends import to_numpy

from benchmarks.undrawn import without_values
from low_rank_local_connectivity import training
from low_rank_local_connectivity.models import CONVOLUTIONS, MODELS, Settings, convolution
from low_rank_local_connectivity.models.convolutions import Site

IMAGE_SHAPE, SMALL_IMAGE, CLASSES = (36, 38, 3), (12, 14, 3), 5
ODD = {"image_data_format": "channels_first", "floatx": "float16", "epsilon": 0.1}
# A network of each module of `models`; between them they have every kind of layer.
EACH_MODULE = {
    "simple_network": ("conv2d", "low_rank_locally_connected2d", "deformable_conv2d"),
    "transformer_network": ("coord_conv2d", "locally_connected2d", "full_conv2d"),
    "resnet18": (),
    "bagnet9": (),
    "group_network": (),
    "scale_pyramid_network": (),
    "deformable_scale_network": (),
    "group_resnet18": (),
    "scale_resnet18": (),
}
# Those whose layers or blocks no other of them has.
QUICK = [name for name in EACH_MODULE if name not in ("group_resnet18", "scale_resnet18")]
# Those that have between them every kind of layer whose computation could ask Keras again.
COMPUTED = ("simple_network", "transformer_network", "group_network", "scale_pyramid_network")
COMPUTED += ("deformable_scale_network",)


@contextlib.contextmanager
def keras_settings(image_data_format, floatx, epsilon, policy=None):
    """Keras's global settings as a `keras.json` would set them; as they were afterwards."""
    names = ("image_data_format", "floatx", "epsilon")
    before = {name: getattr(keras.config, name)() for name in names}
    policy_before = keras.config.dtype_policy()
    given = {"image_data_format": image_data_format, "floatx": floatx, "epsilon": epsilon}
    try:
        for name, value in given.items():
            getattr(keras.config, f"set_{name}")(value)
        keras.config.set_dtype_policy(policy or floatx)
        yield
    finally:
        for name, value in before.items():
            getattr(keras.config, f"set_{name}")(value)
        keras.config.set_dtype_policy(policy_before)


def build(name, kinds=("conv2d", "low_rank_locally_connected2d", "deformable_conv2d"), shape=None):
    """Builds a network, seeded, with names counted from the start."""
    keras.utils.clear_session(free_memory=False)  # which would look through all of TensorFlow
    keras.utils.set_random_seed(1)
    network = MODELS[name]
    makers = [convolution(kind, Settings(spatial_rank=2)) for kind in kinds]
    choices = (makers,) if network.num_layers else ()
    values = {"filters": 6, "kernel_size": 3, "stem": "cifar"}
    options = {key: values.get(key, True) for key in network.options}
    return network.build(shape or IMAGE_SHAPE, CLASSES, *choices, **options)


def every_network():
    """All networks; those that a module builds in other depths are for `slow`."""
    for name in MODELS:
        policies = ("float32", "mixed_bfloat16") if name == "simple_network" else ("float32",)
        marks = () if name in QUICK else (pytest.mark.slow,)
        yield from (pytest.param(name, policy, marks=marks) for policy in policies)


@pytest.mark.once
@pytest.mark.parametrize(("name", "policy"), list(every_network()))
def test_every_network_is_built_alike_whatever_keras_json_says(name, policy):
    with keras_settings("channels_last", "float32", 1e-7, policy), without_values():
        expected = build(name)
    with keras_settings(**ODD, policy=policy if policy != "float32" else None), without_values():
        found = build(name)
        assert keras.config.image_data_format() == "channels_first"
        assert keras.config.floatx() == "float16"
    assert found.get_config() == expected.get_config()
    assert described(found) == described(expected)
    assert found.input_shape == (None, *IMAGE_SHAPE)


def described(model):
    return [(weight.path, tuple(weight.shape), weight.dtype) for weight in model.weights]


@pytest.mark.parametrize("name", COMPUTED)
def test_a_network_computes_the_same_whatever_keras_json_says(name, rng):
    images = rng.normal(size=(2, *SMALL_IMAGE)).astype("float32")
    kinds = EACH_MODULE[name] or ("conv2d",) * 3
    expected = to_numpy(build(name, kinds, SMALL_IMAGE)(images))
    with keras_settings(**ODD):
        found = build(name, kinds, SMALL_IMAGE)(keras.ops.convert_to_tensor(images))
        assert keras.backend.standardize_dtype(found.dtype) == "float32"
        np.testing.assert_array_equal(to_numpy(found), expected)


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_every_kind_of_layer_reads_channels_last_images(kind):
    site = Site(4, 3, in_channels=3, in_size=(8, 7), name="layer")
    with keras_settings(**ODD):
        layer = convolution(kind, Settings())(site)
        layer = getattr(layer, "convolution", layer)
        assert layer.data_format == "channels_last"


def test_a_run_computes_under_its_own_settings_whatever_keras_json_says():
    with keras_settings(**ODD):
        training.set_precision("mixed_bfloat16")
        assert keras.config.image_data_format() == "channels_last"
        assert keras.config.floatx() == "float32"
        assert keras.config.epsilon() == 1e-7
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
