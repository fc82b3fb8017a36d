"""What the TPU's compiler was asked, what it said, and that it still says so."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import cells, tpu, tpu_networks
from benchmarks.tpu_compiler import CHIPS, reduced_bytes

pytestmark = pytest.mark.once
ROOT = Path(__file__).parents[1]
LAYERS = cells.read(tpu.LAYERS_FILE, tpu.Cell)
NETWORKS = cells.read(tpu.NETWORKS_FILE, tpu_networks.Step)


@dataclasses.dataclass(frozen=True)
class Pair:
    """A cell."""

    name: str
    size: int


def test_what_a_file_has_is_not_counted_again_unless_it_is_asked_for(tmp_path):
    path, counted = tmp_path / "pairs.csv", []
    order = [Pair("b", 3), Pair("a", 2), Pair("a", 1)]

    def count(pair):
        counted.append(pair)
        return {} if pair.size == 2 else {"twice": 2 * pair.size}

    cells.fill(path, order[2:], count, ("twice",), order)
    cells.fill(path, order, count, ("twice",), order)
    assert counted == [order[2], order[0], order[1]]
    assert path.read_text() == "name,size,twice\nb,3,6\na,2,\na,1,2\n"
    assert list(cells.read(path, Pair).items()) == [
        (order[0], {"twice": 6}),
        (order[1], {}),
        (order[2], {"twice": 2}),
    ]
    cells.fill(path, order[1:2], count, ("twice",), order, again=True)
    assert counted[3:] == [order[1]]
    assert cells.read(tmp_path / "none.csv", Pair) == {}


def test_the_bytes_of_all_reduces_are_read_from_a_program():
    program = """
      %all-reduce.1 = (f32[3,5]{1,0:T(8,128)}, bf16[7]{0}) all-reduce(%a, %b), channel_id=1
      %fused = f32[3,5]{1,0} fusion(%all-reduce.1), kind=kLoop
      ROOT %all-reduce-start.2 = f32[] all-reduce-start(%c), channel_id=2
      %all-reduce-done.2 = f32[] all-reduce-done(%all-reduce-start.2)
    """
    assert reduced_bytes(program) == [4 * 15 + 2 * 7, 4]


def test_every_row_is_of_a_cell_that_would_be_compiled():
    assert LAYERS
    assert set(LAYERS) <= set(tpu.layer_cells())
    assert NETWORKS
    assert set(NETWORKS) <= set(tpu_networks.steps())


def test_a_v4_and_a_v5e_move_nearly_the_same_bytes_for_a_layer():
    ratios = []
    for cell, counted in LAYERS.items():
        other = LAYERS.get(dataclasses.replace(cell, chip="v4"))
        if cell.chip == "v5e" and counted and other:
            ratios.append(other["bytes"] / counted["bytes"])
    assert len(ratios) >= 5
    assert max(abs(ratio - 1) for ratio in ratios) < 0.06


def test_no_step_of_a_network_needs_more_memory_than_its_chip_has():
    for step, counted in NETWORKS.items():
        if counted:
            assert counted["held"] < CHIPS[step.chip].memory


def compile_again(action, path, *flags):
    pytest.importorskip("libtpu", reason="the TPU's compiler is not installed: extra tpu-check")
    command = [sys.executable, "-m", "benchmarks.tpu", action, f"--{action}_file={path}", *flags]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"KERAS_BACKEND": "jax"})


def require_alike(found, known):
    assert found
    for cell, counted in found.items():
        for name in counted:
            assert counted[name] == pytest.approx(known[cell][name], rel=0.05, abs=2**20), cell


@pytest.mark.slow
@pytest.mark.parametrize("chip", CHIPS)
def test_the_compiler_still_counts_the_same_for_the_main_layers(chip, tmp_path):
    where = [f"--chips={chip}", "--dtypes=mixed_bfloat16", "--batches=512", "--modes=training"]
    compile_again("layers", tmp_path / "tpu.csv", *where, "--sizes=W1", "--ranks=4")
    require_alike(cells.read(tmp_path / "tpu.csv", tpu.Cell), LAYERS)


@pytest.mark.slow
def test_the_compiler_still_counts_the_same_for_the_small_network(tmp_path):
    flags = ["--chips=v5e", "--networks=simple_network", "--kinds=conv2d"]
    compile_again("networks", tmp_path / "tpu.csv", *flags)
    require_alike(cells.read(tmp_path / "tpu.csv", tpu_networks.Step), NETWORKS)
