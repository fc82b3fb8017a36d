"""Transformations of PyTorch through every layer: `torch.func`, compilers, exporters."""

import keras
import numpy as np
import pytest
from backends import randomize, to_numpy

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.ops import deform_conv2d
from tests.cases import CASES

pytestmark = [
    pytest.mark.skipif(
        keras.backend.backend() != "torch", reason="transformations of PyTorch, on PyTorch only"
    ),
    # PyTorch's own forward mode uses what PyTorch deprecates.
    pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning"),
]

FIRST = list({case.layer: case for case in reversed(CASES)}.values())[::-1]
ANOTHER = [
    pytest.param(case, id=str(case), marks=pytest.mark.slow) for case in CASES if case not in FIRST
]
TABLE = [*(pytest.param(case, id=str(case)) for case in FIRST), *ANOTHER]
# One layer for each rule and each kind of constant; the others are slow.
QUICK = ("LocallyConnected2D", "LowRankLocallyConnected1D", "DeformableScaleConv2D")
QUICK_FIRST = [
    pytest.param(case, id=str(case), marks=[] if str(case) in QUICK else [pytest.mark.slow])
    for case in CASES
]
# What is inherited from Keras's own layer or `ops.conv`, and fails for `Conv2D` too.
NO_COMPILED_TRAINING = {"GroupBatchNormalization": "Keras's BatchNormalization breaks the graph"}


def prepared(case):
    """Returns a layer, a loss of its weights and inputs, and both, of random values."""
    import torch

    rng = np.random.default_rng(1)
    layer = case.make()
    layer.build(case.input_shape)
    randomize(layer, rng)
    weights = [variable.value.detach().clone() for variable in layer.trainable_variables]
    others = [variable.value.detach() for variable in layer.non_trainable_variables]
    inputs = torch.tensor(rng.normal(size=case.input_shape), dtype=torch.float32)

    def loss(*arguments):
        outputs, _ = layer.stateless_call(list(arguments[:-1]), others, arguments[-1])
        return sum(torch.sin(one).sum() for one in keras.tree.flatten(outputs))

    return layer, loss, [*weights, inputs]


def gradients(loss, arguments):
    """Returns plain gradients, zeros where an argument does not matter."""
    import torch

    leaves = [one.clone().requires_grad_() for one in arguments]
    return torch.autograd.grad(loss(*leaves), leaves, allow_unused=True, materialize_grads=True)


def assert_close(found, expected):
    for one, other in zip(found, map(to_numpy, expected), strict=True):
        tolerance = 1e-4 * (1 + np.abs(other).max(initial=0))
        np.testing.assert_allclose(to_numpy(one), other, rtol=1e-3, atol=tolerance)


@pytest.mark.parametrize("case", TABLE)
def test_torch_func_s_gradients_are_autograd_s_and_agree_with_forward_mode(case):
    import torch

    _, loss, arguments = prepared(case)
    expected = gradients(loss, arguments)
    everyone = tuple(range(len(arguments)))
    gradient = torch.func.grad(loss, everyone)
    assert_close(gradient(*arguments), expected)

    directions = tuple(torch.randn_like(one) for one in arguments)
    rate = torch.func.jvp(loss, tuple(arguments), directions)[1]
    size = 1 + sum(float((a * b).abs().sum()) for a, b in zip(expected, directions, strict=True))
    along = sum(float((a * b).sum()) for a, b in zip(expected, directions, strict=True))
    np.testing.assert_allclose(float(rate), along, atol=1e-5 * size)

    def rate_of_change(*at):
        return sum((a * b).sum() for a, b in zip(gradient(*at), directions, strict=True))

    forward = torch.func.jvp(gradient, tuple(arguments), directions)[1]
    assert_close(forward, torch.func.grad(rate_of_change, everyone)(*arguments))


# Keras's convolutions ask for a memory format that PyTorch cannot map.
VECTORIZED = ("LocallyConnected", "SpatialBias", "AddCoordinates", "CondConv", "ScaleSpace")


@pytest.mark.parametrize(
    "case", [case for case in FIRST if case.layer.startswith(VECTORIZED)], ids=str
)
def test_vmap_gives_the_gradient_of_each_example(case):
    import torch

    _, loss, (*weights, inputs) = prepared(case)
    everyone = tuple(range(len(weights) + 1))
    each = torch.func.vmap(torch.func.grad(loss, everyone), (*[None] * len(weights), 0))
    *found, found_inputs = each(*weights, inputs[:, None])
    expected = gradients(loss, [*weights, inputs])
    assert_close([*(one.sum(0) for one in found), found_inputs[:, 0]], expected)


def test_vmap_of_keras_s_own_convolution_is_refused():
    """If this fails, more layers can join the test above."""
    import torch

    layer = keras.layers.Conv2D(4, 3)
    layer.build((1, 8, 9, 3))
    with pytest.raises(RuntimeError, match="NYI"):
        torch.func.vmap(layer)(torch.ones((2, 1, 8, 9, 3)))


def test_vmap_and_forward_mode_go_through_a_deformable_convolution(rng):
    import torch

    def tensor(*shape):
        return torch.tensor(rng.normal(size=shape), dtype=torch.float32)

    images, kernel, offset = tensor(3, 1, 5, 6, 4), tensor(2, 1, 4, 7), tensor(3, 1, 4, 6, 4)

    def total(image, kernel, offset):
        moved = deform_conv2d(image, kernel, offset, data_format="channels_last")
        return torch.sin(moved).sum()

    each = torch.func.vmap(torch.func.grad(total, (0, 1, 2)), (0, None, 0))
    found = each(images, kernel, offset)
    gradient = torch.func.grad(total, (0, 1, 2))
    alone = [gradient(a, kernel, b) for a, b in zip(images, offset, strict=True)]
    for one, others in zip(found, zip(*alone, strict=True), strict=True):
        assert_close([one], [torch.stack(others)])
    forward = torch.func.jacfwd(total, 1)(images[0], kernel, offset[0])
    assert_close([forward], [alone[0][1]])


@pytest.mark.filterwarnings("ignore")  # of the compiler, about Keras's own code
@pytest.mark.parametrize("case", QUICK_FIRST)
def test_compilers_see_a_layer_as_one_graph(case):
    import torch

    layer, _, (*_, inputs) = prepared(case)
    expected = keras.tree.flatten(layer(inputs))
    # What a layer leaves behind in Python may stand in the way of the next one.
    images = keras.Input(batch_shape=case.input_shape)
    followed = keras.tree.map_structure(keras.layers.Activation("linear"), layer(images))
    model = keras.Model(images, followed)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_close(keras.tree.flatten(compiled(inputs)), expected)
    if case.layer in NO_COMPILED_TRAINING:
        pytest.skip(NO_COMPILED_TRAINING[case.layer])
    training = {"training": True} if layer._call_has_training_arg else {}
    weights = [variable.value for variable in layer.trainable_variables]

    def gradient(layer):
        outputs = keras.tree.flatten(layer(inputs, **training))
        total = sum(torch.sin(one).sum() for one in outputs)
        return torch.autograd.grad(total, weights) if weights else ()

    assert_close(gradient(compiled), gradient(layer))


@pytest.mark.filterwarnings("ignore")
def test_a_model_of_several_layers_is_one_graph():
    import torch

    model = keras.Sequential(
        [
            keras.Input((8, 9, 3)),
            layers.LowRankLocallyConnected2D(4, 3, spatial_rank=3),
            layers.LowRankLocallyConnected2D(5, 3, spatial_rank=3),
            layers.GroupLiftConv2D(2, 3, order=8, padding="same"),
            layers.GroupPooling2D(),
            layers.DeformableConv2D(4, 2),
        ]
    )
    images = torch.randn((2, 8, 9, 3))
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert_close([compiled(images)], [model(images)])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", QUICK_FIRST)
def test_torch_export_writes_every_layer_for_any_batch(case):
    import torch

    layer, _, (*_, inputs) = prepared(case)
    shapes = (({0: torch.export.Dim("batch")},),)
    layer.activity_regularizer = None  # the test below
    program = torch.export.export(layer.eval(), (inputs,), dynamic_shapes=shapes, strict=False)
    for images in (inputs[:1], torch.cat([inputs] * 3)):
        found = keras.tree.flatten(program.module()(images))
        assert_close(found, keras.tree.flatten(layer(images)))


@pytest.mark.filterwarnings("ignore")
def test_torch_export_of_keras_s_own_activity_regularizer_is_refused():
    """It divides by the batch as a number. If this fails, the test above need not take it away."""
    import torch

    layer, images = keras.layers.Conv2D(4, 3, activity_regularizer="l2"), torch.ones((2, 8, 9, 3))
    layer(images)
    shapes = (({0: torch.export.Dim("batch")},),)
    with pytest.raises(torch._dynamo.exc.UserError, match="batch"):
        torch.export.export(layer.eval(), (images,), dynamic_shapes=shapes, strict=False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", QUICK_FIRST)
def test_onnx_runtime_computes_what_a_layer_does_for_any_batch(case, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    import torch

    layer, _, (*_, inputs) = prepared(case)
    images = keras.Input(case.input_shape[1:], name="images")
    model = keras.Model(images, layer(images))
    model(inputs)
    path = str(tmp_path / "model.onnx")
    model.export(path, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (inputs[:1], torch.cat([inputs] * 3)):
        found = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
        assert_close(found, keras.tree.flatten(model(batch)))
