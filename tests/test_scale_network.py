"""Networks on scale spaces: their shapes, what they share between scales, and what they refuse."""

import keras
import numpy as np
import pytest
from backends import EAGER, call, to_numpy
from keras import layers

from benchmarks.undrawn import without_values
from low_rank_local_connectivity import ScaleConv2D, ScaleSpaceLifting2D
from low_rank_local_connectivity.equivariance import ScaleSpaceAction, error
from low_rank_local_connectivity.models import MODELS, Scales
from low_rank_local_connectivity.models.scale_networks import scale_resnet, simple_scale_network

# Convolutions; the small networks have 3.
DEPTHS = {"scale_resnet18": 21, "deformable_scale_resnet18": 21, "scale_resnet34": 37}
SLOW = pytest.mark.slow
NAMES = [name for name in MODELS if "scale_" in name]


@pytest.mark.once
@pytest.mark.parametrize("name", NAMES)
def test_every_network_gives_logits_and_has_a_kernel_for_all_scales(name):
    entry = MODELS[name]
    assert (entry.num_layers, entry.stages) == (0, ())
    tensorflow = keras.backend.backend() == "tensorflow"  # others have no such option
    with without_values():
        model = entry.build((56, 48, 3), 7, weight_decay=1e-4, synchronized=tensorflow)
    assert model.output_shape == (None, 7)
    convolutions = [layer for layer in model.layers if isinstance(layer, ScaleConv2D)]
    assert len(convolutions) == DEPTHS.get(name, 3)
    for layer in convolutions:
        assert layer.bias is None
        assert layer.kernel_regularizer is not None
        assert layer.kernel.shape[0] == entry.arguments["scales"].interaction


@pytest.mark.once
def test_a_scale_resnet_has_the_parameters_of_an_ordinary_one_and_a_projection_more():
    with without_values():
        ordinary = MODELS["resnet18"].build((32, 32, 3), 10).count_params()
        found = scale_resnet((32, 32, 3), 10).count_params()
    # The first block strides where the other has a max-pool: a 1x1 kernel and its normalisation.
    assert found == ordinary + 64 * 64 + 4 * 64


@pytest.mark.parametrize("pyramid", [False, True])
@pytest.mark.parametrize("build", [simple_scale_network, pytest.param(scale_resnet, marks=SLOW)])
def test_a_network_trains_and_is_saved(build, pyramid, rng, tmp_path):
    scales = Scales(3, pyramid=pyramid, method="bilinear" if pyramid else "gaussian")
    model = build((24, 28, 2), 5, filters=4, scales=scales)
    images = rng.normal(size=(6, 24, 28, 2)).astype("float32")
    labels = np.arange(6) % 5
    before = [to_numpy(weight.value) for weight in model.trainable_weights]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, run_eagerly=EAGER)
    model.fit(images, labels, batch_size=6, verbose=0)
    moved = [
        np.abs(to_numpy(weight.value) - old).max() > 0
        for weight, old in zip(model.trainable_weights, before, strict=True)
    ]
    assert all(moved)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(call(loaded, images), call(model, images))


@pytest.mark.once  # the layers' own tests measure it on every backend
@pytest.mark.parametrize("build", [simple_scale_network, pytest.param(scale_resnet, marks=SLOW)])
def test_features_before_the_scale_pooling_are_equivariant(build):
    """Up to the lifting: the levels of the image and of the one that is half as large differ."""
    keras.utils.set_random_seed(2)
    model = build((None, None, 1), 5, filters=4, scales=Scales(4))
    features = keras.Model(model.input, model.get_layer("scale_pooling").input)
    rows, columns = np.mgrid[:192, :160] / 24
    images = np.sin(rows + np.cos(columns))[None, :, :, None].astype("float32")
    action = ScaleSpaceAction(levels=(0,))
    assert error(features, images, action).mean() < 1e-8
    # A ResNet's zeros around coarse levels reach everywhere, but alike for both images.
    assert error(features, images, ScaleSpaceAction()).mean() < 0.1


@pytest.mark.once
def test_the_convolution_is_an_argument():
    made = []

    def make(filters, kernel_size, **arguments):
        made.append((filters, kernel_size, arguments["strides"], arguments["interaction"]))
        return ScaleConv2D(filters, kernel_size, **arguments)

    with without_values():
        scale_resnet((32, 32, 3), 5, filters=4, scales=Scales(3, interaction=2), convolution=make)
    assert len(made) == 16
    assert made[:3] == [(4, 3, 2, 2), (4, 3, 1, 2), (4, 3, 1, 2)]
    simple_scale_network((12, 12, 3), 5, 4, 5, num_layers=2, convolution=make)
    assert made[16:] == [(4, 5, 1, 1)] * 2


@pytest.mark.once
def test_the_scale_space_s_arguments_reach_the_lifting():
    scales = Scales(3, 3, 0.25)
    model = simple_scale_network((12, 12, 3), 5, 4, scales=scales, pooling="average")
    lifting = model.get_layer("lifting")
    assert isinstance(lifting, ScaleSpaceLifting2D)
    assert (lifting.num_scales, lifting.base, lifting.zero_scale) == (3, 3, 0.25)
    assert isinstance(model.get_layer("pooling"), layers.GlobalAveragePooling2D)
    assert model.get_layer("layer_1").base == 3


@pytest.mark.once
def test_what_cannot_be_is_refused_in_words():
    sentence = r"^`depth` must be one of 18, 34\. Received: depth=50\. Choose one of these\.$"
    with pytest.raises(ValueError, match=sentence):
        scale_resnet((32, 32, 3), 5, depth=50)
    sentence = r"^`pooling` must be one of 'max', 'average'\. Received: pooling='sum'\.$"
    with pytest.raises(ValueError, match=sentence):
        simple_scale_network((12, 12, 3), 5, 4, pooling="sum")
