"""Fused kernels, interpreted operation by operation, against NumPy loops over positions.

Outputs are linear in the inputs, the banks and the combining weights. So a gradient's product with
any direction is what the reference gives for that direction in place of the array: no gradient has
to be derived for the oracle.
"""

import dataclasses
import functools
import importlib.util
import itertools
import math

import keras
import numpy as np
import pytest
import reference
from backends import all_digits, call, outputs_and_gradients, randomize, to_numpy
from pairwise import pairwise

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.kernels import chips, geometry
from low_rank_local_connectivity.ops.windows import Windows
from low_rank_local_connectivity.plans import fused

BACKEND = keras.backend.backend()
on_jax = pytest.mark.skipif(BACKEND != "jax", reason="a TPU's kernels are JAX's")
where_kernels_are = pytest.mark.skipif(
    BACKEND == "tensorflow" or (BACKEND == "torch" and not importlib.util.find_spec("triton")),
    reason="there are no kernels for it, or nothing that interprets them",
)

# No two axes have the same length; channels and filters have to be filled up. Triton's programs are
# interpreted one by one.
SIZES = {1: (7,), 2: (3, 5)} if BACKEND == "torch" else {1: (11,), 2: (5, 9)}
BATCH, CHANNELS, FILTERS, RANK = 2, 4, 6, 3
KINDS = ("shared", "per_example", "given")
TINY = {"rtol": 1e-10, "atol": 1e-10}


def windows_of(taps, stride=1, dilation=1, padding="valid"):
    dimensions = len(taps)
    return Windows(taps, (stride,) * dimensions, (dilation,) * dimensions, padding)


def arrays(kind, windows, rng, batch=BATCH):
    """Returns inputs and what the filters are made of, by name, and numbers for the outputs."""
    sizes = SIZES[len(windows.sizes)]
    positions = windows.static_output_shape(sizes)
    shapes = {"inputs": (batch, *sizes, CHANNELS)}
    if kind == "given":
        reads = windows.taps * CHANNELS
        shapes["filters"] = (math.prod(positions), reads, FILTERS)
    else:
        examples = (batch,) if kind == "per_example" else ()
        shapes["banks"] = (*windows.sizes, CHANNELS, RANK * FILTERS)
        shapes["weights"] = (*examples, *positions, RANK)
    drawn = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return drawn, rng.normal(size=(batch, *positions, FILTERS))


def definition(kind, windows, inputs, *made_of):
    """Returns the outputs by the reference, which knows no "full" padding."""
    if windows.padding == "full":
        around = [(extent - 1,) * 2 for extent in windows.extents]
        inputs = np.pad(inputs, [(0, 0), *around, (0, 0)])
        windows = dataclasses.replace(windows, padding="valid")
    structure = windows.strides, windows.dilations, windows.padding
    if kind == "given":
        positions = windows.static_output_shape(inputs.shape[1:-1])
        kernel = made_of[0].reshape(*positions, *windows.sizes, CHANNELS, FILTERS)
        return reference.local_convolution(inputs, kernel, *structure)
    banks, weights = made_of
    if kind == "shared":
        weights = np.broadcast_to(weights, (len(inputs), *weights.shape))
    strides, dilations, padding = structure
    banks = np.split(banks, RANK, axis=-1)
    return reference.low_rank_local_convolution(
        inputs, banks, weights, strides, [dilations] * RANK, padding
    )


def kernel_of(kind, windows):
    """Returns the function that kernels compute, of arrays of the backend."""
    if BACKEND == "torch":
        from low_rank_local_connectivity.kernels.operators import convolve
    else:
        from low_rank_local_connectivity.kernels.layouts import convolve

    rank = 1 if kind == "given" else RANK

    def apply(inputs, *made_of):
        return convolve(kind, inputs, made_of, windows, rank, FILTERS)

    return apply


def jax_derivatives(apply, values, upstream):
    """Returns what JAX computes of outputs and their gradients, as arrays of NumPy."""
    import jax

    outputs, pull = jax.jit(functools.partial(jax.vjp, apply))(*values)
    return [*map(np.asarray, (outputs, *jax.jit(pull)(upstream)))]


def torch_derivatives(apply, values, upstream):
    """Returns what PyTorch computes of outputs and their gradients, as arrays of NumPy."""
    import torch

    values = [torch.tensor(value, requires_grad=True) for value in values]
    outputs = apply(*values)
    gradients = torch.autograd.grad(outputs, values, torch.tensor(upstream))
    return [to_numpy(one.detach()) for one in (outputs, *gradients)]


def check(kind, windows, rng, batch=BATCH):
    """Compares outputs and gradients with the definition."""
    drawn, upstream = arrays(kind, windows, rng, batch)
    found = torch_derivatives if BACKEND == "torch" else jax_derivatives
    with all_digits():
        outputs, *gradients = found(kernel_of(kind, windows), [*drawn.values()], upstream)
    np.testing.assert_allclose(outputs, definition(kind, windows, *drawn.values()), **TINY)
    for (name, value), gradient in zip(drawn.items(), gradients, strict=True):
        direction = rng.normal(size=value.shape)
        moved = definition(kind, windows, *({**drawn, name: direction}).values())
        found, expected = np.sum(gradient * direction), np.sum(upstream * moved)
        np.testing.assert_allclose(found, expected, err_msg=f"gradient for {name}", **TINY)


@where_kernels_are
@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_and_its_gradients_are_those_of_the_definition(kind, rng):
    check(kind, windows_of((3, 2), padding="same"), rng)


@where_kernels_are
@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_over_a_signal_and_its_gradients_are_those_of_the_definition(kind, rng):
    check(kind, windows_of((3,), dilation=2, padding="causal"), rng)


OPTIONS = {
    "kind": KINDS,
    "taps": ((3,), (1, 1), (2, 3), (4, 1)),
    "stride": (1, 2, 3),
    "dilation": (1, 2),
    "padding": ("valid", "same", "causal", "full"),
    "batch": (1, 130),
    "cut": (False, True),
}


def there_is_a_window(choice):
    windows = windows_of(*(choice[name] for name in ("taps", "stride", "dilation", "padding")))
    return min(windows.static_output_shape(SIZES[len(windows.sizes)])) > 0


@on_jax
@pytest.mark.slow
@pytest.mark.parametrize(
    "choice", pairwise(OPTIONS, there_is_a_window), ids=lambda one: "-".join(map(str, one.values()))
)
def test_every_setting_gives_the_numbers_of_the_definition(choice, rng, monkeypatch):
    windows = windows_of(*(choice[name] for name in ("taps", "stride", "dilation", "padding")))
    if choice["cut"]:
        cut_small(monkeypatch, choice["kind"], windows, choice["batch"])
    check(choice["kind"], windows, rng, choice["batch"])


def cut_small(monkeypatch, kind, windows, batch):
    """Leaves kernels as little memory as they can do with, so that there are many blocks."""
    rank = 1 if kind == "given" else RANK
    shape = (batch, *SIZES[len(windows.sizes)], CHANNELS)
    for size in itertools.count(2**16, 2**14):
        chip = chips.Chip("tiny", "", size)
        try:
            geometry.fitting_geometry(kind, shape, windows, FILTERS, rank, 8, chip.budgets)
        except ValueError:
            continue
        monkeypatch.setitem(chips.CHIPS, "tiny", chip)
        monkeypatch.setattr(chips, "SMALLEST", chip)
        return


@on_jax
@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_that_is_cut_into_blocks_gives_the_numbers_of_the_definition(
    kind, rng, monkeypatch
):
    windows, batch = windows_of((3, 2), stride=2, padding="same"), 130
    cut_small(monkeypatch, kind, windows, batch)
    shape = (batch, *SIZES[2], CHANNELS)
    rank = 1 if kind == "given" else RANK
    budgets = chips.SMALLEST.budgets
    found = geometry.fitting_geometry(kind, shape, windows, FILTERS, rank, 8, budgets)
    tiles = geometry.best_tiles(found, "inputs")
    assert tiles.row_blocks > 1
    assert tiles.batch_blocks == 2
    check(kind, windows, rng, batch)


def derivatives(apply, moved, upstream):
    """Returns a function to the derivatives of another: forward, second, both mixed, mapped."""
    import jax
    import jax.numpy as jnp

    def loss(*values):
        return jnp.sum(jnp.sin(apply(*values)) * upstream)

    def along(function, *values):
        return jax.jvp(function, values, moved)[1]

    def every(*values):
        gradient = jax.grad(loss, tuple(range(len(values))))
        backwards = jax.grad(lambda *values: jnp.sum(along(apply, *values) ** 2))
        mapped = jax.vmap(lambda one: apply(one[None], *values[1:])[0])
        found = along(apply, *values), along(gradient, *values), backwards(*values)
        return *found, mapped(values[0])

    return jax.jit(every)


@on_jax
@pytest.mark.parametrize("kind", ["shared", "given"])
def test_derivatives_of_any_order_and_direction_agree_with_the_other_plan(kind, rng):
    from low_rank_local_connectivity import ops

    windows = windows_of((3,))
    drawn, upstream = arrays(kind, windows, rng)
    moved, _ = arrays(kind, windows, rng)
    plain = ops.local_convolution if kind == "given" else ops.combine_then_convolve
    with all_digits():
        found, expected = (
            derivatives(apply, tuple(moved.values()), upstream)(*drawn.values())
            for apply in (kernel_of(kind, windows), functools.partial(plain, windows=windows))
        )
    for one, other in zip(np_leaves(found), np_leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


LAYERS = {
    "low rank": (layers.LowRankLocallyConnected2D, {"spatial_rank": 3}, "convolve_then_combine"),
    "input-dependent": (
        layers.LowRankLocallyConnected2D,
        {"spatial_rank": 3, "input_dependent": True},
        "auto",
    ),
    "channels first": (
        layers.LowRankLocallyConnected2D,
        {"spatial_rank": 2, "data_format": "channels_first", "additive_axes": (0,)},
        "auto",
    ),
    "one bank": (layers.LowRankLocallyConnected1D, {"spatial_rank": 1}, "auto"),
    "locally connected": (layers.LocallyConnected2D, {"padding": "same"}, 1),
}


@where_kernels_are
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_that_asks_for_a_kernel_gives_the_numbers_of_the_other_plan(name, rng):
    kind, arguments, plan = LAYERS[name]
    kernel_size = (3, 2)[: kind.dimensions]
    one, other = (
        kind(FILTERS, kernel_size, **arguments, implementation=plan) for plan in ("fused", plan)
    )
    inputs = rng.normal(size=(BATCH, *SIZES[kind.dimensions], CHANNELS)).astype("float32")
    one.build(inputs.shape)
    other.build(inputs.shape)
    randomize(one, rng)
    other.set_weights(one.get_weights())
    projection = rng.normal(size=one.compute_output_shape(inputs.shape)).astype("float32")
    found, expected = (outputs_and_gradients(layer, inputs, projection) for layer in (one, other))
    for value, wanted in zip(np_leaves(found), np_leaves(expected), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def np_leaves(tree):
    return [to_numpy(leaf) for leaf in keras.tree.flatten(tree)]


@where_kernels_are
# Triton's interpreter multiplies bfloat16 as if it were integers.
@pytest.mark.parametrize(
    "dtype", ["mixed_float16" if BACKEND == "torch" else "mixed_bfloat16", "float16"]
)
def test_a_kernel_computes_in_the_layer_s_data_type(dtype, rng):
    one, other = (
        layers.LowRankLocallyConnected1D(FILTERS, 3, 2, dtype=dtype, implementation=plan)
        for plan in ("fused", "convolve_then_combine")
    )
    inputs = rng.normal(size=(BATCH, *SIZES[1], CHANNELS)).astype("float32")
    one.build(inputs.shape)
    other.build(inputs.shape)
    randomize(one, rng)
    other.set_weights(one.get_weights())
    found, expected = one(inputs), other(inputs)
    assert keras.backend.standardize_dtype(found.dtype) == one.compute_dtype
    found, expected = (to_numpy(outputs).astype("float32") for outputs in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.05)


@where_kernels_are
def test_a_batch_of_no_examples_goes_through_a_kernel():
    layer = layers.LowRankLocallyConnected1D(FILTERS, 3, 2, implementation="fused")
    layer.build((None, 11, CHANNELS))
    assert call(layer, np.zeros((0, 11, CHANNELS), "float32")).shape == (0, 9, FILTERS)


WHOLE = geometry.Geometry(
    "shared", (26, 26), (3, 3), (1, 1), (1, 1), 64, 64, 512, 30, 2, 48 * 2**20
)


def geometries():
    for kind, batch, stride in itertools.product(KINDS, (128, 512), (1, 2)):
        rank = 1 if kind == "given" else 4
        strides = (stride, stride)
        yield geometry.Geometry(
            kind, (13, 11), (3, 2), strides, (1, 1), 16, 32, batch, rank, 2, 2**21
        )


@on_jax
@pytest.mark.parametrize("wanted", geometry.WANTED)
@pytest.mark.parametrize("asked", list(geometries()), ids=str)
def test_the_bytes_counted_are_those_that_the_blocks_move(asked, wanted, monkeypatch):
    import jax
    import jax.numpy as jnp

    from low_rank_local_connectivity.kernels import tpu

    seen = []
    real = tpu.pl.pallas_call

    def spy(kernel, out_shape, **arguments):
        inner = real(kernel, out_shape, **arguments)

        def apply(*operands):
            outputs = inner(*operands)
            seen.append((arguments, operands, jax.tree.leaves(out_shape)))
            return outputs

        return apply

    monkeypatch.setattr(tpu.pl, "pallas_call", spy)
    names = {"outputs": ("inputs",), "inputs": ("outputs",), "filters": ("inputs", "outputs")}
    mixed = () if wanted == "filters" and asked.kind == "given" else asked.made_of
    function = {
        "outputs": tpu.outputs_of,
        "inputs": tpu.inputs_gradient,
        "filters": tpu.filters_gradient,
    }[wanted]
    operands = [
        jax.ShapeDtypeStruct(
            asked.shape(name), jnp.bfloat16 if name in ("inputs", "outputs") else jnp.float32
        )
        for name in (*names[wanted], *mixed)
    ]
    jax.eval_shape(functools.partial(function, asked, False), *operands)
    ((arguments, given, made),) = seen
    specs = [*arguments["in_specs"], *jax.tree.leaves(arguments["out_specs"])]
    moved = sum(
        block_bytes(spec, arguments["grid"], array)
        for spec, array in zip(specs, [*given, *made], strict=True)
    )
    assert arguments["cost_estimate"].bytes_accessed == moved


def block_bytes(spec, grid, array):
    """Returns the bytes of a grid's blocks, those beyond an array's end left out."""
    moved, before = 0, None
    for place in np.ndindex(*grid):
        index = tuple(map(int, spec.index_map(*place)))
        if index != before:
            moved += math.prod(map(length, spec.block_shape, index, array.shape))
        before = index
    return moved * array.dtype.itemsize


def length(block, index, whole):
    if isinstance(block, int):
        return min(block, whole - index * block)
    return block.block_size


@pytest.mark.once
def test_a_kernel_of_the_paper_s_size_moves_little_more_than_inputs_and_outputs():
    inputs, outputs = (2 * math.prod(WHOLE.shape(name)) for name in ("inputs", "outputs"))
    for wanted in geometry.WANTED:
        tiles = geometry.best_tiles(WHOLE, wanted)
        assert geometry.moved_bytes(tiles, wanted) < 1.4 * (inputs + outputs)


@pytest.mark.once
def test_kernels_are_written_for_jax_and_for_pytorch_on_gpus_over_one_and_two_axes(monkeypatch):
    def missing(*asked):
        return fused.kernel_missing(*asked) or ""

    assert "backend is 'tensorflow'" in missing("tensorflow", 2)
    assert fused.kernel_missing("jax", 2) is None
    assert "the layer has 3" in missing("jax", 3)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert "triton, which is not installed" in missing("torch", 2)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(fused, "device_kind", lambda: "cpu")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert fused.kernel_missing("torch", 2) is None
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "it computes on a CPU" in missing("torch", 2)
    monkeypatch.setattr(fused, "device_kind", lambda: "gpu")
    assert fused.kernel_missing("torch", 2) is None


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the others have kernels")
@pytest.mark.parametrize("kind", [layers.LocallyConnected2D, layers.LowRankLocallyConnected2D])
def test_asking_for_a_kernel_that_there_is_not_says_what_to_do(kind):
    rank = {} if kind is layers.LocallyConnected2D else {"spatial_rank": 2}
    with pytest.raises(ValueError, match="fused") as error:
        kind(6, 3, **rank, implementation="fused", name="low")
    assert str(error.value) == (
        "implementation='fused' needs a kernel, which layer 'low' has none of: kernels are written "
        "for JAX and PyTorch and the backend is 'tensorflow'. Leave `implementation` out."
    )


IMPOSSIBLE = {
    "volumes": (
        lambda: layers.LowRankLocallyConnected3D(6, 3, 2, implementation="fused", name="low"),
        (
            "implementation='fused' needs a kernel, which layer 'low' has none of: kernels are "
            "written for one and two spatial axes and the layer has 3. Leave `implementation` out."
        ),
    ),
    "mixed basis": (
        lambda: layers.LowRankLocallyConnected1D(
            6, [1, 3], 2, padding="same", implementation="fused"
        ),
        (
            "A fused kernel mixes banks of one kernel size and dilation rate. Received: "
            "implementation='fused' with kernel_size=[(1,), (3,)] and dilation_rate=(1,). "
            "Use implementation='auto'."
        ),
    ),
    "unknown size": (
        lambda: layers.LowRankLocallyConnected1D(
            6, 3, 2, additive_axes=(), implementation="fused"
        ).build((None, None, 4)),
        (
            "implementation='fused' compiles a kernel for one size, so every spatial size must be "
            "known. Received: input_shape=(None, None, 4). Use implementation='auto'."
        ),
    ),
}


@on_jax
@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_no_kernel_computes_is_refused_in_words(name):
    make, message = IMPOSSIBLE[name]
    with pytest.raises(ValueError, match="fused") as error:
        make()
    assert str(error.value) == message


@on_jax
def test_banks_that_do_not_fit_on_the_chip_are_refused_in_words():
    import jax

    layer = layers.LowRankLocallyConnected1D(512, 3, 64, implementation="fused")
    layer.build((None, 11, 512))
    with pytest.raises(ValueError, match="must hold its filter banks and one row of positions"):
        jax.eval_shape(layer, jax.ShapeDtypeStruct((2, 11, 512), "float32"))


@on_jax
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the TPU's compiler")
@pytest.mark.parametrize("chip", ["v4", "v5e", "v6e"])
def test_the_tpu_s_compiler_takes_every_kernel_and_reports_the_bytes_counted(chip):
    from benchmarks.kernels import compiled_kernels

    for kernel in compiled_kernels(chip):
        # Banks are cast around the kernel.
        assert kernel.counted <= kernel.reported < 1.3 * kernel.counted, kernel


def step_of(kind, windows, count):
    """Returns all gradients of the outputs' sum of squares."""
    import jax
    import jax.numpy as jnp

    apply = kernel_of(kind, windows)
    return jax.grad(
        lambda *values: jnp.sum(apply(*values).astype("float32") ** 2), tuple(range(count))
    )


@on_jax
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the TPU's compiler")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("chip", ["v4", "v5e"])
def test_the_tpu_s_compiler_takes_a_step_of_every_setting(chip, dtype, rng):
    import jax

    from benchmarks.kernels import compile_for

    for choice in pairwise(OPTIONS, there_is_a_window):
        names = ("taps", "stride", "dilation", "padding")
        windows = windows_of(*(choice[name] for name in names))
        drawn, _ = arrays(choice["kind"], windows, rng, choice["batch"])
        given = [
            jax.ShapeDtypeStruct(value.shape, dtype if name == "inputs" else "float32")
            for name, value in drawn.items()
        ]

        compiled = compile_for(chip, step_of(choice["kind"], windows, len(given)), *given)
        assert compiled.as_text().count("tpu_custom_call") >= 3, choice
