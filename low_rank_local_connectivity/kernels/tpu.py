"""Kernels for a TPU: filters are mixed on the chip and never written out.

A kernel goes through blocks of rows of positions and of examples. For each position it collects
the patch, `(reads, batch)`, in a scratch of on-chip memory, makes the filter, `(filters, reads)`,
and multiplies. Without a TPU the same code is interpreted, operation by operation.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from low_rank_local_connectivity.kernels.geometry import (
    GROUP,
    Geometry,
    Tiles,
    Wanted,
    best_tiles,
    moved_bytes,
)


def sum_dtype(dtype: Any) -> Any:
    """Returns the data type that sums of numbers are held in."""
    return jnp.promote_types(dtype, jnp.float32)


def _multiply(left: Any, right: Any, axes: tuple[int, int]) -> Any:
    """Returns the matrix product over an axis of each, added up in at least float32."""
    contracted = (((axes[0],), (axes[1],)), ((), ()))
    return lax.dot_general(left, right, contracted, preferred_element_type=sum_dtype(left.dtype))


def _for_each(count: Any, body: Callable[[Any], None]) -> None:
    def step(index: Any, carry: None) -> None:
        body(index)
        return carry

    lax.fori_loop(0, count, step, None)


def _for_positions(tiles: Tiles, block: Any, body: Callable[[Any, Any], None]) -> None:
    """Calls `body(row, column)` for the positions of a block of rows, those that there are."""
    here, columns = _rows_here(tiles, block), tiles.geometry.outputs[1]
    _for_each(here, lambda row: _for_each(columns, lambda column: body(row, column)))


def _rows_here(tiles: Tiles, block: Any) -> Any:
    """Returns how many rows of positions there are in a block: none below the last."""
    return jnp.clip(tiles.geometry.outputs[0] - block * tiles.rows, 0, tiles.rows)


def _taps(geometry: Geometry, row: Any, column: Any) -> Iterator[tuple[Any, Any, slice]]:
    """Yields where in a block of inputs each tap of a position is, and where in its patch."""
    channels = geometry.channels
    for index, tap in enumerate(itertools.product(*map(range, geometry.taps))):
        y = row * geometry.strides[0] + tap[0] * geometry.dilations[0]
        x = column * geometry.strides[1] + tap[1] * geometry.dilations[1]
        yield y, x, slice(index * channels, (index + 1) * channels)


def _collect(geometry: Geometry, inputs: Any, patch: Any, row: Any, column: Any) -> None:
    for y, x, part in _taps(geometry, row, column):
        patch[part, :] = inputs[y, x]


def _mix_chunk(geometry: Geometry, made_of: Any, filters: Any, row: Any, chunk: Any) -> None:
    """Writes the mixed filters of a chunk of positions into a scratch."""
    banks, weights = made_of
    mixing = _mixing(geometry, weights[row, chunk]).astype(banks.dtype)

    def mix(group: Any) -> None:
        filters[group] = _multiply(mixing, banks[group], (1, 0))

    _for_each(geometry.groups, mix)


def _mixing(geometry: Geometry, weights: Any) -> Any:
    """Returns the matrix that mixes a group of filters for a chunk of positions.

    Its rows are positions, then filters of the group; its columns banks, then filters of the group.

    Args:
        geometry: The shapes.
        weights: Combining weights, each repeated for the filters of a group.
    """
    columns = GROUP * geometry.rank
    shape = (geometry.together, GROUP, columns)
    wide = jnp.broadcast_to(weights[:, None, :], shape)
    mixing = jnp.where(_same_filter(shape), wide, jnp.zeros_like(wide))
    return mixing.reshape(geometry.together * GROUP, columns)


def _same_filter(shape: tuple[int, int, int]) -> Any:
    """Whether a row and a column of a mixing matrix belong to the same filter of a group."""
    row = lax.broadcasted_iota(jnp.int32, shape, 1)
    return row == lax.broadcasted_iota(jnp.int32, shape, 2) % GROUP


def _for_filters(
    tiles: Tiles, block: Any, made_of: Any, scratch: Any, body: Callable[..., None]
) -> None:
    """Calls `body(row, column, filter)` for the positions of a block of rows."""
    geometry = tiles.geometry
    if geometry.kind == "shared":

        def mix(row: Any, chunk: Any) -> None:
            _mix_chunk(geometry, made_of, scratch[0], row, chunk)

        def at(row: Any, column: Any, place: Any) -> None:
            groups = scratch[0][:, place, :]
            matrix = groups.reshape(geometry.filters, geometry.reads)
            body(row, column, matrix)

        _for_chunks(tiles, block, mix, at, _nothing)
    else:

        def given(row: Any, column: Any, index: Any) -> None:
            body(row, column, made_of[0][row, index])

        _for_given(tiles, block, pl.program_id(2), given)


def _for_given(tiles: Tiles, block: Any, part: Any, body: Callable[[Any, Any, Any], None]) -> None:
    """Calls `body(row, column, index)` for positions, with their index in a block of columns."""
    first = part * tiles.columns
    columns = jnp.minimum(tiles.geometry.outputs[1] - first, tiles.columns)

    def each(row: Any) -> None:
        _for_each(columns, lambda index: body(row, first + index, index))

    _for_each(_rows_here(tiles, block), each)


def _nothing(row: Any, chunk: Any) -> None:
    del row, chunk


def _for_chunks(
    tiles: Tiles,
    block: Any,
    before: Callable[[Any, Any], None],
    at: Callable[[Any, Any, Any], None],
    after: Callable[[Any, Any], None],
) -> None:
    """Goes through the positions of a block of rows in chunks.

    Args:
        tiles: The blocks.
        block: Number of the block.
        before: Function of a row and a chunk, called first.
        at: Function of a row, a column and its place among what a chunk holds in a scratch.
        after: As `before`, called last.
    """
    columns, together = tiles.geometry.outputs[1], tiles.geometry.together

    def each(row: Any, chunk: Any) -> None:
        first = chunk * together
        before(row, chunk)
        _for_each(
            jnp.minimum(columns - first, together),
            lambda index: at(
                row, first + index, pl.ds(pl.multiple_of(index * GROUP, GROUP), GROUP)
            ),
        )
        after(row, chunk)

    here, chunks = _rows_here(tiles, block), tiles.geometry.chunks
    _for_each(here, lambda row: _for_each(chunks, lambda chunk: each(row, chunk)))


def _outputs_kernel(tiles: Tiles, *refs: Any) -> None:
    geometry, made_of = tiles.geometry, refs[1 : 1 + len(tiles.geometry.made_of)]
    inputs, outputs, patch, *scratch = refs[0], *refs[1 + len(made_of) :]

    def at(row: Any, column: Any, matrix: Any) -> None:
        _collect(geometry, inputs, patch, row, column)
        response = _multiply(matrix.astype(patch.dtype), patch[...], (1, 0))
        outputs[row, column] = response.astype(outputs.dtype)

    _for_filters(tiles, pl.program_id(1), made_of, scratch, at)


def _outputs_per_example_kernel(tiles: Tiles, *refs: Any) -> None:
    inputs, banks, weights, outputs, patch = refs

    def at(row: Any, column: Any) -> None:
        _collect(tiles.geometry, inputs, patch, row, column)

        def respond(k: Any) -> Any:
            response = _multiply(banks[k], patch[...], (1, 0))
            return _weight(weights, row, column, k) * response

        outputs[row, column] = _total(tiles.geometry.rank, respond).astype(outputs.dtype)

    _for_positions(tiles, pl.program_id(1), at)


def _total(count: int, term: Callable[[Any], Any]) -> Any:
    """Returns the sum of a term for each index."""
    return lax.fori_loop(1, count, lambda index, total: total + term(index), term(0))


def _weight(weights: Any, row: Any, column: Any, k: Any) -> Any:
    """Returns one bank's weight at a position for each example."""
    return weights[row, column, pl.ds(k, 1), :]


def _inputs_kernel(tiles: Tiles, *refs: Any) -> None:
    made_of = refs[1 : 1 + len(tiles.geometry.made_of)]
    outputs, inputs, held, *scratch = refs[0], *refs[1 + len(made_of) :]

    def at(row: Any, column: Any, matrix: Any) -> None:
        upstream = outputs[row, column]
        gradient = _multiply(matrix.astype(upstream.dtype), upstream, (0, 0))
        _spread(tiles, held, gradient, row, column)

    _start(held)
    _for_filters(tiles, pl.program_id(1), made_of, scratch, at)
    _release(tiles, held, inputs)


def _inputs_per_example_kernel(tiles: Tiles, *refs: Any) -> None:
    outputs, banks, weights, inputs, held = refs

    def at(row: Any, column: Any) -> None:
        upstream = outputs[row, column]

        def through(k: Any) -> Any:
            scaled = _weight(weights, row, column, k) * upstream
            return _multiply(banks[k], scaled.astype(upstream.dtype), (0, 0))

        _spread(tiles, held, _total(tiles.geometry.rank, through), row, column)

    _start(held)
    _for_positions(tiles, pl.program_id(1), at)
    _release(tiles, held, inputs)


def _start(held: Any) -> None:
    @pl.when((pl.program_id(1) == 0) & (pl.program_id(2) == 0))
    def _() -> None:
        held[...] = jnp.zeros_like(held)


def _spread(tiles: Tiles, held: Any, gradient: Any, row: Any, column: Any) -> None:
    """Adds the gradient for a patch to the rows that it was read from."""
    for y, x, part in _taps(tiles.geometry, row, column):
        held[y, x] = held[y, x] + gradient[part]


def _release(tiles: Tiles, held: Any, inputs: Any) -> None:
    """Writes the rows that nothing is added to any more, and moves the others up."""
    done, kept = tiles.new_rows, tiles.held_rows - tiles.new_rows

    def write(row: Any) -> None:
        inputs[row] = held[row].astype(inputs.dtype)

    def move(row: Any) -> None:
        held[row] = held[row + done]

    def clear(row: Any) -> None:
        held[kept + row] = jnp.zeros_like(held[0])

    @pl.when(pl.program_id(2) == tiles.column_blocks - 1)
    def _() -> None:
        _for_each(done, write)
        _for_each(kept, move)
        _for_each(done, clear)


def _given_kernel(tiles: Tiles, *refs: Any) -> None:
    inputs, outputs, gradients, patch = refs
    first = pl.program_id(2) == 0

    def at(row: Any, column: Any, index: Any) -> None:
        _collect(tiles.geometry, inputs, patch, row, column)
        gradient = _multiply(outputs[row, column], patch[...], (1, 1))

        @pl.when(first)
        def _() -> None:
            gradients[row, index] = gradient

        @pl.when(jnp.logical_not(first))
        def _() -> None:
            gradients[row, index] += gradient

    _for_given(tiles, pl.program_id(0), pl.program_id(1), at)


def _shared_kernel(tiles: Tiles, *refs: Any) -> None:
    geometry = tiles.geometry
    inputs, outputs, banks, weights, bank_gradients, weight_gradients, patch, gradients = refs
    block, part_of_batch = pl.program_id(0), pl.program_id(2)

    @pl.when((block == 0) & (part_of_batch == 0))
    def _() -> None:
        bank_gradients[...] = jnp.zeros_like(bank_gradients)

    @pl.when(part_of_batch == 0)
    def _() -> None:
        weight_gradients[...] = jnp.zeros_like(weight_gradients)

    def at(row: Any, column: Any, place: Any) -> None:
        _collect(geometry, inputs, patch, row, column)
        gradient = _multiply(outputs[row, column], patch[...], (1, 1))
        gradients[:, place, :] = gradient.reshape(geometry.groups, GROUP, geometry.reads)

    def contract(row: Any, chunk: Any) -> None:
        mixing = _mixing(geometry, weights[row, chunk]).astype(patch.dtype)

        def one(group: Any) -> Any:
            moved = gradients[group].astype(patch.dtype)
            bank_gradients[group] += _multiply(mixing, moved, (0, 0))
            return _multiply(moved, banks[group], (1, 1))

        total = _total(geometry.groups, one)
        shape = (geometry.together, GROUP, GROUP * geometry.rank)
        own = jnp.where(_same_filter(shape), total.reshape(shape), jnp.zeros(shape, total.dtype))
        weight_gradients[row, chunk] += jnp.sum(own, axis=1)

    _for_chunks(tiles, block, _nothing, at, contract)


def _per_example_kernel(tiles: Tiles, *refs: Any) -> None:
    geometry = tiles.geometry
    inputs, outputs, banks, weights, bank_gradients, weight_gradients, patch = refs

    @pl.when((pl.program_id(0) == 0) & (pl.program_id(2) == 0))
    def _() -> None:
        bank_gradients[...] = jnp.zeros_like(bank_gradients)

    def at(row: Any, column: Any) -> None:
        _collect(geometry, inputs, patch, row, column)
        upstream = outputs[row, column]

        def one(k: Any) -> None:
            response = _multiply(banks[k], patch[...], (1, 0))
            found = jnp.sum(response * upstream, axis=0, keepdims=True)
            weight_gradients[row, column, pl.ds(k, 1), :] = found
            scaled = (_weight(weights, row, column, k) * upstream).astype(upstream.dtype)
            bank_gradients[k] += _multiply(scaled, patch[...], (1, 1))

        _for_each(geometry.rank, one)

    _for_positions(tiles, pl.program_id(0), at)


def _spec(
    tiles: Tiles, name: str, place: Callable[..., tuple[Any, Any, Any]], gradient: bool = False
):
    """Returns how the blocks of an array are read.

    Args:
        tiles: The blocks.
        name: The array's name.
        place: Function of the grid's indices to the block of rows, of examples and of columns.
        gradient: Whether it is the inputs' gradient, which is cut into blocks without overlap.
    """
    geometry, block = tiles.geometry, tiles.block(name)
    if name == "banks":
        # It never changes, so a second buffer would be for nothing.
        return pl.BlockSpec(block, lambda *_: (0, 0, 0), pipeline_mode=pl.Buffered(1))
    if name == "filters":
        return pl.BlockSpec(block, lambda *at: (place(*at)[0], place(*at)[2], 0, 0))
    if name == "weights" and geometry.kind == "shared":
        return pl.BlockSpec(block, lambda *at: (place(*at)[0], 0, 0, 0))
    if name == "inputs" and gradient:
        block = (tiles.new_rows, *block[1:])
    elif name == "inputs":
        rows = pl.Element(tiles.input_rows, (0, tiles.missing_rows))
        elements = (rows, *map(pl.Element, block[1:]))
        return pl.BlockSpec(elements, lambda *at: _overlapping(tiles, *place(*at)))
    return pl.BlockSpec(block, lambda *at: _apart(*place(*at)))


def _overlapping(tiles: Tiles, block: Any, part: Any, columns: Any) -> tuple[Any, ...]:
    del columns
    return block * tiles.new_rows, 0, 0, part * tiles.batch


def _apart(block: Any, part: Any, columns: Any) -> tuple[Any, ...]:
    del columns
    return block, 0, 0, part


def _call(
    kernel: Callable[..., None],
    tiles: Tiles,
    wanted: Wanted,
    grid: tuple[int, ...],
    interpret: bool,
    **arguments: Any,
) -> Callable[..., Any]:
    geometry = tiles.geometry
    cost = pl.CostEstimate(
        flops=2 * (geometry.products + geometry.mixing * tiles.batch_blocks),
        transcendentals=0,
        bytes_accessed=moved_bytes(tiles, wanted),
    )
    return pl.pallas_call(
        functools.partial(kernel, tiles),
        grid=grid,
        interpret=interpret,
        name=f"local_convolution_{geometry.kind}_{wanted}",
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=_limit(geometry)),
        cost_estimate=cost,
        **arguments,
    )


def _limit(geometry: Geometry) -> int:
    """Returns the bytes of on-chip memory that the compiler may take, some of them its own."""
    return geometry.memory * 15 // 13


def tiles_for(geometry: Geometry, wanted: Wanted) -> Tiles:
    """Returns the blocks of a kernel, which `fitting_geometry` saw to be there."""
    tiles = best_tiles(geometry, wanted)
    assert tiles is not None, geometry
    return tiles


def _by_batch(part: Any, block: Any, columns: Any) -> tuple[Any, Any, Any]:
    return block, part, columns


def _by_rows(block: Any, columns: Any, part: Any) -> tuple[Any, Any, Any]:
    return block, part, columns


def outputs_of(geometry: Geometry, interpret: bool, inputs: Any, *made_of: Any) -> Any:
    """Returns the outputs of a local convolution.

    Args:
        geometry: The shapes.
        interpret: Whether to interpret the kernel, where there is no TPU.
        inputs: Array of axes `(rows, columns, channels, batch)`.
        *made_of: What the filters are made of, in the order of `Geometry.made_of`.
    """
    tiles = tiles_for(geometry, "outputs")
    names = ("inputs", *geometry.made_of)
    per_example = geometry.kind == "per_example"
    return _call(
        _outputs_per_example_kernel if per_example else _outputs_kernel,
        tiles,
        "outputs",
        (tiles.batch_blocks, tiles.row_blocks, tiles.column_blocks),
        interpret,
        in_specs=[_spec(tiles, name, _by_batch) for name in names],
        out_specs=_spec(tiles, "outputs", _by_batch),
        out_shape=jax.ShapeDtypeStruct(geometry.shape("outputs"), inputs.dtype),
        scratch_shapes=[_patch(tiles, inputs.dtype), *_chunk(geometry, inputs.dtype)],
    )(inputs, *_cast(geometry, inputs.dtype, made_of))


def _patch(tiles: Tiles, dtype: Any) -> Any:
    return pltpu.VMEM((tiles.geometry.reads, tiles.batch), dtype)


def _chunk(geometry: Geometry, dtype: Any) -> list[Any]:
    """Returns the scratch for the filters, or their gradients, of a chunk of positions."""
    if geometry.kind != "shared":
        return []
    shape = (geometry.groups, GROUP * geometry.together, geometry.reads)
    return [pltpu.VMEM(shape, sum_dtype(dtype))]


def _cast(geometry: Geometry, dtype: Any, made_of: Sequence[Any]) -> Sequence[Any]:
    """Returns banks in the data type that they are multiplied in, which is smaller.

    Whatever else filters are made of is cast where it is used.
    """
    if geometry.kind == "given":
        return made_of
    banks, weights = made_of
    return [banks.astype(dtype), weights]


def _while_there_are(tiles: Tiles, part: Any, block: Any, columns: Any) -> tuple[Any, Any, Any]:
    """Returns the last block's place again below the last row of positions: nothing is read."""
    last = tiles.row_blocks - 1
    there = jnp.where(block > last, tiles.column_blocks - 1, columns)
    return jnp.minimum(block, last), part, there


def inputs_gradient(geometry: Geometry, interpret: bool, outputs: Any, *made_of: Any) -> Any:
    """Returns the gradient for the inputs, given that for the outputs; as `outputs_of`."""
    tiles = tiles_for(geometry, "inputs")
    specs = [
        _spec(tiles, name, functools.partial(_while_there_are, tiles))
        for name in ("outputs", *geometry.made_of)
    ]
    held = (tiles.held_rows, *tiles.block("inputs")[1:])
    per_example = geometry.kind == "per_example"
    return _call(
        _inputs_per_example_kernel if per_example else _inputs_kernel,
        tiles,
        "inputs",
        (tiles.batch_blocks, tiles.gradient_steps, tiles.column_blocks),
        interpret,
        in_specs=specs,
        out_specs=_spec(tiles, "inputs", _by_batch, gradient=True),
        out_shape=jax.ShapeDtypeStruct(geometry.shape("inputs"), outputs.dtype),
        scratch_shapes=[
            pltpu.VMEM(held, sum_dtype(outputs.dtype)),
            *_chunk(geometry, outputs.dtype),
        ],
    )(outputs, *_cast(geometry, outputs.dtype, made_of))


def filters_gradient(geometry: Geometry, interpret: bool, *arrays: Any) -> tuple[Any, ...]:
    """Returns the gradients for what the filters are made of.

    Args:
        geometry: The shapes.
        interpret: Whether to interpret the kernel, where there is no TPU.
        *arrays: The inputs, the gradient for the outputs, and, of mixed filters, the banks and
            the combining weights.

    Returns:
        The gradient for the filters, or for the banks and the combining weights.
    """
    tiles = tiles_for(geometry, "filters")
    inputs, outputs, *made_of = arrays
    dtype = sum_dtype(inputs.dtype)
    reading = ("inputs", "outputs", *(() if geometry.kind == "given" else geometry.made_of))
    kernels = {
        "given": _given_kernel,
        "shared": _shared_kernel,
        "per_example": _per_example_kernel,
    }
    return _call(
        kernels[geometry.kind],
        tiles,
        "filters",
        (tiles.row_blocks, tiles.column_blocks, tiles.batch_blocks),
        interpret,
        in_specs=[_spec(tiles, name, _by_rows) for name in reading],
        out_specs=[_spec(tiles, name, _by_rows) for name in geometry.made_of],
        out_shape=[jax.ShapeDtypeStruct(geometry.shape(name), dtype) for name in geometry.made_of],
        scratch_shapes=[_patch(tiles, inputs.dtype), *_chunk(geometry, dtype)],
    )(inputs, outputs, *_cast(geometry, inputs.dtype, made_of))
