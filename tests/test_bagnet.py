"""The bags of local features: counts known from elsewhere, what they see, where layers go."""

import re

import keras
import numpy as np
import pytest
from backends import EAGER, to_numpy

from benchmarks.undrawn import without_values
from low_rank_local_connectivity.inspection import receptive_field
from low_rank_local_connectivity.models import MODELS, Settings, convolution
from low_rank_local_connectivity.models.bagnet import bagnet

NAMES = {9: "bagnet9", 17: "bagnet17", 33: "bagnet33"}


def body_of(model):
    return keras.Model(model.input, model.get_layer("pooling").input)


@pytest.mark.once
@pytest.mark.parametrize(
    ("seen", "trainable"), [(9, 15_688_872), (17, 16_213_160), (33, 18_310_312)]
)
def test_parameters_are_a_resnet_50_s_with_smaller_kernels(seen, trainable):
    with without_values():
        model = MODELS[NAMES[seen]].build((64, 64, 3), 1000)
        plain = MODELS["resnet50"].build((64, 64, 3), 1000)
    assert sum(int(np.prod(one.shape)) for one in model.trainable_weights) == trainable
    missing = sum(int(np.prod(one.shape)) for one in plain.trainable_weights) - trainable
    # 7x7 of 3 channels gives way to 1x1 and 3x3, with a second normalisation; each other 3x3 of
    # `f` channels to 1x1.
    first = 49 * 3 * 64 - 3 * 64 - 9 * 64 * 64 - 2 * 64
    blocks = dict(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True))
    wide = {9: 2, 17: 3, 33: 4}[seen]
    lost = sum(
        8 * f * f * (count - (index < wide)) for index, (f, count) in enumerate(blocks.items())
    )
    assert missing == first + lost


@pytest.mark.once
@pytest.mark.parametrize("seen", [9, pytest.param(17, marks=pytest.mark.slow), 33])
def test_a_feature_sees_a_patch_of_its_size_and_no_more(seen, rng):
    body = body_of(bagnet((49, 57, 2), 5, seen))
    field = receptive_field(body)[-1]
    assert (field.sizes, field.strides, field.starts) == ((seen, seen), (8, 8), (0, 0))
    images = rng.normal(size=(1, 49, 57, 2)).astype("float32")
    changed = images.copy()
    # The patch of the feature in row 1, column 2, alone stays as it is.
    rows, columns = slice(8, 8 + seen), slice(16, 16 + seen)
    changed[:] = 0
    changed[:, rows, columns] = images[:, rows, columns]
    before, after = (to_numpy(body(one))[0] for one in (images, changed))
    np.testing.assert_allclose(after[1, 2], before[1, 2], rtol=0, atol=1e-5)
    assert np.abs(after - before).max() > 1e-3


@pytest.mark.once
@pytest.mark.parametrize("name", NAMES.values())
def test_sizes_known_before_a_framework_loads_are_those_of_the_network(name):
    entry = MODELS[name]
    sites = {}

    def recorder(stage):
        make = convolution("conv2d", Settings())

        def record(site):
            sites[stage] = site.out_size()
            return make(site)

        return record

    replace = {stage: recorder(stage) for stage in entry.stages}
    found = entry.site_sizes((65, 78, 3))
    with without_values():
        entry.build((65, 78, 3), 5, replace=replace)
        assert {stage: found[stage] for stage in entry.stages} == sites
        entry.build((65, 78, 3), 5, insert=recorder("insert"))
    assert found["insert"] == sites["insert"]


def test_logits_are_means_over_patches_and_train(rng):
    make = convolution("low_rank_locally_connected2d", Settings(spatial_rank=2))
    model = bagnet((21, 23, 3), 4, 17, insert=make, replace={"conv4": make}, weight_decay=1e-4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, run_eagerly=EAGER)
    images = rng.normal(size=(2, 21, 23, 3)).astype("float32")
    features = to_numpy(body_of(model)(images))
    kernel, bias = (to_numpy(weight) for weight in model.get_layer("logits").weights)
    expected = (features @ kernel + bias).mean(axis=(1, 2))
    np.testing.assert_allclose(
        to_numpy(model(images)), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )
    assert np.isfinite(model.train_on_batch(images, np.array([0, 1])))


def test_what_cannot_be_is_refused_in_a_sentence():
    sentence = "`receptive_field` must be one of 9, 17, 33. Received: receptive_field=20. Choose "
    with pytest.raises(ValueError, match=f"^{re.escape(sentence + 'one of these.')}$"):
        bagnet((64, 64, 3), 5, 20)
    sentence = (
        "`replace` must map stages with 3x3 convolutions (conv2, conv3) to functions that make a "
        "layer. Received: replace with 'conv5'. Name stages among these."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        bagnet((64, 64, 3), 5, 9, replace={"conv5": convolution("conv2d", Settings())})
