"""A quantity that changes with the parameter of a transform."""

import dataclasses

import numpy as np

from low_rank_local_connectivity.ops.arguments import array, require_each


@dataclasses.dataclass(frozen=True, eq=False)
class Curve:
    """A quantity of every example against the parameter of a transform.

    Args:
        values: The parameters, `(points,)`.
        per_example: The quantity, `(points, examples)`.

    Example:
        >>> found = Curve(np.array([0.0, 1.0]), np.array([[0.0, 0.0], [1.0, 3.0]]))
        >>> found.mean.tolist(), found.standard_error.tolist()
        ([0.0, 2.0], [0.0, 1.0])

    Raises:
        ValueError: If they are not such arrays.
    """

    values: np.ndarray
    per_example: np.ndarray

    def __post_init__(self) -> None:
        count = len(array("values", self.values, "p"))
        require_each("per_example", array("per_example", self.per_example, "pe"), count, "`values`")

    @property
    def mean(self) -> np.ndarray:
        """Mean over the examples, `(points,)`."""
        return self.per_example.mean(axis=1)

    @property
    def standard_error(self) -> np.ndarray:
        """Standard error of that mean, `(points,)`; NaN if there is only one example."""
        points, examples = self.per_example.shape
        if examples == 1:
            return np.full(points, np.nan)
        return self.per_example.std(axis=1, ddof=1) / np.sqrt(examples)
