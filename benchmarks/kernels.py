"""What fused kernels move on a TPU, by its own compiler, which needs none.

    KERAS_BACKEND=jax python -m benchmarks.kernels [--chips=v5e,v4,v6e] [--layers=...] [--network]

compiles the training step of each layer on W1 (the gradients of every weight and of the inputs, as
inside a network) with kernels, and with what it does without, and prints the bytes that the
compiled program accesses beside a convolution's. `--kernels` prints, of each kernel by itself, the
bytes that its blocks move and how it is cut; `--network` the steps of the paper's small network.
Layers compute in bfloat16, weights are in float32. `pip install jax libtpu` brings the compiler.
"""

import argparse
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any

import keras

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.kernels.chips import CHIPS, compiling_for
from low_rank_local_connectivity.kernels.geometry import (
    MEBIBYTE,
    WANTED,
    Kind,
    best_tiles,
    fitting_geometry,
    moved_bytes,
)
from low_rank_local_connectivity.ops.windows import Windows

# The least slice of each TPU, as its compiler names it.
TOPOLOGIES = {"v4": "v4:2x2x1", "v5e": "v5e:2x2", "v6e": "v6e:2x2"}
SHAPE, FILTERS, TAPS = (512, 28, 28, 64), 64, 3
WINDOWS = Windows((TAPS, TAPS), (1, 1), (1, 1), "valid")
# What W1's layers ask kernels for.
KERNELS: tuple[tuple[Kind, int], ...] = (
    ("shared", 4),
    ("shared", 30),
    ("given", 1),
    ("per_example", 4),
)


def _low_rank(rank: int, plan: Any, **more: Any) -> keras.Layer:
    return layers.LowRankLocallyConnected2D(FILTERS, TAPS, rank, implementation=plan, **more)


LAYERS: dict[str, Callable[[], keras.Layer]] = {
    "convolution": lambda: keras.layers.Conv2D(FILTERS, TAPS),
    "low rank, K = 4": lambda: _low_rank(4, "combine_then_convolve"),
    "low rank, K = 4, fused": lambda: _low_rank(4, "fused"),
    "low rank, K = 30": lambda: _low_rank(30, "combine_then_convolve"),
    "low rank, K = 30, fused": lambda: _low_rank(30, "fused"),
    "locally connected": lambda: layers.LocallyConnected2D(FILTERS, TAPS),
    "locally connected, fused": lambda: layers.LocallyConnected2D(
        FILTERS, TAPS, implementation="fused"
    ),
    "input-dependent, K = 4": lambda: _low_rank(4, "convolve_then_combine", input_dependent=True),
    "input-dependent, K = 4, fused": lambda: _low_rank(4, "fused", input_dependent=True),
}


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel that the TPU's compiler has compiled.

    Args:
        name: What it computes.
        blocks: How it is cut.
        reported: Bytes that the compiled program accesses, with what stands around the kernel.
        counted: Bytes that the kernel's blocks move.
    """

    name: str
    blocks: str
    reported: int
    counted: int


def on_chip(name: str) -> Any:
    """Returns the sharding of what lies on a TPU that is not there.

    Args:
        name: Name of the TPU, a key of `TOPOLOGIES`.
    """
    os.environ.update(
        # Else the compiler asks the cloud's metadata server which TPU it runs on,
        TPU_SKIP_MDS_QUERY="1",
        TPU_WORKER_HOSTNAMES="localhost",
        # and lets a single process load it, as if that owned a TPU.
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    )
    # It ends the process at a flag of another compiler's.
    os.environ.pop("XLA_FLAGS", None)
    import jax
    from jax.experimental import topologies

    jax.config.update("jax_platforms", "cpu")
    slice_ = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGIES[name])
    return jax.sharding.SingleDeviceSharding(slice_.devices[0])


def compile_for(chip: str, function: Callable, *arguments: Any) -> Any:
    """Compiles a function of arrays or variables for a TPU.

    Args:
        chip: Name of the TPU.
        function: The function.
        *arguments: Structures of what has a shape and a data type.
    """
    import jax

    sharding = on_chip(chip)

    def stand_in(value: Any) -> Any:
        return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)

    with compiling_for(chip):
        placed = jax.tree.map(stand_in, arguments)
        return jax.jit(function).lower(*placed).compile()


def bytes_accessed(compiled: Any) -> int:
    """Returns the bytes that a compiled program's operations read and write."""
    return int(compiled.cost_analysis()["bytes accessed"])


def compiled_kernels(chip: str) -> Iterator[Kernel]:
    """Yields W1's kernels, each compiled by itself for a TPU."""
    from low_rank_local_connectivity.kernels import tpu

    target = CHIPS[chip]
    functions = {
        "outputs": (tpu.outputs_of, ("inputs",)),
        "inputs": (tpu.inputs_gradient, ("outputs",)),
        "filters": (tpu.filters_gradient, ("inputs", "outputs")),
    }
    for kind, rank in KERNELS:
        geometry = fitting_geometry(kind, SHAPE, WINDOWS, FILTERS, rank, 2, target.budgets)
        for wanted in WANTED:
            function, read = functions[wanted]
            mixed = () if kind == "given" and wanted == "filters" else geometry.made_of
            arrays = [
                keras.KerasTensor(geometry.shape(name), "bfloat16" if name in read else "float32")
                for name in (*read, *mixed)
            ]
            compiled = compile_for(
                chip, lambda *arrays, f=function, g=geometry: f(g, False, *arrays), *arrays
            )
            tiles = best_tiles(geometry, wanted)
            assert tiles is not None
            yield Kernel(
                f"{kind}, K = {rank}, {wanted}",
                f"{tiles.row_blocks} x {tiles.column_blocks} x {tiles.batch_blocks}",
                bytes_accessed(compiled),
                moved_bytes(tiles, wanted),
            )


def compiled_layer(chip: str, name: str) -> Any:
    """Returns the compiled training step of one of W1's layers."""
    import jax

    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = LAYERS[name]()
    layer.build(SHAPE)
    fixed = [variable.value for variable in layer.non_trainable_variables]
    mode = {"training": True} if not isinstance(layer, keras.layers.Conv2D) else {}

    def loss(trainable: Any, inputs: Any) -> Any:
        outputs, _ = layer.stateless_call(trainable, fixed, inputs, **mode)
        return (outputs**2).sum()

    weights = [keras.KerasTensor(one.shape, one.dtype) for one in layer.trainable_variables]
    inputs = keras.KerasTensor(SHAPE, "bfloat16")
    return compile_for(chip, jax.grad(loss, (0, 1)), weights, inputs)


def compiled_network(chip: str, kind: str, rank: int, plan: str) -> Any:
    """Returns the compiled training step of the paper's small network, with Adam.

    Args:
        chip: Name of the TPU.
        kind: Kind of the last layer.
        rank: Its number of banks.
        plan: Its implementation; its own choice if empty.
    """
    from low_rank_local_connectivity.models import MODELS, Settings, convolution

    keras.config.set_dtype_policy("mixed_bfloat16")
    settings = Settings(rank)
    makers = [convolution(name, settings) for name in ("conv2d", "conv2d", kind)]
    model = MODELS["simple_network"].build((32, 32, 3), 10, convolutions=makers)
    for layer in model._flatten_layers():
        if plan and hasattr(layer, "asked"):
            layer.implementation = plan
    model.compile(
        keras.optimizers.Adam(), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.optimizer.build(model.trainable_variables)
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    state = tuple([keras.KerasTensor(v.shape, v.dtype) for v in group] for group in groups)
    images = keras.KerasTensor((SHAPE[0], 32, 32, 3), "float32")
    return compile_for(chip, model.train_step, state, (images, keras.KerasTensor((512,), "int32")))


NETWORKS = {
    "convolution": ("conv2d", 1, ""),
    "low rank, K = 4, fused": ("low_rank_locally_connected2d", 4, "fused"),
    "low rank, K = 30, fused": ("low_rank_locally_connected2d", 30, "fused"),
    "locally connected, fused": ("locally_connected2d", 1, "fused"),
}


def _print_steps(chip: str, names: list[str], compiled: Callable[[str], Any]) -> None:
    print("\n| training step | GFLOP | MiB accessed | x convolution | MiB of temporary memory |")
    print("|---|---|---|---|---|")
    floor = None
    for name in names:
        program = compiled(name)
        moved, flops = bytes_accessed(program), program.cost_analysis()["flops"] / 1e9
        floor = floor or moved
        held = program.memory_analysis().temp_size_in_bytes / MEBIBYTE
        print(
            f"| {chip}, {name} | {flops:,.1f} | {moved / MEBIBYTE:,.0f} | {moved / floor:.2f} "
            f"| {held:,.0f} |",
            flush=True,
        )


def _print_kernels(chip: str) -> None:
    print("\n| kernel | blocks of rows, columns, examples | MiB moved | MiB reported |")
    print("|---|---|---|---|")
    for kernel in compiled_kernels(chip):
        moved, reported = kernel.counted / MEBIBYTE, kernel.reported / MEBIBYTE
        print(f"| {chip}, {kernel.name} | {kernel.blocks} | {moved:,.1f} | {reported:,.1f} |")


def main() -> None:
    """Prints what the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--chips", default="v5e", help="TPUs, separated by commas")
    parser.add_argument("--only", default="", help="what the name of a layer must contain")
    parser.add_argument("--kernels", action="store_true", help="kernels by themselves")
    parser.add_argument("--network", action="store_true", help="the paper's small network")
    flags = parser.parse_args()
    for chip in flags.chips.split(","):
        if flags.kernels:
            _print_kernels(chip)
            continue
        table = NETWORKS if flags.network else LAYERS
        names = [name for name in table if name == "convolution" or flags.only in name]
        if flags.network:
            _print_steps(
                chip, names, lambda name, chip=chip: compiled_network(chip, *NETWORKS[name])
            )
        else:
            _print_steps(chip, names, lambda name, chip=chip: compiled_layer(chip, name))


if __name__ == "__main__":
    main()
