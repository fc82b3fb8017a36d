"""Networks whose maps become larger again, exported in every format and run by what serves it."""

import keras
import pytest
from backends import randomize, to_numpy
from test_export_signatures import WRITABLE, assert_served, exported

from low_rank_local_connectivity import layers

MAKERS = {
    "Keras": lambda **options: keras.layers.Conv2DTranspose(4, 3, **options),
    "locally connected": lambda **options: layers.LocallyConnected2DTranspose(4, 3, **options),
    "low rank": lambda **options: layers.LowRankLocallyConnected2DTranspose(4, 3, 3, **options),
    "input-dependent": lambda **options: layers.LowRankLocallyConnected2DTranspose(
        4, 3, 3, input_dependent=True, **options
    ),
}


def network(kind, **options):
    """Halves an image and doubles it, beside what it was."""
    image = keras.Input((8, 6, 2), name="image")
    fine = keras.layers.Conv2D(3, 3, padding="same", activation="relu")(image)
    coarse = keras.layers.Conv2D(5, 3, strides=2, padding="same")(fine)
    larger = MAKERS[kind](padding="same", **options)(coarse)
    if not options.get("strides"):
        larger = keras.layers.Conv2DTranspose(4, 2, 2)(larger)
    joined = keras.layers.Concatenate()([larger, fine])
    pooled = keras.layers.GlobalAveragePooling2D()(joined)
    return keras.Model(image, keras.layers.Dense(3, name="logits")(pooled))


def assert_exported(model, folder, name, rng, **arguments):
    randomize(model, rng)
    _, _, run = exported(model, folder, name, **arguments)
    shape = (4, *model.input_shape[1:])
    images = rng.normal(size=shape).astype("float32")
    assert_served(run, {"image": images}, {"logits": to_numpy(model(images))})


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITABLE)
@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("convert", [True, False])
def test_a_network_that_doubles_its_maps_is_exported(kind, name, convert, tmp_path, rng):
    assert_exported(network(kind, strides=2), tmp_path, name, rng, convert=convert)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITABLE)
def test_dilated_transposed_layers_are_exported(name, tmp_path, rng):
    model = network("low rank", dilation_rate=2)
    assert_exported(model, tmp_path, name, rng, convert=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITABLE)
@pytest.mark.parametrize("dimensions", [1, 3])
def test_transposed_layers_over_other_axes_are_exported(dimensions, name, tmp_path, rng):
    image = keras.Input((*(4, 3, 5)[:dimensions], 2), name="image")
    kinds = [
        f"{kind}{dimensions}DTranspose" for kind in ("LocallyConnected", "LowRankLocallyConnected")
    ]
    local, low_rank = (getattr(layers, kind) for kind in kinds)
    x = low_rank(3, 3, 2, strides=2, padding="same")(local(4, 2)(image))
    model = keras.Model(image, keras.layers.Dense(3, name="logits")(keras.layers.Flatten()(x)))
    assert_exported(model, tmp_path, name, rng, convert=False)
