"""Exports, run by the runtimes that serve them, in processes that know nothing of this project."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import keras
import numpy as np
import pytest
from backends import call, randomize, stored_arrays, to_numpy

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.export import FORMATS, export_model, forms

BACKEND = keras.backend.backend()
WRITABLE = [
    name for name, kind in FORMATS.items() if BACKEND in kind.backends and not kind.integers
]
only_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="TensorFlow writes all formats"
)
can_save = pytest.mark.skipif(BACKEND == "torch", reason="Keras writes no SavedModel on PyTorch")


def small_model(rng, **changes):
    """A network of all that is converted, with random weights and statistics."""
    arguments = {"filters": 4, "kernel_size": 3, "spatial_rank": 3, **changes}
    inputs = keras.Input((9, 8, 2), name="image")
    x = keras.layers.Conv2D(5, 1, use_bias=False)(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = layers.LowRankLocallyConnected2D(**arguments, name="low_rank")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="small")
    randomize(model, rng)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(keras.ops.abs(layer.moving_variance) + 0.1)
    return model


# What a server does, by format; {path} is the file, {images} and {outputs} are NumPy's.
SERVERS = {
    "tf_saved_model": """
import tensorflow as tf
loaded = tf.saved_model.load(path)
serve = lambda x: loaded.signatures["serving_default"](image=tf.constant(x))["logits"].numpy()
""",
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(path)
serve = lambda x: session.run(None, {session.get_inputs()[0].name: x})[0]
""",
    "litert": """
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(path)
runner = interpreter.get_signature_runner("serving_default")
serve = lambda x: runner(image=x)["logits"]
""",
}
SERVE = """
import sys
import tomllib
import numpy as np
for path in sys.argv[1:]:
    {server}
    images = np.load("images.npy")
    np.savez(path + ".npz", *[serve(images[:count]) for count in (1, 7, 64)])
assert not [name for name in sys.modules if name.startswith("low_rank")]
"""


@pytest.mark.parametrize(
    "name",
    [
        # Such a process imports TensorFlow; in this one every export is loaded and compared.
        pytest.param(name, marks=[pytest.mark.slow] if name == "tf_saved_model" else [])
        for name in WRITABLE
    ],
)
def test_a_process_without_this_project_computes_the_same(name, tmp_path, rng):
    images = rng.normal(size=(64, 9, 8, 2)).astype("float32")
    np.save(tmp_path / "images.npy", images)
    paths, expected = [], []
    for input_dependent in (False, True) if BACKEND == "tensorflow" else (False,):
        model = small_model(rng, input_dependent=input_dependent)
        folder = tmp_path / str(input_dependent)
        manifest = export_model(model, folder, [name])
        assert list(folder.glob(".*")) == []
        paths.append(str(folder / manifest["formats"][name]["file"]))
        expected.append(call(model, images))
    code = SERVE.format(server=SERVERS[name].strip().replace("\n", "\n    "))
    command = [sys.executable, "-c", code, *paths]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    for path, outputs in zip(paths, expected, strict=True):
        for count, served in zip((1, 7, 64), stored_arrays(f"{path}.npz").values(), strict=True):
            atol = 1e-4 * np.abs(outputs).max()
            np.testing.assert_allclose(served, outputs[:count], rtol=0, atol=atol)


@can_save
def test_the_manifest_says_what_was_written(tmp_path, rng):
    model = small_model(rng)
    sample = rng.uniform(-2, 3, (5, 9, 8, 2))
    given = {"sample": sample, "class_names": ["a", "b", "c"], "tolerance": 1e-3}
    manifest = export_model(model, tmp_path, **given)
    assert json.loads((tmp_path / "manifest.json").read_text()) == manifest
    assert manifest["form"] == "converted"
    assert manifest["model"] == "small"
    assert manifest["class_names"] == ["a", "b", "c"]
    low, high = sample.min(), sample.max()
    assert manifest["input"]["sample_range"] == pytest.approx([low, high])
    assert manifest["input"]["shape"] == [None, 9, 8, 2]
    # 42 positions: 3 x 3 taps of 5 channels to 4 filters, and a bias; no normalisation is left.
    assert manifest["parameters"]["served"] == 42 * (45 * 4 + 4) + (10 + 5) + (4 * 3 + 3)
    (entry,) = manifest["formats"].values()
    assert entry["file"] == "1"
    assert entry["signatures"] == ["serving_default"]
    assert entry["difference"] < 1e-5
    assert manifest["versions"]["backend"] == BACKEND


@can_save
def test_encoded_images_are_prepared_and_named_by_the_server(tmp_path, rng):
    import tensorflow as tf

    def preprocess(encoded):
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        scaled = tf.image.resize(tf.cast(image, tf.float32) / 255.0, (9, 8))
        return tf.ensure_shape(scaled[..., :2], (9, 8, 2))

    model = small_model(rng)
    names = ["cat", "dog", "yak"]
    export_model(model, tmp_path, preprocess=preprocess, class_names=names)
    pixels = rng.integers(0, 256, (12, 20, 3), dtype="uint8")
    png, jpeg = tf.io.encode_png(pixels), tf.io.encode_jpeg(pixels)
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    for encoded in ([png], [png, jpeg, png]):
        answer = loaded.signatures["serving_bytes"](tf.stack(encoded))
        expected = to_numpy(model(np.stack([preprocess(one) for one in encoded])))
        np.testing.assert_allclose(answer["logits"], expected, atol=1e-4)
        assert [name.decode() for name in answer["class"].numpy()] == [
            names[index] for index in expected.argmax(-1)
        ]
    with pytest.raises(tf.errors.InvalidArgumentError):
        loaded.signatures["serving_bytes"](tf.constant([b"no image"]))
    assert (tmp_path / "1" / "assets.extra" / "class_names.txt").read_text() == "cat\ndog\nyak\n"


@only_tensorflow
def test_a_server_can_warm_up_by_the_request_that_lies_beside(tmp_path, rng):
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    export_model(small_model(rng), tmp_path)
    path = tmp_path / "1" / "assets.extra" / "tf_serving_warmup_requests"
    (record,) = tf.data.TFRecordDataset(str(path))
    log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
    spec = log.predict_log.request.model_spec
    assert (spec.name, spec.signature_name) == ("small", "serving_default")
    ((name, tensor),) = log.predict_log.request.inputs.items()
    assert name == "image"
    assert tf.make_ndarray(tensor).shape == (1, 9, 8, 2)


@only_tensorflow
def test_an_export_stores_every_weight_once(tmp_path, rng):
    manifest = export_model(small_model(rng), tmp_path)
    stored = (tmp_path / "1" / "variables" / "variables.data-00000-of-00001").stat().st_size
    assert stored < 1.1 * 4 * manifest["parameters"]["served"] + 5000


@pytest.mark.once
@pytest.mark.parametrize("faster", ["converted", "unconverted", "bank by bank"])
def test_the_form_that_measures_fastest_is_served(faster, tmp_path, rng, capsys, monkeypatch):
    model = small_model(rng)
    clock = [0.0]

    def kind(form):
        low_rank = [one for one in form.layers if isinstance(one, layers.LowRankLocallyConnected2D)]
        plans = {layer.implementation for layer in low_rank}
        return "converted" if not plans else "unconverted" if "auto" in plans else "bank by bank"

    def predict(form, batch):
        assert len(batch) == 16
        clock[0] += 0.5 if kind(form) == faster else 1.0

    monkeypatch.setattr(keras.Model, "predict_on_batch", predict)
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    manifest = export_model(model, tmp_path, (), convert="measure", serving_batch_size=16)
    assert manifest["form"] == faster
    times = {"unconverted": 1000.0, "bank by bank": 1000.0, "converted": 1000.0, faster: 500.0}
    assert manifest["milliseconds"] == {"batch_size": 16, **times}
    printed = capsys.readouterr().out
    assert printed == (
        f"A batch of 16 takes {times['unconverted']:.3g} ms unconverted, "
        f"{times['bank by bank']:.3g} ms bank by bank, {times['converted']:.3g} ms converted: "
        f"the {faster} form is served.\n"
    )


@only_tensorflow
@pytest.mark.once
def test_forms_are_measured_as_they_are_served(tmp_path, rng):
    manifest = export_model(small_model(rng), tmp_path, convert="measure", serving_batch_size=3)
    milliseconds = manifest["milliseconds"]
    assert set(milliseconds) == {"batch_size", "unconverted", "bank by bank", "converted"}
    times = {name: time for name, time in milliseconds.items() if name != "batch_size"}
    near = {name for name, time in times.items() if time <= 1.25 * min(times.values())}
    assert manifest["form"] in near
    if near != {"converted"}:  # It alone has filters for every position.
        assert manifest["form"] != "converted"


@pytest.mark.once
def test_of_forms_about_as_fast_the_smallest_is_served(tmp_path, rng, capsys, monkeypatch):
    times = {"unconverted": 1.05, "bank by bank": 2.0, "converted": 1.0}
    monkeypatch.setattr(forms, "_measure", lambda *_: times)
    manifest = export_model(small_model(rng), tmp_path, (), convert="measure")
    assert manifest["form"] == "unconverted"
    assert capsys.readouterr().out.endswith(
        "the unconverted form is served, which is smaller than the fastest and about as fast.\n"
    )
    times["converted"] = 0.8
    assert export_model(small_model(rng), tmp_path, (), convert="measure")["form"] == "converted"


@pytest.mark.once
def test_a_model_without_layers_to_convert_is_not_measured(tmp_path):
    model = keras.Sequential([keras.Input((8, 9, 2)), keras.layers.Conv2D(3, 3)])
    model = keras.Model(model.inputs[0], model.outputs[0])
    manifest = export_model(model, tmp_path, (), convert="measure")
    assert (manifest["form"], "milliseconds" in manifest) == ("converted", False)


@can_save
def test_an_unconverted_model_is_served_if_asked(tmp_path, rng):
    manifest = export_model(small_model(rng), tmp_path, convert=False)
    assert manifest["form"] == "unconverted"
    assert manifest["parameters"]["served"] == manifest["parameters"]["model"]


@can_save
def test_an_export_that_differs_is_not_kept(tmp_path, rng):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        export_model(small_model(rng), tmp_path / "served", tolerance=1e-12)
    assert re.fullmatch(
        "An export must compute what the model computes. Received: a tf_saved_model that differs "
        r"by \d\.\de-\d\d relative to the largest output, with tolerance=1.0e-12. Nothing was "
        "written.",
        str(caught.value),
    )
    assert list((tmp_path / "served").iterdir()) == []


def photo(channels, size=(9, 8)):
    """Returns a preprocessing to images of this size and number of channels."""
    import tensorflow as tf

    def preprocess(encoded):
        image = tf.io.decode_image(encoded, channels=channels, expand_animations=False)
        return tf.image.resize(tf.cast(image, tf.float32) / 255.0, size)

    return preprocess


def photo_model(dtype="float32", rng=None):
    inputs = keras.Input((9, 8, 3), dtype=dtype, name="image")
    x = keras.layers.Flatten()(keras.layers.Rescaling(0.5)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(4, name="logits")(x), name="photos")
    if rng is not None:
        randomize(model, rng)
    return model


MUST = (
    "`preprocess` must turn the bytes of an image into an input of the model, of shape (9, 8, 3) "
    "and type "
)
WRONG_IMAGES = {
    "size": (
        "float32",
        lambda: photo(3, (10, 8)),
        MUST + "float32. Received: shape (10, 8, 3) and type float32.",
    ),
    "channels": (
        "float32",
        lambda: photo(1),
        MUST + "float32. Received: shape (9, 8, 1) and type float32.",
    ),
    "batch": (
        "float32",
        lambda: lambda encoded: photo(3)(encoded)[None],
        MUST + "float32. Received: shape (1, 9, 8, 3) and type float32.",
    ),
    "type": (
        "uint8",
        lambda: photo(3),
        MUST + "uint8. Received: shape (9, 8, 3) and type float32.",
    ),
    "error": (
        "float32",
        lambda: lambda encoded: {}[encoded.dtype.name],
        MUST + "float32. Received: a function that fails: KeyError: 'string'.",
    ),
}


@can_save
@pytest.mark.parametrize("kind", WRONG_IMAGES)
def test_a_preprocess_that_makes_no_input_is_refused(kind, tmp_path):
    dtype, make, sentence = WRONG_IMAGES[kind]
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        export_model(photo_model(dtype), tmp_path, preprocess=make())
    assert str(caught.value) == sentence
    assert list(tmp_path.iterdir()) == []


@can_save
def test_a_preprocess_that_answers_otherwise_each_time_is_not_kept(tmp_path, rng):
    import tensorflow as tf

    def preprocess(encoded):
        return photo(3)(encoded) + tf.random.uniform(())

    with pytest.raises(ValueError) as caught:  # noqa: PT011
        export_model(photo_model(rng=rng), tmp_path / "served", preprocess=preprocess)
    assert re.fullmatch(
        "An export must compute what the model computes. Received: a tf_saved_model that differs "
        r"over encoded images by \d\.\de[+-]\d\d relative to the largest output, with "
        r"tolerance=1.0e-04. Nothing was written.",
        str(caught.value),
    )
    assert list((tmp_path / "served").iterdir()) == []


@can_save
def test_encoded_images_are_served_to_a_model_of_bytes(tmp_path, rng):
    import tensorflow as tf

    def preprocess(encoded):
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        return tf.image.resize(image, (9, 8), method="nearest")

    model = photo_model("uint8", rng)
    # A name of a file that is not UTF-8 is served as it is on the disk.
    names = ["cat", "dog", "\udcff", "\u00e9"]
    manifest = export_model(model, tmp_path, preprocess=preprocess, class_names=names)
    assert manifest["formats"]["tf_saved_model"]["bytes_difference"] < 1e-5
    png = tf.io.encode_png(rng.integers(0, 256, (12, 20, 3), dtype="uint8"))
    loaded = tf.saved_model.load(str(tmp_path / "1"))
    answer = loaded.signatures["serving_bytes"](tf.stack([png]))
    expected = to_numpy(model(preprocess(png)[None]))
    np.testing.assert_allclose(answer["logits"], expected, rtol=1e-4)
    stored = [b"cat", b"dog", b"\xff", b"\xc3\xa9"]
    assert answer["class"].numpy() == [stored[expected.argmax()]]
    listed = (tmp_path / "1" / "assets.extra" / "class_names.txt").read_bytes()
    assert listed == b"".join(name + b"\n" for name in stored)


@can_save
def test_nothing_remains_of_files_that_could_not_all_be_moved(tmp_path, monkeypatch):
    replace = Path.replace

    def fail_at_the_manifest(path, target):
        if Path(target) == tmp_path / "served" / "manifest.json":
            raise PermissionError("no")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail_at_the_manifest)
    with pytest.raises(PermissionError):
        export_model(photo_model(), tmp_path / "served")
    assert list((tmp_path / "served").iterdir()) == []


REFUSED = {
    "format": (
        {"formats": ["caffe"]},
        (
            "`formats` must be among 'tf_saved_model', 'onnx', 'litert', 'litert_int8'. Received: "
            "formats=['caffe']."
        ),
    ),
    "a format instead of a list": (
        {"formats": "onnx"},
        (
            "`formats` must be a list of formats. Received: formats='onnx'. For one of them: "
            "formats=('onnx',)."
        ),
    ),
    "class names that are none": (
        {"class_names": [1, 2]},
        "`class_names` must be text. Received: class_names=1.",
    ),
    "convert": (
        {"convert": "maybe"},
        "`convert` must be True, False or 'measure'. Received: convert='maybe'.",
    ),
    "batch": (
        {"serving_batch_size": 0},
        "`serving_batch_size` must be at least 1. Received: serving_batch_size=0.",
    ),
    "class names": (
        {"class_names": ["a", "b"], "formats": ()},
        (
            "`class_names` must have a name for each number of the model's only output. Received: "
            "2 names for outputs of shape (None, 3)."
        ),
    ),
    "unwritable class name": (
        {"class_names": ["a", "b", "\ud800"], "formats": ()},
        (
            "`class_names` must be text, or names of files as Python reads them. Received: "
            "'\\ud800'."
        ),
    ),
    "not a number": (
        {"sample": np.full((2, 9, 8, 2), np.nan), "formats": ()},
        (
            "A model must be verified on outputs that are numbers. Received: 'small', whose output "
            "'logits' has NaN for the sample. Give another `sample`, or a model whose weights are "
            "numbers."
        ),
    ),
    "sample": (
        {"sample": np.zeros((2, 9, 9, 2)), "formats": ()},
        (
            "`sample` must be inputs of the model, of shape (None, 9, 8, 2). Received: shape "
            "(2, 9, 9, 2)."
        ),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_arguments_are_refused_in_a_sentence(name, tmp_path, rng):
    arguments, sentence = REFUSED[name]
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        export_model(small_model(rng), tmp_path, **arguments)
    assert str(caught.value) == sentence


@can_save
def test_an_export_replaces_nothing(tmp_path, rng):
    (tmp_path / "1").mkdir()
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        export_model(small_model(rng), tmp_path)
    assert str(caught.value) == (
        f"An export must not replace another one. Received: path={str(tmp_path)!r}, where "
        f"{tmp_path / '1'} exists. Choose another path or remove it."
    )


@only_tensorflow
def test_a_missing_package_is_named_with_how_to_install_it(tmp_path, rng, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(ImportError) as caught:
        export_model(small_model(rng), tmp_path, ["litert"])
    assert str(caught.value) == (
        "The format 'litert' needs ai_edge_litert: pip install "
        "'low-rank-local-connectivity[export]'."
    )


@pytest.mark.once
def test_every_package_that_a_format_needs_comes_with_an_extra():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    extra = tomllib.loads(text)["project"]["optional-dependencies"]["export"]
    needed = {re.match(r"[\w-]+", requirement)[0].replace("-", "_") for requirement in extra}
    for kind in FORMATS.values():
        for packages in kind.backends.values():
            assert set(packages) - {"tensorflow"} <= needed
