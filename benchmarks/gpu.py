"""Layers on a GPU, beside a convolution and beside what the GPU can do at best.

    KERAS_BACKEND=jax python -m benchmarks.gpu [--minutes=8] [--csv=benchmarks/measured/gpu-jax.csv]
    KERAS_BACKEND=torch python -m benchmarks.gpu

times inference and training (the gradients for every weight and for the inputs) on W1 and W2 at
batch 512, in bfloat16 and float32: the plans of low-rank layers, locally connected and
input-dependent layers, and their peers, each in turn with the convolution. The bytes are the least
that a convolution's step has to move, inputs, outputs and weights once for each of its passes, and
the operations those of one filter at each position. Where a step could not be computed the table
says why. TensorFlow is not needed. `--small` tries it all in seconds.
"""

import argparse
import csv
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras

from benchmarks.peers import local_peer, local_peer_names
from benchmarks.steps import BACKEND, alternate, jax_function
from benchmarks.workloads import WORKLOADS, Workload

BATCH = 512
SMALL = {"batch": 4, "spatial": (6, 5), "channels": 4, "filters": 3}
DTYPES = ("bfloat16", "float32")
# How often a step is repeated between two looks at the clock, and how often it is timed.
REPEATED, ROUNDS = 10, 5
# Bytes of the copy, and the side of the matrices, that tell what the device can do.
COPIED, SIDE = 2**30, 8192
FIELDS = ("backend", "device", "workload", "dtype", "step", "layer", "microseconds")
FIELDS += ("times_convolution", "gigabytes_per_second", "teraflops", "failed")

Make = Callable[[Workload], keras.Layer]
CONVOLUTION = "convolution"


def _low_rank(rank: int, **more: Any) -> Make:
    return lambda workload: workload.low_rank(rank, **more)


def layers_of(workload: Workload) -> dict[str, Make]:
    """Returns what is measured beside the convolution, most telling first."""
    by_mixing: dict[str, Any] = {"implementation": "combine_then_convolve"}
    by_responses: dict[str, Any] = {"implementation": "convolve_then_combine"}
    fused: dict[str, Any] = {"implementation": "fused"}
    named: dict[str, Make] = {}
    # On JAX there are kernels for TPUs alone.
    kernels = BACKEND == "torch"
    for rank in (4, 30, 1):
        plans = [("", {}), (", filters mixed first", by_mixing)]
        plans += [(", fused", fused)] if kernels else []
        plans += [(", responses mixed", by_responses)] if rank <= 4 else []
        named |= {f"low rank, K={rank}{said}": _low_rank(rank, **plan) for said, plan in plans}
    named["locally connected"] = lambda workload: workload.locally_connected()
    named["input-dependent, K=4"] = _low_rank(4, input_dependent=True)
    if kernels:
        named["locally connected, fused"] = lambda workload: workload.locally_connected(**fused)
        named["input-dependent, K=4, fused"] = _low_rank(4, input_dependent=True, **fused)
    for peer in local_peer_names(workload):
        named[peer] = functools.partial(local_peer, name=peer)
    return named


@dataclasses.dataclass(frozen=True)
class Cell:
    """One time to be taken."""

    workload: str
    dtype: str
    training: bool
    layer: str


def cells(small: bool) -> Iterator[tuple[Cell, Workload, Make]]:
    """Yields what is to be measured, most telling first."""
    for dtype in DTYPES:
        for name in ("W1", "W2"):
            changes = SMALL if small else {"batch": BATCH}
            workload = dataclasses.replace(WORKLOADS[name], **changes)
            for training in (True, False):
                for layer, make in layers_of(workload).items():
                    yield Cell(name, dtype, training, layer), workload, make


def step_of(make: Make, workload: Workload, dtype: str, training: bool) -> Callable[[], None]:
    """Returns a function that repeats a compiled step, and waits for the last."""
    policy = "mixed_bfloat16" if dtype == "bfloat16" else dtype
    keras.config.set_dtype_policy(policy)
    layer = make(workload)
    layer.build(workload.input_shape)
    return (_torch_step if BACKEND == "torch" else _jax_step)(layer, workload, dtype, training)


def _jax_step(
    layer: keras.Layer, workload: Workload, dtype: str, training: bool
) -> Callable[[], None]:
    import jax

    inputs = jax.random.normal(jax.random.key(0), workload.input_shape, dtype)
    weights = [variable.value for variable in layer.trainable_variables]
    compute = jax.jit(jax_function(layer, training))
    return _repeated(lambda: compute(weights, inputs))


def _torch_step(
    layer: keras.Layer, workload: Workload, dtype: str, training: bool
) -> Callable[[], None]:
    import torch

    inputs = keras.ops.convert_to_tensor(keras.random.normal(workload.input_shape, seed=0), dtype)
    inputs = inputs.detach().requires_grad_(training)
    sources = [variable.value for variable in layer.trainable_variables]

    def compute() -> None:
        with torch.set_grad_enabled(training):
            outputs = layer(inputs)
            if training:
                torch.autograd.grad((outputs**2).sum(), [inputs, *sources])

    return _repeated(_recorded(compute) if torch.cuda.is_available() else compute)


def _recorded(compute: Callable[[], None]) -> Callable[[], None]:
    """Returns what the device is told in a call, without the Python that tells it."""
    import torch

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            compute()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        compute()
    return graph.replay


def least_bytes(workload: Workload, itemsize: int, training: bool) -> int:
    """Returns the bytes that a convolution's step cannot do without.

    Inference reads inputs and weights and writes outputs. Training reads the outputs' gradient
    twice, the inputs again, and writes a gradient for each array.
    """
    positions = _positions(workload)
    inputs = math.prod(workload.input_shape)
    outputs = workload.batch * positions * workload.filters
    weights = _reads(workload) * workload.filters
    passes = 3 if training else 1
    return passes * itemsize * (inputs + outputs + weights)


def operations(workload: Workload, training: bool) -> int:
    """Returns the operations of one filter at each position, for each of the passes."""
    products = workload.batch * _positions(workload) * _reads(workload) * workload.filters
    return (3 if training else 1) * 2 * products


def _positions(workload: Workload) -> int:
    less = workload.kernel_size - 1 if workload.padding == "valid" else 0
    return math.prod(size - less for size in workload.spatial)


def _reads(workload: Workload) -> int:
    return workload.kernel_size ** len(workload.spatial) * workload.channels


def measured(cell: Cell, workload: Workload, make: Make) -> dict[str, Any]:
    """Times a layer and the convolution in turn.

    Returns:
        Microseconds of the layer's step, and how many of the convolution's they are; what came in
        the way, if the step could not be computed.
    """
    told = (workload, cell.dtype, cell.training)
    try:
        steps = {
            CONVOLUTION: step_of(lambda one: one.convolution(), *told),
            cell.layer: step_of(make, *told),
        }
        convolution, ours = _seconds(steps)
    except Exception as error:  # noqa: BLE001 - a table with a gap is worth more than none
        return {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    itemsize = 2 if cell.dtype == "bfloat16" else 4
    moved = least_bytes(workload, itemsize, cell.training)
    return {
        "microseconds": round(1e6 * ours, 1),
        "times_convolution": round(ours / convolution, 3),
        "gigabytes_per_second": round(moved / ours / 1e9, 1),
        "teraflops": round(operations(workload, cell.training) / ours / 1e12, 2),
    }


def ceilings(small: bool) -> Iterator[dict[str, Any]]:
    """Yields what the device does at best: bytes that it copies, and products of matrices."""
    for dtype in DTYPES:
        itemsize = 2 if dtype == "bfloat16" else 4
        count, side = (2**12, 64) if small else (COPIED // itemsize, SIDE)
        copied, multiplied = _ceilings(count, side, dtype)
        row = {"workload": "copy", "dtype": dtype, "microseconds": round(1e6 * copied, 1)}
        yield row | {"gigabytes_per_second": round(2 * count * itemsize / copied / 1e9, 1)}
        row = {"workload": "matrices", "dtype": dtype, "microseconds": round(1e6 * multiplied, 1)}
        yield row | {"teraflops": round(2 * side**3 / multiplied / 1e12, 2)}


def _ceilings(count: int, side: int, dtype: str) -> tuple[float, float]:
    """Returns the seconds of a copy, and of a product of two square matrices."""
    vector = keras.ops.ones((count,), dtype)
    matrix = keras.random.normal((side, side), seed=0, dtype=dtype)
    if BACKEND == "torch":
        copy, multiply = vector.clone, (lambda: matrix @ matrix)
    else:
        import jax

        negate, product = jax.jit(lambda one: -one), jax.jit(lambda one: one @ one)
        copy, multiply = (lambda: negate(vector)), (lambda: product(matrix))
    copied, multiplied = _seconds({"copy": _repeated(copy), "multiply": _repeated(multiply)})
    return copied, multiplied


def _repeated(compute: Callable[[], Any]) -> Callable[[], None]:
    """Returns a function that repeats what a device is told, and waits for it."""

    def step() -> None:
        for _ in range(REPEATED):
            outputs = compute()
        _wait_for(outputs)

    return step


def _seconds(steps: dict[str, Callable[[], None]]) -> list[float]:
    """Returns the seconds of one repetition of each of some steps, taken in turn."""
    return [taken / REPEATED for taken in alternate(steps, ROUNDS, warm_up=1).values()]


def _wait_for(outputs: Any) -> None:
    if BACKEND == "jax":
        import jax

        jax.block_until_ready(outputs)
    else:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()


def device_name() -> str:
    """Returns what the backend calls its device."""
    if BACKEND == "torch":
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    import jax

    return jax.devices()[0].device_kind


def main() -> None:
    """Writes the table, a row as soon as it is measured, until the minutes are over."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--minutes", type=float, default=8, help="no cell is begun after them")
    parser.add_argument("--csv", type=Path, default=Path(f"gpu-{BACKEND}.csv"), help="the table")
    parser.add_argument("--small", action="store_true", help="sizes that a processor can do")
    arguments = parser.parse_args()
    if arguments.small:
        global REPEATED, ROUNDS  # noqa: PLW0603 - a program's own setting
        REPEATED = ROUNDS = 1
    started, device = time.monotonic(), device_name()
    arguments.csv.parent.mkdir(parents=True, exist_ok=True)
    with arguments.csv.open("w", newline="") as file:
        writer: Any = csv.DictWriter(file, FIELDS, restval="", lineterminator="\n")
        writer.writeheader()

        def write(row: dict[str, Any]) -> None:
            writer.writerow({"backend": BACKEND, "device": device, **row})
            file.flush()
            print(*(value for value in row.values() if value != ""), flush=True)

        for row in ceilings(arguments.small):
            write(row)
        for cell, workload, make in cells(arguments.small):
            if time.monotonic() - started > 60 * arguments.minutes:
                print(f"The {arguments.minutes:g} minutes are over; the rest is not measured.")
                break
            named = {"workload": cell.workload, "dtype": cell.dtype, "layer": cell.layer}
            named["step"] = "training" if cell.training else "inference"
            write(named | measured(cell, workload, make))


if __name__ == "__main__":
    main()
