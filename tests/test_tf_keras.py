"""LocallyConnected1D and 2D against the layers that Keras 2 had, with their weights."""

import numpy as np
import pytest
from backends import randomize, to_numpy

from low_rank_local_connectivity import layers

tf_keras = pytest.importorskip("tf_keras", reason="tf_keras is not installed")

FILTERS = 6
CASES = {
    1: {"shape": (2, 13, 4), "kernel_size": 3, "strides": [1, 2]},
    2: {"shape": (2, 8, 11, 4), "kernel_size": (3, 2), "strides": [1, (2, 3)]},
}


def other_storage(kernel, ours, implementation):
    """Lays out implementation 1's kernel as implementation 2 (dense) or 3 (sparse) stores it."""
    spatial = ours.input_sizes
    positions = ours.output_sizes
    channels_first = ours.data_format == "channels_first"
    taps = ours.kernel_size
    cin = ours.input_channels
    features = (cin, *taps) if channels_first else (*taps, cin)
    values = kernel.reshape(*positions, *features, FILTERS)
    order = (cin, *spatial) if channels_first else (*spatial, cin)
    outputs = (FILTERS, *positions) if channels_first else (*positions, FILTERS)
    dense = np.zeros((*order, *outputs), "float32")
    mask = np.zeros(dense.shape, bool)
    for position in np.ndindex(*positions):
        for tap in np.ndindex(*taps):
            steps = zip(position, ours.strides, tap, strict=True)
            element = tuple(p * stride + t for p, stride, t in steps)
            if channels_first:
                where = (slice(None), *element, slice(None), *position)
                dense[where] = values[(*position, slice(None), *tap)]
            else:
                where = (*element, slice(None), *position, slice(None))
                dense[where] = values[(*position, *tap)]
            mask[where] = True
    if implementation == 2:
        return dense
    # Implementation 3 keeps the entries of the mask, by flattened output, then flattened input.
    size = (int(np.prod(order)), int(np.prod(outputs)))
    return dense.reshape(size).T[mask.reshape(size).T]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("implementation", [1, 2, 3])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("strides", [0, 1], ids=["stride-1", "strided"])
@pytest.mark.parametrize("dimensions", [1, 2])
def test_equals_tf_keras_with_its_weights(
    dimensions, strides, use_bias, implementation, data_format, rng
):
    case = CASES[dimensions]
    arguments = {
        "kernel_size": case["kernel_size"],
        "strides": case["strides"][strides],
        "data_format": data_format,
        "use_bias": use_bias,
        "activation": "tanh",
    }
    inputs = rng.normal(size=case["shape"]).astype("float32")
    if data_format == "channels_first":
        inputs = np.moveaxis(inputs, -1, 1)
    name = f"LocallyConnected{dimensions}D"
    ours = getattr(layers, name)(FILTERS, **arguments)
    theirs = getattr(tf_keras.layers, name)(FILTERS, **arguments, implementation=implementation)
    theirs.build(inputs.shape)
    ours.build(inputs.shape)
    randomize(ours, rng)
    values = [to_numpy(weight.value) for weight in ours.weights]
    names = [weight.name.split("/")[-1].split(":")[0] for weight in theirs.weights]
    assert [weight.name for weight in ours.weights] == names
    if implementation == 1:
        assert [value.shape for value in values] == [tuple(w.shape) for w in theirs.weights]
    else:
        values[0] = other_storage(values[0], ours, implementation)
    theirs.set_weights(values)
    expected = theirs(inputs).numpy()
    np.testing.assert_allclose(to_numpy(ours(inputs)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["LocallyConnected1D", "LocallyConnected2D"])
def test_arguments_stand_in_the_order_of_keras_2(name):
    import inspect

    def positional(layer_class):
        parameters = inspect.signature(layer_class.__init__).parameters.values()
        return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

    assert positional(getattr(layers, name)) == positional(getattr(tf_keras.layers, name))


def test_the_initial_scale_of_keras_2_is_available():
    arguments = {"filters": 64, "kernel_size": 3, "kernel_initializer": "he_uniform"}
    shape = (None, 16, 17, 32)
    theirs = tf_keras.layers.LocallyConnected2D(**arguments)
    theirs.build(shape)
    ours = layers.LocallyConnected2D(**arguments, fan="kernel")
    ours.build(shape)
    ratio = to_numpy(ours.kernel.value).std() / theirs.kernel.numpy().std()
    assert ratio == pytest.approx(1, rel=0.02)
