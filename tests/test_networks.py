"""The networks: parameter counts by hand, and what a layer is told of its place."""

import importlib
import inspect
import re

import keras
import numpy as np
import pytest
from backends import EAGER, to_numpy

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.models import (
    CONVOLUTIONS,
    MODELS,
    Settings,
    builders,
    convolution,
)
from low_rank_local_connectivity.models.convolutions import (
    Site,
    kernel_decay,
    low_rank_parameters,
    matching_width,
    wide_filters,
)
from low_rank_local_connectivity.models.simple_network import simple_network

PLAIN, LOW_RANK, WIDE = "conv2d", "low_rank_locally_connected2d", "wide_conv2d"


def network(kinds, image_shape=(28, 28, 1), settings=None, **changes):
    makers = [convolution(kind, settings or Settings()) for kind in kinds]
    return simple_network(image_shape, 10, makers, **changes)


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


# For 28x28x1 images: layers at 26x26, 24x24 and 22x22 positions, 3x3 taps, 64 filters, no bias;
# 128 batch norm parameters each, and 64 * 10 + 10 for the logits.
CONV = 9 * 1 * 64 + 9 * 64 * 64 + 9 * 64 * 64
REST = 3 * 128 + 650


@pytest.mark.parametrize(
    ("kinds", "settings", "expected"),
    [
        ([PLAIN] * 3, Settings(), CONV + REST),
        # 4 banks, 4 logits and a bias for each of 22 rows and 22 columns.
        (
            [PLAIN, PLAIN, LOW_RANK],
            Settings(spatial_rank=4),
            CONV + 3 * 9 * 64 * 64 + (22 + 22) * (4 + 1) + REST,
        ),
        # Rank 1 under softmax has no logits.
        ([PLAIN, PLAIN, LOW_RANK], Settings(spatial_rank=1), CONV + 22 + 22 + REST),
        ([LOW_RANK, PLAIN, PLAIN], Settings(spatial_rank=2), CONV + 576 + 52 * 3 + REST),
        (
            [PLAIN, PLAIN, LOW_RANK],
            Settings(
                spatial_rank=3,
                share_row_combining_weights=False,
                share_col_combining_weights=False,
            ),
            CONV + 2 * 9 * 64 * 64 + 22 * 22 * (3 + 1) + REST,
        ),
        (
            [PLAIN, PLAIN, LOW_RANK],
            Settings(spatial_rank=3, share_col_combining_weights=False, use_spatial_bias=False),
            CONV + 2 * 9 * 64 * 64 + 22 * 3 + REST,
        ),
        # The network g at K = 2: 64 to 2; 4 depthwise filters; 12 to 6 to 12 to 2; all biased.
        (
            [PLAIN, PLAIN, LOW_RANK],
            Settings(
                spatial_rank=2,
                input_dependent=True,
                share_row_combining_weights=False,
                share_col_combining_weights=False,
            ),
            CONV
            + 9 * 64 * 64
            + 22 * 22
            + (64 * 2 + 2)
            + 4 * (9 * 2 + 2)
            + (12 * 6 + 6)
            + (6 * 12 + 12)
            + (12 * 2 + 2)
            + REST,
        ),
        (
            [PLAIN, PLAIN, "locally_connected2d"],
            Settings(),
            9 * 64 + 9 * 64 * 64 + 22 * 22 * (9 * 64 + 1) * 64 + REST,
        ),
        # The last layer at K = 4 has 256 filters, which batch norm and the logits follow.
        (
            [PLAIN, PLAIN, "wide_conv2d"],
            Settings(spatial_rank=4),
            9 * 64 + 9 * 64 * 64 + 9 * 64 * 256 + 2 * 128 + 512 + 2570,
        ),
        ([PLAIN, PLAIN, "coord_conv2d"], Settings(), CONV + 9 * 2 * 64 + REST),
    ],
)
def test_parameters_are_those_counted_by_hand(kinds, settings, expected):
    assert trainable(network(kinds, settings=settings)) == expected


def test_coord_conv_adds_two_channels_to_the_network_s_input_only():
    assert trainable(network([PLAIN] * 3, coord_conv=True)) == CONV + 9 * 2 * 64 + REST


def test_without_batch_norm_convolutions_have_a_bias():
    assert trainable(network([PLAIN] * 3, batch_norm=False)) == CONV + 3 * 64 + 650
    model = network([PLAIN, PLAIN, LOW_RANK], batch_norm=False)
    assert model.get_layer("layer_3").bias is not None


def test_flattening_keeps_every_position():
    model = network([PLAIN] * 3, pooling=False)
    assert trainable(model) == CONV + 3 * 128 + 22 * 22 * 64 * 10 + 10


def test_the_network_is_as_published():
    model = network([PLAIN, "locally_connected2d", LOW_RANK], image_shape=(32, 32, 3))
    assert [tuple(model.get_layer(f"layer_{n}").output.shape[1:]) for n in (1, 2, 3)] == [
        (30, 30, 64),
        (28, 28, 64),
        (26, 26, 64),
    ]
    norm = model.get_layer("batch_norm_2")
    assert (norm.momentum, norm.epsilon) == (0.9, 1e-5)
    assert isinstance(model.get_layer("layer_2"), layers.LocallyConnected2D)
    assert model.get_layer("layer_2").use_bias
    low_rank = model.get_layer("layer_3")
    assert not low_rank.use_bias
    assert low_rank.use_spatial_bias
    assert low_rank.get_config()["kernel_initializer"]["class_name"] == "HeUniform"
    assert model.layers[-1].activation is keras.activations.linear


@pytest.mark.parametrize(
    ("rank", "channels", "last", "expected"),
    [(4, 64, False, 160), (4, 1, False, 66), (3, 3, False, 69), (30, 64, True, 1920)],
)
def test_the_wide_convolution_s_formula(rank, channels, last, expected):
    assert wide_filters(64, channels, rank, last) == expected


@pytest.mark.parametrize("name", [n for n in MODELS if MODELS[n].module == "simple_network"])
def test_sizes_known_before_a_framework_loads_are_those_of_the_network(name):
    entry = MODELS[name]
    makers = [convolution(PLAIN, Settings())] * entry.num_layers
    model = entry.build((19, 23, 3), 7, makers, filters=5, kernel_size=4)
    found = [
        tuple(model.get_layer(f"layer_{n + 1}").output.shape[1:3]) for n in range(entry.num_layers)
    ]
    assert entry.output_sizes((19, 23, 3), 4) == found


SHARING = {
    "both": {},
    "rows": {"share_col_combining_weights": False},
    "columns": {"share_row_combining_weights": False},
    "neither": {"share_row_combining_weights": False, "share_col_combining_weights": False},
    "input_dependent": {
        "share_row_combining_weights": False,
        "share_col_combining_weights": False,
        "input_dependent": True,
    },
}
PLACES = {
    "valid": {"in_size": (13, 18)},
    "valid-strided": {"in_size": (13, 18), "strides": 2},
    "same-strided": {"in_size": (11, 8), "strides": 2, "padding": "same"},
    "biased": {"in_size": (5, 8), "normalized": False},
}


@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("changes", [{}, {"use_spatial_bias": False}], ids=["bias", "no-bias"])
@pytest.mark.parametrize(("rank", "norm"), [(3, "softmax"), (1, "softmax"), (1, "norm")])
def test_parameters_counted_before_building_are_those_of_the_layer(
    sharing, place, changes, rank, norm
):
    settings = Settings(spatial_rank=rank, normalize_weights=norm, **SHARING[sharing], **changes)
    site = Site(6, 3, in_channels=4, **PLACES[place])
    layer = convolution(LOW_RANK, settings)(site)
    layer.build((None, *site.in_size, 4))
    assert low_rank_parameters(settings, site) == layer.count_params()
    assert layer.compute_output_shape((None, *site.in_size, 4))[1:3] == site.out_size()


@pytest.mark.parametrize("rank", [1, 2, 9])
@pytest.mark.parametrize("after", [0, 7, 500])
@pytest.mark.parametrize("normalized", [True, False])
def test_a_matching_width_is_the_nearest(rank, after, normalized):
    settings = Settings(spatial_rank=rank)
    site = Site(
        6,
        3,
        in_channels=4,
        in_size=(13, 18),
        normalized=normalized,
        parameters_after_per_channel=after,
    )
    layer = convolution(WIDE, settings)(site)
    assert layer.filters == matching_width(settings, site)
    target = low_rank_parameters(settings, site) + 6 * after
    distances = [
        abs(width * (9 * 4 + (not normalized) + after) - target)
        for width in (layer.filters - 1, layer.filters, layer.filters + 1)
    ]
    assert distances[1] == min(distances)


def test_of_two_layers_in_a_row_the_first_has_the_parameters_of_both():
    settings = Settings(spatial_rank=5)
    second = Site(6, 3, in_channels=6, in_size=(11, 16), fixed_width=True)
    first = Site(
        6,
        3,
        in_channels=4,
        in_size=(13, 18),
        parameters_after_per_channel=2 + 9 * 6,
        makes_up_for=second,
    )
    width = matching_width(settings, first)
    wide = width * (9 * 4 + 2 + 9 * 6)
    low_rank = low_rank_parameters(settings, first) + low_rank_parameters(settings, second) + 2 * 6
    assert abs(wide - low_rank) <= (9 * 4 + 2 + 9 * 6) / 2
    assert convolution(WIDE, settings)(second).filters == 6


def test_a_width_cannot_match_positions_that_are_unknown():
    site = Site(6, 3, in_channels=4, in_size=(None, 8), parameters_after_per_channel=2, name="here")
    message = (
        "The parameters of a low-rank layer depend on its number of rows and columns, so "
        "`in_size` must be known. Received: in_size=(None, 8) at site 'here'. Give the network an "
        "image of static size."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        convolution(WIDE, Settings())(site)


def test_weight_decay_is_the_gradient_of_the_penalty(rng):
    layer = keras.layers.Dense(3, use_bias=False, kernel_regularizer=kernel_decay(0.25))
    model = keras.Sequential([keras.Input((4,)), layer])
    before = np.array(model.get_weights()[0])
    model.compile(keras.optimizers.SGD(1.0), lambda _, outputs: keras.ops.mean(outputs) * 0)
    inputs = rng.normal(size=(2, 4)).astype("float32")
    model.fit(inputs, np.zeros((2, 3), "float32"), verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], 0.75 * before, rtol=1e-5)


def test_weight_decay_reaches_the_kernels_of_every_layer_and_the_logits():
    kinds = [PLAIN, "coord_conv2d", LOW_RANK]
    model = network(kinds, weight_decay=0.5, batch_norm=False)
    assert len(model.losses) == 3 + 1
    assert not network(kinds).losses
    with pytest.raises(ValueError, match=r"^`weight_decay` must be at least 0\. Received"):
        network(kinds, weight_decay=-0.5)


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_every_kind_of_layer_honours_its_site(kind, rng):
    site = Site(
        6,
        3,
        in_channels=4,
        strides=2,
        padding="valid",
        name="here",
        kernel_regularizer=kernel_decay(2.0),
    )
    layer = convolution(kind, Settings(spatial_rank=2))(site)
    outputs = layer(rng.normal(size=(2, 11, 9, 4)).astype("float32"))
    assert layer.name == "here"
    # Full convolutions read four rows and columns more, of zeros.
    assert tuple(outputs.shape[:3]) == ((2, 7, 6) if kind == "full_conv2d" else (2, 5, 4))
    (penalty,) = layer.losses
    (kernel,) = (weight for weight in layer.trainable_weights if weight.name.startswith("kernel"))
    expected = np.square(keras.ops.convert_to_numpy(kernel.value)).sum()
    np.testing.assert_allclose(to_numpy(penalty), expected, rtol=1e-5)


@pytest.mark.once
@pytest.mark.parametrize("name", MODELS)
def test_a_network_is_built_by_the_function_of_that_name_in_its_module(name):
    entry = MODELS[name]
    module = importlib.import_module(f"models.{entry.module}")
    assert entry.function is getattr(builders, entry.function.__name__)
    inspect.signature(getattr(module, entry.function.__name__)).bind_partial(
        (8, 9, 3), 5, **entry.arguments, **dict.fromkeys(entry.options)
    )


@pytest.mark.parametrize("name", ["transformer_network", "transformer_resnet18"])
def test_a_network_behind_a_transformer_starts_as_the_network(name, rng):
    entry = MODELS[name]
    makers = [convolution(PLAIN, Settings())] * entry.num_layers
    model = entry.build((19, 22, 3), 7, *([makers] if makers else []), weight_decay=0.1)
    images = rng.normal(size=(2, 19, 22, 3)).astype("float32")
    network = model.layers[-1]
    np.testing.assert_allclose(
        to_numpy(model(images)), to_numpy(network(images)), rtol=1e-4, atol=1e-4
    )
    transformer = model.get_layer("spatial_transformer")
    assert not transformer.losses
    assert len(model.losses) == len(network.losses) > 0
    kernel = transformer.trainable_weights[0]
    before = to_numpy(kernel)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, run_eagerly=EAGER)
    model.train_on_batch(images, np.array([0, 1]))
    assert np.abs(to_numpy(kernel) - before).max() > 0


@pytest.mark.parametrize("kind", ["deformable_conv2d", "deformable_conv2d_v1"])
def test_a_deformable_network_starts_as_a_plain_one(kind, rng):
    plain, other = (network([one] * 3, batch_norm=False) for one in (PLAIN, kind))
    for index in range(3):
        name = f"layer_{index + 1}"
        kernels = plain.get_layer(name).weights
        for weight, value in zip(
            other.get_layer(name).weights[: len(kernels)], kernels, strict=True
        ):
            weight.assign(value)
    other.get_layer("logits").set_weights(plain.get_layer("logits").get_weights())
    images = rng.normal(size=(2, *plain.input_shape[1:])).astype("float32")
    np.testing.assert_allclose(to_numpy(other(images)), to_numpy(plain(images)), rtol=0, atol=1e-5)
