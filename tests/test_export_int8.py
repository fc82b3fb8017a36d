"""LiteRT in integers of eight bits: what it computes, how well, and where it cannot be had."""

import keras
import numpy as np
import pytest
from backends import randomize, to_numpy

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.export import export_model

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow writes LiteRT"),
]


def classifier(rng, middle, size=(9, 8)):
    inputs = keras.Input((*size, 2), name="image")
    x = keras.layers.Conv2D(5, 3, activation="relu")(inputs)
    x = keras.layers.Flatten()(middle(x))
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x), name="classifier")
    randomize(model, rng, 0.4)
    return model


LAYERS = {
    "converted": (True, lambda: layers.LowRankLocallyConnected2D(4, 3, spatial_rank=3)),
    "unconverted": (False, lambda: layers.LowRankLocallyConnected2D(4, 3, spatial_rank=3)),
    "input-dependent": (
        True,
        lambda: layers.LowRankLocallyConnected2D(4, 3, spatial_rank=3, input_dependent=True),
    ),
    "convolution": (True, lambda: keras.layers.Conv2D(4, 3)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_integers_agree_with_the_model_as_the_manifest_says(kind, tmp_path, rng):
    from ai_edge_litert.interpreter import Interpreter

    convert, middle = LAYERS[kind]
    model = classifier(rng, middle())
    images = rng.uniform(-1, 1, (60, 9, 8, 2)).astype("float32")
    logits = to_numpy(model(images))
    labels = np.where(rng.uniform(size=60) < 0.8, logits.argmax(-1), 0)
    given = {"representative": images, "labels": labels, "convert": convert}
    manifest = export_model(model, tmp_path, ["litert_int8"], **given)
    entry = manifest["formats"]["litert_int8"]
    interpreter = Interpreter(str(tmp_path / entry["file"]))
    runner = interpreter.get_signature_runner("serving_default")
    found = np.concatenate([runner(image=image[None])["logits"] for image in images])
    difference = np.abs(found - logits).max() / np.abs(logits).max()
    assert entry["difference"] == pytest.approx(difference, rel=1e-5)
    assert entry["difference"] < 0.06 < entry["tolerance"]
    agreement = np.mean(found.argmax(-1) == logits.argmax(-1))
    assert entry["agreement"] == {"logits": agreement}
    assert agreement > 0.9
    assert entry["accuracy"] == {
        "model": np.mean(logits.argmax(-1) == labels),
        "litert_int8": np.mean(found.argmax(-1) == labels),
    }
    assert entry["batch_size"] == 1
    assert list(tmp_path.glob(".*")) == []
    # Nothing large is left in floating point: the interpreter's tensors with the most numbers.
    details = interpreter.get_tensor_details()
    large = [one for one in details if np.prod(one["shape"]) > 200]
    assert {one["dtype"] for one in large} <= {np.int8, np.int32}


def test_integers_are_calibrated_on_the_sample_if_nothing_else_is_given(tmp_path, rng):
    inputs = keras.Input((7,), dtype="int32", name="tokens")
    x = layers.LocallyConnected1D(2, 3)(keras.layers.Embedding(50, 4)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, name="logits")(keras.layers.Flatten()(x)))
    tokens = rng.integers(0, 50, (30, 7))
    manifest = export_model(model, tmp_path, ["litert_int8"], sample=tokens)
    entry = manifest["formats"]["litert_int8"]
    assert entry["difference"] < 0.06
    assert "accuracy" not in entry


REFUSED = {
    "nothing to calibrate on": (
        {},
        (
            "Integers must be calibrated on inputs like those that will be served. Received: "
            "neither `representative` nor `sample`. Give some hundred inputs."
        ),
    ),
    "too few labels": (
        {"representative": np.zeros((4, 9, 8, 2)), "labels": [0, 1]},
        (
            "`labels` must be the class of each of the 4 inputs of `representative`, and the model "
            "must have one output, a number for each class. Received: labels of shape (2,), "
            "outputs of shape (None, 3)."
        ),
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_calibration_without_what_it_needs_is_refused(kind, tmp_path, rng):
    arguments, sentence = REFUSED[kind]
    model = classifier(rng, keras.layers.Conv2D(4, 3))
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        export_model(model, tmp_path, ["litert_int8"], **arguments)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("name", ["litert", "litert_int8"])
def test_what_litert_cannot_hold_is_refused_in_a_sentence(name, tmp_path, rng):
    # The converter turns indices that are clipped to [0, 6] into an operation for floats alone.
    model = classifier(rng, layers.DeformableConv2D(4, 3))
    images = np.zeros((2, 9, 8, 2))
    # What was written before it is removed; a SavedModel takes long.
    names = ["tf_saved_model", name] if name == "litert" else [name]
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        export_model(model, tmp_path / "served", names, sample=images)
    assert str(caught.value) == (
        f"The format '{name}' must be able to write every layer of the model. Received: "
        "'classifier', of which it says: 'tf.Relu6' op is neither a custom op nor a flex op "
        "(ConverterError). Nothing was written: choose another format."
    )
    assert list((tmp_path / "served").iterdir()) == []


@pytest.mark.parametrize("broken", ["write", "run"])
def test_what_a_runtime_raises_becomes_a_sentence(broken, tmp_path, rng, monkeypatch):
    from low_rank_local_connectivity.export import FORMATS

    def fail(*_):
        raise RuntimeError("kernel failed to prepare\nwith a page of reasons")

    monkeypatch.setitem(
        FORMATS, "litert", FORMATS["litert"].__class__(**{**vars(FORMATS["litert"]), broken: fail})
    )
    model = classifier(rng, keras.layers.Conv2D(4, 3))
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        export_model(model, tmp_path, ["litert"])
    assert str(caught.value) == (
        f"The format 'litert' must be able to {broken} every layer of the model. Received: "
        "'classifier', of which it says: kernel failed to prepare (RuntimeError). Nothing was "
        "written: choose another format."
    )
    assert list(tmp_path.iterdir()) == []
