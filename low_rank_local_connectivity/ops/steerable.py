"""Kernels that can be turned by any angle: the steerable ones among those of a size, in NumPy.

The kernel `k` answers a wave `exp(i w . p)` of frequency `|w|` and direction `a` with
`K(|w|, a) = sum_p k[p] exp(i w . p)`. If that is `exp(i m a) F(|w|)`, the kernel is a circular
harmonic of order `m`, and `exp(-i m t) k` is the kernel turned by `t`. On a grid no kernel is
exactly one; this file finds those that are nearly.
"""

import functools

import numpy as np

# How smooth the images are for which kernels are chosen: noise smoothed by a Gaussian of so many
# pixels. And how large, in answers to them, the part of other orders may be: 0.05, squared.
SMOOTHNESS = 2.0
LARGEST_ERROR = 0.05**2
# White noise beside it, as a share of the power, so that no kernel is without an answer.
WHITE = 1e-6
# Beyond this frequency the power is below exp(-16).
HIGHEST_FREQUENCY = 4 / SMOOTHNESS


def steerable_matrix(kernel_size: int, degrees: float) -> np.ndarray:
    """Returns the matrix that turns a kernel's steerable part, both axes flattened row by row.

    `B R B^+`, with the harmonics as the columns of `B`: `B^+` finds how much of each a kernel has,
    and `R` multiplies a harmonic of order `m` by `exp(-i m angle)`. At 0 degrees it is the
    projection on the steerable kernels.

    Args:
        kernel_size: Taps per axis, `k`.
        degrees: Angle, counter-clockwise.

    Returns:
        Array `(k * k, k * k)` in float64.

    Example:
        >>> projection = steerable_matrix(3, 0.0)
        >>> bool(np.allclose(projection @ projection, projection))
        True
    """
    orders, columns = _harmonics(kernel_size)
    turned = columns * np.exp(-1j * orders * np.deg2rad(degrees))
    return _real(orders, turned) @ np.linalg.pinv(_real(orders, columns))


def steerable_count(kernel_size: int) -> int:
    """Returns how many independent steerable kernels there are.

    Example:
        >>> [steerable_count(size) for size in (1, 2, 3, 4, 5, 7)]
        [1, 3, 6, 10, 12, 19]
    """
    orders, columns = _harmonics(kernel_size)
    return _real(orders, columns).shape[1]


def _real(orders: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Returns the real parts of harmonics, and the imaginary ones of those that have them."""
    return np.concatenate([np.real(columns), np.imag(columns)[:, orders > 0]], axis=1)


@functools.cache
def _harmonics(kernel_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the orders `(n,)` of the harmonics among kernels, and these as columns `(k * k, n)`.

    Of the answers to smooth noise, a kernel's error is the share that is not of its order. The
    kernels of least error are eigenvectors, and those within `LARGEST_ERROR` are kept.
    """
    answers = _answers(kernel_size)
    power = _power(answers.reshape(-1, kernel_size**2)) + WHITE * np.eye(kernel_size**2)
    whiten = np.linalg.inv(np.linalg.cholesky(power))
    orders, columns = [], []
    for order in range(kernel_size + 1):
        own = whiten @ _power(answers[:, order]) @ whiten.conj().T
        shares, vectors = np.linalg.eigh(own)
        kept = 1 - shares < LARGEST_ERROR
        found = whiten.conj().T @ vectors[:, kept]
        columns.append(found / np.linalg.norm(found, axis=0))
        orders.append(np.full(found.shape[1], order))
    return np.concatenate(orders), np.concatenate(columns, axis=1)


def _answers(kernel_size: int) -> np.ndarray:
    """Returns every tap's answers to waves `(frequencies, orders, k * k)`, by order.

    The square of an answer is weighted by the power of such waves in smooth noise.
    """
    rows, columns = np.indices((kernel_size, kernel_size)) - (kernel_size - 1) / 2
    frequencies = (np.arange(32) + 0.5) * HIGHEST_FREQUENCY / 32
    directions = 2 * np.pi * np.arange(4 * kernel_size + 32) / (4 * kernel_size + 32)
    right, up = np.cos(directions)[:, None], np.sin(directions)[:, None]
    across = right * columns.ravel() - up * rows.ravel()
    waves = np.exp(1j * frequencies[:, None, None] * across)
    weights = frequencies * np.exp(-((SMOOTHNESS * frequencies) ** 2))
    by_order = np.fft.fft(waves, axis=1) / len(directions)
    return by_order * np.sqrt(weights / weights.sum())[:, None, None]


def _power(answers: np.ndarray) -> np.ndarray:
    """Returns the matrix whose quadratic form is the power of a kernel's answers."""
    return answers.conj().T @ answers
