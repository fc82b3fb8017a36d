"""Banks that are frozen and changed by a product of low rank, against Keras's own convolution."""

import keras
import numpy as np
import pytest
from backends import EAGER, call, randomize, to_numpy

from low_rank_local_connectivity import conversion, layers
from low_rank_local_connectivity.export.precision import in_float32

SHAPE = (2, 8, 11, 4)
LAYERS = {
    "low rank": lambda: layers.LowRankLocallyConnected2D(6, 3, spatial_rank=5),
    "mixed": lambda: layers.LowRankLocallyConnected2D(
        6, [3, (1, 5)], spatial_rank=2, padding="same"
    ),
    "transposed": lambda: layers.LowRankLocallyConnected2DTranspose(6, 3, spatial_rank=5),
    "groups": lambda: layers.LowRankLocallyConnected2D(6, 3, spatial_rank=5, groups=2),
    "depthwise": lambda: layers.DepthwiseLowRankLocallyConnected2D(3, spatial_rank=5),
    "separable": lambda: layers.SeparableLowRankLocallyConnected2D(6, 3, spatial_rank=5),
    "input-dependent": lambda: layers.LowRankLocallyConnected2D(
        6, 3, spatial_rank=5, input_dependent=True
    ),
}


def adapted(layer, rng, **arguments):
    """The layer, with a product of rank 2 that is not zero."""
    layer.build(SHAPE)
    randomize(layer, rng)
    layer.enable_lora(2, **arguments)
    for weight in (*layer.lora_kernel_a, *layer.lora_kernel_b):
        weight.assign(rng.normal(size=weight.shape))
    return layer


def test_a_single_bank_is_adapted_as_keras_s_convolution(rng):
    layer = layers.LowRankLocallyConnected2D(6, 3, spatial_rank=1, use_spatial_bias=False)
    adapted(layer, rng, lora_alpha=3)
    convolution = keras.layers.Conv2D(6, 3)
    convolution.build(SHAPE)
    convolution.enable_lora(2, lora_alpha=3)
    convolution.set_weights(layer.get_weights())
    inputs = rng.normal(size=SHAPE).astype("float32")
    np.testing.assert_allclose(call(layer, inputs), call(convolution, inputs), atol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_an_adapted_layer_starts_as_it_was_and_trains_all_but_the_banks(name, rng):
    layer = LAYERS[name]()
    model = keras.Sequential([keras.Input(SHAPE[1:]), layer])
    randomize(layer, rng)
    inputs = rng.normal(size=SHAPE).astype("float32")
    before = call(layer, inputs)
    layer.enable_lora(2)
    np.testing.assert_array_equal(call(layer, inputs), before)
    before_of = {weight.path: to_numpy(weight) for weight in layer.weights}
    model.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=EAGER)
    # `b` is zero, and so is the gradient of `a` before the first step.
    model.fit(inputs, np.zeros_like(before), epochs=2, verbose=0)
    still = {
        weight.name
        for weight in layer.weights
        if (to_numpy(weight) == before_of[weight.path]).all()
    }
    assert still == {weight.name for weight in layer.weights if "kernel_bases" in weight.name}


@pytest.mark.parametrize("name", LAYERS)
def test_a_saved_layer_holds_the_sum(name, rng, tmp_path):
    layer = adapted(LAYERS[name](), rng)
    model = keras.Sequential([keras.Input(SHAPE[1:]), layer])
    inputs = rng.normal(size=SHAPE).astype("float32")
    expected = call(layer, inputs)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert not loaded.layers[0].lora_enabled
    np.testing.assert_allclose(call(loaded, inputs), expected, atol=1e-4)
    model.load_weights(tmp_path / "model.keras")
    np.testing.assert_allclose(call(layer, inputs), expected, atol=1e-4)
    assert all((to_numpy(b) == 0).all() for b in layer.lora_kernel_b)


def test_conversion_takes_what_an_adapted_layer_computes_with(rng):
    layer = adapted(LAYERS["low rank"](), rng)
    inputs = rng.normal(size=SHAPE).astype("float32")
    expected = call(layer, inputs)
    local = conversion.to_locally_connected(layer)
    np.testing.assert_allclose(call(local, inputs), expected, atol=1e-4)
    convolution = keras.layers.Conv2D(6, 3)
    convolution.build(SHAPE)
    convolution.enable_lora(2)
    convolution.lora_kernel_b.assign(rng.normal(size=(2, 6)))
    relaxed = conversion.from_convolution(convolution, 3, SHAPE)
    np.testing.assert_allclose(call(relaxed, inputs), call(convolution, inputs), atol=1e-4)


@pytest.mark.parametrize(("policy", "near"), [("float32", 1e-5), ("mixed_bfloat16", 0.03)])
def test_a_model_with_adapted_layers_is_copied(policy, near, rng):
    with_lora = [
        keras.layers.Conv2D(5, 3, dtype=policy),
        layers.LowRankLocallyConnected2D(6, 3, spatial_rank=5, dtype=policy),
        keras.layers.Dense(3, dtype=policy),
    ]
    model = keras.Sequential([keras.Input(SHAPE[1:]), *with_lora])
    randomize(model, rng)
    for layer in with_lora:
        layer.enable_lora(2)
        bs = layer.lora_kernel_b
        for weight in bs if isinstance(bs, list) else [bs]:
            weight.assign(rng.normal(size=weight.shape))
    inputs = rng.normal(size=SHAPE).astype("float32")
    expected = call(model, inputs)
    kept = conversion.convert(model, lambda _: None) if policy == "float32" else in_float32(model)
    assert kept is not model
    found = call(kept, inputs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=near * np.abs(expected).max())


ERRORS = {
    "not built": (
        lambda layer: layer.enable_lora(2),
        (
            "enable_lora() needs the banks, so layer 'layer' must be built first. Received: a "
            "layer without weights. Call it, or build(input_shape)."
        ),
    ),
    "rank": (
        lambda layer: layer.enable_lora(0),
        "`rank` must be an integer of at least 1. Received: rank=0.",
    ),
    "twice": (
        lambda layer: (layer.build(SHAPE), layer.enable_lora(2), layer.enable_lora(3)),
        (
            "enable_lora() can be called once. Received: layer 'layer', whose LoRA has rank 2 "
            "already. Save and load the layer to start anew from the sum."
        ),
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_says_what_must_hold_and_what_came(case):
    act, text = ERRORS[case]
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole text is compared below
        act(layers.LowRankLocallyConnected2D(6, 3, spatial_rank=5, name="layer"))
    assert str(caught.value) == text


def test_a_constraint_on_the_banks_is_refused():
    layer = layers.LowRankLocallyConnected2D(6, 3, spatial_rank=5, kernel_constraint="max_norm")
    layer.build(SHAPE)
    with pytest.raises(ValueError, match="A constraint on the banks does not hold"):
        layer.enable_lora(2)
