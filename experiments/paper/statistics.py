"""Means over seeds, their standard errors, and the paired test that compares methods."""

import math
from collections.abc import Sequence

import numpy as np


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and its standard error, which is NaN for a single value.

    Example:
        >>> mean, error = mean_and_error([1.0, 2.0, 3.0])
        >>> round(mean, 4), round(error, 4)
        (2.0, 0.5774)
    """
    if len(values) < 2:
        return float(np.mean(values)), math.nan
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def paired(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Compares two methods that were measured under the same conditions, such as seeds.

    Args:
        pairs: The results of the first and the second method under each condition.

    Returns:
        The mean difference, its standard error, and the p-value of a two-sided paired t-test. All
        three are NaN without pairs, and the last two with a single pair.

    Example:
        >>> mean, error, p = paired([(0.9, 0.8), (0.8, 0.6), (0.7, 0.4)])
        >>> round(mean, 4), round(error, 4), round(p, 4)
        (0.2, 0.0577, 0.0742)
    """
    from scipy import stats

    differences = [first - second for first, second in pairs]
    if len(pairs) < 2:
        return (*mean_and_error(differences or [math.nan]), math.nan)
    if len(set(differences)) == 1:  # without variance t is undefined
        return differences[0], 0.0, float(differences[0] == 0)
    p = float(stats.ttest_rel(*zip(*pairs, strict=True)).pvalue)
    return (*mean_and_error(differences), p)


def percent(mean: float, error: float) -> str:
    """Returns a fraction and its standard error in percent, as `97.13 ± 0.05`."""
    return f"{100 * mean:.2f}" + ("" if math.isnan(error) else f" ± {100 * error:.2f}")
