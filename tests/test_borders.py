"""Borders read from the inputs, amounts of zeros, and strides with dilation, in every layer."""

import json

import keras
import numpy as np
import pytest
import reference
from backends import assert_refused, call, compute, outputs_and_gradients, randomize, to_numpy
from keras import ops

from low_rank_local_connectivity import conversion, layers
from low_rank_local_connectivity.inspection import receptive_field
from low_rank_local_connectivity.ops import Windows
from low_rank_local_connectivity.ops.borders import pad_windows
from low_rank_local_connectivity.ops.convolution import windowed_convolution
from low_rank_local_connectivity.plans.fused import kernel_missing

SHAPES = {1: (2, 13, 4), 2: (2, 8, 11, 4), 3: (2, 5, 7, 6, 3)}
AMOUNTS = ((1, 3), (0, 2))
READ = ("circular", "reflect", "replicate")


@pytest.mark.parametrize("padding", READ)
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_what_stands_around_is_what_pytorch_puts_there(dimensions, padding, rng):
    torch = pytest.importorskip("torch")
    inputs = rng.normal(size=SHAPES[dimensions]).astype("float32")
    windows = Windows((4, 3, 2)[:dimensions], (1,) * dimensions, (1, 2, 1)[:dimensions], padding)
    found = to_numpy(pad_windows(ops.convert_to_tensor(inputs), windows))
    amounts = [(1, 2), (2, 2), (0, 1)][:dimensions]
    assert windows.pad_amounts(inputs.shape[1:-1]) == tuple(amounts)
    last_first = [amount for pair in reversed(amounts) for amount in pair]
    around = torch.nn.functional.pad(
        torch.tensor(np.moveaxis(inputs, -1, 1)), last_first, mode=padding
    )
    np.testing.assert_array_equal(found, np.moveaxis(around.numpy(), 1, -1))


@pytest.mark.parametrize("padding", READ)
def test_a_bank_alone_is_pytorch_s_convolution_with_that_padding_mode(padding, rng):
    torch = pytest.importorskip("torch")
    layer = layers.LowRankLocallyConnected2D(
        6, (3, 5), 1, (2, 3), padding, dilation_rate=(3, 2), use_spatial_bias=False
    )
    # Sizes whose windows end where the border does, as PyTorch, which pads first, has them.
    inputs = rng.normal(size=(2, 9, 13, 4)).astype("float32")
    layer.build(inputs.shape)
    randomize(layer, rng)
    theirs = torch.nn.Conv2d(
        4, 6, (3, 5), (2, 3), padding=(3, 4), dilation=(3, 2), padding_mode=padding
    )
    kernel, bias = (to_numpy(weight) for weight in layer.weights)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(kernel.transpose(3, 2, 0, 1)))
        theirs.bias.copy_(torch.tensor(bias))
    images = torch.tensor(inputs.transpose(0, 3, 1, 2), requires_grad=True)
    expected = theirs(images)
    projection = rng.normal(size=(2, 5, 5, 6)).astype("float32")
    (expected * torch.tensor(projection.transpose(0, 3, 1, 2))).sum().backward()
    outputs, (of_inputs, of_kernel, of_bias) = outputs_and_gradients(layer, inputs, projection)
    pairs = [
        (outputs, expected.detach().numpy().transpose(0, 2, 3, 1)),
        (of_inputs, images.grad.numpy().transpose(0, 2, 3, 1)),
        (of_kernel, theirs.weight.grad.numpy().transpose(2, 3, 1, 0)),
        (of_bias, theirs.bias.grad.numpy()),
    ]
    for found, wanted in pairs:
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


# Taps, strides, dilations: common divisors, none, one tap, and both on different axes.
STEPS = [
    ((3, 2), (2, 1), (1, 2)),
    ((4, 3), (3, 2), (2, 4)),
    ((2, 1), (2, 3), (3, 2)),
    ((5,), (4,), (6,)),
    ((2, 3, 2), (2, 1, 3), (2, 2, 2)),
]


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("taps", "strides", "dilations"), STEPS)
def test_strides_and_dilation_at_once_read_what_a_loop_reads(
    taps, strides, dilations, padding, rng
):
    sizes = {1: (33,), 2: (12, 17), 3: (5, 9, 7)}[len(taps)]
    windows = Windows(taps, strides, dilations, padding)
    inputs, kernel = rng.normal(size=(2, *sizes, 4)), rng.normal(size=(*taps, 4, 6))
    positions = reference.output_shape(sizes, taps, strides, dilations, padding)
    read = reference.read_windows(inputs, taps, positions, strides, dilations, padding)
    expected = np.tensordot(read, kernel, len(taps) + 1)
    found = compute(
        lambda x, k: windowed_convolution(x, k, windows),
        inputs.astype("float32"),
        kernel.astype("float32"),
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("padding", ["valid", "same", AMOUNTS])
def test_strides_and_dilation_at_once_take_inputs_of_any_size(padding, rng):
    layer = layers.LowRankLocallyConnected2D(
        6, (3, 2), 1, (2, 3), padding, dilation_rate=(3, 1), use_spatial_bias=False
    )
    model = keras.Sequential([keras.Input((None, None, 4)), layer])
    randomize(layer, rng)
    kernel, bias = (to_numpy(weight) for weight in layer.weights)
    for sizes in ((8, 11), (9, 12)):
        inputs = rng.normal(size=(2, *sizes, 4)).astype("float32")
        positions = reference.output_shape(sizes, (3, 2), (2, 3), (3, 1), padding)
        read = reference.read_windows(inputs, (3, 2), positions, (2, 3), (3, 1), padding)
        expected = np.tensordot(read, kernel, 3) + bias
        found = model.predict_on_batch(inputs)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("padding", READ)
def test_a_border_is_read_from_inputs_of_any_size(padding, rng):
    layer = layers.LowRankLocallyConnected1D(6, 4, 1, padding=padding, use_spatial_bias=False)
    model = keras.Sequential([keras.Input((None, 3)), layer])
    randomize(layer, rng)
    kernel, bias = (to_numpy(weight) for weight in layer.weights)
    for size in (7, 10):
        inputs = rng.normal(size=(2, size, 3)).astype("float32")
        read = reference.read_windows(inputs, (4,), (size,), (1,), (1,), padding)
        expected = np.tensordot(read, kernel, 2) + bias
        found = model.predict_on_batch(inputs)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


BOTH = {"strides": (2, 3), "dilation_rate": (3, 1)}
# Layers of which the pages before say nothing, with all that decides where their windows sit.
OTHERS = {
    "conditional": ("CondConv2D", {"kernel_size": (3, 2), "num_experts": 5, **BOTH}),
    "deformable": ("DeformableConv2D", {"kernel_size": (3, 2), **BOTH}),
    "offsets from one tap": ("DeformableConv2D", {"kernel_size": (1, 2), "strides": (3, 1)}),
    "Kronecker, whole": (
        "KroneckerConv2D",
        {"kernel_size": (4, 3), "factors": ((2, 1, 2, 3), (2, 3, 2, 2)), "strategy": "dense"},
    ),
    "Kronecker, in steps": (
        "KroneckerConv2D",
        {
            "kernel_size": (4, 3),
            "factors": ((2, 1, 2, 3), (2, 3, 2, 2)),
            "strategy": "factored",
            "strides": (1, 2),
        },
    ),
    "turned": ("GroupLiftConv2D", {"kernel_size": 3, "dilation_rate": 2}),
}


@pytest.mark.parametrize("padding", [*READ, "amounts"])
@pytest.mark.parametrize("name", OTHERS)
def test_a_layer_reads_inputs_as_it_would_read_those_that_numpy_padded(name, padding, rng):
    layer_class, arguments = OTHERS[name]
    # As many zeros on all sides, as turned filters need them.
    padding = ((2, 2), (2, 2)) if padding == "amounts" else padding
    inputs = rng.normal(size=(2, 8, 13, 4)).astype("float32")
    make = getattr(layers, layer_class)
    layer, valid = (make(filters=6, padding=one, **arguments) for one in (padding, "valid"))
    windows = layer.windows
    structure = (windows.sizes, windows.strides, windows.dilations)
    padded, _ = reference.bordered(inputs, *structure, padding)
    layer.build(inputs.shape)
    valid.build(padded.shape)
    randomize(layer, rng)
    if layer_class == "CondConv2D":  # its router takes a mean over all that it is given
        routing = rng.normal(size=(2, 5)).astype("float32")
        found, expected = layer(inputs, routing), to_numpy(routed(valid, layer, padded, routing))
    else:
        valid.set_weights(layer.get_weights())
        found, expected = call(layer, inputs), call(valid, padded)
    assert tuple(found.shape) == layer.compute_output_shape(inputs.shape)
    np.testing.assert_allclose(
        to_numpy(found), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


def routed(valid, layer, padded, routing):
    valid.set_weights(layer.get_weights())
    return valid(padded, routing)


@pytest.mark.parametrize("padding", READ)
def test_filters_from_the_input_are_made_and_applied_within_one_border(padding, rng):
    arguments = {"kernel_size": (3, 2), "generator_kernel_size": (1, 5), "normalize": None}
    layer = layers.DynamicLocalFilter2D(**arguments, padding=padding)
    zeros = layers.DynamicLocalFilter2D(**arguments)
    inputs = rng.normal(size=(2, 8, 11, 4)).astype("float32")
    for one in (layer, zeros):
        one.build(inputs.shape)
    randomize(layer, rng)
    zeros.set_weights(layer.get_weights())
    # Positions that far from the zeros read none of them.
    padded = np.pad(inputs, ((0, 0), (1, 1), (2, 2), (0, 0)), mode=reference.READ[padding])
    expected = call(zeros, padded)[:, 1:-1, 2:-2]
    np.testing.assert_allclose(call(layer, inputs), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", READ)
def test_each_convolution_of_a_context_has_the_border_of_what_it_reads(padding, rng):
    layer = layers.DilatedContext2D(5, dilations=(2, 1), kernel_size=(3, 5), padding=padding)
    inputs = rng.normal(size=(2, 8, 11, 4)).astype("float32")
    layer.build(inputs.shape)
    randomize(layer, rng)
    expected = inputs
    for one, rate in zip(layer.convolutions, (2, 1, 0), strict=True):
        amounts = ((0, 0), (rate, rate), (2 * rate, 2 * rate), (0, 0))
        expected = call(one, np.pad(expected, amounts, mode=reference.READ[padding]))
    np.testing.assert_allclose(call(layer, inputs), expected, rtol=1e-4, atol=1e-4)
    # Its reach in all exceeds the input, but nothing has to be read that far beyond it.
    wide = layers.DilatedContext2D(dilations=(3, 3, 3), padding=padding)
    assert wide.receptive_field == (19, 19)
    assert wide.compute_output_shape(inputs.shape) == inputs.shape


@pytest.mark.parametrize("padding", ["circular", AMOUNTS])
@pytest.mark.parametrize("layer_class", ["LocallyConnected2D", "LowRankLocallyConnected2D"])
def test_a_fused_kernel_reads_the_same_border(layer_class, padding, rng):
    if missing := kernel_missing(keras.backend.backend(), 2):
        pytest.skip(missing)
    arguments = {"padding": padding, "strides": (2, 1), "dilation_rate": (1, 2)}
    arguments |= {"spatial_rank": 3} if layer_class.startswith("LowRank") else {}
    make = getattr(layers, layer_class)
    fused, plain = (
        make(5, (3, 2), implementation="fused", **arguments),
        make(5, (3, 2), **arguments),
    )
    inputs = rng.normal(size=(2, 6, 7, 4)).astype("float32")
    for one in (fused, plain):
        one.build(inputs.shape)
    randomize(plain, rng)
    fused.set_weights(plain.get_weights())
    np.testing.assert_allclose(call(fused, inputs), call(plain, inputs), rtol=1e-4, atol=1e-5)


def test_a_single_tap_with_unequal_strides_gets_the_gradient_of_what_it_reads(rng):
    layer = layers.LowRankLocallyConnected2D(6, 1, 1, (2, 1), use_spatial_bias=False)
    inputs = rng.normal(size=SHAPES[2]).astype("float32")
    projection = rng.normal(size=(2, 4, 11, 6)).astype("float32")
    layer.build(inputs.shape)
    _, (_, of_kernel, _) = outputs_and_gradients(layer, inputs, projection)
    expected = np.einsum("bhwc,bhwf->cf", inputs[:, ::2], projection)
    np.testing.assert_allclose(of_kernel[0, 0], expected, rtol=1e-4, atol=1e-4)


def test_a_layer_s_padding_survives_json(rng):
    padding = ((0, 2), (3, 1))
    layer = layers.LocallyConnected2D(6, 3, (2, 1), padding, dilation_rate=(1, 2))
    again = type(layer).from_config(json.loads(json.dumps(layer.get_config())))
    assert again.padding == layer.padding == padding
    inputs = rng.normal(size=(2, 8, 11, 4)).astype("float32")
    layer.build(inputs.shape)
    again.build(inputs.shape)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(call(again, inputs), call(layer, inputs))


@pytest.mark.parametrize("padding", ["circular", AMOUNTS])
@pytest.mark.parametrize("mixed", [False, True])
def test_conversions_keep_the_padding(padding, mixed, rng):
    if mixed and padding == AMOUNTS:
        pytest.skip("banks of different sizes have outputs of different sizes then: refused")
    sizes = [(3, 2), 4] if mixed else (3, 2)
    layer = layers.LowRankLocallyConnected2D(6, sizes, 2, (2, 1), padding, dilation_rate=(1, 2))
    inputs = rng.normal(size=(2, 8, 11, 4)).astype("float32")
    layer.build(inputs.shape)
    randomize(layer, rng)
    expected = call(layer, inputs)
    local = conversion.to_locally_connected(layer)
    for found in (local, conversion.to_low_rank(local, 2), conversion.resize(layer, inputs.shape)):
        assert found.padding == padding
        np.testing.assert_allclose(call(found, inputs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "arguments", [{"padding": "reflect"}, {"strides": 2, "dilation_rate": 2}], ids=["read", "both"]
)
def test_what_no_convolution_of_keras_s_can_compute_is_served_as_it_is(arguments, rng):
    layer = layers.LowRankLocallyConnected2D(6, 3, spatial_rank=1, **arguments)
    model = keras.Sequential([keras.Input((8, 11, 4)), layer])
    randomize(layer, rng)
    reports = []
    found = conversion.convert(model, report=reports.append)
    assert [type(one) for one in found.layers] == [type(layer)]
    assert "it is a convolution, and no convolution of Keras's has" in str(reports[0])


@pytest.mark.parametrize("padding", ["circular", AMOUNTS])
def test_a_normalisation_is_folded_into_the_layer_after_it_unless_that_pads_with_zeros(
    padding, rng
):
    steps = [
        keras.Input((8, 11, 4)),
        keras.layers.BatchNormalization(),
        layers.LocallyConnected2D(6, (3, 2), padding=padding),
    ]
    model = keras.Sequential(steps)
    for variable in model.variables:
        variable.assign(0.5 + rng.random(variable.shape))
    folded = conversion.fold_batch_normalization(model, report=None)
    assert len(folded.layers) == (1 if padding == "circular" else 2)
    inputs = rng.normal(size=(2, 8, 11, 4)).astype("float32")
    np.testing.assert_allclose(call(folded, inputs), call(model, inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.once
def test_a_receptive_field_starts_where_the_border_does():
    model = keras.Sequential(
        [
            keras.Input((8, 11, 4)),
            layers.LocallyConnected2D(6, 3, padding=((2, 0), (1, 5))),
            layers.GroupLiftConv2D(5, 5, padding="reflect"),
        ]
    )
    rows = receptive_field(model)
    assert [row.starts for row in rows] == [(-2, -1), (-4, -3)]
    assert [row.sizes for row in rows] == [(3, 3), (7, 7)]


NOT_A_PADDING = (
    "`padding` must be one of 'valid', 'same', {}'circular', 'reflect', 'replicate', or a tuple "
    "with a pair (before, after) of integers of at least 0 for each spatial axis, here {}. "
    "Received: padding={}."
)
TOO_SMALL = (
    "Windows that reach {} beyond the input under padding={} need at least {} elements along that "
    "axis. Received: spatial input size {}, too small along axis {}. Use a smaller kernel or "
    "dilation, or padding='same'."
)


def lc(dimensions, *arguments, **more):
    return getattr(layers, f"LocallyConnected{dimensions}D")(4, *arguments, **more)


REFUSED = {
    "a number": (lambda: lc(2, 3, padding=2), NOT_A_PADDING.format("", 2, 2)),
    "a name": (lambda: lc(2, 3, padding="wrap"), NOT_A_PADDING.format("", 2, "'wrap'")),
    "fewer pairs": (
        lambda: lc(3, 3, padding=((1, 2), (0, 1))),
        NOT_A_PADDING.format("", 3, "((1, 2), (0, 1))"),
    ),
    "a bare pair": (
        lambda: lc(1, 3, padding=(1, 2)),
        NOT_A_PADDING.format("'causal', ", 1, "(1, 2)"),
    ),
    "negative amounts": (
        lambda: lc(2, 3, padding=((1, 2), (-1, 1))),
        NOT_A_PADDING.format("", 2, "((1, 2), (-1, 1))"),
    ),
    "too little to mirror": (
        lambda: lc(2, (3, 7), padding="reflect").build((None, 8, 3, 2)),
        TOO_SMALL.format(3, "'reflect'", 4, (8, 3), 1),
    ),
    "too little to wrap around": (
        lambda: lc(1, 4, padding="circular", dilation_rate=3).compute_output_shape((None, 4, 2)),
        TOO_SMALL.format(5, "'circular'", 5, (4,), 0),
    ),
    "nothing to repeat": (
        lambda: Windows((3,), (1,), (1,), "replicate").pad_amounts((0,)),
        TOO_SMALL.format(1, "'replicate'", 1, (0,), 0),
    ),
    "strides over an unknown size": (
        lambda: layers.CondConv2D(4, 3, 2, strides=2, padding="circular").build((None, None, 3, 2)),
        (
            "The padding of a strided window under padding='circular' depends on the input's size, "
            "so that size must be known. Received: None. Give the input a static size."
        ),
    ),
    "a mixed basis": (
        lambda: layers.LowRankLocallyConnected2D(4, [3, 5], 2, padding=((1, 1), (1, 1))),
        (
            "Banks of different kernel sizes or dilation rates need padding that keeps the size. "
            "Received: padding=((1, 1), (1, 1)) with kernel_size=[(3, 3), (5, 5)] and "
            "dilation_rate=(1, 1). Use padding='same'."
        ),
    ),
    "a wide bank": (
        lambda: layers.LowRankLocallyConnected2D(4, [3, 9], 2, padding="reflect").build(
            (None, 4, 6, 2)
        ),
        TOO_SMALL.format(4, "'reflect'", 5, (4, 6), 0),
    ),
    "a context": (
        lambda: layers.DilatedContext2D(padding="reflect").build((None, 40, 16, 3)),
        TOO_SMALL.format(16, "'reflect'", 17, (40, 16), 1),
    ),
    "a generator": (
        lambda: layers.DynamicLocalFilter2D(
            3, generator_kernel_size=9, padding="circular"
        ).compute_output_shape((None, 9, 3, 2)),
        TOO_SMALL.format(4, "'circular'", 4, (9, 3), 1),
    ),
    "turned filters": (
        lambda: layers.GroupLiftConv2D(4, 3, padding=((1, 1), (1, 2))),
        (
            "`padding` must be the same at all sides, since filters are turned. Received: "
            "padding=((1, 1), (1, 2))."
        ),
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_in_a_sentence(what):
    assert_refused(*REFUSED[what])


@pytest.mark.once
@pytest.mark.parametrize("kind", ["GroupLiftConv2D", "KroneckerConv2D"])
def test_a_plain_convolution_is_refused_where_keras_has_none(kind):
    arguments = {
        "GroupLiftConv2D": {},
        "KroneckerConv2D": {"factors": ((3, 3, 1, 1), (1, 1, 2, 4))},
    }
    layer = getattr(layers, kind)(4, 3, padding="circular", name="this", **arguments[kind])
    layer.build((None, 8, 9, 2))
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole text is compared)
        layer.to_conv2d()
    assert str(error.value) == (
        "to_conv2d() returns a convolution of Keras's, and no convolution of Keras's has "
        "padding='circular'. Received: layer 'this' with strides=(1, 1), dilation_rate=(1, 1) and "
        "padding='circular'. Keep the layer as it is, for export with convert=False."
    )


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow leaves sizes open in a graph"
)
@pytest.mark.parametrize(("padding", "enough"), [("circular", 4), ("reflect", 5), ("replicate", 1)])
def test_an_input_too_small_for_its_border_is_refused_in_a_graph_of_any_size(padding, enough):
    import tensorflow as tf

    windows = Windows((9, 3), (1, 1), (1, 1), padding)
    graph = tf.function(
        lambda inputs: pad_windows(inputs, windows),
        input_signature=[tf.TensorSpec((1, None, 7, 2))],
    )
    inputs = np.arange(enough * 14, dtype="float32").reshape(1, enough, 7, 2)
    np.testing.assert_array_equal(graph(inputs), pad_windows(tf.constant(inputs), windows))
    if enough > 1:
        with pytest.raises(tf.errors.InvalidArgumentError, match="Expected"):
            graph(inputs[:, 1:])
