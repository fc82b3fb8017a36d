"""Gradients written by hand where they are faster than derived ones.

A rule of one's own stands in the way of other transformations: Keras's on JAX refuses forward mode
and values of an outer trace, and Keras's on PyTorch refuses `torch.func`, compilers and exporters.
So each backend gets a form that it can see through, which is why this file names JAX and PyTorch.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops


def with_gradient(
    function: Callable,
    gradient: Callable,
    tensors: Sequence,
    constants: Sequence = (),
    derived: Callable | None = None,
) -> Any:
    """Computes `function(*tensors, *constants)`, whose gradients are `gradient`'s.

    Derivatives of any order and in any direction are right, whichever way they are computed:

    * TensorFlow takes `gradient`.
    * JAX derives `derived`, and collects again what it needs on the way back. Compiled, this is
      as fast as `gradient`, and unlike it allows forward mode.
    * PyTorch takes `gradient`, and in forward mode that `function` is linear in each of `tensors`.
      Where a program is compiled or exported, it sees `function` itself.

    Args:
        function: What to compute, from tensors only: a value of an outer trace in its closure
            would not be seen. Must be linear in each of `tensors`.
        gradient: Function of the gradient for the output, then of `tensors` and `constants`, to a
            tuple of the gradients for `tensors`.
        tensors: What there are gradients for: tensors, not variables.
        constants: Tensors that there is no gradient for, such as indices.
        derived: Computes the same as `function`, in a way whose derivatives are as fast as
            `gradient`; `function` itself if None.

    Returns:
        The value of the function.

    Example:
        >>> matrix, vector = ops.ones((2, 3)), ops.ones((3, 1))
        >>> def gradient(upstream, matrix, vector):
        ...     return upstream @ ops.transpose(vector), ops.transpose(matrix) @ upstream
        >>> ops.shape(with_gradient(ops.matmul, gradient, (matrix, vector)))
        (2, 1)
    """
    backend = keras.backend.backend()
    if backend == "jax":
        return _on_jax(function, derived, tensors, constants)
    if backend == "torch":
        return _on_torch(function, gradient, tensors, constants)
    return _by_keras(function, gradient, tensors, constants)


def _by_keras(function, gradient, tensors, constants):
    @ops.custom_gradient
    def apply(*tensors):
        def backward(upstream):
            return gradient(upstream, *tensors, *constants)

        return function(*tensors, *constants), backward

    return apply(*tensors)


def _on_jax(function, derived, tensors, constants):
    if derived is None:
        return function(*tensors, *constants)
    import jax

    rule = jax.custom_jvp(function)

    def tangent(primals, tangents):
        moving = [
            index
            for index, one in enumerate(tangents)
            if not isinstance(one, jax.custom_derivatives.SymbolicZero)
        ]

        # A checkpoint holds what goes in until the way back and nothing that is made of it.
        @jax.checkpoint
        def push(primals, directions):
            def of_moving(*values):
                every = list(primals)
                for index, value in zip(moving, values, strict=True):
                    every[index] = value
                return derived(*every)

            return jax.jvp(of_moving, [primals[index] for index in moving], directions)[1]

        return rule(*primals), push(primals, [tangents[index] for index in moving])

    rule.defjvp(tangent, symbolic_zeros=True)
    return rule(*tensors, *constants)


def _on_torch(function, gradient, tensors, constants):
    import torch

    if torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export():
        return function(*tensors, *constants)
    return _torch_rule().apply(function, gradient, len(tensors), *tensors, *constants)


@functools.cache
def _torch_rule():
    import torch

    class WithGradient(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(function, gradient, count, *arguments):
            del gradient, count
            return function(*arguments)

        @staticmethod
        def setup_context(ctx, inputs, output):
            del output
            ctx.function, ctx.gradient, ctx.count, *arguments = inputs
            ctx.save_for_backward(*arguments)
            ctx.save_for_forward(*arguments)

        @staticmethod
        def backward(ctx, upstream):
            arguments = ctx.saved_tensors
            gradients = ctx.gradient(upstream, *arguments)
            return None, None, None, *gradients, *[None] * (len(arguments) - ctx.count)

        @staticmethod
        def jvp(ctx, *tangents):
            arguments = ctx.saved_tensors
            terms = []
            for index, one in enumerate(tangents[3:][: ctx.count]):
                if one is not None:
                    moved = (*arguments[:index], one, *arguments[index + 1 :])
                    terms.append(ctx.function(*moved))
            return sum(terms[1:], start=terms[0])

    return WithGradient
