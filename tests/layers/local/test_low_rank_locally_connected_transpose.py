# Some of the texts quoted below are longer than a line.
# ruff: noqa: E501
"""Transposed low-rank layers: their definition, their limiting cases, and what they refuse."""

import keras
import numpy as np
import pytest
import reference
from backends import call, compute, randomize, to_numpy

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.ops import TransposedWindows, weigh_then_convolve
from low_rank_local_connectivity.plans import LOW_RANK_TRANSPOSE, names_of

BACKEND = keras.backend.backend()
PLANS = names_of(LOW_RANK_TRANSPOSE)
INPUTS = {1: (2, 7, 4), 2: (2, 4, 5, 3), 3: (2, 3, 4, 5, 6)}
FILTERS = 8
SETTINGS = {
    "valid": (1, {"kernel_size": 3, "strides": 3, "output_padding": 2}),
    "dilation": (1, {"kernel_size": 3, "dilation_rate": 2, "padding": "same"}),
    "strides": (2, {"kernel_size": (3, 4), "strides": (2, 3), "padding": "same"}),
    # TensorFlow itself computes no outputs that end where the last window begins.
    "output padding": (
        2,
        {"kernel_size": (3, 4), "strides": (2, 3), "padding": "same", "output_padding": (1, 0)},
    ),
    "volumes": (3, {"kernel_size": (2, 1, 3), "padding": "same"}),
}
every_setting = pytest.mark.parametrize("name", SETTINGS)


def built(setting, rng, rank=5, shape=None, **changes):
    """A layer of these settings with random weights."""
    dimensions, arguments = SETTINGS[setting]
    kind = getattr(layers, f"LowRankLocallyConnected{dimensions}DTranspose")
    layer = kind(FILTERS, **{"spatial_rank": rank, **arguments, **changes})
    layer.build(shape or INPUTS[dimensions])
    randomize(layer, rng)
    return layer


def images(layer, rng):
    return rng.normal(size=INPUTS[layer.dimensions]).astype("float32")


def defined(layer, inputs, kernel, sizes):
    """What a layer's filters and biases give by the definition."""
    settings = (layer.strides, layer.dilation_rate, layer.padding)
    if layer.padding == "same" and layer.output_padding is not None:
        # What Keras's own function gives on JAX and PyTorch, where the loops' rule has no say.
        settings = (*settings[:2], "valid")
        whole = layer.windows.whole_shape(inputs.shape[1:-1])
        outputs = reference.local_convolution_transpose(inputs, kernel, *settings, whole)
        inside = [
            slice(first, first + size)
            for (first, _), size in zip(layer.windows.kept, sizes, strict=True)
        ]
        outputs = outputs[(slice(None), *inside)]
    else:
        outputs = reference.local_convolution_transpose(inputs, kernel, *settings, sizes)
    return outputs + sum(to_numpy(term) for term in layer.output_biases())


@every_setting
@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_gives_the_outputs_of_the_definition(name, plan, rng):
    layer = built(name, rng, implementation=plan)
    inputs = images(layer, rng)
    kind = getattr(keras.layers, f"Conv{layer.dimensions}DTranspose")
    sizes = kind(FILTERS, **SETTINGS[name][1]).compute_output_shape(inputs.shape)[1:-1]
    expected = defined(layer, inputs, to_numpy(layer.local_kernel()), sizes)
    np.testing.assert_allclose(call(layer, inputs), expected, rtol=1e-4, atol=1e-4)


@every_setting
def test_the_local_kernel_is_the_mix_of_banks_that_are_kernels_of_keras(name, rng):
    layer = built(name, rng, rank=2, normalize_weights=None)
    channels = layer.input_channels
    banks = [to_numpy(layer.kernel_bases)[..., k * channels :][..., :channels] for k in (0, 1)]
    logits = [to_numpy(one) for one in layer.logits]
    sums = logits[0]
    for one in logits[1:]:
        sums = sums[..., None, :] + one
    mixed = np.tensordot(sums, np.stack(banks), 1)
    np.testing.assert_allclose(to_numpy(layer.local_kernel()), mixed, rtol=1e-5, atol=1e-6)
    shape = getattr(keras.layers, f"Conv{layer.dimensions}DTranspose")(FILTERS, **SETTINGS[name][1])
    shape.build(INPUTS[layer.dimensions])
    assert banks[0].shape == tuple(shape.kernel.shape)


@every_setting
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_rank_1_under_softmax_is_keras_s_layer_and_a_spatial_bias(name, data_format, rng):
    dimensions, arguments = SETTINGS[name]
    if BACKEND == "tensorflow" and name in ("dilation", "output padding"):
        pytest.skip("TensorFlow cannot compute Keras's own layer on a CPU")
    first = data_format == "channels_first"
    shape = INPUTS[dimensions]
    inputs = rng.normal(size=shape).astype("float32")
    given = np.moveaxis(inputs, -1, 1) if first else inputs
    layer = built(name, rng, 1, given.shape, data_format=data_format)
    assert not [weight.name for weight in layer.weights if "combining" in weight.name]
    theirs = getattr(keras.layers, f"Conv{dimensions}DTranspose")(FILTERS, **arguments)
    theirs.build(shape)
    theirs.set_weights([layer.kernel_bases, layer.bias])
    bias = layers.SpatialBias()
    outputs = call(theirs, inputs)
    bias.build(outputs.shape)
    bias.set_weights(layer.spatial_bias_terms)
    expected = call(bias, outputs)
    found = call(layer, given)
    found = np.moveaxis(found, 1, -1) if first else found
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@every_setting
def test_one_hot_weights_with_as_many_banks_as_positions_are_locally_connected(name, rng):
    dimensions, arguments = SETTINGS[name]
    local = getattr(layers, f"LocallyConnected{dimensions}DTranspose")(FILTERS, **arguments)
    shape = INPUTS[dimensions]
    local.build(shape)
    randomize(local, rng)
    positions = int(np.prod(shape[1:-1]))
    layer = built(
        name,
        rng,
        positions,
        additive_axes=(),
        normalize_weights=None,
        use_spatial_bias="per_filter",
        use_bias=False,
    )
    kernel = to_numpy(local.local_kernel()).reshape(positions, *layer.kernel_size, FILTERS, -1)
    bases = np.moveaxis(kernel, 0, -2).reshape(*layer.kernel_bases.shape)
    one_hot = np.eye(positions).reshape(*shape[1:-1], positions)
    layer.set_weights([bases, one_hot, local.bias])
    inputs = images(layer, rng)
    np.testing.assert_allclose(call(layer, inputs), call(local, inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("plan", PLANS)
def test_it_is_the_adjoint_of_the_low_rank_layer_of_the_same_banks_and_logits(plan, rng):
    settings = {"use_bias": False, "use_spatial_bias": False, "normalize_weights": "norm"}
    layer = built("strides", rng, implementation=plan, **settings)
    inputs = images(layer, rng)
    spread = call(layer, inputs)
    adjoint = layers.LowRankLocallyConnected2D(
        layer.input_channels, (3, 4), 5, (2, 3), "same", **settings
    )
    adjoint.build(spread.shape)
    adjoint.set_weights(layer.get_weights())
    others = rng.normal(size=spread.shape).astype("float32")
    read = call(adjoint, others)
    scale = float(np.linalg.norm(spread) * np.linalg.norm(others))
    assert np.vdot(spread, others) == pytest.approx(np.vdot(inputs, read), abs=1e-6 * scale)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_predicted_weights_mix_each_example_s_filters(data_format, rng):
    inputs = rng.normal(size=INPUTS[2]).astype("float32")
    given = inputs if data_format == "channels_last" else np.moveaxis(inputs, -1, 1)
    settings = {"input_dependent": True, "use_bias": False, "use_spatial_bias": False}
    layer = built("strides", rng, 2, given.shape, data_format=data_format, **settings)
    weights = compute(layer.combining_weights, given)
    assert weights.shape == (*inputs.shape[:-1], 2)
    banks = to_numpy(layer.kernel_bases).reshape(*layer.kernel_size, FILTERS, 2, -1)
    found = call(layer, given)
    found = found if data_format == "channels_last" else np.moveaxis(found, 1, -1)
    for index, image in enumerate(inputs):
        kernel = np.einsum("ijk,yxfkc->ijyxfc", weights[index], banks)
        outputs = reference.local_convolution_transpose(
            image[None], kernel, layer.strides, layer.dilation_rate, "same", found.shape[1:-1]
        )
        np.testing.assert_allclose(found[index], outputs[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["strides", "output padding"])
def test_a_layer_whose_columns_are_alike_takes_other_widths(name, rng):
    shape = (None, 4, None, 3)
    layer = built(name, rng, shape=shape, additive_axes=(0,))
    known = built(name, rng, additive_axes=(0,))
    known.set_weights(layer.get_weights())
    inputs = images(known, rng)
    np.testing.assert_allclose(call(layer, inputs), call(known, inputs), rtol=1e-5, atol=1e-5)
    wider = np.concatenate([inputs, inputs], 2)
    model = keras.Sequential([keras.Input(shape[1:]), layer])
    assert model.output_shape == (None, *layer.output_sizes[:1], None, FILTERS)
    assert model.predict_on_batch(wider).shape == layer.compute_output_shape(wider.shape)


@pytest.mark.parametrize("preserve_variance", [False, True])
def test_banks_differ_and_are_drawn_as_keras_draws_its_kernel(preserve_variance):
    keras.utils.set_random_seed(1)
    layer = layers.LowRankLocallyConnected2DTranspose(
        20, 3, 4, kernel_initializer="glorot_uniform", preserve_variance=preserve_variance
    )
    layer.build((None, 5, 6, 30))
    theirs = keras.layers.Conv2DTranspose(20, 3)
    theirs.build((None, 5, 6, 30))
    banks = to_numpy(layer.kernel_bases).reshape(3, 3, 20, 4, 30)
    expected = to_numpy(theirs.kernel).std() * (2 if preserve_variance else 1)
    assert banks.std() == pytest.approx(expected, rel=0.05)
    assert np.abs(banks[..., 0, :] - banks[..., 1, :]).max() > 0.1 * expected


def low_rank(**changes):
    return layers.LowRankLocallyConnected2DTranspose(4, 3, 2, name="up", **changes)


ERRORS = {
    "implementation": (
        lambda: low_rank(implementation="combine_then_convolve"),
        "`implementation` must be one of 'auto', 'weigh_then_convolve', 'combine_then_spread'. Received: implementation='combine_then_convolve'.",
    ),
    "mixing for each example": (
        lambda: low_rank(implementation="combine_then_spread", input_dependent=True),
        "Banks can be mixed before spreading only if the combining weights are the same for all examples. Received: implementation='combine_then_spread' with input_dependent=True. Use implementation='auto'.",
    ),
    "mixing for unknown positions": (
        lambda: low_rank(implementation="combine_then_spread", additive_axes=(0,)).build((None, 5, None, 3)),
        "implementation='combine_then_spread' mixes one filter for each input position, so every spatial size must be known. Received: input_shape=(None, 5, None, 3). Use implementation='auto'.",
    ),
    "logits of unknown positions": (
        lambda: low_rank().build((None, 5, None, 3)),
        "The weight 'combining_weights_col' of layer 'up' has logits for every position along its axes, so the input's size along them must be known. Received: input_shape=(None, 5, None, 3). Give the input a static size, or share along the unknown axis by leaving it out of `additive_axes`.",
    ),
    "output padding": (
        lambda: low_rank(output_padding=1),
        "`output_padding` must be less than the stride along every axis. Received: output_padding=(1, 1) with strides=(1, 1).",
    ),
    "no local kernel": (
        lambda: built("strides", np.random.default_rng(0), input_dependent=True, name="up").local_kernel(),
        "The filters of layer 'up' depend on its inputs, so it has no local kernel. Mix `kernel_bases` by combining_weights(inputs) for each example.",
    ),
    "kernel of other banks": (
        lambda: weigh_then_convolve(
            np.zeros((2, 4, 3)), np.zeros((2, 5, 7)), np.zeros((1, 4, 2)), TransposedWindows((2,), (1,), (1,), "same")
        ),
        "`kernel_Tfh` must have the taps of its windows and hold a bank for each combining weight, each with the channels of the inputs. Received: kernel_Tfh of shape (2, 5, 7), 2 weights, windows of 2 taps, (2,), and inputs_bSc of shape (2, 4, 3).",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_what_cannot_be_is_refused_in_words(name):
    make, text = ERRORS[name]
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole text is compared below
        make()
    assert str(caught.value) == text
