"""What happens to weights beside training: penalties, limits, predictors and biases alone."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import reference
import save_model
from backends import call, randomize, stored_arrays, to_numpy

from low_rank_local_connectivity import layers

SAVED = Path(__file__).parent / "saved_models"
KINDS = {
    "kernel": ["kernel_bases"],
    "combining_weights": ["combining_weights_row", "combining_weights_col"],
    "spatial_bias": ["bias_row", "bias_col"],
    "bias": ["bias"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_regularizer_penalizes_its_weights_only(kind, rng):
    layer = layers.LowRankLocallyConnected2D(6, 3, 5, **{f"{kind}_regularizer": "l2"})
    layer.build((None, 8, 11, 4))
    randomize(layer, rng)
    values = {weight.name: to_numpy(weight.value) for weight in layer.weights}
    expected = sum(0.01 * (values[name] ** 2).sum() for name in KINDS[kind])
    assert sum(float(to_numpy(loss)) for loss in layer.losses) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_constraint_limits_its_weights_only(kind):
    layer = layers.LowRankLocallyConnected2D(6, 3, 5, **{f"{kind}_constraint": "non_neg"})
    layer.build((None, 8, 11, 4))
    limited = [weight.name for weight in layer.weights if weight.constraint is not None]
    assert limited == KINDS[kind]


def test_regularizers_and_constraints_of_locally_connected_layers():
    layer = layers.LocallyConnected1D(
        6, 3, kernel_regularizer="l2", bias_regularizer="l1", bias_constraint="non_neg"
    )
    layer.build((None, 13, 4))
    layer.bias.assign(np.ones(layer.bias.shape))
    kernel, bias = (float(to_numpy(loss)) for loss in layer.losses)
    assert kernel == pytest.approx(0.01 * (to_numpy(layer.kernel) ** 2).sum(), rel=1e-5)
    assert bias == pytest.approx(0.01 * 11 * 6, rel=1e-5)
    assert layer.bias.constraint is not None
    assert layer.kernel.constraint is None


@pytest.mark.parametrize(
    ("shape", "output_size", "rates"),
    [
        ((2, 19, 4), (23,), (1, 2, 4, 8)),
        ((2, 19, 4), (3,), (9,)),
        ((2, 8, 11, 4), (6, 9), (1, 2, 4, 8)),
        ((2, 8, 11, 4), (13, 5), (1, 3)),
        ((2, 5, 7, 6, 4), (3, 9, 8), (1, 2, 4)),
        ((2, 2, 3, 4), (1, 5), (1, 2)),
    ],
)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_predictor_alone_equals_its_definition(shape, output_size, rates, data_format, rng):
    layer = layers.InputDependentCombiningWeights(5, output_size, rates, data_format)
    inputs = rng.normal(size=shape)
    given = np.moveaxis(inputs, -1, 1) if data_format == "channels_first" else inputs
    layer.build(given.shape)
    randomize(layer, rng)
    weights = {
        weight.path.removeprefix(f"{layer.name}/"): to_numpy(weight.value).astype(float)
        for weight in layer.weights
    }
    expected = reference.predicted_logits(inputs, weights, output_size, rates)
    found = call(layer, given.astype("float32"))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_dilation_rates_too_large_for_an_input_are_left_out_and_the_widths_stay():
    layer = layers.InputDependentCombiningWeights(5)
    layer.build((None, 8, 11, 4))
    assert layer.kept_rates == [1, 2]
    assert [dense.units for dense in layer.aggregation] == [15, 30, 5]


@pytest.mark.parametrize(
    ("arguments", "shapes"),
    [
        ({}, {"bias_row": (8, 1, 1), "bias_col": (1, 11, 1)}),
        ({"additive_axes": (1,)}, {"bias_col": (1, 11, 1)}),
        ({"additive_axes": ()}, {"spatial_bias": (8, 11, 1)}),
        ({"per_filter": True}, {"spatial_bias": (8, 11, 4)}),
    ],
)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_spatial_bias_is_the_sum_of_its_terms(arguments, shapes, data_format, rng):
    layer = layers.SpatialBias(**arguments, data_format=data_format)
    inputs = rng.normal(size=(2, 8, 11, 4)).astype("float32")
    given = np.moveaxis(inputs, -1, 1) if data_format == "channels_first" else inputs
    layer.build(given.shape)
    randomize(layer, rng)
    assert {weight.name: tuple(weight.shape) for weight in layer.weights} == shapes
    outputs = call(layer, given)
    outputs = np.moveaxis(outputs, 1, -1) if data_format == "channels_first" else outputs
    expected = inputs + sum(to_numpy(weight.value) for weight in layer.weights)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


def test_weights_have_the_promised_names_shapes_and_order():
    layer = layers.LowRankLocallyConnected3D(6, (2, 1, 3), 5)
    layer.build((None, 5, 7, 6, 3))
    assert [(weight.name, tuple(weight.shape)) for weight in layer.weights] == [
        ("kernel_bases", (2, 1, 3, 3, 30)),
        ("combining_weights_depth", (4, 5)),
        ("combining_weights_row", (7, 5)),
        ("combining_weights_col", (4, 5)),
        ("bias_depth", (4, 1, 1, 1)),
        ("bias_row", (1, 7, 1, 1)),
        ("bias_col", (1, 1, 4, 1)),
        ("bias", (6,)),
    ]


@pytest.mark.parametrize("path", sorted(SAVED.glob("*.keras")), ids=lambda path: path.stem)
def test_models_saved_by_every_release_still_load(path):
    model = keras.models.load_model(path)
    stored = stored_arrays(path.with_suffix(".npz"))
    found = call(model, stored["inputs"])
    # Ten layers deep, two backends' float32 agree to a little over 1e-5.
    expected = stored["outputs"]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-5)


def test_every_public_layer_is_in_a_saved_model():
    import zipfile

    config = ""
    for path in SAVED.glob("*.keras"):
        with zipfile.ZipFile(path) as archive:
            config += json.dumps(json.loads(archive.read("config.json")))
    for name in (name for name in vars(layers) if name[0].isupper()):
        command = f".venv-lowest/bin/python tests/save_model.py {name}"
        assert f"low_rank_local_connectivity>{name}" in config, f"run {command}"


def test_a_model_written_for_later_releases_gives_what_lies_beside_it(tmp_path):
    path = save_model.save("GroupPooling2D", tmp_path)
    stored = stored_arrays(path.with_suffix(".npz"))
    found = keras.models.load_model(path).predict(stored["inputs"], verbose=0)
    np.testing.assert_array_equal(found, stored["outputs"])
    with pytest.raises(ValueError, match="never changes") as raised:
        save_model.save("GroupPooling2D", tmp_path)
    assert str(raised.value) == (
        f"A saved model never changes, so its file must be new. Received: {path}."
    )


def test_a_layer_without_a_case_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="must have a row") as raised:
        save_model.save("NoLayer", tmp_path)
    assert str(raised.value) == (
        "A layer must have a row in tests/cases.py first. Received: 'NoLayer'."
    )


@pytest.mark.parametrize("name", [name for name in vars(layers) if name[0].isupper()])
def test_registered_names_never_change(name):
    registered = keras.saving.get_registered_name(getattr(layers, name))
    assert registered == f"low_rank_local_connectivity>{name}"
