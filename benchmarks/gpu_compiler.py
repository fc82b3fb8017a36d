"""What the compiler for an NVIDIA GPU, which needs none, makes of PyTorch's fused kernels.

    KERAS_BACKEND=torch python -m benchmarks.gpu_compiler [--capability=90]

compiles each kernel for layers of W1's sizes, of three channels, and of many, in every data type.
It prints as CSV the registers, what is spilled of them, the bytes of on-chip memory, and whether
matrix units multiply. `pip install triton` brings the compiler; an H100's capability is 90.
"""

import argparse
import csv
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from low_rank_local_connectivity.kernels.gpu_shapes import Kind, Shape, shape_of
from low_rank_local_connectivity.ops.windows import Windows

WINDOWS = Windows((3, 3), (1, 1), (1, 1), "valid")
# Channels and filters.
WIDTHS = ((64, 64), (3, 64), (256, 128))
BATCH, ROWS, COLUMNS, RANK = 512, 28, 28, 4
# Of each kernel what the filters are, and whether it writes numbers as long as sums are.
KERNELS: dict[str, tuple[Kind, bool]] = {
    "given_outputs": ("given", False),
    "given_inputs": ("given", False),
    "given_filters": ("given", False),
    "mixed_outputs": ("per_example", False),
    "mixed_inputs": ("per_example", False),
    "mixed_banks": ("per_example", True),
    "mixed_weights": ("per_example", True),
}
# Data types by Triton's names, those of their sums, and whether all digits of float32 are kept.
DTYPES = {
    "float16": ("fp16", "fp32", False),
    "bfloat16": ("bf16", "fp32", False),
    "float32": ("fp32", "fp32", False),
    "float32 in all digits": ("fp32", "fp32", True),
    "float64": ("fp64", "fp64", False),
}
FIELDS = ("kernel", "channels", "filters", "dtype", "digits")
FIELDS += ("registers", "spilled", "shared", "units")
USAGE = re.compile(r"REG:(\d+) STACK:(\d+)")


def _signature(kernel: Any, told: dict[str, Any], name: str, dtype: str) -> dict[str, str]:
    """Returns the types of a kernel's arguments."""
    short, long, _ = DTYPES[dtype]
    sums = KERNELS[name][1]

    def type_of(argument: str) -> str:
        if argument in told:
            return "constexpr"
        if argument in ("batch", "rows"):
            return "i32"
        is_long = argument == "mix" or (argument == "out" and sums)
        return f"*{long if is_long else short}"

    return {argument: type_of(argument) for argument in kernel.arg_names}


def compiled(name: str, shape: Shape, dtype: str, capability: int) -> Any:
    """Returns a kernel that is compiled for a device of a capability.

    Args:
        name: One of `KERNELS`.
        shape: The sizes.
        dtype: One of `DTYPES`.
        capability: Ten times the device's compute capability, 90 for an H100.
    """
    import torch
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from low_rank_local_connectivity.kernels import gpu

    kind, _ = KERNELS[name]
    told = gpu.launch(kind, shape, BATCH, getattr(torch, dtype.partition(" ")[0]), DTYPES[dtype][2])
    options = {option: told.pop(option) for option in ("num_warps", "num_stages")}
    kernel = getattr(gpu, name)
    # Arrays begin at addresses that 16 divides.
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, argument in enumerate(kernel.arg_names)
        if argument not in told
    }
    source = ASTSource(kernel, _signature(kernel, told, name, dtype), told, aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def usage(kernel: Any) -> tuple[int, int]:
    """Returns the registers of a thread, and the bytes that it spills of them."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(kernel.asm["cubin"])
        command = [tool, "-res-usage", binary]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = USAGE.search(told)
    assert found, told
    return int(found[1]), int(found[2])


def rows(capability: int) -> Iterator[dict[str, Any]]:
    """Compiles every kernel, and yields what there is to say of each."""
    for channels, filters in WIDTHS:
        for dtype, (_, _, exact) in DTYPES.items():
            for name, (kind, _) in KERNELS.items():
                inputs = (BATCH, ROWS, COLUMNS, channels)
                shape = shape_of(inputs, WINDOWS, filters, RANK if kind == "per_example" else 1)
                kernel = compiled(name, shape, dtype, capability)
                registers, spilled = usage(kernel)
                matrix = re.search(r"\bw?g?mma\b", kernel.asm["ptx"])
                numbers = (registers, spilled, kernel.metadata.shared)
                said = ("all" if exact else "some", *numbers, "matrix" if matrix else "none")
                yield dict(zip(FIELDS, (name, channels, filters, dtype, *said), strict=True))


def main() -> None:
    """Prints the table, a row at a time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--capability", type=int, default=90, help="ten times the device's own")
    arguments = parser.parse_args()
    writer: Any = csv.DictWriter(sys.stdout, FIELDS)
    writer.writeheader()
    for row in rows(arguments.capability):
        writer.writerow(row)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
