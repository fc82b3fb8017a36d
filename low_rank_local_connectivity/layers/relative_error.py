"""How far what a layer makes of moved inputs is from its outputs, moved."""

from typing import Any

import numpy as np


def relative_error(found: np.ndarray, expected: np.ndarray, counted: Any = True) -> float:
    """Returns `||found - expected|| / ||expected||`, in the L2 norm over everything that counts.

    Args:
        found: Array.
        expected: Array of the same shape.
        counted: Booleans, of a shape that broadcasts to theirs: which elements count.

    Returns:
        The error: 0 where both norms are 0, infinite where only that of `expected` is.

    Example:
        >>> relative_error(np.array([3.0, 1.0]), np.array([3.0, 4.0]))
        0.6
        >>> relative_error(np.array([3.0, 1.0]), np.array([3.0, 4.0]), np.array([True, False]))
        0.0
    """
    expected = np.where(counted, expected, 0).astype(float)
    distance = np.linalg.norm(np.where(counted, found, 0).astype(float) - expected)
    norm = np.linalg.norm(expected)
    if norm == 0:
        return 0.0 if distance == 0 else float("inf")
    return float(distance / norm)
