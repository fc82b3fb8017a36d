"""The pure functions: arithmetic of windows, adjoints and second derivatives."""

import itertools
import sys
from typing import Any

import keras
import numpy as np
import pytest
import reference
from backends import compute, to_numpy

from low_rank_local_connectivity.ops import (
    TransposedWindows,
    Windows,
    combine_then_convolve,
    combine_then_spread,
    convolve_then_combine,
    local_convolution_transpose,
    weigh_then_convolve,
)
from low_rank_local_connectivity.ops.local_convolution import (
    gather_slabs,
    local_convolution,
    scatter_slabs,
    slab_rows,
)
from low_rank_local_connectivity.ops.windows import output_length, pad_amounts

# The package `ops` exports a function of the same name.
LOCAL_CONVOLUTION = sys.modules["low_rank_local_connectivity.ops.local_convolution"]


@pytest.mark.once
@pytest.mark.parametrize("padding", ["valid", "same", "causal"])
def test_windows_are_counted_and_padded_as_if_one_tried_every_start(padding):
    for length, size, stride, dilation in itertools.product(
        range(1, 12), range(1, 6), range(1, 4), range(1, 4)
    ):
        axis = (length, size, stride, dilation)
        outputs = output_length(*axis, padding)
        assert max(outputs, 0) == reference.output_length(*axis, padding)
        before, after = pad_amounts(*axis, padding)
        assert before == reference.zeros_before(*axis, padding)
        if outputs > 0:
            last = (outputs - 1) * stride + dilation * (size - 1)
            assert last < before + length + after


@pytest.mark.parametrize(
    ("sizes", "windows"),
    [
        ((13,), Windows((3,), (2,), (1,), "same")),
        ((13,), Windows((3,), (1,), (2,), "causal")),
        ((8, 11), Windows((3, 2), (1, 1), (2, 1), "valid")),
        ((8, 11), Windows((3, 4), (2, 3), (1, 1), "same")),
        ((5, 7, 6), Windows((2, 1, 3), (1, 2, 2), (1, 1, 1), "valid")),
    ],
)
@pytest.mark.parametrize("slabs", ["whole", "by first axis", "without padding"])
def test_scattering_is_the_adjoint_of_gathering(sizes, windows, slabs, rng, monkeypatch):
    monkeypatch.setattr(LOCAL_CONVOLUTION, "slab_count", lambda windows, _: windows.sizes[0])
    rows = slab_rows(windows, (*sizes, 4), skip_padding=slabs == "without padding")
    rows = rows[:1] if slabs == "whole" else rows
    inputs = rng.normal(size=(2, *sizes, 4)).astype("float32")

    def gather(inputs):
        return gather_slabs(keras.ops.convert_to_tensor(inputs), windows, rows)

    def scatter(*slabs):
        slabs = [keras.ops.convert_to_tensor(slab) for slab in slabs]
        return scatter_slabs(slabs, windows, rows, sizes)

    gathered = compute(gather, inputs)
    values = [rng.normal(size=slab.shape).astype("float32") for slab in gathered]
    scattered = compute(scatter, *values)
    assert scattered.shape == inputs.shape
    product = sum((a * b).sum() for a, b in zip(gathered, values, strict=True))
    assert product == pytest.approx((inputs * scattered).sum(), rel=1e-4)


def test_second_derivatives_are_those_of_autodiff(rng):
    """The hand-written gradient, differentiated again, against a convolution's."""
    windows = Windows((3,), (1,), (1,), "valid")
    inputs = rng.normal(size=(2, 7, 3)).astype("float32")
    kernel = rng.normal(size=(3, 3, 4)).astype("float32")

    def ours(inputs, kernel):
        flat = keras.ops.reshape(kernel, (1, 9, 4))
        return local_convolution(inputs, keras.ops.broadcast_to(flat, (5, 9, 4)), windows)

    def theirs(inputs, kernel):
        return keras.ops.conv(inputs, kernel, data_format="channels_last")

    found, expected = (
        second_derivatives(lambda x, w, f=function: keras.ops.sum(f(x, w) ** 3), inputs, kernel)
        for function in (ours, theirs)
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * np.abs(other).max())


@pytest.mark.parametrize("rank", [3, 10])  # few banks and many are multiplied in another order
def test_second_derivatives_of_mixed_filters_are_those_of_mixed_responses(rank, rng):
    windows = Windows((3,), (1,), (1,), "valid")
    inputs = keras.ops.convert_to_tensor(rng.normal(size=(2, 7, 4)).astype("float32"))
    kernel = rng.normal(size=(3, 4, rank * 6)).astype("float32")
    weights = rng.normal(size=(5, rank)).astype("float32")

    def first(kernel, weights):
        return keras.ops.sum(combine_then_convolve(inputs, kernel, weights, windows) ** 3)

    def last(kernel, weights):
        outputs = convolve_then_combine(inputs, kernel, weights[None], windows)
        return keras.ops.sum(outputs**3)

    found, expected = (second_derivatives(each, kernel, weights) for each in (first, last))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * np.abs(other).max())


def test_second_derivatives_of_transposed_operations_are_those_of_autodiff(rng):
    windows = TransposedWindows((3,), (2,), (1,), "same")
    inputs = rng.normal(size=(2, 5, 4)).astype("float32")
    kernel = rng.normal(size=(3, 6, 4)).astype("float32")

    def ours(inputs, kernel):
        flat = keras.ops.broadcast_to(keras.ops.reshape(kernel, (1, 18, 4)), (5, 18, 4))
        return local_convolution_transpose(inputs, flat, windows)

    def theirs(inputs, kernel):
        settings = {"strides": 2, "padding": "same", "data_format": "channels_last"}
        return keras.ops.conv_transpose(inputs, kernel, **settings)

    banks = rng.normal(size=(3, 6, 2 * 4)).astype("float32")
    weights = rng.normal(size=(5, 2)).astype("float32")
    given = keras.ops.convert_to_tensor(inputs)
    pairs = (
        ((ours, theirs), (inputs, kernel)),
        (
            (
                lambda kernel, weights: combine_then_spread(given, kernel, weights, windows),
                lambda kernel, weights: weigh_then_convolve(given, kernel, weights[None], windows),
            ),
            (banks, weights),
        ),
    )
    for functions, arguments in pairs:
        found, expected = (
            second_derivatives(lambda *a, f=one: keras.ops.sum(f(*a) ** 3), *arguments)
            for one in functions
        )
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * np.abs(other).max())


def second_derivatives(function, *arguments):
    """Returns the gradient of the squared norm of a scalar function's gradient."""
    arguments = [keras.ops.convert_to_tensor(argument) for argument in arguments]
    if keras.backend.backend() == "jax":
        import jax

        def norm(*arguments):
            gradients = jax.grad(function, argnums=(0, 1))(*arguments)
            return sum((gradient**2).sum() for gradient in gradients)

        found = jax.jit(jax.grad(norm, argnums=(0, 1)))(*arguments)
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as outer:
            outer.watch(arguments)
            with tf.GradientTape() as inner:
                inner.watch(arguments)
                value = function(*arguments)
            gradients: Any = inner.gradient(value, arguments)
            squares = tf.add_n([tf.reduce_sum(gradient**2) for gradient in gradients])
        found = outer.gradient(squares, arguments)
    else:
        import torch

        arguments = [argument.detach().requires_grad_(True) for argument in arguments]
        gradients = torch.autograd.grad(function(*arguments), arguments, create_graph=True)
        found = torch.autograd.grad(sum((g**2).sum() for g in gradients), arguments)
    return [to_numpy(gradient) for gradient in found]
