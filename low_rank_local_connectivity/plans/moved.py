"""Names that `ops` had, with their arguments; new code says `choose` and states a request."""

import dataclasses
from collections.abc import Sequence

import keras

from low_rank_local_connectivity.ops.arguments import boolean, instance_of, one_of, whole_number
from low_rank_local_connectivity.ops.kronecker import Factors
from low_rank_local_connectivity.ops.windows import Windows
from low_rank_local_connectivity.plans.coefficients import measured_costs
from low_rank_local_connectivity.plans.kronecker import KRONECKER, multiply_adds
from low_rank_local_connectivity.plans.low_rank import LOW_RANK, LowRankRequest
from low_rank_local_connectivity.plans.machine import BACKENDS, memory_bytes
from low_rank_local_connectivity.plans.plan import choose, names_of

__all__ = ["Request", "choose_plan", "choose_strategy", "multiply_adds"]


@dataclasses.dataclass(frozen=True)
class Request:
    """The counts that a low-rank layer's costs follow from.

    Args:
        batch: Examples.
        positions: Output positions.
        reads: Numbers that one filter reads: taps times channels.
        filters: Filters at each position.
        rank: Filter banks.
        slabs: Into how many slabs the taps are split.
        training: Whether gradients are wanted.
        itemsize: Bytes of a number.

    Raises:
        ValueError: If a number is not whole or out of range.
    """

    batch: int
    positions: int
    reads: int
    filters: int
    rank: int
    slabs: int
    training: bool = False
    itemsize: int = 4

    def __post_init__(self) -> None:
        for name in ("batch", "positions", "reads", "filters", "rank", "slabs", "itemsize"):
            whole_number(name, getattr(self, name), 0 if name in ("batch", "positions") else 1)
        boolean("training", self.training)

    @classmethod
    def of(
        cls,
        windows: Windows,
        sizes: Sequence[int | None],
        channels: int,
        filters: int,
        rank: int,
        batch: int | None,
        training: bool = False,
    ) -> "Request":
        """Counts for inputs of spatial size `sizes`; an unknown batch is taken as 32."""
        asked = LowRankRequest(windows, (batch, *sizes, channels), filters, rank, training)
        counts = (asked.examples, asked.positions, asked.reads, filters, rank, asked.slabs)
        return cls(*counts, training)


@dataclasses.dataclass(frozen=True)
class _InSlabs(LowRankRequest):
    """A request whose taps are split as it says itself."""

    slabs: int = 1  # pyright: ignore[reportIncompatibleMethodOverride]


def _backend(backend: str | None) -> str:
    chosen = one_of("backend", backend, (None, *BACKENDS))
    return keras.backend.backend() if chosen is None else chosen


def choose_plan(request: Request, backend: str | None = None) -> str:
    """Returns the name of the plan that `choose` takes for a low-rank layer on a processor.

    Args:
        request: The counts.
        backend: Keras's name of a backend; the present one if None.

    Raises:
        ValueError: If `request` is no `Request`, or `backend` no name of a backend.
    """
    counts = instance_of("request", request, Request)
    asked = _InSlabs(
        Windows((1,), (1,), (1,), "valid"),
        (int(counts.batch), int(counts.positions), int(counts.reads)),
        counts.filters,
        counts.rank,
        bool(counts.training),
        _backend(backend),
        itemsize=counts.itemsize,
        slabs=counts.slabs,
    )
    return choose(LOW_RANK, asked, memory_bytes()).name


def choose_strategy(
    factors: Factors,
    rank: int = 1,
    strides: Sequence[int] = (1, 1),
    output_sizes: Sequence[int | None] = (None, None),
    backend: str | None = None,
) -> str:
    """Returns the name of the plan that `choose` takes for a Kronecker convolution.

    Args:
        factors: As in `multiply_adds`.
        rank: Likewise.
        strides: Likewise.
        output_sizes: Likewise.
        backend: Keras's name of a backend; the present one if None.

    Raises:
        ValueError: If an argument is out of range.
    """
    counted = multiply_adds(factors, rank, strides, output_sizes)
    costs = measured_costs(names_of(KRONECKER), _backend(backend), "cpu")
    return min(costs, key=lambda name: costs[name]["inference"]["multiply_add"] * counted[name])
