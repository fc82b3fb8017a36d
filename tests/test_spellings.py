"""Arguments that have two spellings: capitals, and lists where JSON had tuples."""

import inspect
import json

import keras
import numpy as np
import pytest
from backends import call
from cases import CASES

from low_rank_local_connectivity import layers, ops

pytestmark = pytest.mark.once


@pytest.mark.parametrize("case", CASES, ids=str)
def test_padding_and_data_format_are_taken_in_any_case(case):
    shouted = {}
    for name in ("padding", "data_format"):
        given = case.arguments.get(name)
        if isinstance(given, str):
            shouted[name] = given.upper()
        elif given is not None:
            continue  # amounts of padding
        elif name in inspect.signature(getattr(layers, case.layer)).parameters:
            padding = "Border" if case.layer == "SpatialTransformer2D" else "Same"
            shouted[name] = {"padding": padding, "data_format": "Channels_Last"}[name]
    mixed = case.layer.startswith("Group") and shouted.get("padding") == "Same"
    if mixed or not shouted:
        shouted.pop("padding", None)
    layer = case.make(**shouted)
    plain = case.make(**{name: value.lower() for name, value in shouted.items()})
    for name, value in shouted.items():
        # `CoordConv2D` hands them to the convolution that it holds.
        owner = layer if hasattr(layer, name) else layer.convolution
        assert getattr(owner, name) == value.lower()
    config = layer.get_config()
    assert {**config, "name": ""} == {**plain.get_config(), "name": ""}


def test_an_error_shows_the_spelling_received():
    with pytest.raises(ValueError, match="padding") as caught:
        layers.LocallyConnected2D(6, 3, padding="Full")
    assert str(caught.value).endswith("here 2. Received: padding='Full'.")
    with pytest.raises(ValueError, match="data_format") as caught:
        layers.AddCoordinates2D(data_format="NHWC")
    assert str(caught.value) == (
        "`data_format` must be one of 'channels_last', 'channels_first'. Received: "
        "data_format='NHWC'."
    )


def test_deform_conv2d_takes_padding_and_data_format_in_any_case(rng):
    images, kernel = rng.normal(size=(2, 5, 7, 4)), rng.normal(size=(3, 2, 4, 6))
    offset = rng.normal(size=(2, 5, 7, 12))
    arrays = [array.astype("float32") for array in (images, kernel, offset)]
    found, expected = (
        keras.ops.convert_to_numpy(
            ops.deform_conv2d(*arrays, padding=padding, data_format=data_format)
        )
        for padding, data_format in (("SAME", "Channels_Last"), ("same", "channels_last"))
    )
    np.testing.assert_array_equal(found, expected)


TWO_BANKS = {"filters": 6, "kernel_size": [3, 5], "spatial_rank": 2, "padding": "same"}


def test_a_list_by_hand_means_the_same_in_a_config_and_in_the_constructor():
    layer_class = layers.LowRankLocallyConnected2D
    made, configured = layer_class(**TWO_BANKS), layer_class.from_config(TWO_BANKS)
    assert made.kernel_size == configured.kernel_size == [(3, 3), (5, 5)]
    rates = {**TWO_BANKS, "kernel_size": 3, "dilation_rate": [1, 2]}
    made, configured = layer_class(**rates), layer_class.from_config(rates)
    assert made.dilation_rate == configured.dilation_rate == [(1, 1), (2, 2)]
    # Where it cannot be one for each bank it is one for each axis, as ever.
    three = layer_class.from_config({**TWO_BANKS, "spatial_rank": 3})
    assert three.kernel_size == (3, 5)


@pytest.mark.parametrize("size", [(3, 5), [3, 5], [(3, 1), 5], 3])
def test_a_written_config_says_whether_banks_or_axes_are_meant(size, rng):
    layer = layers.LowRankLocallyConnected2D(**{**TWO_BANKS, "kernel_size": size})
    config = json.loads(json.dumps(layer.get_config()))
    again = layers.LowRankLocallyConnected2D.from_config(config)
    assert again.kernel_size == layer.kernel_size
    images = rng.normal(size=(2, 8, 11, 4)).astype("float32")
    layer.build(images.shape)
    again.build(images.shape)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(call(layer, images), call(again, images))
