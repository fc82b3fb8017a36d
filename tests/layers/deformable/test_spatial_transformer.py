"""The spatial transformer against PyTorch's affine grid and sampling."""

import keras
import numpy as np
import pytest
from backends import call, compute, outputs_and_gradients, to_numpy

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.export import export_model
from low_rank_local_connectivity.ops import sample_affine

SHAPE = (3, 8, 11, 4)


def network(data_format="channels_last"):
    return keras.Sequential(
        [
            keras.layers.AveragePooling2D(3, data_format=data_format),
            keras.layers.Conv2D(5, 1, activation="tanh", data_format=data_format),
        ]
    )


def some_maps(rng):
    """Near the identity, so that images are read inside and outside."""
    return (np.float32([[1, 0, 0], [0, 1, 0]]) + 0.4 * rng.normal(size=(3, 2, 3))).astype("float32")


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("output_size", [None, (5, 13), (1, 6)])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.filterwarnings("ignore:Since version 1.3.0, affine_grid:UserWarning")
def test_sampling_is_that_of_pytorch(padding, output_size, align_corners, rng):
    torch = pytest.importorskip("torch")
    images, maps = rng.normal(size=SHAPE).astype("float32"), some_maps(rng)
    if padding != "zeros":
        maps = 3 * maps  # reads beyond the opposite side, too
    found = to_numpy(sample_affine(images, maps, output_size, align_corners, padding))
    size = (3, 4, *(output_size or SHAPE[1:3]))
    grid = torch.nn.functional.affine_grid(torch.tensor(maps), size, align_corners)
    images = torch.tensor(np.moveaxis(images, -1, 1))
    expected = torch.nn.functional.grid_sample(
        images, grid, padding_mode=padding, align_corners=align_corners
    )
    np.testing.assert_allclose(found, np.moveaxis(expected.numpy(), 1, -1), atol=2e-5)


@pytest.mark.parametrize("align_corners", [True, False])
def test_homographies_read_where_a_plane_is_seen(align_corners, rng):
    torch = pytest.importorskip("torch")
    images = rng.normal(size=SHAPE).astype("float32")
    maps = np.concatenate([some_maps(rng), rng.uniform(-0.4, 0.4, (3, 1, 3))], axis=1)
    maps[:, 2, 2] = 1
    found = to_numpy(sample_affine(images, maps.astype("float32"), (5, 13), align_corners))
    edges = (1, 1) if align_corners else (4 / 5, 12 / 13)
    y, x = np.meshgrid(*(np.linspace(-e, e, n) for e, n in zip(edges, (5, 13), strict=True)))
    places = np.stack([x.T, y.T, np.ones_like(x.T)], axis=-1) @ np.swapaxes(maps, 1, 2)[:, None]
    grid = torch.tensor((places[..., :2] / places[..., 2:]).astype("float32"))
    expected = torch.nn.functional.grid_sample(
        torch.tensor(np.moveaxis(images, -1, 1)), grid, align_corners=align_corners
    )
    np.testing.assert_allclose(found, np.moveaxis(expected.numpy(), 1, -1), atol=1e-4)


def test_a_plane_seen_edge_on_or_from_behind_is_read_from_far_away(rng):
    images = rng.normal(size=(1, 8, 11, 4)).astype("float32")
    for z in (0.0, -1.0):
        behind = np.float32([[[1, 0, 0.5], [0, 1, 0.5], [0, 0, z]]])
        assert (to_numpy(sample_affine(images, behind, (4, 2))) == 0).all()


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_the_layer_starts_as_the_identity(data_format, align_corners, rng):
    if data_format == "channels_first" and keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow's convolution on CPUs, in the network here, wants channels last")
    shape = SHAPE if data_format == "channels_last" else (3, 4, 8, 11)
    layer = layers.SpatialTransformer2D(
        network(data_format), align_corners=align_corners, data_format=data_format
    )
    images = rng.normal(size=shape).astype("float32")
    layer.build(shape)
    np.testing.assert_allclose(call(layer, images), images, rtol=0, atol=1e-6)


def test_the_identity_of_a_large_image_is_exact(rng):
    images = rng.normal(size=(1, 301, 517, 1)).astype("float32")
    identity = np.float32([[[1, 0, 0], [0, 1, 0]]])
    for align_corners in (True, False):
        found = to_numpy(sample_affine(images, identity, align_corners=align_corners))
        np.testing.assert_array_equal(found, images)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_each_image_is_read_where_its_features_say(data_format, rng):
    pooling = keras.layers.GlobalAveragePooling2D(data_format=data_format)
    layer = layers.SpatialTransformer2D(pooling, output_size=(5, 6), data_format=data_format)
    images = rng.normal(size=SHAPE).astype("float32")
    given = images if data_format == "channels_last" else np.moveaxis(images, -1, 1)
    layer.build(given.shape)
    kernel, bias = rng.normal(size=(4, 6)), rng.normal(size=6)
    layer.set_weights([kernel, bias])
    maps = (images.mean((1, 2)) @ kernel + bias).reshape(3, 2, 3).astype("float32")
    np.testing.assert_allclose(compute(layer.transformations, given), maps, atol=1e-5)
    found = call(layer, given)
    found = found if data_format == "channels_last" else np.moveaxis(found, 1, -1)
    expected = to_numpy(sample_affine(images, maps, (5, 6)))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("transformation", ["affine", "homography"])
def test_gradients_reach_the_localization_network_and_the_images(transformation, rng):
    layer = layers.SpatialTransformer2D(network(), transformation=transformation)
    layer.build(SHAPE)
    layer.kernel.assign(0.1 * rng.normal(size=layer.kernel.shape))
    images = rng.normal(size=SHAPE).astype("float32")
    _, found = outputs_and_gradients(layer, images, rng.normal(size=SHAPE).astype("float32"))
    assert len(found) == 5
    assert all(np.abs(gradient).max() > 0 for gradient in found)


def test_gradients_for_the_images_are_the_adjoint_of_sampling(rng):
    pooling = keras.layers.GlobalAveragePooling2D()
    layer = layers.SpatialTransformer2D(pooling, output_size=(5, 6))
    layer.build(SHAPE)
    layer.bias.assign(some_maps(rng)[0].ravel())
    images = rng.normal(size=SHAPE).astype("float32")
    projection = rng.normal(size=(3, 5, 6, 4)).astype("float32")
    outputs, found = outputs_and_gradients(layer, images, projection)
    # With the map fixed the layer is linear in the images.
    np.testing.assert_allclose((found[0] * images).sum(), (outputs * projection).sum(), rtol=1e-3)


def test_images_may_have_any_size_if_the_features_are_pooled(rng):
    layer = layers.SpatialTransformer2D(keras.layers.GlobalAveragePooling2D())
    model = keras.Sequential([keras.Input((None, None, 4)), layer])
    layer.bias.assign(some_maps(rng)[0].ravel())
    for size in ((8, 11), (9, 7)):
        images = rng.normal(size=(2, *size, 4)).astype("float32")
        maps = compute(layer.transformations, images)
        expected = to_numpy(sample_affine(images, maps))
        np.testing.assert_allclose(model.predict(images, verbose=0), expected, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow writes ONNX")
def test_an_export_to_onnx_computes_the_same(rng, tmp_path):
    for package in ("onnxruntime", "tf2onnx"):
        pytest.importorskip(package)
    layer = layers.SpatialTransformer2D(network(), output_size=(5, 6))
    inputs = keras.Input(SHAPE[1:], name="image")
    model = keras.Model(inputs, layer(inputs))
    layer.kernel.assign(0.1 * rng.normal(size=layer.kernel.shape))
    # Verified on batches of 1 and of 7.
    manifest = export_model(model, tmp_path / "served", ["onnx"], tolerance=1e-5)
    assert manifest["formats"]["onnx"]["difference"] <= 1e-5


ERRORS = {
    "no network": (
        lambda: layers.SpatialTransformer2D("pool"),
        (
            "`localization` must be a layer or model from images to features. Received: "
            "localization='pool'."
        ),
    ),
    "output size": (
        lambda: layers.SpatialTransformer2D(keras.layers.Flatten(), output_size=(3, 0)),
        (
            "`output_size` must be an integer of at least 1, or a tuple of 2 of them. Received: "
            "output_size=(3, 0)."
        ),
    ),
    "features of unknown number": (
        lambda: layers.SpatialTransformer2D(keras.layers.AveragePooling2D(2), name="layer").build(
            (None, None, 8, 3)
        ),
        (
            "The localization network of layer 'layer' must find a known number of features. "
            "Received: features of shape (None, None, 4, 3) for input_shape=(None, None, 8, 3). "
            "Let it end in a global pooling, or give the input a static size."
        ),
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_says_what_must_hold_and_what_came(case):
    act, text = ERRORS[case]
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the whole text is compared below
        act()
    assert str(caught.value) == text
