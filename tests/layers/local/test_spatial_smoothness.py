"""The penalty on rough combining weights: its value, where it applies, and what it does."""

import itertools

import keras
import numpy as np
import pytest
from backends import WITHOUT_XLA, compute, randomize, to_numpy
from cases import CASES
from reference import normalize

from low_rank_local_connectivity import SpatialSmoothness, layers

LOW_RANK = [case for case in CASES if case.layer.startswith("LowRankLocallyConnected")]


def roughness(weights, p, first_axis=0):
    """The definition as a loop over pairs of neighbours."""
    total = 0.0
    for axis in range(first_axis, weights.ndim - 1):
        along = np.moveaxis(weights.astype("float64"), axis, 0)
        pairs = [np.abs(after - before) ** p for before, after in itertools.pairwise(along)]
        total += np.mean(pairs) if pairs else 0.0
    return total


def penalty_of(layer, inputs):
    """What a call of the layer adds to its losses."""
    layer(inputs)
    return sum(float(to_numpy(loss)) for loss in layer.losses)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("shape", [(7, 3), (5, 6, 3), (4, 5, 6, 3), (1, 6, 3)], ids=str)
def test_the_value_is_the_mean_over_neighbours_summed_over_axes(shape, p, rng):
    weights = rng.normal(size=shape).astype("float32")
    found = SpatialSmoothness(0.7, p)(weights)
    assert float(found) == pytest.approx(0.7 * roughness(weights, p), rel=1e-5)
    batch = rng.normal(size=(2, *shape)).astype("float32")
    found = SpatialSmoothness(0.7, p)(batch, batched=True)
    assert float(found) == pytest.approx(0.7 * roughness(batch, p, 1), rel=1e-5)


@pytest.mark.parametrize("case", LOW_RANK, ids=str)
def test_a_layer_adds_the_roughness_of_its_normalised_weights(case, rng):
    arguments = {"kernel_regularizer": None, "bias_regularizer": None}
    arguments |= {"spatial_bias_regularizer": None, "activity_regularizer": None}
    layer = case.make(**arguments, combining_weights_regularizer=SpatialSmoothness(50.0, 2))
    layer.build(case.input_shape)
    randomize(layer, rng)
    inputs = rng.normal(size=case.input_shape).astype("float32")
    weights = compute(layer.combining_weights, inputs)
    expected = 50 * roughness(weights, 2, first_axis=int(layer.input_dependent))
    assert (expected > 0) == (layer.spatial_rank > 1)
    assert penalty_of(layer, inputs) == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("implementation", ["convolve_then_combine", "combine_then_convolve"])
def test_the_penalty_is_the_same_by_both_plans(implementation, rng):
    layer = layers.LowRankLocallyConnected2D(
        6,
        3,
        spatial_rank=4,
        implementation=implementation,
        combining_weights_regularizer=SpatialSmoothness(1.0),
    )
    layer.build((None, 8, 11, 4))
    row, column = (rng.normal(size=weight.shape) for weight in layer.logits)
    for weight, value in zip(layer.logits, (row, column), strict=True):
        weight.assign(value)
    weights = normalize(row[:, None] + column, "softmax")
    found = penalty_of(layer, np.zeros((2, 8, 11, 4), "float32"))
    assert found == pytest.approx(roughness(weights, 1), rel=1e-4)


@pytest.mark.parametrize("axes", [None, (0,), ()])
@pytest.mark.parametrize("normalization", ["softmax", "norm", None])
def test_fresh_and_so_uniform_weights_cost_nothing(normalization, axes):
    layer = layers.LowRankLocallyConnected2D(
        6,
        3,
        spatial_rank=4,
        normalize_weights=normalization,
        additive_axes=axes,
        combining_weights_regularizer=SpatialSmoothness(1.0),
    )
    assert penalty_of(layer, np.zeros((2, 8, 11, 4), "float32")) < 1e-6
    assert len(layer.losses) == 1


def test_logits_that_differ_without_changing_the_weights_cost_nothing(rng):
    layer = layers.LowRankLocallyConnected2D(
        6, 3, spatial_rank=4, combining_weights_regularizer=SpatialSmoothness(1.0)
    )
    layer.build((None, 8, 11, 4))
    for weight in layer.logits:
        weight.assign(np.broadcast_to(rng.normal(size=(weight.shape[0], 1)), weight.shape))
    layer(np.zeros((2, 8, 11, 4), "float32"))
    assert to_numpy(layer.losses[0]) < 1e-6


def test_asking_for_the_weights_adds_no_loss_and_a_frozen_layer_has_none():
    layer = layers.LowRankLocallyConnected2D(
        6, 3, spatial_rank=4, combining_weights_regularizer=SpatialSmoothness(1.0)
    )
    layer.build((None, 8, 11, 4))
    layer.combining_weights()
    assert layer.losses == []
    layer.trainable = False
    layer(np.zeros((2, 8, 11, 4), "float32"))
    assert layer.losses == []


def test_other_weights_can_be_smoothed_too(rng):
    layer = layers.LocallyConnected2D(6, 3, bias_regularizer=SpatialSmoothness(0.5))
    layer.build((None, 8, 11, 4))
    randomize(layer, rng)
    (loss,) = layer.losses
    assert to_numpy(loss) == pytest.approx(0.5 * roughness(to_numpy(layer.bias), 1), rel=1e-5)


@pytest.mark.parametrize(("p", "input_dependent"), [(1, True), (2, False)])
def test_training_with_it_makes_weights_smoother(p, input_dependent, rng):
    inputs = rng.normal(size=(8, 6, 7, 2)).astype("float32")
    targets = rng.normal(size=(8, 4, 5, 3)).astype("float32")
    found = {}
    for strength in (0.0, {1: 3.0, 2: 30.0}[p]):
        keras.utils.set_random_seed(1)
        layer = layers.LowRankLocallyConnected2D(
            3,
            3,
            spatial_rank=4,
            normalize_weights=None,
            additive_axes=(),
            input_dependent=input_dependent,
            combining_weights_initializer="random_normal",
            combining_weights_regularizer=SpatialSmoothness(strength, p),
        )
        model = keras.Sequential([keras.Input((6, 7, 2)), layer])
        model.compile(keras.optimizers.SGD(0.05), "mse", **WITHOUT_XLA)
        # Steps of one epoch, as each epoch would set up its reading of eight images anew.
        repeated = (np.concatenate([one] * 20) for one in (inputs, targets))
        model.fit(*repeated, batch_size=8, shuffle=False, verbose=0)
        weights = compute(layer.combining_weights, inputs)
        found[strength] = roughness(weights, p, int(input_dependent))
    without, with_it = found.values()
    assert with_it < 0.5 * without


def test_a_model_with_it_is_saved_and_loaded(tmp_path, rng):
    layer = layers.LowRankLocallyConnected2D(
        6, 3, spatial_rank=4, combining_weights_regularizer=SpatialSmoothness(2.0, p=2)
    )
    model = keras.Sequential([keras.Input((8, 11, 4)), layer])
    model.compile("sgd", "mse")
    randomize(layer, rng)
    inputs = rng.normal(size=(3, 8, 11, 4)).astype("float32")
    targets = np.zeros((3, 6, 9, 6), "float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = loaded.layers[-1].combining_weights_regularizer
    assert isinstance(again, SpatialSmoothness)
    assert again.get_config() == {"strength": 2.0, "p": 2}
    expected = model.evaluate(inputs, targets, verbose=0)
    error = np.mean(model.predict(inputs, verbose=0).astype("float64") ** 2)
    penalty = 2 * roughness(compute(layer.combining_weights), 2)
    assert penalty > 1e-3
    assert expected == pytest.approx(error + penalty, rel=1e-5)
    assert loaded.evaluate(inputs, targets, verbose=0) == pytest.approx(expected, rel=1e-6)


def test_in_float16_the_penalty_keeps_its_digits(rng):
    layer = layers.LowRankLocallyConnected2D(
        6,
        3,
        spatial_rank=4,
        combining_weights_regularizer=SpatialSmoothness(1.0, 2),
        dtype="mixed_float16",
    )
    layer.build((None, 8, 11, 4))
    for weight in layer.logits:
        weight.assign(1e-3 * rng.normal(size=weight.shape))
    layer(np.zeros((2, 8, 11, 4), "float32"))
    expected = roughness(compute(layer.combining_weights), 2)
    assert to_numpy(layer.losses[0]) == pytest.approx(expected, rel=1e-4)


ERRORS = {
    "strength": (
        lambda: SpatialSmoothness(-1.0),
        "`strength` must be a finite number of at least 0. Received: strength=-1.0.",
    ),
    "power": (
        lambda: SpatialSmoothness(1.0, p=3),
        "`p` must be one of 1, 2. Received: p=3.",
    ),
    "no axes": (
        lambda: SpatialSmoothness(1.0)(np.zeros(5)),
        (
            "SpatialSmoothness needs weights with spatial axes before their last one. Received: "
            "weights of shape (5,)."
        ),
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("case", ERRORS)
def test_an_error_says_what_must_hold_and_what_came(case):
    act, text = ERRORS[case]
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole text is compared below
        act()
    assert str(caught.value) == text
