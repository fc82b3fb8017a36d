"""benchmarks.gpu where there is no GPU: every cell of small sizes is computed."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="needs no TensorFlow")
def test_every_cell_of_the_table_is_computed_without_tensorflow(tmp_path):
    code = (
        "import runpy, sys\n"
        "sys.modules['tensorflow'] = None\n"
        "sys.argv = ['gpu', *sys.argv[1:]]\n"
        "runpy.run_module('benchmarks.gpu', run_name='__main__')\n"
    )
    command = [sys.executable, "-c", code, "--small", f"--csv={tmp_path / 'gpu.csv'}"]
    command += ["--minutes=60"]
    environment = {key: one for key, one in os.environ.items() if key != "TRITON_INTERPRET"}
    subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True)
    with (tmp_path / "gpu.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["workload"] for row in rows} == {"copy", "matrices", "W1", "W2"}
    assert {row["dtype"] for row in rows} == {"bfloat16", "float32"}
    assert {row["step"] for row in rows} == {"", "training", "inference"}
    fused = [row for row in rows if "fused" in row["layer"]]
    assert bool(fused) == (keras.backend.backend() == "torch")
    for row in fused:
        assert "written for GPUs and it computes on a CPU" in row["failed"]
    for row in (row for row in rows if row not in fused):
        assert not row["failed"], row
        assert float(row["microseconds"]) > 0
        assert bool(row["times_convolution"]) == row["workload"].startswith("W")
