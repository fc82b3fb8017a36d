"""Compiled steps of one layer on the backend that Keras runs on, and how to time several."""

import inspect
import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

BACKEND = keras.backend.backend()


def inference_step(layer: keras.Layer, shape: tuple[int, ...]) -> Callable[[], None]:
    """Returns a function that applies the layer to a batch and waits for the outputs."""
    return _step(layer, shape, training=False)


def training_step(layer: keras.Layer, shape: tuple[int, ...]) -> Callable[[], None]:
    """Returns a function that computes all gradients of a batch's sum of squares and waits.

    The gradients are those for every weight and for the inputs, as inside a network.
    """
    return _step(layer, shape, training=True)


def _step(layer: keras.Layer, shape: tuple[int, ...], training: bool) -> Callable[[], None]:
    if not layer.built:
        layer.build(shape)
    inputs = np.random.default_rng(0).normal(size=shape).astype("float32")
    makers = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
    return makers[BACKEND](layer, inputs, training)


def _mode(layer, training: bool) -> dict:
    """Returns the `training` argument for layers that take one."""
    return {"training": training} if "training" in inspect.signature(layer.call).parameters else {}


def _tensorflow(layer, inputs, training):
    import tensorflow as tf

    inputs = tf.constant(inputs)
    # tf_keras's variables are TensorFlow's own; Keras's wrap one.
    sources = [getattr(variable, "_value", variable) for variable in layer.trainable_variables]

    mode = _mode(layer, training)

    @tf.function(jit_compile=False)
    def compute(inputs):
        if not training:
            return [layer(inputs, **mode)]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(tf.square(layer(inputs, **mode)))
        gradients: Any = tape.gradient(loss, [inputs, *sources])
        return gradients

    def step():
        compute(inputs)[0].numpy()

    return step


def _jax(layer, inputs, training):
    import jax

    inputs = jax.numpy.asarray(inputs)
    trainable = [variable.value for variable in layer.trainable_variables]
    compute = jax.jit(jax_function(layer, training))
    return lambda: jax.block_until_ready(compute(trainable, inputs))


def jax_function(layer: keras.Layer, training: bool) -> Callable[[Any, Any], Any]:
    """Returns a function of a built layer's trainable weights and inputs, for JAX to compile.

    Args:
        layer: The layer.
        training: Whether it gives the gradients of the outputs' sum of squares for both, or the
            outputs.
    """
    import jax

    fixed = [variable.value for variable in layer.non_trainable_variables]
    mode = _mode(layer, training)

    def loss(trainable, inputs):
        outputs, _ = layer.stateless_call(trainable, fixed, inputs, **mode)
        return (outputs**2).sum() if training else outputs

    return jax.grad(loss, argnums=(0, 1)) if training else loss


def _torch(layer, inputs, training):
    import torch

    inputs = torch.from_numpy(inputs)
    mode = _mode(layer, training)

    def infer():
        with torch.no_grad():
            layer(inputs, **mode)

    def train():
        layer.zero_grad()
        given = inputs.clone().requires_grad_(True)
        (layer(given, **mode) ** 2).sum().backward()

    return train if training else infer


def first_and_median_seconds(
    layers: dict[str, keras.Layer],
    shape: tuple[int, ...],
    make_step: Callable[[keras.Layer, tuple[int, ...]], Callable[[], None]],
    rounds: int = 5,
) -> tuple[dict[str, float], dict[str, float]]:
    """Times several layers' steps in turn.

    Args:
        layers: Layers by name.
        shape: Shape of the inputs.
        make_step: `inference_step` or `training_step`.
        rounds: How often each step is timed.

    Returns:
        Seconds to build each layer, where it is not built, and to trace and run its first step; and
        each step's median seconds.
    """
    steps, first = {}, {}
    for name, layer in layers.items():
        started = time.perf_counter()
        steps[name] = make_step(layer, shape)
        steps[name]()
        first[name] = time.perf_counter() - started
    return first, alternate(steps, rounds, warm_up=1)


def alternate(
    steps: dict[str, Callable[[], None]], rounds: int = 5, warm_up: int = 2
) -> dict[str, float]:
    """Times several steps in turn.

    Args:
        steps: Functions by name.
        rounds: How often each is timed.
        warm_up: How often each is called before.

    Returns:
        Median seconds by name.
    """
    for step in steps.values():
        for _ in range(warm_up):
            step()
    seconds = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}
