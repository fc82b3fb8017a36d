"""What tests need of a backend and Keras does not offer alike on all of them."""

import contextlib
import functools

import keras
import numpy as np
import pytest

# TensorFlow's XLA compiles a step for longer than a small model takes for many without.
WITHOUT_XLA = {"jit_compile": False} if keras.backend.backend() == "tensorflow" else {}


def all_digits():
    """Returns a context in which the backend knows float64: JAX does not unless it is told."""
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.enable_x64(True)


# Whether a step that is to be taken once need not be compiled: JAX would compile each operation.
EAGER = keras.backend.backend() != "jax"


def to_numpy(tensor) -> np.ndarray:
    """Copies a tensor of any backend to NumPy."""
    return np.array(keras.ops.convert_to_numpy(tensor))


def randomize(layer, rng, scale=0.5):
    """Gives every weight of a layer or model random values, so that none is 0 or alike.

    Variances are positive.
    """
    for weight in layer.weights:
        values = scale * rng.normal(size=weight.shape)
        weight.assign(np.abs(values) + 0.1 if weight.name == "moving_variance" else values)


def arrays_of(outputs):
    """Copies the tensors of a structure to NumPy."""
    return keras.tree.map_structure(lambda one: None if one is None else to_numpy(one), outputs)


def compute(function, *arrays):
    """Returns function(*arrays) with every tensor as an array, on JAX compiled.

    JAX would compile each operation of an eager call alone, once for every shape.
    """
    layer = getattr(function, "__self__", None)  # of a layer's method
    return _compute(function, layer.variables if isinstance(layer, keras.Layer) else [], arrays)


def call(layer, inputs, **arguments):
    """Returns layer(inputs, **arguments) as compute does."""
    if keras.backend.backend() == "jax":
        inputs = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
        if not layer.built:
            layer.build(inputs.shape)
    return _compute(functools.partial(layer, **arguments), layer.variables, [inputs])


def _compute(function, variables, arrays):
    if keras.backend.backend() != "jax":
        return arrays_of(function(*arrays))
    import jax

    def apply(values, *arrays):
        with keras.StatelessScope(zip(variables, values, strict=True)):
            return function(*arrays)

    # As constants the variables would be folded into what is compiled.
    return arrays_of(jax.jit(apply)([variable.value for variable in variables], *arrays))


def outputs_and_gradients(layer, inputs, projection, **arguments):
    """Returns layer(inputs, **arguments) and the gradients of its product with a projection.

    The gradients are those for the inputs, then for each trainable weight. TensorFlow and
    PyTorch run eagerly; JAX compiles, since each of its eager operations would be compiled alone.
    """
    backend = keras.backend.backend()
    inputs = keras.ops.convert_to_tensor(inputs)
    projection = keras.ops.convert_to_tensor(projection)
    variables = [variable.value for variable in layer.trainable_variables]
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, **arguments)
            loss = tf.reduce_sum(outputs * tf.cast(projection, outputs.dtype))
        found = tape.gradient(loss, [inputs, *variables])
    elif backend == "jax":
        import jax

        fixed = [variable.value for variable in layer.non_trainable_variables]

        def loss_of(inputs, trainable):
            outputs, _ = layer.stateless_call(trainable, fixed, inputs, **arguments)
            return (outputs * projection.astype(outputs.dtype)).sum(), outputs

        differentiate = jax.jit(jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True))
        (_, outputs), (input_gradient, others) = differentiate(inputs, variables)
        found = [input_gradient, *others]
    else:
        inputs = inputs.detach().requires_grad_(True)
        layer.zero_grad()
        outputs = layer(inputs, **arguments)
        (outputs * projection.to(outputs.dtype)).sum().backward()
        found = [inputs.grad, *(variable.grad for variable in variables)]
    assert all(gradient is not None for gradient in found), "a weight has no gradient"
    return to_numpy(outputs), [to_numpy(gradient) for gradient in found]


def stored_arrays(path):
    """The arrays in a file, which is closed again."""
    with np.load(path) as file:
        return dict(file)


def assert_same_outputs(one, other, shape, rng, tolerance=2e-5):
    """Checks that two layers or models compute the same, up to a share of the largest output."""
    inputs = rng.normal(size=shape).astype("float32")
    first, second = call(one, inputs), call(other, inputs)
    np.testing.assert_allclose(first, second, rtol=0, atol=tolerance * np.abs(first).max())


def built(layer, shape, rng):
    """Returns a layer, built for a shape of inputs, with weights that are drawn."""
    layer.build(shape)
    randomize(layer, rng)
    return layer


def assert_refused(act, sentence):
    """Checks that what is done ends in a ValueError of exactly this text."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole text is compared below
        act()
    assert str(caught.value) == sentence


def assert_close(found, expected, tolerance=1e-5):
    """Checks that arrays are alike, up to a share of the largest number expected."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())
