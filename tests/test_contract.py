"""What every public layer promises, whatever it computes."""

import functools
import inspect
import json
import re

import keras
import numpy as np
import pytest
from backends import all_digits, call, outputs_and_gradients, randomize, to_numpy
from cases import CASES, in_full

import low_rank_local_connectivity
from low_rank_local_connectivity import layers

BACKEND = keras.backend.backend()
# Of module scope, so that a case's tests follow one another: on JAX they share compiled operations.
every_case = pytest.mark.parametrize("case", CASES, ids=str, scope="module")
CLASSES = {name: one for name, one in vars(layers).items() if inspect.isclass(one)}
# A wrapper's data types and configuration are those of what it wraps: its tests are its own.
PUBLIC = [name for name, one in CLASSES.items() if not issubclass(one, keras.layers.Wrapper)]


def in_full_quickly(case, *arguments):
    """A row of the table that a test runs over: under `slow`, unless the row is tested in full."""
    return pytest.param(case, *arguments, marks=[] if in_full(case) else [pytest.mark.slow])


def functional(layer, input_shape):
    """A model of the layer alone, over any batch size."""
    inputs = keras.Input(input_shape[1:])
    return keras.Model(inputs, layer(inputs))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_layer_has_a_case_and_is_exported_by_the_package(name):
    rows = [case for case in CASES if case.layer == name]
    assert rows, f'add to tests/cases.py: Case("{name}", {{...}}, (2, 8, 11, 4)),'
    assert hasattr(low_rank_local_connectivity, name)


def compile_calls(monkeypatch, layer_class):
    """Has JAX compile eager calls of a class's layers whole, not operation by operation."""
    original = layer_class.__call__

    def compiled(layer, inputs, **arguments):
        from jax.core import Tracer

        if isinstance(inputs, keras.KerasTensor | Tracer):
            return original(layer, inputs, **arguments)
        monkeypatch.setattr(layer_class, "__call__", original)
        outputs = call(layer, inputs)
        monkeypatch.setattr(layer_class, "__call__", compiled)
        return keras.ops.convert_to_tensor(outputs)

    monkeypatch.setattr(layer_class, "__call__", compiled)


@pytest.mark.parametrize("case", [in_full_quickly(case) for case in CASES], ids=str, scope="module")
def test_keras_own_layer_test_passes(case, monkeypatch):
    from keras.src.testing import TestCase

    layer_class = getattr(layers, case.layer)
    if BACKEND == "jax" and not in_full(case):
        compile_calls(monkeypatch, layer_class)
    TestCase().run_layer_test(
        layer_class,
        case.arguments,
        input_shape=case.input_shape,
        expected_output_shape=case.make().compute_output_shape(case.input_shape),
        supports_masking=False,
        # A step of every case is asserted below, and that its weights move.
        run_training_check=False,
        # JAX would compile every operation once more; what it finds is asserted below.
        run_mixed_precision_check=BACKEND != "jax",
    )


@every_case
def test_eager_symbolic_and_computed_shapes_agree_for_any_batch_size(case, rng):
    layer = case.make()
    unknown = (None, *case.input_shape[1:])
    model = functional(layer, case.input_shape)
    computed = layer.compute_output_shape(unknown)
    assert computed[0] is None
    assert tuple(model.output.shape) == tuple(computed)
    # The same example several times, since a background is measured over the batch.
    example = rng.normal(size=(1, *case.input_shape[1:])).astype("float32")
    inputs = np.repeat(example, case.input_shape[0], axis=0)
    # JAX would compile every operation of an eager call.
    eager = to_numpy(layer(inputs)) if in_full(case) else call(layer, inputs)
    assert eager.shape == (len(inputs), *computed[1:])
    # As a graph of any batch size, in full; otherwise the training by XLA traces it, in `slow`.
    alone = model.predict_on_batch(example) if in_full(case) else call(model, example)
    alone = np.broadcast_to(alone, eager.shape)
    np.testing.assert_allclose(eager, alone, rtol=1e-5, atol=1e-5)


@every_case
def test_config_lists_the_arguments_and_survives_json(case):
    layer = case.make()
    config = json.loads(json.dumps(layer.get_config()))
    again = type(layer).from_config(config)
    assert json.loads(json.dumps(again.get_config())) == config
    missing = set(case.arguments) - set(config)
    assert not missing, f"get_config lacks {missing}"


@pytest.mark.parametrize("name", PUBLIC)
def test_a_configuration_has_the_arguments_of_the_signature_in_their_order(name):
    layer_class = getattr(layers, name)
    if not hasattr(layer_class, "ARGUMENTS"):
        pytest.skip("takes its arguments from Conv2D")
    parameters = inspect.signature(layer_class).parameters.values()
    named = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    # The release's names, for which `additive_axes` stands.
    named = [one for one in named if not re.match("share_(row|col)_combining_weights", one)]
    assert named
    assert list(layer_class.ARGUMENTS) == named


def test_a_subclass_that_lists_nothing_has_the_arguments_of_its_base():
    class Wider(layers.FullConv2D):
        def __init__(self, filters, times=2, **kwargs):
            super().__init__(times * filters, **kwargs)

    config = Wider(4, kernel_size=3, name="wider").get_config()
    assert config == layers.FullConv2D(8, 3, name="wider").get_config()


@every_case
def test_a_saved_layer_loads_with_its_weights(case, rng, tmp_path):
    model = functional(case.make(), case.input_shape)
    randomize(model, rng)
    inputs = rng.normal(size=case.input_shape).astype("float32")
    expected = call(model, inputs)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(call(loaded, inputs), expected)
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()


@pytest.mark.parametrize(
    ("case", "jit_compile"),
    [
        # TensorFlow's XLA compiles for seconds.
        in_full_quickly(case, True)
        if jit_compile and BACKEND == "tensorflow"
        else (case, jit_compile)
        for case in CASES
        for jit_compile in (True, False)
        # JAX compiles every operation of an uncompiled step.
        if jit_compile or in_full(case) or BACKEND != "jax"
    ],
    ids=str,
)
def test_every_trainable_weight_moves_in_a_training_step(case, jit_compile, rng):
    if BACKEND == "torch" and jit_compile:
        pytest.skip("on PyTorch jit_compile means torch.compile, which Keras leaves off by default")
    model = functional(case.make(), case.input_shape)
    if not model.trainable_weights:
        pytest.skip("has no weights")
    randomize(model, rng)
    before = [to_numpy(weight.value) for weight in model.trainable_weights]
    inputs = rng.normal(size=case.input_shape).astype("float32")
    targets = rng.normal(size=model.output_shape[1:]).astype("float32")
    targets = np.broadcast_to(targets, (len(inputs), *targets.shape))
    # A graph of a step is traced where XLA compiles it; it has the same operations.
    eagerly = BACKEND == "tensorflow" and not jit_compile
    optimizer = keras.optimizers.SGD(0.1)
    model.compile(optimizer, "mse", jit_compile=jit_compile, run_eagerly=eagerly)
    model.train_on_batch(inputs, targets)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert np.abs(to_numpy(weight.value) - old).max() > 0, f"{weight.path} stood still"


# In pure float16 and bfloat16 the variables are that short too.
POLICIES = {"mixed_float16": 2e-2, "mixed_bfloat16": 1e-1, "float16": 2e-2, "bfloat16": 1e-1}


@functools.cache
def in_float32(name):
    """Inputs of the case of this name, weights, and what its layer computes from them."""
    (case,) = [one for one in CASES if str(one) == name]
    rng = np.random.default_rng(0)
    layer = case.make()
    inputs = rng.normal(size=case.input_shape).astype("float32")
    layer.build(inputs.shape)
    randomize(layer, rng, scale=0.3)
    return inputs, [to_numpy(weight.value) for weight in layer.weights], call(layer, inputs)


@pytest.mark.parametrize(
    ("case", "policy"),
    [
        in_full_quickly(case, policy) if policy == "mixed_bfloat16" else (case, policy)
        for case in CASES
        for policy in POLICIES
        if policy.startswith("mixed") or case.layer == "LowRankLocallyConnected2D"
    ],
    ids=str,
)
def test_lower_precision_gives_the_same_numbers_to_fewer_digits(case, policy):
    digits = POLICIES[policy]
    inputs, weights, expected = in_float32(str(case))
    layer = case.make(dtype=policy)
    layer.build(inputs.shape)
    assert {weight.dtype for weight in layer.weights} <= {layer.variable_dtype}
    for weight, values in zip(layer.weights, weights, strict=True):
        weight.assign(values)
    found = call(layer, inputs)
    assert found.dtype.name == layer.compute_dtype
    symbolic = keras.KerasTensor(inputs.shape, layer.compute_dtype)
    assert layer.compute_output_spec(symbolic).dtype == layer.compute_dtype
    found = found.astype("float32")
    np.testing.assert_allclose(found, expected, rtol=digits, atol=digits * np.abs(expected).max())


# The integers from which inputs of each type are drawn.
DTYPES = {"bool": (0, 2), "uint8": (0, 256)}
DTYPES |= dict.fromkeys(("int8", "int16", "int32", "int64", "float16", "float64"), (-3, 4))


@pytest.mark.parametrize("case", [c for c in CASES if BACKEND != "jax" or in_full(c)], ids=str)
def test_inputs_of_every_dtype_are_computed_in_the_compute_dtype(case, rng):
    layer = case.make()
    layer.build(case.input_shape)
    randomize(layer, rng)
    numbers = {limits: rng.integers(*limits, size=case.input_shape) for limits in DTYPES.values()}
    expected = functools.cache(lambda limits: call(layer, numbers[limits].astype("float32")))
    # JAX would compile the layer for every type.
    for dtype in DTYPES if in_full(case) and BACKEND != "jax" else ("uint8",):
        found = call(layer, numbers[DTYPES[dtype]].astype(dtype))
        assert found.dtype == "float32"
        # XLA rounds products and sums together where the cast lets it.
        atol = 1e-6 * np.abs(found).max() if BACKEND == "jax" else 0
        np.testing.assert_allclose(found, expected(DTYPES[dtype]), rtol=0, atol=atol, err_msg=dtype)
        assert layer(keras.Input(case.input_shape[1:], dtype=dtype)).dtype == "float32"


def without_float32(case):
    """Arguments in place of those that make other layers, of Keras's, compute in float32."""
    if case.layer == "SpatialTransformer2D":
        # Small features, so that a homography sees nothing edge on.
        steps = [
            keras.layers.Rescaling(0.01, dtype="float64"),
            keras.layers.Flatten(dtype="float64"),
        ]
        network = keras.Sequential([keras.Input(case.input_shape[1:], dtype="float64"), *steps])
        return {"localization": keras.saving.serialize_keras_object(network)}
    # Keras's tanh on JAX returns float32 for float64.
    return {"activation": None} if BACKEND == "jax" and "activation" in case.arguments else {}


@pytest.mark.parametrize("case", [c for c in CASES if BACKEND != "jax" or in_full(c)], ids=str)
def test_float64_is_computed_and_differentiated_in_float64(case, rng):
    with all_digits():
        layer = case.make(dtype="float64", **without_float32(case))
        layer.build(case.input_shape)
        randomize(layer, rng, scale=0.3)
        inputs, direction = rng.normal(size=(2, *case.input_shape))
        projection = rng.normal(size=layer.compute_output_shape(case.input_shape))
        outputs, gradients = outputs_and_gradients(layer, inputs, projection)
        assert {values.dtype.name for values in (outputs, *gradients)} == {"float64"}
        # Digits that float32 does not have decide about so small a difference.
        ahead, back = (call(layer, inputs + step * direction) for step in (1e-8, -1e-8))
    slope = np.sum((ahead - back) * projection) / 2e-8
    np.testing.assert_allclose(slope, np.sum(gradients[0] * direction), rtol=1e-5)


@every_case
def test_gradients_stay_finite_at_zero_weights(case, rng):
    layer = case.make()
    layer.build(case.input_shape)
    for weight in layer.weights:
        weight.assign(np.zeros(weight.shape))
    inputs = rng.normal(size=case.input_shape).astype("float32")
    shape = layer.compute_output_shape(case.input_shape)
    outputs, found = outputs_and_gradients(layer, inputs, np.ones(shape, "float32"))
    assert all(np.isfinite(values).all() for values in [outputs, *found])
