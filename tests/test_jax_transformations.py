"""Transformations of JAX through every layer, and programs whose batch is a symbol.

Tracing is where a rule that closes over a traced value or forbids forward mode fails, and takes a
fraction of the time that compiling takes; numbers are compared for one layer of each kind of rule,
and for the whole table where there is time.
"""

import keras
import numpy as np
import pytest
from backends import randomize

from low_rank_local_connectivity import layers, ops
from low_rank_local_connectivity.ops.windows import Windows
from tests.cases import CASES, Case

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="transformations of JAX, on JAX only"
)

FIRST = list({case.layer: case for case in reversed(CASES)}.values())[::-1]
ANOTHER = [pytest.param(case, marks=pytest.mark.slow, id=str(case)) for case in CASES]
ANOTHER = [one for one in ANOTHER if one.values[0] not in FIRST]
TABLE = [*(pytest.param(case, id=str(case)) for case in FIRST), *ANOTHER]


def prepared(case: Case):
    """Returns a loss of a layer's weights and inputs, and both, of random values."""
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(1)
    layer = case.make()
    layer.build(case.input_shape)
    values = [rng.normal(size=one.shape, scale=0.3) for one in layer.trainable_variables]
    weights = [jnp.asarray(value, "float32") for value in values]
    others = [variable.value for variable in layer.non_trainable_variables]
    inputs = jnp.asarray(rng.normal(size=case.input_shape), "float32")

    def loss(weights, inputs):
        outputs, _ = layer.stateless_call(weights, others, inputs)
        return sum(jnp.sum(jnp.sin(one)) for one in jax.tree.leaves(outputs))

    return loss, weights, inputs


def transformations(loss):
    """Returns functions of weights and inputs, by name; the first is JAX's plain gradient."""
    import jax

    def checkpointed(weights, inputs):
        return jax.grad(jax.checkpoint(loss), (0, 1))(weights, inputs)

    def mapped(weights, inputs):
        def total(weights, inputs):
            return jax.lax.map(lambda one: loss(weights, one[None]), inputs).sum()

        return jax.grad(total, (0, 1))(weights, inputs)

    def rematerialized(weights, inputs):
        with keras.RematScope(mode="full"):
            return jax.grad(loss, (0, 1))(weights, inputs)

    def vectorized(weights, inputs):
        each = jax.vmap(jax.grad(loss, (0, 1)), (None, 0))(weights, inputs[:, None])
        return [one.sum(0) for one in each[0]], each[1][:, 0]

    plain = jax.grad(loss, (0, 1))
    return {
        "plain": plain,
        "checkpoint": checkpointed,
        "lax.map": mapped,
        "RematScope": rematerialized,
        "vmap": vectorized,
    }


def reads_other_examples(case: Case) -> bool:
    """Whether a layer reads statistics of the batch, or the background from its last example."""
    background = case.arguments.get("padding_value") == "background"
    return background or case.layer == "GroupBatchNormalization"


def along(function, weights, inputs, seed: int = 2):
    """Returns a function's derivative in a random direction, in forward mode, and the direction."""
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(seed)
    arguments = (weights, inputs)
    direction = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype), arguments)
    return jax.jvp(function, arguments, direction)[1], direction


def dot(one, other):
    import jax
    import jax.numpy as jnp

    return sum(map(jnp.vdot, jax.tree.leaves(one), jax.tree.leaves(other)))


@pytest.mark.parametrize("case", TABLE)
def test_every_transformation_traces_through_every_layer(case):
    import jax

    loss, weights, inputs = prepared(case)
    ways = transformations(loss)
    if reads_other_examples(case):
        del ways["lax.map"], ways["vmap"]

    def every(weights, inputs):
        found = {name: way(weights, inputs) for name, way in ways.items()}
        found["jvp"] = along(loss, weights, inputs)[0]
        found["linearize"] = jax.linearize(loss, weights, inputs)[1](weights, inputs)
        found["forward over reverse"] = along(ways["plain"], weights, inputs)[0]
        return found

    shapes = jax.eval_shape(every, weights, inputs)
    for name in (*ways, "forward over reverse"):
        found = [one.shape for one in jax.tree.leaves(shapes[name])]
        assert found == [one.shape for one in [*weights, inputs]], name


RULES = [
    Case("LocallyConnected2D", {"filters": 3, "kernel_size": (2, 3)}, (2, 4, 5, 1)),
    Case(
        "LowRankLocallyConnected2D",
        {
            "filters": 3,
            "kernel_size": (2, 3),
            "spatial_rank": 4,
            "implementation": "combine_then_convolve",
        },
        (2, 4, 5, 1),
    ),
    Case("DeformableConv2D", {"filters": 3, "kernel_size": (1, 2)}, (2, 4, 5, 1)),
]
NUMBERS = [
    *(pytest.param(case, id=f"small {case.layer}") for case in RULES),
    *(pytest.param(case, id=str(case), marks=pytest.mark.slow) for case in CASES),
]


@pytest.mark.parametrize("case", NUMBERS)
def test_forward_and_reverse_mode_and_differences_agree(case):
    import jax

    loss, weights, inputs = prepared(case)
    ways = transformations(loss)
    if reads_other_examples(case):
        del ways["lax.map"], ways["vmap"]

    @jax.jit
    def every(weights, inputs):
        rate, direction = along(loss, weights, inputs)
        curved, _ = along(ways["plain"], weights, inputs)
        reverse = jax.grad(lambda *at: dot(ways["plain"](*at), direction), (0, 1))

        def moved(step):
            return loss(*jax.tree.map(lambda a, d: a + step * d, (weights, inputs), direction))

        gradients = [way(weights, inputs) for way in ways.values()]
        difference = (moved(1e-3) - moved(-1e-3)) / 2e-3
        return gradients, rate, direction, curved, reverse(weights, inputs), difference

    gradients, rate, direction, curved, reverse, difference = every(weights, inputs)
    scale = 1 + float(sum(abs(one).sum() for one in jax.tree.leaves(gradients[0])))
    np.testing.assert_allclose(rate, dot(gradients[0], direction), atol=1e-5 * scale)
    if case in RULES:
        np.testing.assert_allclose(rate, difference, rtol=2e-2, atol=2e-2)
    for found, expected in [*((other, gradients[0]) for other in gradients[1:]), (curved, reverse)]:
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * (1 + abs(other).max()))


def test_the_hessian_of_a_local_convolution_is_that_of_its_definition():
    import jax

    windows = Windows((2,), (1,), (1,), "valid")
    rng = np.random.default_rng(3)
    inputs, kernel = rng.normal(size=(2, 4, 3)), rng.normal(size=(3, 6, 5))
    inputs, kernel = inputs.astype("float32"), kernel.astype("float32")

    def ours(kernel):
        return (ops.local_convolution(inputs, kernel, windows) ** 3).sum()

    def definition(kernel):
        patches = np.stack([inputs[:, at : at + 2].reshape(2, 6) for at in range(3)])
        return (jax.numpy.einsum("pbr,prf->pbf", patches, kernel) ** 3).sum()

    found = jax.jacfwd(jax.jacrev(ours))(kernel)
    np.testing.assert_allclose(found, jax.hessian(definition)(kernel), rtol=1e-3, atol=1e-3)


def built(case: Case):
    """Returns a model of one layer with random weights."""
    inputs = keras.Input(case.input_shape[1:])
    model = keras.Model(inputs, case.make()(inputs))
    randomize(model, np.random.default_rng(1))
    return model


@pytest.mark.parametrize("case", TABLE)
def test_every_layer_becomes_a_program_whose_batch_is_a_symbol(case):
    import jax
    from jax import export

    model = built(case)
    shape = (*export.symbolic_shape("batch"), *case.input_shape[1:])
    predict = jax.jit(lambda inputs: model(inputs, training=False))
    program = export.export(predict)(jax.ShapeDtypeStruct(shape, "float32"))
    for found in program.out_avals:
        assert str(found.shape[0]) == "batch"


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_layer_s_saved_model_takes_any_batch_and_equals_the_layer(case, rng):
    import tensorflow as tf

    model = built(case)
    archive = keras.export.ExportArchive()
    archive.track(model)
    signature = tf.TensorSpec((None, *case.input_shape[1:]), tf.float32)
    serve = archive.add_endpoint("serve", lambda x: model(x, training=False), [signature])
    for batch in (1, 5):
        images = rng.normal(size=(batch, *case.input_shape[1:])).astype("float32")
        expected = keras.tree.flatten(model(images, training=False))
        for one, other in zip(tf.nest.flatten(serve(tf.constant(images))), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


# Layers with weights for one size; others have strides that fit into some sizes only.
FOR_ONE_SIZE = ("LocallyConnected", "LowRankLocallyConnected", "SpatialBias")
FOR_ONE_SIZE += tuple(f"Depthwise{name}" for name in FOR_ONE_SIZE[:2])
FOR_ONE_SIZE += ("SeparableLowRankLocallyConnected", "InputDependentCombiningWeights")
STRIDED = ("KroneckerConv2D", "GroupLiftConv2D", "GroupConv2D")
REASON = "must be known|of known (spatial )?size|must find a known number of features"


def spatial_axes(case: Case) -> list[int]:
    """Returns the axes of a layer's inputs that are rows, columns and the like."""
    first = case.arguments.get("data_format") == "channels_first"
    axes = [*range(2, len(case.input_shape))] if first else [*range(1, len(case.input_shape) - 1)]
    if len(case.input_shape) < 5 or case.layer.endswith("3D"):
        return axes
    # Scales stand before rows and columns, orientations beside the channels.
    return axes[:2] if case.layer.startswith("Group") and not first else axes[1:]


def needs_a_size(case: Case) -> bool:
    """Whether a layer can only be built for inputs of known size."""
    strided = case.arguments.get("strides", 1) != 1 and case.arguments.get("padding") == "same"
    flattening = str(case) == "SpatialTransformer2D-channels_first"
    return case.layer.startswith(FOR_ONE_SIZE) or flattening or (strided and case.layer in STRIDED)


def test_levels_of_any_size_are_reduced_by_whole_numbers_only():
    import jax
    from jax import export

    layer = layers.ScaleSpaceLifting2D(3, base=1.5, method="bilinear")
    layer.build((None, None, None, 3))
    images = jax.ShapeDtypeStruct(export.symbolic_shape("b, h, w, 3"), "float32")
    with pytest.raises(ValueError, match="reduced by whole numbers only"):
        export.export(jax.jit(layer.call))(images)


@pytest.mark.parametrize("case", TABLE)
@pytest.mark.parametrize("told", [False, True], ids=["any size", "at least 4"])
def test_a_layer_becomes_a_program_for_images_of_any_size_or_says_why_not(case, told, rng):
    import jax
    from jax import export

    axes, layer = spatial_axes(case), case.make()
    sizes = [
        f"s{axis}" if axis in axes else str(size) for axis, size in enumerate(case.input_shape)
    ]
    unknown = [None if axis in axes else size for axis, size in enumerate(case.input_shape)]
    if needs_a_size(case):
        with pytest.raises(ValueError, match=REASON):
            layer.build(tuple(unknown))
        return
    layer.build(tuple(unknown))
    randomize(layer, np.random.default_rng(1))
    known = [f"s{axis} >= 4" for axis in axes] if told else []
    shape = export.symbolic_shape(",".join(["b", *sizes[1:]]), constraints=known)
    predict = jax.jit(layer.call)
    program = export.export(predict)(jax.ShapeDtypeStruct(shape, "float32"))
    larger = [size + (axis in axes) for axis, size in enumerate(case.input_shape)]
    images = rng.normal(size=larger).astype("float32")
    pairs = zip(jax.tree.leaves(program.call(images)), jax.tree.leaves(layer(images)), strict=True)
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
