"""Networks of layers in groups, by channel, and with other borders, exported in every format."""

import keras
import pytest
from backends import randomize, to_numpy
from test_export_signatures import WRITABLE, assert_served, exported

from low_rank_local_connectivity import layers

LAYERS = {
    "local in groups": lambda: layers.LocallyConnected2D(6, 3, groups=2, strides=2),
    "low rank in groups": lambda: layers.LowRankLocallyConnected2D(6, 3, 3, groups=2),
    "depthwise local": lambda: layers.DepthwiseLocallyConnected2D((3, 2), depth_multiplier=2),
    "depthwise low rank": lambda: layers.DepthwiseLowRankLocallyConnected2D(3, 3, padding="same"),
    "depthwise of rank 1": lambda: layers.DepthwiseLowRankLocallyConnected2D(3, 1, strides=2),
    "separable": lambda: layers.SeparableLowRankLocallyConnected2D(5, 3, 3, depth_multiplier=2),
    "separable, by example": lambda: layers.SeparableLowRankLocallyConnected2D(
        5, 3, 3, input_dependent=True
    ),
    "around a ring": lambda: layers.LowRankLocallyConnected2D(6, 3, 3, padding="circular"),
    "mirrored": lambda: layers.LocallyConnected2D(6, 3, padding="reflect"),
    "repeated, strided and dilated": lambda: layers.LowRankLocallyConnected2D(
        6, 3, 3, padding="replicate", strides=2, dilation_rate=2
    ),
    "by amounts": lambda: layers.DepthwiseLowRankLocallyConnected2D(
        3, 3, padding=((1, 0), (2, 1)), dilation_rate=2
    ),
    "coordinates around a ring": lambda: layers.CoordConv2D(6, 3, padding="circular"),
}


def network(make):
    """A layer between a convolution, whose normalisation is folded, and an average."""
    image = keras.Input((9, 8, 2), name="image")
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    x = keras.layers.BatchNormalization()(make()(x))
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(3, name="logits")(pooled))


@pytest.mark.slow
@pytest.mark.parametrize("convert", [True, False])
@pytest.mark.parametrize("name", WRITABLE)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_network_is_exported_with_its_numbers(kind, name, convert, tmp_path, rng):
    model = network(LAYERS[kind])
    randomize(model, rng)
    _, _, run = exported(model, tmp_path, name, convert=convert)
    images = rng.normal(size=(4, 9, 8, 2)).astype("float32")
    assert_served(run, {"image": images}, {"logits": to_numpy(model(images))})


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITABLE)
@pytest.mark.parametrize("dimensions", [1, 3])
def test_other_numbers_of_axes_are_exported_too(dimensions, name, tmp_path, rng):
    sizes = (5, 6, 7)[:dimensions]
    image = keras.Input((*sizes, 4), name="image")
    local, low_rank = (
        getattr(layers, f"{kind}{dimensions}D")
        for kind in ("LocallyConnected", "LowRankLocallyConnected")
    )
    x = low_rank(6, 2, 3, groups=2, padding="replicate")(local(4, 2, groups=2)(image))
    model = keras.Model(image, keras.layers.Dense(3, name="logits")(keras.layers.Flatten()(x)))
    randomize(model, rng)
    _, _, run = exported(model, tmp_path, name, convert=False)
    images = rng.normal(size=(4, *sizes, 4)).astype("float32")
    assert_served(run, {"image": images}, {"logits": to_numpy(model(images))})
