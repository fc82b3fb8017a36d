"""The residual networks: counts known from elsewhere, and where other layers go."""

import re
from typing import Any

import keras
import numpy as np
import pytest
from backends import EAGER, call, to_numpy

from benchmarks.undrawn import without_values
from low_rank_local_connectivity import FullConv2D, layers
from low_rank_local_connectivity.inspection import layer_costs
from low_rank_local_connectivity.models import MODELS, Settings, convolution
from low_rank_local_connectivity.models.resnet import resnet

LOW_RANK, WIDE = "low_rank_locally_connected2d", "wide_conv2d"
INPUT_DEPENDENT: dict[str, Any] = {
    "input_dependent": True,
    "share_row_combining_weights": False,
    "share_col_combining_weights": False,
}


def count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def recorder(sites):
    """A way to make plain convolutions that keeps what it is told of their places."""
    make = convolution("conv2d", Settings())

    def record(site):
        sites.append(site)
        return make(site)

    return record


@pytest.mark.once
@pytest.mark.parametrize(
    ("depth", "trainable", "statistics"),
    [
        (18, 11_689_512, 9_600),
        (34, 21_797_672, 17_024),
        (50, 25_557_032, 53_120),
        (101, 44_549_160, 105_344),
    ],
)
def test_parameters_are_those_known_of_each_depth(depth, trainable, statistics):
    with without_values():
        model = MODELS[f"resnet{depth}"].build((32, 32, 3), 1000)
    assert model.name == f"resnet{depth}"
    assert count(model.trainable_weights) == trainable
    assert count(model.non_trainable_weights) == statistics
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)


@pytest.mark.once
@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].module == "resnet"])
@pytest.mark.parametrize("height_and_width", [(224, 224), (215, 200)])
def test_sizes_known_before_a_framework_loads_are_those_of_the_network(name, height_and_width):
    shape = (*height_and_width, 3)
    entry = MODELS[name]
    assert entry.num_layers == 0
    assert entry.site_sizes is not None
    if name.startswith("full_"):
        pytest.skip("tested with the sizes that are published for them")
    if name not in ("resnet18", "resnet50"):
        assert entry.site_sizes is MODELS["resnet50"].site_sizes
        return
    with without_values():
        model = entry.build(shape, 5, insert=convolution("conv2d", Settings()))
    found = {"insert": tuple(model.get_layer("inserted").output.shape[1:3])}
    for stage in entry.stages:
        of_stage = [layer for layer in model.layers if layer.name.startswith(f"{stage}_")]
        found[stage] = tuple(of_stage[-1].output.shape[1:3])
        strided = of_stage[0].output.shape[1:3]
        if name == "resnet50" and stage != "conv2":
            # The 1x1 before the strided 3x3 still has the size of the stage before.
            assert tuple(strided) == found[entry.stages[entry.stages.index(stage) - 1]]
    assert entry.site_sizes(shape) == found
    if height_and_width == (224, 224):
        assert list(found.values()) == [(112, 112), (56, 56), (28, 28), (14, 14), (7, 7)]


@pytest.mark.once
def test_a_stem_for_small_images_keeps_positions_in_every_stage():
    shape, makers = (32, 29, 3), {"insert": convolution("conv2d", Settings())}
    with without_values():
        usual, small = (resnet(shape, 5, 18, stem=stem, **makers) for stem in ("imagenet", "cifar"))
    found = {"insert": tuple(small.get_layer("inserted").output.shape[1:3])}
    for stage in MODELS["resnet18"].stages:
        found[stage] = tuple(small.get_layer(f"{stage}_block2_2").output.shape[1:3])
    assert MODELS["resnet18"].site_sizes(shape, stem="cifar") == found
    assert [*found.values()] == [(32, 29), (32, 29), (16, 15), (8, 8), (4, 4)]
    assert not [layer for layer in small.layers if isinstance(layer, keras.layers.MaxPooling2D)]
    assert small.get_layer("conv1").kernel.shape == (3, 3, 3, 64)
    # Nothing else differs.
    assert usual.count_params() - small.count_params() == (49 - 9) * 3 * 64
    for full, stem in ((True, "cifar"), (False, "other")):
        with pytest.raises(ValueError, match="`stem` must be 'imagenet', or 'cifar' in a network"):
            resnet(shape, 5, 18, stem=stem, full=full)


@pytest.mark.once
@pytest.mark.parametrize(
    ("depth", "ends", "strides"),
    [(18, "12", [2, 1, 1, 1]), (50, "2", [2, 1, 1, 1])],
)
def test_every_3x3_of_a_stage_and_no_other_layer_is_replaced(depth, ends, strides):
    sites = []
    with without_values():
        model = resnet((64, 96, 3), 5, depth, replace={"conv3": recorder(sites)})
    blocks = 4 // len(ends)
    expected = [f"conv3_block{block + 1}_{end}" for block in range(blocks) for end in ends]
    assert [site.name for site in sites] == expected
    assert [site.strides for site in sites] == strides
    assert {(site.filters, site.kernel_size, site.padding) for site in sites} == {(128, 3, "same")}
    # Of 64x96 images the stage before has 16x24 positions.
    assert [site.in_size for site in sites] == [(16, 24), (8, 12), (8, 12), (8, 12)]
    for site in sites:
        layer = model.get_layer(site.name)
        assert site.in_channels == layer.input.shape[-1]
        assert not layer.use_bias


def test_an_inserted_layer_stands_between_the_first_convolution_and_the_max_pool():
    sites = []
    with without_values():
        model = resnet((40, 32, 3), 5, 18, insert=recorder(sites))
        plain = resnet((40, 32, 3), 5, 18)
    (site,) = sites
    assert (site.filters, site.kernel_size, site.strides, site.padding) == (64, 3, 1, "same")
    assert (site.in_channels, site.in_size) == (64, (20, 16))
    names = [layer.name for layer in model.layers]
    first = ["conv1", "conv1_norm", "conv1_relu", "inserted", "inserted_norm", "inserted_relu"]
    assert names[1:8] == [*first, "max_pooling"]
    # A 3x3 convolution of 64 to 64 channels and its normalisation.
    assert count(model.trainable_weights) == count(plain.trainable_weights) + 9 * 64 * 64 + 2 * 64


@pytest.mark.once
@pytest.mark.parametrize(
    ("depth", "place", "rank", "changes"),
    [
        *((50, place, rank, {}) for place in ("insert", "conv5") for rank in (1, 7)),
        *((50, place, 4, INPUT_DEPENDENT) for place in ("insert", "conv5")),
        *((18, place, 7, {}) for place in ("insert", "conv5")),
    ],
)
def test_wide_convolutions_have_the_parameters_of_low_rank_layers(depth, place, rank, changes):
    settings = Settings(spatial_rank=rank, **changes)
    counts = {}
    for kind in (LOW_RANK, WIDE):
        make = convolution(kind, settings)
        where: dict[str, Any] = (
            {"insert": make} if place == "insert" else {"replace": {place: make}}
        )
        with without_values():
            model = resnet((224, 224, 3), 1000, depth, **where)
        counts[kind] = count(model.trainable_weights)
    assert abs(counts[WIDE] / counts[LOW_RANK] - 1) < 0.005, counts


@pytest.mark.parametrize("depth", [18, 34])
def test_the_sum_with_the_shortcut_fixes_the_width_of_a_basic_block(depth):
    make = convolution(WIDE, Settings(spatial_rank=3))
    with without_values():
        model = resnet((64, 96, 3), 5, depth, replace={"conv2": make})
    assert model.get_layer("conv2_block1_1").filters > 64
    assert model.get_layer("conv2_block1_2").filters == 64


def test_the_penalty_on_kernels_is_half_the_weight_decay_times_their_squares():
    make = convolution(LOW_RANK, Settings(spatial_rank=2))
    model = resnet((32, 48, 3), 5, 18, insert=make, weight_decay=0.25)
    kernels = [
        weight
        for weight in model.trainable_weights
        if weight.path.rpartition("/")[2] in ("kernel", "kernel_bases")
    ]
    # 20 convolutions with three projections and the inserted layer, and the logits.
    assert len(kernels) == 1 + 1 + 16 + 3 + 1
    assert len(model.losses) == len(kernels)
    expected = sum(0.125 * np.square(to_numpy(kernel.value)).sum() for kernel in kernels)
    np.testing.assert_allclose(to_numpy(sum(model.losses)), expected, rtol=1e-5)


def test_logits_are_in_float32_under_mixed_precision(rng):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = resnet((32, 48, 3), 5, 18, insert=convolution(LOW_RANK, Settings()))
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.get_layer("conv5_block2_2").compute_dtype == "bfloat16"
    assert model.get_layer("inserted").compute_dtype == "bfloat16"
    logits = call(model, rng.normal(size=(2, 32, 48, 3)).astype("float32"))
    assert logits.dtype == "float32"
    # More digits than bfloat16 has.
    assert np.abs(logits - to_numpy(keras.ops.cast(logits, "bfloat16")).astype("float32")).max() > 0


@pytest.fixture(scope="module")
def trained():
    """A network with low-rank layers of both kinds, its weights before and after one step."""
    rng = np.random.default_rng(seed=1)
    fixed = convolution(LOW_RANK, Settings(spatial_rank=3))
    dependent = convolution(LOW_RANK, Settings(spatial_rank=2, **INPUT_DEPENDENT))
    model = resnet((64, 96, 3), 5, 18, insert=fixed, replace={"conv3": dependent, "conv5": fixed})
    before = [to_numpy(weight.value) for weight in model.trainable_weights]
    model.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=not EAGER,
        run_eagerly=EAGER,
    )
    images = rng.normal(size=(4, 64, 96, 3)).astype("float32")
    model.fit(images, np.arange(4), batch_size=4, verbose=0)
    return model, before


def test_every_trainable_weight_moves_in_a_training_step(trained):
    model, before = trained
    low_rank = [x for x in model.layers if isinstance(x, layers.LowRankLocallyConnected2D)]
    assert len(low_rank) == 1 + 4 + 4
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert np.abs(to_numpy(weight.value) - old).max() > 0, f"{weight.path} stood still"


def test_a_saved_network_predicts_the_same(trained, rng, tmp_path):
    model, _ = trained
    images = rng.normal(size=(2, 64, 96, 3)).astype("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected = call(model, images)
    assert expected.shape == (2, 5)
    np.testing.assert_array_equal(call(loaded, images), expected)


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"depth": 20},
            "`depth` must be one of 18, 34, 50, 101. Received: depth=20. Choose one of these.",
        ),
        (
            {"replace": {"conv6": None, "conv1": None, "conv2": None}},
            (
                "`replace` must map stages with 3x3 convolutions (conv2, conv3, conv4, conv5) to "
                "functions that make a layer. Received: replace with 'conv1', 'conv6'. Name stages "
                "among these."
            ),
        ),
        (
            {"weight_decay": -1e-4},
            "`weight_decay` must be at least 0. Received: weight_decay=-0.0001. Use 0 for none.",
        ),
    ],
    ids=["depth", "replace", "weight_decay"],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        resnet((32, 32, 3), 5, **arguments)


# Published for full-convolution ResNets at 224 pixels: the pool's size, then each stage's.
FULL_SIZES = {18: [57, 65, 40, 27, 21], 50: [57, 63, 39, 31, 21]}


def products(model):
    costs = layer_costs(model)
    return sum(cost.flops for cost in costs if cost.kind in ("Conv2D", "FullConv2D", "Dense"))


@pytest.mark.once
@pytest.mark.parametrize("depth", FULL_SIZES)
def test_full_convolutions_grow_maps_as_published(depth):
    entry = MODELS[f"full_resnet{depth}"]
    with without_values():
        model = entry.build((224, 224, 3), 1000)
        plain = MODELS[f"resnet{depth}"].build((224, 224, 3), 1000)
    found = [model.get_layer("max_pooling").output.shape[1]]
    first = {}
    for stage in entry.stages:
        of_stage = [layer for layer in model.layers if layer.name.startswith(f"{stage}_")]
        found.append(of_stage[-1].output.shape[1])
        convolution_name = f"{stage}_block1_{2 if depth == 50 else 1}"
        first[stage] = tuple(model.get_layer(convolution_name).output.shape[1:3])
    assert found == FULL_SIZES[depth]
    sizes = entry.site_sizes((224, 224, 3))
    assert {stage: sizes[stage] for stage in entry.stages} == first
    assert model.count_params() == plain.count_params()
    # Of multiplications and additions by weights: 5.56 against 1.81 thousand million, and 3.14.
    ratio = products(model) / products(plain)
    assert ratio == pytest.approx({18: 3.07, 50: 3.14}[depth], abs=0.01)


@pytest.mark.parametrize("depth", [18, pytest.param(50, marks=pytest.mark.slow)])
def test_full_blocks_add_what_was_read_around_the_same_pixel(depth, rng):
    """An object moved by a multiple of all strides moves the maps and pools to the same."""
    model = MODELS[f"full_resnet{depth}"].build((128, 160, 3), 5)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
    images = np.zeros((2, 128, 160, 3), "float32")
    thing = rng.normal(size=(40, 50, 3))
    images[0, 8:48, 16:66] = thing
    images[1, 72:112, 80:130] = thing
    pooled = keras.Model(model.input, model.get_layer("pooling").output)
    first, second = to_numpy(pooled(images, training=False))
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4 * np.abs(first).max())


@pytest.mark.once
def test_other_layers_of_a_full_network_get_zeros_around_their_input():
    make = convolution(LOW_RANK, Settings(spatial_rank=2))
    plain = convolution("conv2d", Settings())
    shape = (64, 96, 3)
    full = MODELS["full_resnet18"]
    model = full.build(shape, 5, insert=make, replace={"conv3": make})
    other = full.build(shape, 5, insert=plain)
    for layer in other.layers:
        if "padding" not in layer.name:
            assert model.get_layer(layer.name).output.shape == layer.output.shape
    assert isinstance(other.get_layer("conv1"), FullConv2D)
