"""JAX and PyTorch train where TensorFlow is not installed."""

import json
import os

import commands
import keras
import pytest
from test_npz import SHAPES, arrays, saved

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="TensorFlow is the backend"
)
# Read by every interpreter at its start; hides what is installed.
HIDING = """
import importlib.abc, importlib.util, sys
HIDDEN = ("tensorflow", "tensorflow_datasets", "tf_keras")
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
seen = importlib.util.find_spec
importlib.util.find_spec = lambda name, *of: None if name in HIDDEN else seen(name, *of)
"""
FLAGS = ("--epochs=2", "--filters=4", "--batch_size=6", "--spatial_rank=2", "--noevaluation")


@pytest.fixture
def hiding(tmp_path):
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "sitecustomize.py").write_text(HIDING)
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path / "hidden"), str(commands.ROOT)])}


def test_a_run_trains_draws_and_says_what_it_cannot_export(hiding, tmp_path, rng):
    path = saved(tmp_path, arrays(rng, SHAPES["signals"]))
    folder = tmp_path / "run"
    flags = [*FLAGS, "--dataset=npz", f"--data_dir={path}", f"--model_dir={folder}"]
    done = commands.new_python(commands.SCRIPT, *flags, **hiding)
    assert (done.returncode, done.stderr) == (0, "")
    assert "No tf_saved_model: it " in done.stdout
    result = json.loads((folder / "result.json").read_text())
    assert "failed" not in result
    assert "tensorflow" not in result["versions"]
    for file in ("model.keras", "combining_weights.png", "tensorboard/train"):
        assert (folder / file).exists(), file


def test_data_that_only_tensorflow_reads_is_refused_before_anything_loads(hiding, tmp_path):
    (tmp_path / "mnist").mkdir()
    flags = ["--dataset=mnist", "--download", f"--model_dir={tmp_path / 'run'}"]
    done = commands.new_python(commands.SCRIPT, *flags, **hiding)
    assert done.returncode == 2
    assert done.stderr == (
        "run_experiment.py: The images of mnist are read by TensorFlow on every backend, but it "
        "is not installed: pip install 'low-rank-local-connectivity[experiments]', or give the "
        "folder of mnist.npz with --data_dir.\n"
    )
