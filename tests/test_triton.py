"""Kernels for GPUs: what PyTorch makes of them, and what the compiler for an H100 does."""

import csv
import importlib.util
import io
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import test_kernels

from benchmarks import gpu_compiler
from low_rank_local_connectivity.kernels.gpu_shapes import ARRAYS, shape_of

pytestmark = [
    pytest.mark.skipif(keras.backend.backend() != "torch", reason="Triton's kernels are PyTorch's"),
    pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="needs triton"),
]
ROOT = Path(__file__).parents[1]
KINDS = tuple(ARRAYS)


@pytest.fixture
def small(monkeypatch):
    """Sizes over which interpreting takes little time."""
    monkeypatch.setattr(test_kernels, "SIZES", {1: (4,)})


def tensors(kind, windows, rng):
    import torch

    drawn, _ = test_kernels.arrays(kind, windows, rng, batch=1)
    return [torch.tensor(value, requires_grad=True) for value in drawn.values()]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", KINDS)
def test_an_operator_keeps_what_pytorch_asks_of_operators(kind, rng):
    """Its schema, its shapes without numbers, and its derivatives as a compiler traces them."""
    import torch

    from low_rank_local_connectivity.kernels.operators import OPERATORS

    windows = test_kernels.windows_of((2,), stride=2)
    inputs, *made_of = tensors(kind, windows, rng)
    rank = 1 if kind == "given" else test_kernels.RANK
    shape = shape_of(tuple(inputs.shape), windows, test_kernels.FILTERS, rank)
    arrays = {"inputs": inputs, **dict(zip(ARRAYS[kind][2:], made_of, strict=True))}
    arrays["outputs"] = torch.ones(shape.array("outputs"), dtype=inputs.dtype, requires_grad=True)
    arrays = {name: one.detach().reshape(shape.array(name)) for name, one in arrays.items()}
    for wanted in ARRAYS[kind]:
        operands = [arrays[name].requires_grad_() for name in ARRAYS[kind] if name != wanted]
        torch.library.opcheck(OPERATORS[kind, wanted], (*operands, shape.numbers()))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_gradients_are_those_of_finite_differences(kind, rng):
    import torch

    windows = test_kernels.windows_of((2,), stride=3)
    apply = test_kernels.kernel_of(kind, windows)
    values = tensors(kind, windows, rng)
    assert torch.autograd.gradgradcheck(apply, values, fast_mode=True)


@pytest.mark.usefixtures("small")
def test_a_compiled_layer_computes_the_same(rng):
    import torch

    from low_rank_local_connectivity import layers

    layer = layers.LowRankLocallyConnected1D(6, 2, 2, implementation="fused")
    inputs = torch.tensor(rng.normal(size=(2, 4, 3)).astype("float32"))
    expected = layer(inputs)
    compiled = torch.compile(layer, backend="aot_eager")
    np.testing.assert_array_equal(compiled(inputs).detach(), expected.detach())


@pytest.mark.slow
def test_a_compiler_for_an_h100_keeps_everything_in_registers_and_uses_its_matrix_units():
    environment = {key: one for key, one in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "benchmarks.gpu_compiler"]
    done = subprocess.run(
        command, check=True, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert {row["kernel"] for row in rows} == set(gpu_compiler.KERNELS)
    for row in rows:
        assert int(row["spilled"]) == 0, row
        # What a program may take on GPUs since 2020; an H100 has 227 KiB.
        assert int(row["shared"]) <= 99 * 1024, row
        assert row["units"] == ("none" if row["digits"] == "all" else "matrix"), row
