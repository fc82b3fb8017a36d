"""Every network, and every kind of layer in one, is exported by default on every backend."""

import json

import keras
import numpy as np
import pytest
from test_experiment import finish

from low_rank_local_connectivity.models import CONVOLUTIONS, MODELS

# SavedModels cannot be written on PyTorch; a run says so and is finished.
WRITTEN = keras.backend.backend() != "torch"
TINY = ("--epochs=1", "--train_examples=32", "--batch_size=32")


def flags_of(network):
    """Flags of a small run of a network, whose images are as large as it needs."""
    flags = [f"--network={network}"]
    if "filters" in MODELS[network].options:
        flags.append("--filters=4")
    large = any(f"bagnet{size}" in network for size in (17, 33))
    # Its maps grow at every 3x3 layer, so that a step keeps 0.4 GiB of every image.
    if network == "full_resnet101":
        flags += ["--train_examples=4", "--batch_size=2"]
    return flags + (["--translate", "--canvas_size=34"] if large else [])


EVERY = [flags_of(name) for name in MODELS]
EVERY += [[f"--layer_types={kind}", "--filters=4"] for kind in CONVOLUTIONS]


@pytest.mark.slow
@pytest.mark.parametrize("flags", EVERY, ids=[flags[0].partition("=")[2] for flags in EVERY])
def test_every_network_is_trained_and_exported_by_default(flags, tmp_path):
    output = finish(tmp_path, *TINY, *flags)
    assert "failed" not in json.loads((tmp_path / "result.json").read_text())
    assert_exported(tmp_path, output)


def assert_exported(folder, output):
    manifest = folder / "saved_model" / "manifest.json"
    if not WRITTEN:
        assert "No tf_saved_model: it cannot be written on torch." in output
        assert not manifest.exists()
        return
    found = json.loads(manifest.read_text())["formats"]["tf_saved_model"]
    assert np.isfinite(found["difference"])
    assert (folder / "saved_model" / found["file"] / "saved_model.pb").exists()
