"""Every local layer against NumPy loops over positions, forward and backward."""

import sys

import numpy as np
import pytest
import reference
from backends import outputs_and_gradients, randomize, to_numpy
from pairwise import pairwise

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.ops.local_convolution import SMALLEST_SLAB
from low_rank_local_connectivity.plans import low_rank

# The package `ops` exports a function of the same name.
SLAB_MODULE = sys.modules["low_rank_local_connectivity.ops.local_convolution"]

# Batch, spatial, channels: in no tensor of these tests do two axes have the same length.
INPUTS = {1: (2, 13, 4), 2: (2, 8, 11, 4), 3: (2, 5, 7, 6, 3)}
KERNELS = {1: 3, 2: (3, 2), 3: (2, 1, 3)}
FILTERS = 6
AMOUNTS = {1: ((1, 3),), 2: ((1, 3), (0, 2)), 3: ((1, 0), (3, 1), (0, 2))}
AXIS_NAMES = {1: ["length"], 2: ["row", "col"], 3: ["depth", "row", "col"]}


def as_tuple(value, dimensions):
    return value if isinstance(value, tuple) else (value,) * dimensions


def weights_by_name(layer):
    """Maps paths below the layer to float64 copies of its weights."""
    copies = {}
    for weight in layer.weights:
        copies[weight.path.removeprefix(f"{layer.name}/")] = to_numpy(weight.value).astype(float)
    return copies


def locally_connected(layer, weights, inputs):
    """The reference output of a LocallyConnected layer for channels-last inputs."""
    dimensions = inputs.ndim - 2
    structure = layer.kernel_size, layer.strides, layer.dilation_rate
    positions = reference.output_shape(inputs.shape[1:-1], *structure, layer.padding)
    multiplier = getattr(layer, "depth_multiplier", None)
    filters = multiplier * inputs.shape[-1] if multiplier else FILTERS
    channels = inputs.shape[-1] // (1 if multiplier else layer.groups)
    kernel = weights["kernel"]
    if layer.data_format == "channels_first":
        kernel = kernel.reshape(*positions, channels, *layer.kernel_size, multiplier or FILTERS)
        kernel = np.moveaxis(kernel, dimensions, -2)
    reads = inputs.shape[-1] // layer.groups
    kernel = kernel.reshape(*positions, *layer.kernel_size, reads, filters)
    parts = reference.in_groups(layer.groups, inputs, [kernel])
    outputs = np.concatenate(
        [
            reference.local_convolution(part, filters, *structure[1:], layer.padding)
            for part, (filters,) in parts
        ],
        axis=-1,
    )
    if "bias" in weights:
        if layer.data_format == "channels_first":
            bias = weights["bias"].ravel().reshape(filters, *positions)
            outputs += np.moveaxis(bias, 0, -1)
        else:
            outputs += weights["bias"]
    return outputs


def low_rank_locally_connected(layer, weights, inputs):
    """The reference output of a LowRankLocallyConnected layer for channels-last inputs."""
    dimensions = inputs.ndim - 2
    rank = layer.spatial_rank
    sizes = layer.kernel_size if isinstance(layer.kernel_size, list) else [layer.kernel_size] * rank
    rates = layer.dilation_rate
    rates = rates if isinstance(rates, list) else [rates] * rank
    banks = banks_of(layer, weights)
    positions = reference.output_shape(
        inputs.shape[1:-1], sizes[0], layer.strides, rates[0], layer.padding
    )
    logits = combining_logits(weights, positions, rank, inputs)
    mixing = reference.normalize(logits, layer.normalize_weights)
    mixing = np.broadcast_to(mixing, (len(inputs), *positions, rank))
    outputs = np.concatenate(
        [
            reference.low_rank_local_convolution(
                part, filters, mixing, layer.strides, rates, layer.padding
            )
            for part, filters in reference.in_groups(layer.groups, inputs, banks)
        ],
        axis=-1,
    )
    if "pointwise_kernel" in weights:
        outputs = outputs @ weights["pointwise_kernel"].reshape(-1, FILTERS)
    for axis, name in enumerate(
        {1: ["length"], 2: ["row", "col"], 3: ["depth", "row", "col"]}[dimensions]
    ):
        if f"bias_{name}" in weights:
            values = weights[f"bias_{name}"].ravel()
            for index, value in enumerate(values):
                where = (slice(None),) * (axis + 1) + (index,)
                outputs[where] += value
    return outputs + weights.get("spatial_bias", 0) + weights.get("bias", 0)


def banks_of(layer, weights):
    """Each bank by itself, its filters behind one another, those of the first channels first."""
    rank = layer.spatial_rank
    if "kernel_bases" in weights:
        joint = weights["kernel_bases"]
        banks = np.moveaxis(joint.reshape(*joint.shape[:-1], rank, -1), -2, 0)
    else:
        banks = [weights[f"kernel_bases_{k}"] for k in range(rank)]
    if not hasattr(layer, "depth_multiplier"):
        return list(banks)
    return [bank.reshape(*bank.shape[:-2], 1, -1) for bank in banks]


def combining_logits(weights, positions, rank, inputs):
    """The logits `(1 or batch, *positions, rank)`."""
    if any(name.startswith("combining_weights/") for name in weights):
        names = {name.removeprefix("combining_weights/"): w for name, w in weights.items()}
        return reference.predicted_logits(inputs, names, positions, (1, 2, 4, 8))
    if "combining_weights" in weights:
        return weights["combining_weights"][None]
    logits = np.zeros((1, *positions, rank))
    for position in np.ndindex(*positions):
        for axis, name in enumerate(AXIS_NAMES[len(positions)]):
            if f"combining_weights_{name}" in weights:
                logits[(0, *position)] += weights[f"combining_weights_{name}"][position[axis]]
    return logits


# Relative to the largest number: a few roundings, in float32 of forward sums and of the quotients
# of finite differences, in less of each operand.
TOLERANCES = {"float32": (1e-5, 2e-4), "float16": (4e-3, 8e-3), "bfloat16": (3e-2, 6e-2)}


@pytest.fixture(autouse=True)
def inference_adds_responses_one_by_one(monkeypatch):
    """As on large inputs; with `training=True` the layers convolve with all banks at once."""
    monkeypatch.setattr(low_rank, "MOST_RESPONSES", 0)


def check(layer, expected_of, dimensions, rng, entries=2, training=None, prepare=randomize):
    """Compares outputs and gradients of a layer with those of its definition."""
    tolerance, gradient_tolerance = TOLERANCES[layer.compute_dtype]
    inputs = rng.normal(size=INPUTS[dimensions])
    channels_first = layer.data_format == "channels_first"

    def arrange(array, to_first):
        return np.moveaxis(array, -1, 1) if channels_first and to_first else array

    given = arrange(inputs, True).astype("float32")
    layer.build(given.shape)
    prepare(layer, rng)
    weights = weights_by_name(layer)
    expected = expected_of(layer, weights, inputs)
    projection = rng.normal(size=expected.shape)
    outputs, found = outputs_and_gradients(
        layer, given, arrange(projection, True).astype("float32"), training=training
    )
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        outputs, arrange(expected, True), rtol=tolerance, atol=tolerance * scale
    )
    found[0] = np.moveaxis(found[0], 1, -1) if channels_first else found[0]

    def loss(name, values):
        if name is None:
            return float((expected_of(layer, weights, values) * projection).sum())
        return float((expected_of(layer, {**weights, name: values}, inputs) * projection).sum())

    # Where a gradient is 0 in theory (norm of a single logit), rounding leaves noise of this size.
    noise = 2 * tolerance * max(np.abs(gradient).max() for gradient in found)
    trainable = [v.path.removeprefix(f"{layer.name}/") for v in layer.trainable_variables]
    for name, gradient in zip([None, *trainable], found, strict=True):
        values = inputs if name is None else weights[name]
        assert gradient.shape == values.shape
        scale = np.abs(gradient).max()
        for _ in range(entries):
            index = tuple(rng.integers(values.shape))
            slope = reference.finite_difference(lambda v, n=name: loss(n, v), values, index)
            atol = gradient_tolerance * scale + noise
            np.testing.assert_allclose(gradient[index], slope, rtol=gradient_tolerance, atol=atol)


@pytest.mark.once
@pytest.mark.parametrize("padding", ["valid", "same", "reflect", AMOUNTS[2]])
@pytest.mark.parametrize("structure", [((1, 1), (1, 1)), ((2, 3), (1, 1)), ((3, 1), (2, 3))])
def test_the_reference_s_windows_are_what_a_loop_over_positions_and_taps_reads(
    structure, padding, rng
):
    inputs = rng.normal(size=INPUTS[2])
    positions = reference.output_shape((8, 11), KERNELS[2], *structure, padding)
    kernel = rng.normal(size=(*positions, *KERNELS[2], 4, FILTERS))
    found = reference.local_convolution(inputs, kernel, *structure, padding)
    for position in np.ndindex(*positions):
        expected = reference.apply_filter(inputs, kernel[position], position, *structure, padding)
        np.testing.assert_allclose(found[(slice(None), *position)], expected, atol=1e-12)


LOCALLY_CONNECTED = {
    "strides": [1, 2],
    "dilation_rate": [1, 2],
    "padding": ["valid", "same", "circular", "reflect", "replicate", "amounts"],
    "data_format": ["channels_last", "channels_first"],
    "use_bias": [True, False],
    "smallest_slab": [1, SMALLEST_SLAB],
    "in_groups": [False, True],
}
# Of volumes each channel has filters of its own.
GROUPS = {1: 2, 2: 2, 3: 3}
LOW_RANK = {
    **LOCALLY_CONNECTED,
    "spatial_rank": [1, 5],
    "sharing": ["all", "first", "last", "full"],
    "normalize_weights": ["softmax", "norm", None],
    "use_spatial_bias": [True, "per_filter", False],
    "implementation": ["convolve_then_combine", "combine_then_convolve"],
    "training": [False, True],
}


def as_given(choice, dimensions):
    """Returns a choice as arguments, amounts of padding being as many as there are dimensions."""
    named = choice["padding"] != "amounts"
    return {**choice, "padding": choice["padding"] if named else AMOUNTS[dimensions]}


def label(choice):
    return "-".join(f"{name}={value}" for name, value in choice.items())


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("choice", pairwise(LOCALLY_CONNECTED), ids=label)
def test_locally_connected_equals_its_definition(dimensions, choice, rng, monkeypatch):
    choice = as_given(choice, dimensions)
    monkeypatch.setattr(SLAB_MODULE, "SMALLEST_SLAB", choice.pop("smallest_slab"))
    monkeypatch.setattr(SLAB_MODULE, "SMALLEST_BATCH", 1)
    groups = GROUPS[dimensions] if choice.pop("in_groups") else 1
    layer_class = getattr(layers, f"LocallyConnected{dimensions}D")
    layer = layer_class(FILTERS, KERNELS[dimensions], groups=groups, **choice)
    check(layer, locally_connected, dimensions, rng)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("choice", pairwise(LOW_RANK), ids=label)
def test_low_rank_locally_connected_equals_its_definition(dimensions, choice, rng, monkeypatch):
    choice = as_given(choice, dimensions)
    monkeypatch.setattr(SLAB_MODULE, "SMALLEST_SLAB", choice.pop("smallest_slab"))
    sharing, training = choice.pop("sharing"), choice.pop("training")
    groups = GROUPS[dimensions] if choice.pop("in_groups") else 1
    axes = {"all": None, "first": (0,), "last": (dimensions - 1,), "full": ()}[sharing]
    layer_class = getattr(layers, f"LowRankLocallyConnected{dimensions}D")
    layer = layer_class(FILTERS, KERNELS[dimensions], additive_axes=axes, groups=groups, **choice)
    check(layer, low_rank_locally_connected, dimensions, rng, training=training)


DEPTHWISE = {
    "depth_multiplier": [1, 3],
    "strides": [1, 2, (2, 1)],
    "dilation_rate": [1, 2],
    "padding": ["valid", "same", "reflect"],
    "data_format": ["channels_last", "channels_first"],
    "implementation": ["convolve_then_combine", "combine_then_convolve"],
}


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("choice", pairwise(DEPTHWISE), ids=label)
def test_depthwise_layers_equal_their_definition(dimensions, choice, rng):
    if dimensions == 1:
        choice = {**choice, "strides": np.max(choice["strides"]).item()}
    kernel_size = KERNELS[dimensions]
    plan = choice["implementation"]
    options = {name: value for name, value in choice.items() if name != "implementation"}
    local = getattr(layers, f"DepthwiseLocallyConnected{dimensions}D")(kernel_size, **options)
    check(local, locally_connected, dimensions, rng, entries=1)
    for kind, filters in (("Depthwise", ()), ("Separable", (FILTERS,))):
        low_rank_class = getattr(layers, f"{kind}LowRankLocallyConnected{dimensions}D")
        layer = low_rank_class(*filters, kernel_size, 5, **choice)
        training = plan.startswith("convolve")
        check(layer, low_rank_locally_connected, dimensions, rng, 1, training)


@pytest.mark.parametrize("kind", ["Depthwise", "Separable"])
def test_input_dependent_mixed_depthwise_layers_equal_their_definition(kind, rng):
    filters = (FILTERS,) if kind == "Separable" else ()
    layer = getattr(layers, f"{kind}LowRankLocallyConnected2D")(
        *filters, [1, (5, 2)], 2, padding="same", depth_multiplier=3, input_dependent=True
    )
    check(layer, low_rank_locally_connected, 2, rng, entries=1)


def randomize_away_from_kinks(layer, rng):
    """As randomize, with no unit of the predictor so close to 0 that rounding switches it."""
    randomize(layer, rng)
    if layer.predictor is not None:
        rectified, saturating, _ = layer.predictor.aggregation
        for dense in (rectified, saturating):
            dense.kernel.assign(0.1 * dense.kernel)
        rectified.bias.assign(3.0 * (-1.0) ** np.arange(rectified.units))


# What convolves with whole banks has no slabs.
SLABS = [(plan, slab) for plan in (None, "combine_then_convolve") for slab in (1, SMALLEST_SLAB)]
SLABS += [(plan, SMALLEST_SLAB) for plan in ("convolve_then_combine", "input_dependent")]


@pytest.mark.parametrize(
    ("dimensions", "dtype"),
    [
        *((dimensions, "float16") for dimensions in (1, 2, 3)),
        (2, "bfloat16"),
        *(pytest.param(dimensions, "bfloat16", marks=pytest.mark.slow) for dimensions in (1, 3)),
    ],
)
@pytest.mark.parametrize(("plan", "smallest_slab"), SLABS)
def test_layers_equal_their_definition_in_low_precision(
    dimensions, smallest_slab, dtype, plan, rng, monkeypatch
):
    monkeypatch.setattr(SLAB_MODULE, "SMALLEST_SLAB", smallest_slab)
    monkeypatch.setattr(SLAB_MODULE, "SMALLEST_BATCH", 1)
    arguments = {"dtype": f"mixed_{dtype}"}
    kernel_size = KERNELS[dimensions]
    if plan is None:
        layer = getattr(layers, f"LocallyConnected{dimensions}D")(FILTERS, kernel_size, **arguments)
        check(layer, locally_connected, dimensions, rng)
        return
    kind = {"input_dependent": True} if plan == "input_dependent" else {"implementation": plan}
    layer_class = getattr(layers, f"LowRankLocallyConnected{dimensions}D")
    for training in (False, True):
        layer = layer_class(FILTERS, kernel_size, 5, **kind, **arguments)
        check(
            layer,
            low_rank_locally_connected,
            dimensions,
            rng,
            training=training,
            prepare=randomize_away_from_kinks,
        )


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("sharing", [None, (0,), (1,), ()])
def test_axes_of_equal_length_are_not_confused(sharing, use_bias, rng, monkeypatch):
    """Keras adds a tensor with one long axis along axis 1 or the last, whichever is as long."""
    monkeypatch.setitem(INPUTS, 2, (2, FILTERS, FILTERS, FILTERS))
    layer = layers.LowRankLocallyConnected2D(
        FILTERS, 3, FILTERS, padding="same", additive_axes=sharing, use_bias=use_bias
    )
    check(layer, low_rank_locally_connected, 2, rng)


@pytest.mark.parametrize("layer_class", ["LocallyConnected1D", "LowRankLocallyConnected1D"])
@pytest.mark.parametrize("structure", [{"dilation_rate": 2}, {"strides": 2}])
def test_causal_padding_equals_its_definition(layer_class, structure, rng):
    low_rank = layer_class.startswith("LowRank")
    rank = {"spatial_rank": 5} if low_rank else {}
    layer = getattr(layers, layer_class)(FILTERS, 3, padding="causal", **structure, **rank)
    check(layer, low_rank_locally_connected if low_rank else locally_connected, 1, rng)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(
    ("data_format", "rank", "strides", "padding", "normalize_weights", "training"),
    [
        ("channels_last", 5, 1, "valid", "softmax", False),
        ("channels_last", 5, 1, "valid", "softmax", True),
        ("channels_first", 5, 2, "same", "norm", False),
        ("channels_last", 1, 1, "same", None, True),
    ],
)
def test_input_dependent_layers_equal_their_definition(
    dimensions, data_format, rank, strides, padding, normalize_weights, training, rng
):
    layer = getattr(layers, f"LowRankLocallyConnected{dimensions}D")(
        FILTERS,
        KERNELS[dimensions],
        rank,
        strides,
        padding,
        data_format,
        input_dependent=True,
        normalize_weights=normalize_weights,
    )
    check(layer, low_rank_locally_connected, dimensions, rng, entries=1, training=training)


MIXED = [
    {"kernel_size": [1, 3, (5, 2)], "dilation_rate": 1},
    {"kernel_size": [2, 4, (3, 4)], "dilation_rate": 1},
    {"kernel_size": 3, "dilation_rate": [1, 2, (3, 1)]},
    {"kernel_size": [(2, 3), 1, 3], "dilation_rate": [2, 1, 1]},
]


@pytest.mark.parametrize("shape", [(2, 8, 11, 4), (2, 9, 12, 4)], ids=["even-odd", "odd-even"])
@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("basis", MIXED)
def test_mixed_basis_equals_its_definition(shape, strides, basis, rng, monkeypatch):
    monkeypatch.setitem(INPUTS, 2, shape)
    layer = layers.LowRankLocallyConnected2D(
        FILTERS, spatial_rank=3, strides=strides, padding="same", groups=1 + strides % 2, **basis
    )
    check(layer, low_rank_locally_connected, 2, rng, entries=1, training=strides == 2)


@pytest.mark.parametrize("strides", [1, 3])
def test_each_bank_of_a_mixed_basis_has_a_border_of_its_own(strides, rng):
    layer = layers.LowRankLocallyConnected2D(
        FILTERS, [2, 4, (3, 4)], 3, strides, "circular", dilation_rate=[1, 1, (3, 1)]
    )
    check(layer, low_rank_locally_connected, 2, rng, entries=1)
