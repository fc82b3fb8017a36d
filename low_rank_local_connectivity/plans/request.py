"""What a layer is asked to compute."""

import dataclasses
import math
from typing import Any

import keras

from low_rank_local_connectivity.ops.arguments import (
    boolean,
    groups_of,
    instance_of,
    is_symbol,
    one_of,
    positive_int,
    received,
    sizes_of,
)
from low_rank_local_connectivity.ops.constants import plain_number
from low_rank_local_connectivity.ops.local_convolution import slab_count
from low_rank_local_connectivity.ops.windows import Windows
from low_rank_local_connectivity.plans.machine import BACKENDS, DEVICES

# What Keras's `fit` and `predict` take when they are not told.
ASSUMED_BATCH = 32
# What an axis of unknown size counts as where a plan's work is counted.
ASSUMED_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Request:
    """All that the choice of a plan follows from.

    Args:
        windows: Where the windows sit.
        shape: Shape of the inputs, channels last; None for a batch or size that is unknown, or a
            symbol where JAX exports it, or a tensor in PyTorch's older tracer.
        filters: Filters at each position.
        rank: How many kernels are mixed: filter banks, experts or terms of a sum.
        training: Whether gradients are wanted.
        backend: Keras's name of a backend; the present one if left out.
        device: Kind of device: `"cpu"`, `"gpu"` or `"tpu"`.
        itemsize: Bytes of a number.
        groups: Into how many groups channels and filters are divided; a filter reads the channels
            of its own group.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> windows = Windows((3, 3), (1, 1), (1, 1), "valid")
        >>> request = Request(windows, (None, 8, 9, 4), filters=5, rank=2)
        >>> request.examples, request.positions, request.reads
        (32, 42, 36)
    """

    windows: Windows
    shape: tuple[Any, ...]
    filters: int
    rank: int
    training: bool = False
    backend: str = dataclasses.field(default_factory=keras.backend.backend)
    device: str = "cpu"
    itemsize: int = 4
    groups: int = dataclasses.field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        instance_of("windows", self.windows, Windows)
        sizes, axes = sizes_of(self.shape) or [], len(self.windows.sizes) + 2
        if len(sizes) != axes or _known(plain_number(sizes[-1])) is None:
            raise ValueError(
                f"`shape` must be that of inputs with channels last: {axes} sizes for these "
                "windows, the last one known. Received: "
                f"{received('shape', self.shape)}."
            )
        for name in ("filters", "rank", "itemsize"):
            positive_int(name, getattr(self, name))
        groups_of(self.groups, self.filters, self.channels)
        boolean("training", self.training)
        one_of("backend", self.backend, BACKENDS)
        one_of("device", self.device, DEVICES)

    @property
    def batch(self) -> int | None:
        """Number of examples, None if unknown."""
        return _known(self.shape[0])

    @property
    def examples(self) -> int:
        """Number of examples; 32, what Keras takes when it is not told, if unknown."""
        return ASSUMED_BATCH if self.batch is None else self.batch

    @property
    def sizes(self) -> tuple[int | None, ...]:
        """Spatial size of the inputs, None where unknown."""
        return tuple(_known(plain_number(size)) for size in self.shape[1:-1])

    @property
    def symbolic(self) -> bool:
        """Whether a spatial size is a symbol, of which JAX compares little and PyTorch less."""
        return any(map(is_symbol, self.shape[1:-1]))

    @property
    def channels(self) -> int:
        """Number of input channels."""
        return plain_number(self.shape[-1])

    @property
    def positions(self) -> int:
        """Number of output positions, of inputs of known size."""
        return math.prod(self.windows.static_output_shape(self.sizes))

    @property
    def assumed_inputs(self) -> int:
        """Numbers in the inputs; 32 along an axis of unknown size."""
        sizes = (ASSUMED_SIZE if size is None else size for size in self.sizes)
        return self.examples * math.prod(sizes) * self.channels

    @property
    def assumed_outputs(self) -> int:
        """Numbers in the outputs; 32 along an axis of unknown size."""
        sizes = self.windows.output_shape(self.sizes)
        positions = math.prod(ASSUMED_SIZE if size is None else size for size in sizes)
        return self.examples * positions * self.filters

    @property
    def reads(self) -> int:
        """Numbers that one filter reads, taps times the channels of its group."""
        return self.windows.taps * self.channels // self.groups

    @property
    def depthwise(self) -> bool:
        """Whether a filter reads a single channel of several."""
        return self.groups == self.channels > 1

    @property
    def patches(self) -> int:
        """Numbers that all positions read of all channels."""
        return self.examples * self.positions * self.windows.taps * self.channels

    @property
    def slabs(self) -> int:
        """Into how many slabs the taps of a local filter are split."""
        return slab_count(self.windows, self.channels // self.groups)

    @property
    def local_filters(self) -> int:
        """Numbers in the filters of all positions."""
        return self.positions * self.reads * self.filters

    @property
    def outputs(self) -> int:
        """Numbers in the outputs."""
        return self.examples * self.positions * self.filters


def _known(size: Any) -> int | None:
    return size if isinstance(size, int) else None
