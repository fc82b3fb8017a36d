"""Datasets as arrays in files: the same splits as prepared ones, and no TensorFlow to read them."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
from commands import SCRIPT

from low_rank_local_connectivity.data import DATASETS
from low_rank_local_connectivity.data import packed as packing
from low_rank_local_connectivity.data.dataset import Examples
from low_rank_local_connectivity.data.packed import pack, packed_files
from low_rank_local_connectivity.data.unreadable import UnreadableError
from low_rank_local_connectivity.experiments import backend, campaign

pytestmark = pytest.mark.once
MNIST = DATASETS["mnist"]


def drawn(rng, count):
    return Examples(rng.integers(0, 256, (count, 28, 28, 1), "uint8"), np.arange(count) % 10)


def prepared_from(splits):
    return dataclasses.replace(MNIST, read=lambda _folder, _download: splits)


def saved(folder, name="mnist.npz", **changes):
    """A file as Keras has it: images without an axis of channels, labels of 8 bits."""
    arrays = {
        "x_train": np.zeros((50, 28, 28), "uint8"),
        "y_train": np.arange(50, dtype="uint8") % 10,
        "x_test": np.ones((20, 28, 28), "uint8"),
        "y_test": np.arange(20, dtype="uint8") % 10,
    }
    arrays |= changes
    kept = {key: array for key, array in arrays.items() if array is not None}
    np.savez_compressed(folder / name, **kept)
    return str(folder)


@pytest.mark.parametrize("parts", [1, 3])
def test_what_is_packed_has_the_splits_of_what_was_prepared(parts, monkeypatch, tmp_path, rng):
    splits = {"train": drawn(rng, 92), "valid": drawn(rng, 8), "test": drawn(rng, 31)}
    monkeypatch.setattr(packing, "MOST_IN_A_FILE", -(-131 * 785 // parts))
    files = pack(prepared_from(splits), None, str(tmp_path / "packed"))
    ends = [".npz"] if parts == 1 else [f"-{number}-of-3.npz" for number in (1, 2, 3)]
    assert [file.name for file in files] == [f"mnist{end}" for end in ends]
    found = MNIST.load(str(tmp_path / "packed"))
    for name, expected in splits.items():
        part = found[name]
        assert isinstance(part, Examples)
        np.testing.assert_array_equal(part.images, expected.images)
        np.testing.assert_array_equal(part.labels, expected.labels)
    with pytest.raises(ValueError, match=r"Nothing is overwritten\. Received: the folder"):
        pack(prepared_from(splits), None, str(tmp_path / "packed"))


def test_keras_s_own_file_is_read_and_needs_no_tensorflow(monkeypatch, tmp_path):
    folder = saved(tmp_path)
    splits = MNIST.load(folder)
    assert {name: len(part) for name, part in splits.items()} == {
        "train": 46,
        "valid": 4,
        "test": 20,
    }
    assert MNIST.at(None).needs_tensorflow
    dataset = MNIST.at(folder)
    assert not dataset.needs_tensorflow
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    found: dict[str, str] = {"jax": "found", "grain": "found"}
    monkeypatch.setattr(backend.importlib.util, "find_spec", found.get)
    backend.check_backend(dataset)
    assert backend.pipeline_for(dataset).__name__.endswith("grain_pipeline")


DAMAGED = {
    "no test images": ({"x_test": None}, "has no x_test"),
    "floats": (
        {"x_train": np.zeros((50, 28, 28))},
        "has x_train (50, 28, 28, 1) of float64 and y_train (50,)",
    ),
    "another size": (
        {"x_test": np.ones((20, 32, 32, 3), "uint8")},
        "has x_test (20, 32, 32, 3) of uint8 and y_test (20,)",
    ),
    "too few labels": (
        {"y_train": np.zeros(49, "uint8")},
        "has x_train (50, 28, 28, 1) of uint8 and y_train (49,)",
    ),
    "an eleventh class": (
        {"y_test": np.full(20, 10)},
        "has x_test (20, 28, 28, 1) of uint8 and y_test (20,)",
    ),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_files_of_other_arrays_are_refused_in_a_sentence(what, tmp_path):
    changes, received = DAMAGED[what]
    folder = saved(tmp_path, **changes)
    with pytest.raises(UnreadableError) as caught:
        MNIST.load(folder)
    assert str(caught.value) == (
        "A file of a dataset must have x_train, y_train, x_test, y_test: its images, of 8 bits, "
        f"and a class from 0 to 9 for each. Received: {tmp_path / 'mnist.npz'}, which {received}. "
        "Write it again, or remove it."
    )


def test_a_damaged_file_is_named(tmp_path):
    folder = saved(tmp_path)
    path = tmp_path / "mnist.npz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UnreadableError, match=rf"Received: {path}, which cannot be read \("):
        MNIST.load(folder)


def test_a_part_that_is_missing_is_named(tmp_path):
    for number in (1, 3):
        saved(tmp_path, f"mnist-{number}-of-3.npz")
    for act in (MNIST.find, MNIST.at, MNIST.load):
        with pytest.raises(UnreadableError) as caught:
            act(str(tmp_path))
        assert str(caught.value) == (
            "All parts of mnist must be in one folder, and no others. Received: 2 files in "
            f"{tmp_path}, without mnist-2-of-3.npz. Copy all that were written together."
        )
    saved(tmp_path, "mnist-2-of-3.npz")
    assert len(packed_files("mnist", str(tmp_path))) == 3


def test_a_campaign_packs_what_it_trains_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(campaign, "pack", lambda *given: [tmp_path.joinpath(str(given[2]))])
    saved(tmp_path, "mnist.npz")
    saved(tmp_path, "cifar10.npz")
    options = campaign.Options(pack=str(tmp_path / "mnist.npz"), data_dir=str(tmp_path))
    assert campaign.carry_on(options, []) == 0
    assert capsys.readouterr().out.count("mnist.npz: 0.0 MB") == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jax", "torch"])
def test_a_machine_without_tensorflow_trains(name, tmp_path, rng):
    pytest.importorskip(name)
    labels = np.arange(400) % 10
    images = rng.integers(0, 60, (400, 28, 28), "uint8")
    images[np.arange(400), 2 * labels + 4] += 150
    saved(
        tmp_path,
        x_train=images[:320],
        y_train=labels[:320],
        x_test=images[320:],
        y_test=labels[320:],
    )
    code = (
        "import runpy, sys\n"
        "sys.modules['tensorflow'] = sys.modules['tensorflow_datasets'] = None\n"
        "sys.argv = ['run_experiment.py', *sys.argv[1:]]\n"
        f"runpy.run_path({SCRIPT!r}, run_name='__main__')\n"
    )
    flags = ["--dataset=mnist", "--epochs=4", "--batch_size=32", "--filters=8"]
    flags += [f"--data_dir={tmp_path}", f"--model_dir={tmp_path / 'run'}"]
    environment = {**os.environ, "KERAS_BACKEND": name}
    done = subprocess.run(
        [sys.executable, "-c", code, *flags],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = done.stdout.strip().splitlines()[-1]
    assert result.startswith("Result: test accuracy ")
    assert float(result.split()[3].rstrip(",")) > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_the_real_data_is_the_same_in_both_forms(name, prepared, tmp_path):
    dataset = DATASETS[name]
    files = pack(dataset, prepared, str(tmp_path))
    assert all(file.stat().st_size < 60_000_000 for file in files)
    found, expected = dataset.load(str(tmp_path)), dataset.load(prepared)
    for split, size in zip(("train", "valid", "test"), dataset.split_sizes, strict=True):
        one, other = found[split], expected[split]
        assert isinstance(one, Examples)
        assert isinstance(other, Examples)
        assert len(one) == size
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
