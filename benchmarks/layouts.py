"""Ways to lay out a local convolution's training step that were tried, on TensorFlow.

    KERAS_BACKEND=tensorflow python -m benchmarks.layouts --workload=W1 --rank=4

Each is a hand-written forward and backward pass of a 3x3 low-rank layer of stride 1 without
padding, and gives the same gradients; printed as how many steps of a convolution it takes.
"""

import argparse
import math
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.steps import alternate
from benchmarks.workloads import WORKLOADS, Workload

TAPS = 3


def patches(rows, axis: int = -1):
    """Collects the taps of positions-first rows of inputs, with the reads at `axis`."""
    height, width = (size - TAPS + 1 for size in rows.shape[:2])
    shifts = [rows[i : i + height, j : j + width] for i in range(TAPS) for j in range(TAPS)]
    collected = tf.concat(shifts, axis)
    return tf.reshape(collected, (height * width, *collected.shape[2:]))


def scatter(gradients, height: int, width: int, axis: int = -1):
    """The adjoint of `patches`, by padding and adding."""
    gradients = tf.reshape(gradients, (height, width, *gradients.shape[1:]))
    total: Any = 0.0
    for index, tap in enumerate(tf.split(gradients, TAPS**2, axis)):
        i, j = divmod(index, TAPS)
        around = ((i, TAPS - 1 - i), (j, TAPS - 1 - j), (0, 0), (0, 0))
        total += tf.pad(tap, around)
    return total


def blocked(images: Any, weights: Any, banks: Any, rows_at_once: int, batch_last: bool = False):
    """Mixes and applies the filters of some rows after another.

    Args:
        images: `(batch, height, width, channels)`.
        weights: `(out height, out width, rank)`.
        banks: `(rank, reads, filters)`.
        rows_at_once: Rows of positions in a block.
        batch_last: Whether the batch is the last axis of patches, else the one before the last.

    Returns:
        Gradients of half the squared outputs for images, weights and banks.
    """
    height, width, rank = weights.shape
    _, reads, filters = banks.shape
    flat_banks = tf.reshape(banks, (rank, -1))
    order = (1, 2, 3, 0) if batch_last else (1, 2, 0, 3)
    inputs = tf.transpose(images, order)
    axis = -2 if batch_last else -1
    images_gradient, weights_gradient = [], []
    below: Any = None
    banks_gradient: Any = 0.0
    for first in range(0, height, rows_at_once):
        rows = min(rows_at_once, height - first)
        mix = tf.reshape(weights[first : first + rows], (-1, rank))
        kernel = tf.reshape(mix @ flat_banks, (-1, reads, filters))
        read = patches(inputs[first : first + rows + TAPS - 1], axis)
        if batch_last:
            outputs = tf.matmul(kernel, read, transpose_a=True)
            kernel_gradient = tf.matmul(read, outputs, transpose_b=True)
            read_gradient = kernel @ outputs
        else:
            outputs = read @ kernel
            kernel_gradient = tf.matmul(read, outputs, transpose_a=True)
            read_gradient = tf.matmul(outputs, kernel, transpose_b=True)
        kernel_gradient = tf.reshape(kernel_gradient, (rows * width, -1))
        banks_gradient += tf.matmul(mix, kernel_gradient, transpose_a=True)
        weights_gradient.append(tf.matmul(kernel_gradient, flat_banks, transpose_b=True))
        block = scatter(read_gradient, rows, width, axis)
        if below is not None:
            block = block + tf.pad(below, ((0, rows), (0, 0), (0, 0), (0, 0)))
        images_gradient.append(block[:rows])
        below = block[rows:]
    gradient = tf.concat([*images_gradient, below], 0)
    back = (3, 0, 1, 2) if batch_last else (2, 0, 1, 3)
    return tf.transpose(gradient, back), tf.concat(weights_gradient, 0), banks_gradient


def variants(workload: Workload, rank: int) -> dict:
    """Returns compiled steps by name, their gradients compared with each other."""
    generator = np.random.default_rng(0)
    positions = [size - TAPS + 1 for size in workload.spatial]
    reads = TAPS**2 * workload.channels

    def draw(*shape):
        return tf.constant(generator.normal(size=shape).astype("float32") / math.sqrt(shape[-1]))

    images = draw(*workload.input_shape)
    weights, banks = draw(*positions, rank), draw(rank, reads, workload.filters)
    kernel = tf.reshape(banks[0], (TAPS, TAPS, workload.channels, workload.filters))

    @tf.function
    def convolution():
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            loss = tf.nn.l2_loss(tf.nn.conv2d(images, kernel, 1, "VALID"))
        return tape.gradient(loss, [images, kernel])

    blocks = [rows for rows in (1, 2, 13) if rows < positions[0]]
    ways = {f"patches of {rows} rows at once": (rows, False) for rows in blocks}
    ways |= {
        "patches, batch before channels": (positions[0], False),
        "patches, batch last": (positions[0], True),
    }
    steps = {
        name: tf.function(lambda way=way: blocked(images, weights, banks, *way))
        for name, way in ways.items()
    }
    results = [step() for step in steps.values()]
    for result in results:
        for one, other in zip(result, results[0], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max())
    layer = workload.low_rank(rank, implementation="combine_then_convolve", use_bias=False)
    layer.build(workload.input_shape)

    @tf.function
    def ours():
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.nn.l2_loss(layer(images, training=True))
        sources = [variable.value for variable in layer.trainable_variables]
        return tape.gradient(loss, [images, *sources])

    return {"convolution": convolution, **steps, "slabs: the layer": ours}


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workload", choices=("W1", "W3"), default="W1")
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    steps = variants(WORKLOADS[arguments.workload], arguments.rank)
    seconds = alternate(steps, arguments.rounds)
    print("| training step | ms | x conv |\n|---|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {1000 * value:.1f} | {value / seconds['convolution']:.2f} |")


if __name__ == "__main__":
    main()
