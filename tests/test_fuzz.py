"""Eight hundred damaged files: none crashes, hangs, or passes for a good one.

Some are damaged within containers whose checksums and digests fit again, so that what reads them
is reached.
"""

import io
import json
import warnings
import zipfile

import keras
import numpy as np
import pytest

from benchmarks.reliability import damages
from low_rank_local_connectivity import layers
from low_rank_local_connectivity.experiments.command import summary
from low_rank_local_connectivity.experiments.folder import read_result, result_digest
from low_rank_local_connectivity.training import checkpoints, session

pytestmark = pytest.mark.once
EACH = 84  # of three kinds of file, in two ways and forged
RESULT = {"test_accuracy": 0.75, "valid_accuracy": 0.5, "parameters": 1234, "seconds": 1.5}
MODEL_FIELDS = damages.in_zip({"config.json": damages.in_json, "model.weights.h5": damages.in_hdf5})
MODEL_BYTES = damages.in_zip({"config.json": damages.outside, "model.weights.h5": damages.outside})


def outside(rng, whole):
    """Damages bytes: cuts, flips, zeros or repeats some."""
    start, length = rng.integers(len(whole)), int(rng.integers(1, 200))
    part = whole[start : start + length]
    choices = [
        whole[:start],
        whole[:start]
        + bytes(byte ^ int(rng.integers(1, 256)) for byte in part)
        + whole[start + length :],
        whole[:start] + bytes(len(part)) + whole[start + length :],
        whole[:start] + part + whole[start:],
    ]
    return choices[rng.integers(len(choices))]


def damaged_array(rng, array):
    """Damages numbers, so that they differ."""
    array = np.array(array)
    if array.dtype.kind not in "fiu" or array.size == 0:
        return np.array(["something else"])
    if array.dtype.kind == "f":
        place = tuple(rng.integers(size) for size in array.shape)
        value = [np.nan, np.inf, 1e30, array[place] + 1][rng.integers(4)]
        array[place] = value
        return array if rng.integers(3) else array[..., None]
    return array + 1


def inside_npz(rng, whole):
    with np.load(io.BytesIO(whole)) as file:
        arrays = dict(file)
    name = sorted(arrays)[rng.integers(len(arrays))]
    arrays[name] = damaged_array(rng, arrays[name])
    if rng.integers(5) == 0:
        del arrays[name]
    written = io.BytesIO()
    np.savez(written, **arrays)
    return written.getvalue()


def inside_json(rng, whole):
    value = json.loads(whole)
    name = sorted(value)[rng.integers(len(value))]
    replaced = [None, [], "x", -1, 1e400, {"a": 1}][rng.integers(6)]
    if rng.integers(3) == 0:
        del value[name]
    else:
        value[name] = replaced
    return json.dumps(value).encode()


def inside_keras(rng, whole):
    """Writes the container anew, with other weights or another configuration."""
    import h5py

    members = {}
    with zipfile.ZipFile(io.BytesIO(whole)) as container:
        for name in container.namelist():
            members[name] = container.read(name)
    if rng.integers(2):
        members["config.json"] = inside_json(rng, members["config.json"])
    else:
        weights = io.BytesIO(members["model.weights.h5"])
        with h5py.File(weights, "r+") as file:
            found = []
            file.visititems(
                lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None
            )
            name = sorted(found)[rng.integers(len(found))]
            array = damaged_array(rng, file[name][()])
            del file[name]
            file[name] = array
        members["model.weights.h5"] = weights.getvalue()
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as container:
        for name, content in members.items():
            container.writestr(name, content)
    return written.getvalue()


def refused_or(load, path):
    """What is loaded, or None if it is refused in a sentence that names the file."""
    try:
        return load()
    except ValueError as error:
        sentence = str(error)
    assert str(path) in sentence
    return None


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((6, 5, 1))
    x = layers.LowRankLocallyConnected2D(2, 3, 2)(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))


FACTS = {"backend": "jax", "step": 7, "rows": [{"epoch": 1, "loss": 0.5}], "seconds": 1.5}
FACTS |= {"best": 0.25, "metrics": 1}


def test_a_forged_checkpoint_has_what_belongs_to_one(tmp_path):
    """Its digest fits: its types, shapes, facts and numbers are looked at all the same."""
    rng = np.random.default_rng(3)
    arrays = [rng.normal(size=(3, 4)), np.arange(5), np.float32([1, 2])]
    shapes, dtypes = [array.shape for array in arrays], [array.dtype.name for array in arrays]
    path = checkpoints.Checkpoints(tmp_path).save(7, arrays, FACTS)
    checkpoints.read(path, shapes, dtypes, checkpoints.NEEDED)
    whole, refused = path.read_bytes(), 0
    for _ in range(EACH):
        path.write_bytes(damages.in_checkpoint(rng, whole))
        try:
            found, about = checkpoints.read(path, shapes, dtypes, checkpoints.NEEDED)
        except checkpoints.DamagedError as error:
            refused += str(path) in str(error)
            continue
        for one, other in zip(found, arrays, strict=True):
            assert (one.shape, one.dtype.kind) == (other.shape, other.dtype.kind)
            assert np.isfinite(one).all()
        assert (about["step"], about["backend"].__class__) == (7, str)
        assert all(
            isinstance(value, (int, float)) for row in about["rows"] for value in row.values()
        )
    assert refused > EACH // 2


def test_a_forged_result_has_what_is_told_of_it(tmp_path):
    rng = np.random.default_rng(4)
    path, refused = tmp_path / "result.json", 0
    text = json.dumps({**RESULT, "digest": result_digest(RESULT)}).encode()
    for _ in range(EACH):
        path.write_bytes(damages.in_result(rng, text))
        found = refused_or(lambda: read_result(path), path)
        refused += found is None
        if found is not None:
            assert 0 <= found["test_accuracy"] <= 1
            assert summary(found, "runs/x").startswith("Result: test accuracy 0.")
    assert refused > EACH // 3


@pytest.mark.parametrize("damage", [MODEL_FIELDS, MODEL_BYTES], ids=["fields", "bytes"])
def test_a_forged_model_is_refused_or_finite(damage, model, tmp_path):
    """Its digests and checksums fit: it is no other kind of error than a refusal."""
    rng = np.random.default_rng(5)
    path = tmp_path / "model.keras"
    session.save(model, path)
    whole = path.read_bytes()
    for _ in range(EACH // 2):
        path.write_bytes(damage(rng, whole))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = refused_or(lambda: session.load(path, session.file_digest(path)), path)
        for weight in [] if found is None else found.weights:
            assert np.isfinite(keras.ops.convert_to_numpy(weight)).all()


@pytest.mark.parametrize("damage", [outside, inside_npz])
def test_no_damaged_checkpoint_passes_for_a_good_one(damage, tmp_path):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(3, 4)), np.arange(5), rng.normal(size=()), np.float32([1, 2])]
    shapes = [array.shape for array in arrays]
    store = checkpoints.Checkpoints(tmp_path)
    path = store.save(7, arrays, {"step": 7, "rows": [{"loss": 0.5}]})
    whole = path.read_bytes()
    for _ in range(EACH):
        path.write_bytes(damage(rng, whole))
        try:
            found, about = checkpoints.read(path, shapes)
        except checkpoints.DamagedError:
            continue
        # Bytes that nothing reads, such as a time stamp, may differ.
        assert about == {"step": 7, "rows": [{"loss": 0.5}]}
        for one, other in zip(found, arrays, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("damage", [outside, inside_json])
def test_no_damaged_result_passes_for_a_good_one(damage, tmp_path):
    rng = np.random.default_rng(1)
    result = {**RESULT, "versions": {"python": "3.11"}}
    path = tmp_path / "result.json"
    text = json.dumps({**result, "digest": result_digest(result)}, indent=2)
    for _ in range(EACH):
        path.write_bytes(damage(rng, text.encode()))
        found = refused_or(lambda: read_result(path), path)
        assert found in (None, result)


@pytest.mark.parametrize("damage", [outside, inside_keras])
def test_no_damaged_model_passes_for_a_good_one(damage, model, tmp_path):
    rng = np.random.default_rng(2)
    path = tmp_path / "model.keras"
    session.save(model, path)
    whole, digest = path.read_bytes(), session.file_digest(path)
    for _ in range(EACH):
        path.write_bytes(damage(rng, whole))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = refused_or(lambda: session.load(path, digest), path)
        assert found is None or path.read_bytes() == whole


def test_a_whole_model_loads(model, tmp_path):
    path = tmp_path / "model.keras"
    session.save(model, path)
    loaded = session.load(path, session.file_digest(path))
    for one, other in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other)
        )


def test_a_model_that_would_run_code_is_refused(tmp_path):
    inputs = keras.Input((3,))
    outputs = keras.layers.Lambda(lambda x: x + 1)(inputs)
    path = tmp_path / "model.keras"
    session.save(keras.Model(inputs, outputs), path)
    with pytest.raises(ValueError, match="must be loadable without running code of its own"):
        session.load(path, session.file_digest(path))
