"""What layers and networks cost on a TPU, by its own compiler, which needs none.

    KERAS_BACKEND=jax python -m benchmarks.tpu layers --chips=v5e --dtypes=mixed_bfloat16
    KERAS_BACKEND=jax python -m benchmarks.tpu networks --networks=simple_network
    KERAS_BACKEND=jax python -m benchmarks.tpu table --sizes=W1 --modes=training
    KERAS_BACKEND=jax python -m benchmarks.tpu ratios

`layers` compiles an inference or a training step (the gradients of every weight and of the inputs,
as inside a network) of each layer by each of its plans; `networks` a training step with Adam of
whole networks, on one chip and on a slice. Operations, bytes accessed and memory go into files, the
most telling cells first. A cell takes 5 to 90 s of two cores; one that its file has is not compiled
again unless `--again` says so. `table` prints what the files have, `ratios` only how many
convolutions' bytes each layer moves. Inputs of layers are in the compute dtype, weights in float32.
`pip install -e ".[tpu-check]"` brings the compiler.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras

from benchmarks import cells, tpu_compiler, tpu_networks
from benchmarks.cells import Counts
from benchmarks.steps import jax_function
from benchmarks.tpu_compiler import CHIPS, MEBIBYTE, Chip
from benchmarks.tpu_networks import Step
from benchmarks.undrawn import without_values
from benchmarks.workloads import WORKLOADS, Workload
from low_rank_local_connectivity.kernels.chips import compiling_for
from low_rank_local_connectivity.models import MODELS
from low_rank_local_connectivity.plans import LOW_RANK, names_of

MEASURED = Path(__file__).parent / "measured"
LAYERS_FILE, NETWORKS_FILE = MEASURED / "tpu.csv", MEASURED / "tpu-networks.csv"
DTYPES = ("mixed_bfloat16", "float32")
BATCHES = (512, 64, 1)
MODES = ("training", "inference")
SIZES = ("W1", "W2", "W3", "W4")
RANKS = (4, 30, 2, 8)
CONVOLUTION, LOCALLY_CONNECTED = "convolution", "locally connected"
LOW_RANK_LAYER, INPUT_DEPENDENT = "low rank", "input-dependent"
# Each layer, its rank and its plan, where it has several; the convolution is the measure.
LAYERS = (
    (CONVOLUTION, 0, ""),
    (LOCALLY_CONNECTED, 0, ""),
    *((LOW_RANK_LAYER, rank, plan) for rank in RANKS for plan in names_of(LOW_RANK)),
    (INPUT_DEPENDENT, 4, ""),
)
COUNTED = ("flops", "bytes", "temporary")


@dataclasses.dataclass(frozen=True)
class Cell:
    """A step of a layer.

    Args:
        chip: Name of a TPU.
        dtype: The layer's dtype policy.
        batch: Examples.
        mode: `"training"` or `"inference"`.
        size: Name of a workload.
        layer: Kind of layer.
        rank: Its number of banks, 0 if it has none.
        plan: Its plan, empty if there is only one.
    """

    chip: str
    dtype: str
    batch: int
    mode: str
    size: str
    layer: str
    rank: int
    plan: str

    @property
    def workload(self) -> Workload:
        """The layer's shapes."""
        return dataclasses.replace(WORKLOADS[self.size], batch=self.batch)

    @property
    def convolution(self) -> "Cell":
        """The convolution that the cell is held against."""
        return dataclasses.replace(self, layer=CONVOLUTION, rank=0, plan="")

    def make(self) -> keras.Layer:
        """Makes the layer."""
        workload = self.workload
        if self.layer == CONVOLUTION:
            return workload.convolution()
        if self.layer == LOCALLY_CONNECTED:
            return workload.locally_connected()
        if self.layer == INPUT_DEPENDENT:
            return workload.low_rank(self.rank, input_dependent=True)
        return workload.low_rank(self.rank, implementation=self.plan)


def layer_cells(
    chips: Iterable[str] = tuple(CHIPS),
    dtypes: Iterable[str] = DTYPES,
    batches: Iterable[int] = BATCHES,
    modes: Iterable[str] = MODES,
    sizes: Iterable[str] = SIZES,
    ranks: Sequence[int] = RANKS,
) -> Iterator[Cell]:
    """Yields the cells, the most telling first."""
    axes = itertools.product(chips, dtypes, batches, modes, sizes, LAYERS)
    for chip, dtype, batch, mode, size, (layer, rank, plan) in axes:
        if layer != LOW_RANK_LAYER or rank in ranks:
            yield Cell(chip, dtype, batch, mode, size, layer, rank, plan)


def compile_layer(cell: Cell) -> dict[str, int]:
    """Compiles a layer's step; returns nothing if it needs more memory than the chip has."""
    sharding = tpu_compiler.on_one_device(CHIPS[cell.chip].topology)
    keras.config.set_dtype_policy(cell.dtype)
    layer, shape = cell.make(), cell.workload.input_shape
    with without_values():
        layer.build(shape)
    inputs = tpu_compiler.abstract(keras.KerasTensor(shape, layer.compute_dtype), sharding)
    weights = [tpu_compiler.abstract(one, sharding) for one in layer.trainable_variables]
    step = jax_function(layer, cell.mode == "training")
    with compiling_for(cell.chip):
        costs = tpu_compiler.compiled_costs(step, weights, inputs)
    return {} if costs is None else {name: getattr(costs, name) for name in COUNTED}


def print_layers(
    found: Counts, where: Iterable[tuple[str, str, int, str]], sizes: Sequence[str]
) -> None:
    """Prints the layers at each chip, dtype, batch and mode, beside the convolution."""
    for chip, dtype, batch, mode in where:
        place = {"chip": chip, "dtype": dtype, "batch": batch, "mode": mode}
        here = [cell for cell in _at(found, place) if cell.size in sizes]
        if not here:
            continue
        print(f"\n{chip}, {dtype}, batch {batch}, {mode}\n")
        print("| layer | GFLOP | MiB accessed | x conv | MiB of temporary memory |")
        print("|---|---|---|---|---|")
        for cell in here:
            figures = [*_figures(cell, found), _mebibytes(found[cell].get("temporary"))]
            print(f"| {cell.size} {_kind(cell)} | {' | '.join(figures)} |")


def print_ratios(
    found: Counts, where: Iterable[tuple[str, str, int]], modes: Sequence[str], sizes: Sequence[str]
) -> None:
    """Prints how many convolutions' bytes each layer moves, and how many MiB a convolution."""
    columns = list(itertools.product(sizes, modes))
    for chip, dtype, batch in where:
        here = _at(found, {"chip": chip, "dtype": dtype, "batch": batch})
        by_layer: dict[str, dict[tuple[str, str], str]] = {}
        for cell in here:
            _, accessed, ratio = _figures(cell, found)
            shown = f"{accessed} MiB" if cell == cell.convolution else ratio
            by_layer.setdefault(_kind(cell), {})[cell.size, cell.mode] = shown
        if here:
            print(f"\n{chip}, {dtype}, batch {batch}\n")
            print(f"| layer | {' | '.join(f'{size}, {mode}' for size, mode in columns)} |")
            print("|---" * (len(columns) + 1) + "|")
        for name, shown in by_layer.items():
            print(f"| {name} | {' | '.join(shown.get(column, '') for column in columns)} |")


def _at(found: Counts, place: dict[str, Any]) -> list[Cell]:
    return [cell for cell in found if place.items() <= vars(cell).items()]


def print_networks(found: Counts) -> None:
    """Prints the networks beside those of plain convolutions."""
    print("\n| network and layer | devices | GFLOP | MiB accessed | x conv | least ms ", end="")
    print("| MiB held | of the chip's | all-reduces | MB all-reduced |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for step, counted in found.items():
        held, chip = counted.get("held"), CHIPS[step.chip]
        share = f"{held / chip.memory:.0%}" if held else ""
        figures = [*_figures(step, found), _least(counted, chip), _mebibytes(held), share]
        reduced = f"{counted['reduced'] / 1e6:,.1f}" if counted else ""
        figures += [str(counted.get("reductions", "")), reduced] if step.devices > 1 else ["", ""]
        place = f"{step.devices} x {step.chip}, {step.batch} examples each"
        print(f"| {step.network}, {_kind(step)} | {place} | {' | '.join(figures)} |")


def _least(counted: dict[str, int], chip: Chip) -> str:
    """Returns the milliseconds for moving the bytes or computing, whichever is longer."""
    if not counted:
        return ""
    seconds = max(counted["bytes"] / chip.bandwidth, counted["flops"] / chip.flops)
    return f"{1000 * seconds:,.1f}"


def _kind(one: Cell | Step) -> str:
    """Returns the layer with its rank and plan."""
    rank = f", K={one.rank}" if one.rank else ""
    return f"{one.layer}{rank}{f', {one.plan}' if one.plan else ''}"


def _figures(one: Cell | Step, found: Counts) -> list[str]:
    """Returns operations, bytes and how many convolutions' bytes that is."""
    counted, floor = found[one], found.get(one.convolution)
    if not counted:
        return ["", "does not fit into memory", ""]
    ratio = f"{counted['bytes'] / floor['bytes']:.1f}" if floor else ""
    return [f"{counted['flops'] / 1e9:,.1f}", _mebibytes(counted["bytes"]), ratio]


def _mebibytes(size: int | None) -> str:
    return "" if size is None else f"{size / MEBIBYTE:,.0f}"


def _texts(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _integers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("action", choices=("layers", "networks", "table", "ratios"))
    parser.add_argument("--layers_file", type=Path, default=LAYERS_FILE)
    parser.add_argument("--networks_file", type=Path, default=NETWORKS_FILE)
    parser.add_argument("--again", action="store_true", help="compile what the file has, too")
    texts = {"chips": tuple(CHIPS), "dtypes": DTYPES, "modes": MODES, "sizes": SIZES}
    texts |= {"networks": tuple(MODELS), "kinds": tpu_networks.ALL_KINDS}
    for name, default in texts.items():
        parser.add_argument(f"--{name}", type=_texts, default=default)
    for name, numbers in {"batches": BATCHES, "ranks": RANKS}.items():
        parser.add_argument(f"--{name}", type=_integers, default=numbers)
    return parser.parse_args()


def _compile_networks(flags: argparse.Namespace) -> None:
    chosen = {"chip": flags.chips, "network": flags.networks, "layer": flags.kinds}
    order = tpu_networks.steps()
    wanted = [
        step for step in order if all(getattr(step, name) in some for name, some in chosen.items())
    ]
    count, counted = tpu_networks.compile_step, tpu_networks.COUNTED
    cells.fill(flags.networks_file, wanted, count, counted, order, flags.again)


def main() -> None:
    """Does what the command line names."""
    flags = _flags()
    where = (flags.chips, flags.dtypes, flags.batches, flags.modes)
    if flags.action == "layers":
        wanted = list(layer_cells(*where, flags.sizes, flags.ranks))
        cells.fill(flags.layers_file, wanted, compile_layer, COUNTED, layer_cells(), flags.again)
    elif flags.action == "networks":
        _compile_networks(flags)
    elif flags.action == "ratios":
        layers = cells.read(flags.layers_file, Cell)
        print_ratios(layers, itertools.product(*where[:3]), flags.modes, flags.sizes)
    else:
        layers = cells.read(flags.layers_file, Cell)
        print_layers(layers, itertools.product(*where), flags.sizes)
        print_networks(cells.read(flags.networks_file, Step))


if __name__ == "__main__":
    main()
