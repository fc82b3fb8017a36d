"""Conditional convolution against loops over examples, PyTorch's convolution and Keras's own."""

import keras
import numpy as np
import pytest
from backends import WITHOUT_XLA, call, compute, outputs_and_gradients, randomize, to_numpy
from reference import finite_difference, local_convolution, output_shape

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.layers.data_format import from_channels_last
from low_rank_local_connectivity.ops import Windows
from low_rank_local_connectivity.plans import CONDITIONAL, Request

WINDOWS = [
    Windows((3, 2), (1, 1), (1, 1), "valid"),
    Windows((3, 2), (2, 3), (1, 1), "same"),
    Windows((2, 3), (1, 1), (3, 2), "same"),
    Windows((1, 1), (1, 1), (1, 1), "valid"),
    Windows((3, 2), (2, 1), (3, 2), "circular"),
]


def loop_over_examples(inputs, kernels, routing, windows):
    settings = (windows.strides, windows.dilations, windows.padding)
    positions = output_shape(inputs.shape[1:-1], windows.sizes, *settings)
    outputs = []
    for example, weights in zip(inputs, routing, strict=True):
        kernel = np.tensordot(weights, kernels, axes=1)
        kernel = np.broadcast_to(kernel, (*positions, *kernel.shape))
        outputs.append(local_convolution(example[None], kernel, *settings)[0])
    return np.stack(outputs)


@pytest.mark.parametrize("experts", [2, 6])
@pytest.mark.parametrize(
    "windows", WINDOWS, ids=["valid", "strided", "dilated", "pointwise", "circular"]
)
def test_every_plan_is_a_loop_over_examples(windows, experts, rng):
    inputs = rng.normal(size=(5, 8, 11, 4)).astype("float32")
    kernels = rng.normal(size=(experts, *windows.sizes, 4, 7)).astype("float32")
    routing = rng.normal(size=(5, experts)).astype("float32")
    expected = loop_over_examples(inputs.astype("float64"), kernels, routing, windows)
    arguments = [keras.ops.convert_to_tensor(x) for x in (inputs, kernels, routing)]
    for plan in CONDITIONAL:
        found = to_numpy(plan.apply(Request(windows, inputs.shape, 7, experts), *arguments))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.once
def test_the_layer_is_a_convolution_of_pytorch_for_each_example(rng):
    torch = pytest.importorskip("torch")
    layer = layers.CondConv2D(6, (3, 2), num_experts=5, data_format="channels_first")
    layer.build((None, 4, 8, 11))
    randomize(layer, rng)
    inputs = rng.normal(size=(3, 4, 8, 11)).astype("float32")
    kernel, bias, dense, dense_bias = (to_numpy(weight) for weight in layer.weights)
    routing = 1 / (1 + np.exp(-(inputs.mean((2, 3)) @ dense + dense_bias)))
    np.testing.assert_allclose(compute(layer.routing_weights, inputs), routing, atol=1e-6)
    found = call(layer, inputs)
    for b in range(3):
        mixed = np.einsum("n,nhwcf->fchw", routing[b], kernel)
        expected = torch.nn.functional.conv2d(
            torch.tensor(inputs[b : b + 1]),
            torch.tensor(mixed.astype("float32")),
            torch.tensor((routing[b] @ bias).astype("float32")),
        )
        np.testing.assert_allclose(found[b : b + 1], expected.numpy(), atol=2e-5)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("experts", [1, 5])
def test_one_expert_alone_is_a_convolution(experts, data_format, rng):
    arguments = {"padding": "same", "strides": (2, 1), "activation": "tanh"}
    layer = layers.CondConv2D(
        6, (3, 2), num_experts=experts, routing=None, data_format=data_format, **arguments
    )
    inputs = rng.normal(size=(3, 8, 11, 4)).astype("float32")
    # Keras's convolution on CPUs wants channels last.
    given = np.array(from_channels_last(inputs, data_format))
    layer.build(given.shape)
    randomize(layer, rng)
    convolution = keras.layers.Conv2D(6, (3, 2), data_format="channels_last", **arguments)
    convolution.build(inputs.shape)
    convolution.set_weights([to_numpy(weight)[-1] for weight in layer.weights])
    routing = np.eye(experts, dtype="float32")[[experts - 1] * 3]
    found = call(layer, given, routing_weights=routing)
    expected = to_numpy(from_channels_last(convolution(inputs), data_format))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_sigmoids_are_independent_and_a_softmax_sums_to_one(rng):
    inputs = rng.normal(size=(3, 8, 11, 4)).astype("float32")
    for routing, total in [("sigmoid", 0.5 * 5), ("softmax", 1.0)]:
        layer = layers.CondConv2D(6, 3, num_experts=5, routing=routing)
        layer.build(inputs.shape)
        np.testing.assert_allclose(compute(layer.routing_weights, 0 * inputs).sum(1), total)
        randomize(layer, rng)
        weights = compute(layer.routing_weights, inputs)
        assert np.ptp(weights, axis=0).min() > 0
        assert (np.abs(weights.sum(1) - 1).max() < 1e-6) == (routing == "softmax")


@pytest.mark.parametrize("experts", [2, 5])
def test_gradients_reach_the_router_and_the_experts_as_differences_say(experts, rng):
    layer = layers.CondConv2D(3, 2, num_experts=experts)
    inputs = rng.normal(size=(2, 4, 5, 2)).astype("float32")
    layer.build(inputs.shape)
    randomize(layer, rng)
    shape = layer.compute_output_shape(inputs.shape)
    projection = rng.normal(size=shape).astype("float32")
    _, gradients = outputs_and_gradients(layer, inputs, projection)
    weights = [to_numpy(weight).astype("float64") for weight in layer.weights]

    def product(inputs, kernel, bias, dense, dense_bias):
        routing = 1 / (1 + np.exp(-(inputs.mean((1, 2)) @ dense + dense_bias)))
        outputs = loop_over_examples(inputs, kernel, routing, layer.windows)
        return ((outputs + (routing @ bias)[:, None, None]) * projection).sum()

    values = [inputs.astype("float64"), *weights]
    for place, gradient in enumerate(gradients):
        index = tuple(size - 1 for size in gradient.shape)

        def of_one(value, place=place):
            return product(*values[:place], value, *values[place + 1 :])

        expected = finite_difference(of_one, values[place], index)
        assert gradient[index] == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("initializer", ["he_uniform", "glorot_uniform", "orthogonal"])
def test_each_expert_is_as_wide_as_a_convolution_and_differs_from_the_others(initializer):
    shape = (None, 9, 10, 32)
    layer = layers.CondConv2D(48, (3, 4), num_experts=5, kernel_initializer=initializer)
    layer.build(shape)
    convolution = keras.layers.Conv2D(48, (3, 4), kernel_initializer=initializer)
    convolution.build(shape)
    kernel = to_numpy(layer.kernel)
    for expert in kernel:
        assert expert.std() == pytest.approx(to_numpy(convolution.kernel).std(), rel=0.05)
    assert np.abs(kernel[1:] - kernel[:-1]).max(axis=(1, 2, 3, 4)).min() > 0.01


def test_layers_that_share_a_router_train_save_and_load(rng, tmp_path):
    inputs = keras.Input((8, 11, 4))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    shared = keras.layers.Dense(5, activation="sigmoid")(pooled)
    x = layers.CondConv2D(6, 3, num_experts=5, routing=None)(inputs, routing_weights=shared)
    x = layers.CondConv2D(7, 2, num_experts=5, routing=None)(x, shared)
    model = keras.Model(inputs, x)
    assert len(model.weights) == 6
    randomize(model, rng, 0.3)
    before = [to_numpy(weight) for weight in model.weights]
    images = rng.normal(size=(3, 8, 11, 4)).astype("float32")
    model.compile("sgd", "mse", **WITHOUT_XLA)
    model.fit(images, np.ones((3, 5, 8, 7), "float32"), verbose=0)
    for weight, old in zip(model.weights, before, strict=True):
        assert np.abs(to_numpy(weight) - old).max() > 0, f"{weight.path} stood still"
    expected = model.predict(images, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), expected)


def test_given_routing_weights_take_the_place_of_the_routers(rng):
    layer = layers.CondConv2D(6, 3, num_experts=5)
    inputs = rng.normal(size=(3, 8, 11, 4)).astype("float32")
    layer.build(inputs.shape)
    randomize(layer, rng)
    own = layer.routing_weights(inputs)
    np.testing.assert_allclose(
        call(layer, inputs), call(layer, inputs, routing_weights=own), atol=1e-6
    )
    assert np.abs(call(layer, inputs) - call(layer, inputs, routing_weights=own + 1)).max() > 0.1


def test_a_model_takes_images_of_any_size(rng):
    for experts in (2, 5):
        inputs = keras.Input((None, None, 4))
        model = keras.Model(inputs, layers.CondConv2D(6, 3, num_experts=experts)(inputs))
        assert tuple(model.output.shape) == (None, None, None, 6)
        for size in [(8, 11), (5, 6)]:
            images = rng.normal(size=(3, *size, 4)).astype("float32")
            found = model.predict(images, verbose=0)
            np.testing.assert_allclose(found, to_numpy(model.layers[-1](images)), atol=1e-6)


def test_an_error_says_what_is_missing_or_misshapen():
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole text is compared below
        layers.CondConv2D(6, 3, num_experts=0)
    assert str(caught.value) == (
        "`num_experts` must be an integer of at least 1. Received: num_experts=0."
    )
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        layers.CondConv2D(6, 3, routing="relu")
    assert str(caught.value) == (
        "`routing` must be one of 'sigmoid', 'softmax', None. Received: routing='relu'."
    )
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        layers.CondConv2D(6, 3, routing=None, name="layer").routing_weights(np.zeros((2, 8, 9, 4)))
    assert str(caught.value) == (
        "Layer 'layer' has no router of its own, so its routing weights must be given. Received: "
        "routing_weights=None with routing=None. Call layer(inputs, routing_weights=...), or set "
        "routing='sigmoid'."
    )
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        layers.CondConv2D(6, 3, num_experts=5).call(np.zeros((2, 8, 9, 4)), np.zeros((2, 4)))
    assert str(caught.value) == (
        "`routing_weights` must have shape (batch, num_experts), here (batch, 5). Received: "
        "routing_weights of shape (2, 4)."
    )
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        layers.CondConv2D(6, 3, num_experts=2).call(np.zeros((2, 8, 9, 4)), [[0.5, 0.5]] * 2)
    assert str(caught.value) == (
        "`routing_weights` must be a tensor of shape (batch, num_experts). Received: "
        "routing_weights=[[0.5, 0.5], [0.5, 0.5]]."
    )
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        layers.CondConv2D(6, 3, num_experts=4).call(np.zeros((2, 8, 9, 4)), np.zeros((1, 4)))
    assert str(caught.value) == (
        "`routing_weights` must be given for each of the inputs' 2 examples. Received: "
        "routing_weights of shape (1, 4)."
    )
