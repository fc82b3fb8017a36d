"""The TPU that kernels are compiled for, and how much memory it has on the chip."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import Any

import keras

from low_rank_local_connectivity.kernels.geometry import MEBIBYTE


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU.

    Args:
        name: Its name.
        kind: What JAX calls it.
        memory: Bytes of on-chip memory that vectors are loaded from.
    """

    name: str
    kind: str
    memory: int

    @property
    def budgets(self) -> tuple[int, ...]:
        """Bytes that a kernel's blocks and scratch may take, the second if they need more.

        The compiler keeps what other operations hand to one another in what is left: of the paper's
        small network's step, kernels that might take 104 MiB left 1.28 times the bytes to memory
        that they did with 32.
        """
        most = self.memory * 13 // 16
        return tuple(sorted({min(ENOUGH, most), most}))


# Bytes of on-chip memory that leave few blocks to be read again.
ENOUGH = 48 * MEBIBYTE
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", "TPU v4", 16 * MEBIBYTE),
        Chip("v5e", "TPU v5 lite", 128 * MEBIBYTE),
        Chip("v5p", "TPU v5", 64 * MEBIBYTE),
        Chip("v6e", "TPU v6 lite", 128 * MEBIBYTE),
    )
}
# What an unknown TPU has at least, and what kernels are cut for where they are interpreted.
SMALLEST = CHIPS["v4"]
_compiling_for: contextvars.ContextVar[Chip | None] = contextvars.ContextVar("chip", default=None)


@contextlib.contextmanager
def compiling_for(name: str) -> Iterator[Chip]:
    """Within this context, kernels are compiled for a TPU that need not be there.

    Args:
        name: Name of a TPU, a key of `CHIPS`.

    Example:
        >>> with compiling_for("v5e"):
        ...     present_chip().name
        'v5e'
    """
    token = _compiling_for.set(CHIPS[name])
    try:
        yield CHIPS[name]
    finally:
        _compiling_for.reset(token)


def present_chip() -> Chip:
    """Returns the TPU that kernels are cut for; the smallest if it is unknown, or if there is none.

    Example:
        >>> present_chip().name in CHIPS
        True
    """
    told = _compiling_for.get()
    if told is not None:
        return told
    kind = _device_kind() if keras.backend.backend() == "jax" else ""
    return next((chip for chip in CHIPS.values() if chip.kind == kind), SMALLEST)


def _device_kind() -> str:
    """Returns what JAX calls the present device."""
    import jax

    device: Any = getattr(jax.config, "jax_default_device", None)
    if device is None or isinstance(device, str):
        device = jax.local_devices(backend=device)[0]
    return device.device_kind
