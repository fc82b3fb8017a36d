"""What a fused kernel computes, how it is cut into blocks, and the bytes that these move.

Integers only. Positions and taps have two axes each, rows and columns; a signal is an image of one
column. Every array has the axes of its blocks: `(rows, columns, channels, batch)`, so that examples
lie in the lanes of a vector and a patch is put together of whole slices.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from low_rank_local_connectivity.ops.windows import Windows

# What a kernel's filters are: a mix of banks that all examples share, a mix of each example's own,
# or given for every position.
Kind = Literal["shared", "per_example", "given"]
# What is computed: outputs, or gradients for inputs or for what the filters are made of.
Wanted = Literal["outputs", "inputs", "filters"]
WANTED: tuple[Wanted, ...] = ("outputs", "inputs", "filters")

LANES = 128
SUBLANE_BYTES = 32
MEBIBYTE = 2**20
# What a TPU v5e multiplies and adds while it reads or writes one byte.
OPERATIONS_PER_BYTE = 240
# Bytes of float32, in which gradients are added up.
SUM_ITEMSIZE = 4
# Filters that are mixed together, so that a matrix product leaves them where they are used: one
# below the other in a vector. It multiplies by as many zeros less one.
GROUP = 8
# Positions whose filters are mixed together at most: as many as fit.
MIXED_TOGETHER = (16, 8, 4, 2, 1)


def round_up(size: int, multiple: int) -> int:
    """Returns the smallest multiple that is not below a size.

    Example:
        >>> round_up(130, 128)
        256
    """
    return -(-size // multiple) * multiple


def sublanes(itemsize: int) -> int:
    """Returns how many rows of a matrix lie in one vector.

    Example:
        >>> sublanes(4), sublanes(2)
        (8, 16)
    """
    return max(SUBLANE_BYTES // itemsize, 8)


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Shapes of a local convolution, padded for the kernel.

    Args:
        kind: What the filters are.
        outputs: Rows and columns of positions.
        taps: Rows and columns of a filter.
        strides: Steps between windows.
        dilations: Steps between taps.
        channels: Input channels.
        filters: Filters at each position.
        batch: Examples.
        rank: Banks; 1 where filters are given.
        itemsize: Bytes of a number of the inputs.
        memory: Bytes of on-chip memory that a kernel may hold.
        most_together: Positions whose filters are mixed together at most.
    """

    kind: Kind
    outputs: tuple[int, int]
    taps: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    channels: int
    filters: int
    batch: int
    rank: int
    itemsize: int
    memory: int
    most_together: int = MIXED_TOGETHER[0]

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows and columns of the inputs that windows span, their padding included."""
        return self.span(self.outputs[0]), self._span(1, self.outputs[1])

    def span(self, rows: int) -> int:
        """Returns how many input rows so many rows of positions read."""
        return self._span(0, rows)

    def _span(self, axis: int, positions: int) -> int:
        reach = self.dilations[axis] * (self.taps[axis] - 1)
        return (positions - 1) * self.strides[axis] + reach + 1

    @property
    def reads(self) -> int:
        """Numbers that one filter reads: taps, then channels."""
        return math.prod(self.taps) * self.channels

    @property
    def positions(self) -> int:
        """Number of positions."""
        return math.prod(self.outputs)

    @property
    def products(self) -> int:
        """Multiply-adds of applying every position's filters, once for each bank if need be."""
        times = self.rank if self.kind == "per_example" else 1
        return times * self.batch * self.positions * self.reads * self.filters

    @property
    def mixing(self) -> int:
        """Multiply-adds of mixing the banks for every position, those by zeros too."""
        filters = self.positions * self.reads * self.filters
        return GROUP * self.rank * filters if self.kind == "shared" else 0

    @property
    def groups(self) -> int:
        """Groups of filters that are mixed together."""
        return self.filters // GROUP

    @property
    def chunks(self) -> int:
        """Chunks into which a row of positions is cut where filters are mixed."""
        return -(-self.outputs[1] // self.most_together)

    @property
    def together(self) -> int:
        """Positions of a chunk; the last one of a row may lack some."""
        return -(-self.outputs[1] // self.chunks)

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of an array by its name: inputs, outputs, filters, banks or weights."""
        return {
            "inputs": (*self.sizes, self.channels, self.batch),
            "outputs": (*self.outputs, self.filters, self.batch),
            "filters": (*self.outputs, self.filters, self.reads),
            "banks": self._banks_shape,
            "weights": (self.outputs[0], *self.row_of_weights(self.batch)),
        }[name]

    @property
    def _banks_shape(self) -> tuple[int, ...]:
        if self.kind == "shared":
            return self.groups, GROUP * self.rank, self.reads
        return self.rank, self.filters, self.reads

    def row_of_weights(self, batch: int) -> tuple[int, ...]:
        """Returns the shape of a row of combining weights, for so many examples."""
        if self.kind == "shared":
            return self.chunks, self.together, GROUP * self.rank
        return self.outputs[1], self.rank, batch

    @property
    def made_of(self) -> tuple[str, ...]:
        """Names of the arrays that the filters are made of."""
        return ("filters",) if self.kind == "given" else ("banks", "weights")


def in_vectors(shape: tuple[int, ...], itemsize: int) -> int:
    """Returns the bytes of an array in on-chip memory, where vectors are filled up.

    Example:
        >>> in_vectors((2, 3, 100), 4) == 2 * 8 * 128 * 4
        True
    """
    *outer, rows, columns = (1, 1, *shape)
    whole = round_up(rows, sublanes(itemsize)) * round_up(columns, LANES)
    return math.prod(outer) * whole * itemsize


@dataclasses.dataclass(frozen=True)
class Tiles:
    """How a kernel cuts a local convolution into blocks.

    Args:
        geometry: What is cut.
        rows: Rows of positions of a block.
        batch: Examples of a block; divides the batch.
        columns: Columns of positions of a block of filters that are given; all if they are mixed.
    """

    geometry: Geometry
    rows: int
    batch: int
    columns: int

    @property
    def row_blocks(self) -> int:
        """Blocks of rows of positions; the last one may lack some."""
        return -(-self.geometry.outputs[0] // self.rows)

    @property
    def batch_blocks(self) -> int:
        """Blocks of examples."""
        return self.geometry.batch // self.batch

    @property
    def column_blocks(self) -> int:
        """Blocks of columns of positions; the last one may lack some."""
        return -(-self.geometry.outputs[1] // self.columns)

    @property
    def blocks(self) -> int:
        """Blocks of rows and of examples."""
        return self.row_blocks * self.batch_blocks

    @property
    def input_rows(self) -> int:
        """Input rows that a block of positions reads; neighbours read some of them again."""
        return self.geometry.span(self.rows)

    @property
    def new_rows(self) -> int:
        """Input rows between the first of a block and the first of the next."""
        return self.rows * self.geometry.strides[0]

    @property
    def missing_rows(self) -> int:
        """Rows below the inputs that the last block would read."""
        last = (self.row_blocks - 1) * self.new_rows + self.input_rows
        return max(last - self.geometry.sizes[0], 0)

    @property
    def gradient_steps(self) -> int:
        """Blocks of rows of the inputs' gradient, in steps of the rows that are done with."""
        return -(-self.geometry.sizes[0] // self.new_rows)

    @property
    def held_rows(self) -> int:
        """Rows of the inputs' gradient that are still being added to."""
        return max(self.input_rows, self.new_rows)

    def block(self, name: str) -> tuple[int, ...]:
        """Returns the shape of one block of an array."""
        geometry, columns = self.geometry, self.geometry.outputs[1]
        return {
            "inputs": (self.input_rows, geometry.sizes[1], geometry.channels, self.batch),
            "outputs": (self.rows, columns, geometry.filters, self.batch),
            "filters": (self.rows, self.columns, geometry.filters, geometry.reads),
            "banks": geometry.shape("banks"),
            "weights": (self.rows, *geometry.row_of_weights(self.batch)),
        }[name]


def moved_bytes(tiles: Tiles, wanted: Wanted) -> int:
    """Returns the bytes that a kernel's blocks move between the chip and its memory.

    A block that is read again counts again. Banks are read once, and their gradient is written
    once; filters that are given are read again for each block of examples.

    Args:
        tiles: How the kernel cuts what it computes.
        wanted: What it computes.
    """
    geometry, item = tiles.geometry, tiles.geometry.itemsize
    again = 1 if geometry.kind == "per_example" else tiles.batch_blocks
    read = math.prod(tiles.block("inputs")) * tiles.blocks * item
    inputs = math.prod(geometry.shape("inputs")) * item
    outputs = math.prod(geometry.shape("outputs")) * item
    if geometry.kind == "given":
        filters = math.prod(geometry.shape("filters")) * SUM_ITEMSIZE
        if wanted == "filters" and again > 1:
            # Examples come last there, so that a block of filters is added up where it is.
            read, outputs = tiles.column_blocks * read, tiles.column_blocks * outputs
        return _sum_of(wanted, read, inputs, outputs, again * filters, filters)
    banks, weights = (math.prod(geometry.shape(name)) for name in geometry.made_of)
    # Of a block of rows, the kernel for their gradient goes through the examples last.
    again = 1 if wanted == "filters" else again
    made_of = banks * item + again * weights * SUM_ITEMSIZE
    gradients = made_of + (banks + weights) * SUM_ITEMSIZE
    return _sum_of(wanted, read, inputs, outputs, made_of, gradients)


def _sum_of(
    wanted: Wanted, read: int, inputs: int, outputs: int, made_of: int, gradients: int
) -> int:
    if wanted == "outputs":
        return read + outputs + made_of
    if wanted == "inputs":
        return inputs + outputs + made_of
    return read + outputs + gradients


def held_bytes(tiles: Tiles, wanted: Wanted) -> int:
    """Returns the bytes of on-chip memory that a kernel holds: blocks twice, and its scratch."""
    geometry, item = tiles.geometry, tiles.geometry.itemsize
    patch = (geometry.reads, tiles.batch)
    twice = in_vectors(tiles.block("outputs"), item)
    once = in_vectors((geometry.filters, tiles.batch), 4)
    once += 2 * in_vectors((geometry.filters, geometry.reads), 4)
    if wanted == "inputs":
        row = in_vectors(tiles.block("inputs")[1:], item)
        twice += tiles.new_rows * row
        once += tiles.held_rows * row * 4 // item + in_vectors(patch, 4)
    else:
        twice += in_vectors(tiles.block("inputs"), item)
        once += in_vectors(patch, item)
    twice_more, once_more = _held_for_filters(tiles, wanted)
    return 2 * (twice + twice_more) + once + once_more


def _held_for_filters(tiles: Tiles, wanted: Wanted) -> tuple[int, int]:
    """Returns what is held twice and what is held once of what the filters are made of."""
    geometry, item = tiles.geometry, tiles.geometry.itemsize
    if geometry.kind == "given":
        return in_vectors(tiles.block("filters"), SUM_ITEMSIZE), 0
    banks = in_vectors(tiles.block("banks"), item)
    weights = in_vectors(tiles.block("weights"), SUM_ITEMSIZE)
    if wanted == "filters":
        banks, weights = banks + in_vectors(tiles.block("banks"), SUM_ITEMSIZE), 2 * weights
    if geometry.kind == "shared":
        chunk = (geometry.groups, GROUP * geometry.together, geometry.reads)
        banks += in_vectors(chunk, SUM_ITEMSIZE)
    return weights, banks


def _possible(geometry: Geometry) -> Iterator[Tiles]:
    batches = range(LANES, geometry.batch + 1, LANES)
    whole = geometry.outputs[1]
    parts = {-(-whole // 2**cut) for cut in range(6)} if geometry.kind == "given" else {whole}
    for rows, batch, columns in itertools.product(
        range(1, geometry.outputs[0] + 1), batches, sorted(parts)
    ):
        if geometry.batch % batch == 0:
            yield Tiles(geometry, rows, batch, columns)


@functools.lru_cache(maxsize=1024)
def best_tiles(geometry: Geometry, wanted: Wanted) -> Tiles | None:
    """Returns the blocks that take the least time of those that fit, or None if none do.

    Args:
        geometry: What is cut.
        wanted: What is computed.

    Example:
        >>> sizes = (26, 26), (3, 3), (1, 1), (1, 1), 64, 64, 512
        >>> layer = Geometry("shared", *sizes, rank=4, itemsize=2, memory=100 * MEBIBYTE)
        >>> best_tiles(layer, "outputs").row_blocks
        2
    """
    fitting = [
        tiles for tiles in _possible(geometry) if held_bytes(tiles, wanted) <= geometry.memory
    ]
    if not fitting:
        return None

    def work(tiles: Tiles) -> tuple[int, int]:
        moved = moved_bytes(tiles, wanted)
        flops = 2 * (geometry.products + geometry.mixing * tiles.batch_blocks)
        return max(OPERATIONS_PER_BYTE * moved, flops), moved

    # Of those that take as long the ones that move least, then the fewest, then the smallest.
    return min(
        fitting,
        key=lambda tiles: (
            *work(tiles),
            tiles.blocks * tiles.column_blocks,
            held_bytes(tiles, wanted),
        ),
    )


def fitting_geometry(
    kind: Kind,
    shape: tuple[Any, ...],
    windows: Windows,
    filters: int,
    rank: int,
    itemsize: int,
    memories: Sequence[int],
) -> Geometry:
    """Returns the padded shapes of a local convolution whose kernels fit into on-chip memory.

    A signal is a row if that fits, since filters are mixed for several positions of a row at once,
    else a column, which can be cut.

    Args:
        kind: What the filters are.
        shape: Shape of the inputs, channels last, all of it known.
        windows: Where the windows sit, over one or two axes.
        filters: Filters at each position.
        rank: Number of banks.
        itemsize: Bytes of a number of the inputs.
        memories: Bytes of on-chip memory that may be held: as many as are needed, in this order.

    Raises:
        ValueError: If none fits.
    """
    batch, *sizes, channels = shape
    whole = sublanes(itemsize)
    numbers = (windows.static_output_shape(sizes), windows.sizes, windows.strides)
    axes: list[Any] = [tuple(axis) for axis in (*numbers, windows.dilations)]
    signal: list[Any] = [[(1, *one) for one in axes], [(*one, 1) for one in axes]]
    together = MIXED_TOGETHER if kind == "shared" else MIXED_TOGETHER[:1]
    for memory, (outputs, taps, strides, dilations), most in itertools.product(
        memories, [axes] if len(sizes) == 2 else signal, together
    ):
        geometry = Geometry(
            kind,
            outputs,
            taps,
            strides,
            dilations,
            channels=round_up(channels, whole),
            filters=round_up(filters, whole),
            batch=round_up(max(batch, 1), LANES),
            rank=rank,
            itemsize=itemsize,
            memory=memory,
            most_together=most,
        )
        if all(best_tiles(geometry, wanted) for wanted in WANTED):
            return geometry
    raise ValueError(
        "A fused kernel must hold its filter banks and one row of positions in on-chip memory, "
        f"of which {max(memories):,} bytes may be taken. Received: {rank} banks of {filters} "
        f"filters over inputs of shape {shape} with windows={windows}. Use another "
        "implementation, or fewer banks, filters or channels."
    )
