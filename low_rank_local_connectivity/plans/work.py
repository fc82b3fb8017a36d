"""What a plan has to do, and how long that takes where no plan was ever measured.

Accelerators multiply a few hundred times while they read one byte, so most layers wait for memory:
a plan takes as long as it moves bytes, or as long as it computes where that is longer.
"""

import dataclasses
import math

from low_rank_local_connectivity.ops.arguments import number_above

# A TPU keeps so many neighbours along one axis together, and fills up what is missing.
LANES = 128


@dataclasses.dataclass(frozen=True)
class Work:
    """What one step of a plan does.

    Args:
        bytes: Bytes that its operations read from memory and write to it.
        flops: Floating-point operations.

    Raises:
        ValueError: If a number is below 0.

    Example:
        >>> Work(bytes=6e9, flops=2e12).flops
        2000000000000.0
    """

    bytes: float
    flops: float

    def __post_init__(self) -> None:
        for name in ("bytes", "flops"):
            number_above(name, getattr(self, name), 0, or_equal=True)


@dataclasses.dataclass(frozen=True)
class Peak:
    """What a device does per second at most.

    Args:
        bandwidth: Bytes that it reads and writes.
        flops: Floating-point operations of matrix products in bfloat16.
    """

    bandwidth: float
    flops: float


# As their makers state them: a TPU v5e, and an H100 with NVLink. Only how many operations a device
# does per byte matters to a choice: 240 and 295 of these two, 224 of a TPU v4, 560 of a v6e.
PEAKS = {"tpu": Peak(819e9, 197e12), "gpu": Peak(3.35e12, 989e12)}


def bytes_in_memory(device: str, numbers: float, itemsize: int, *axes: int) -> float:
    """Returns the bytes that a tensor takes, on a TPU with the axis in the lanes that wastes least.

    Args:
        device: Kind of device.
        numbers: How many numbers it has.
        itemsize: Bytes of each.
        *axes: Lengths of those of its axes that may lie in the lanes.

    Example:
        >>> bytes_in_memory("tpu", 32 * 9 * 64, 2, 32, 64) == 2 * 32 * 9 * 128
        True
    """
    filled = 1.0
    if device == "tpu":
        filled = min(math.ceil(axis / LANES) * LANES / max(axis, 1) for axis in axes)
    return numbers * itemsize * filled


def least_seconds(work: Work, device: str) -> float:
    """Returns how long a device takes at least.

    Args:
        work: What it does.
        device: Its kind, a key of `PEAKS`.

    Example:
        >>> least_seconds(Work(bytes=819e9, flops=0), "tpu")
        1.0
    """
    peak = PEAKS[device]
    return max(work.bytes / peak.bandwidth, work.flops / peak.flops)
