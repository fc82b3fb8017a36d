"""The TPU's own compiler, which needs no TPU, and what it says of a program.

It is libtpu's, whose extra is `tpu-check`. What it counts follows from the compiled program alone:
it is the same in every run and on every machine. Its estimate of time is not taken: it is -1 s
for each operation that it cannot tell, so that sums with it mean nothing.
"""

import dataclasses
import functools
import math
import os
import re
from collections.abc import Callable
from typing import Any

import keras

MEBIBYTE = 2**20


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU, with what its maker states.

    Args:
        topology: Its least slice, as libtpu names it.
        memory: Bytes of memory.
        bandwidth: Bytes that it reads and writes there per second.
        flops: Floating-point operations per second, in bfloat16.
    """

    topology: str
    memory: int
    bandwidth: float
    flops: float


CHIPS = {
    "v5e": Chip("v5e:2x2", 16 * 2**30, 819e9, 197e12),
    "v4": Chip("v4:2x2x1", 32 * 2**30, 1228e9, 275e12),
    "v6e": Chip("v6e:2x2", 32 * 2**30, 1640e9, 918e12),
}
# A v4 slice of 32 cores, two on each of 16 chips.
SLICE = "v4:2x2x4"
# All that this compiler calls a number's type, by its bytes.
ITEMSIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
ALL_REDUCE = re.compile(r"= (.*?) all-reduce(?:-start)?\(")
ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a compiled program needs.

    Args:
        flops: Floating-point operations.
        bytes: Bytes that its operations read and write.
        temporary: Bytes that it holds at once beside what it takes and returns.
        held: Bytes that it holds at once, all together.
        reduced: Bytes of one copy of what its all-reduces add up over devices.
        reductions: How many all-reduces there are.
    """

    flops: int
    bytes: int
    temporary: int
    held: int
    reduced: int = 0
    reductions: int = 0


@functools.cache
def devices(topology: str) -> list[Any]:
    """Returns the devices of a slice, to compile for.

    Args:
        topology: Its name, such as `"v5e:2x2"`.

    Raises:
        ValueError: If Keras runs on another backend than JAX.
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            "The TPU's compiler takes what JAX traces, so Keras must run on it. Received: "
            f"KERAS_BACKEND={keras.backend.backend()!r}. Set KERAS_BACKEND=jax."
        )
    os.environ.update(
        # Else libtpu asks the cloud's metadata server which TPU it runs on,
        TPU_SKIP_MDS_QUERY="1",
        TPU_WORKER_HOSTNAMES="localhost",
        # and lets a single process load it, since that would own the TPU.
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    )
    # Flags of other compilers, at which libtpu ends the process.
    os.environ.pop("XLA_FLAGS", None)
    import jax
    from jax.experimental import topologies

    jax.config.update("jax_platforms", "cpu")
    return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)


def on_one_device(topology: str) -> Any:
    """Returns the sharding of what lies whole on a slice's first device."""
    import jax

    return jax.sharding.SingleDeviceSharding(devices(topology)[0])


def abstract(value: Any, sharding: Any) -> Any:
    """Returns what stands for a tensor or variable that lies on devices which are not there."""
    import jax

    return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)


def compiled_costs(
    function: Callable, *arguments: Any, donated: tuple[int, ...] = ()
) -> Costs | None:
    """Compiles a function and returns what it needs on one device.

    Args:
        function: Function of arrays.
        *arguments: What stands for them, from `abstract`.
        donated: Which of the arguments lie where what is returned will lie.

    Returns:
        The costs; None if it needs more memory than the chip has.
    """
    import jax

    traced = jax.jit(function, donate_argnums=donated).lower(*arguments)
    try:
        return _costs(traced.compile())
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None


def _costs(program: Any) -> Costs:
    counted, memory = program.cost_analysis(), program.memory_analysis()
    sizes = reduced_bytes(program.as_text())
    temporary = memory.temp_size_in_bytes
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes + temporary
    return Costs(
        flops=int(counted["flops"]),
        bytes=int(counted["bytes accessed"]),
        temporary=temporary,
        held=held - memory.alias_size_in_bytes,
        reduced=sum(sizes),
        reductions=len(sizes),
    )


def reduced_bytes(program: str) -> list[int]:
    """Returns the bytes that each all-reduce of a compiled program adds up.

    Example:
        >>> line = "%s = (f32[3,5]{1,0:T(8,128)}, bf16[]) all-reduce(%a, %b), channel_id=1"
        >>> reduced_bytes(line)
        [62]
    """
    return [sum(map(_array_bytes, ARRAY.findall(found))) for found in ALL_REDUCE.findall(program)]


def _array_bytes(array: tuple[str, str]) -> int:
    kind, sizes = array
    return ITEMSIZES.get(kind, 0) * math.prod(map(int, filter(None, sizes.split(","))))
