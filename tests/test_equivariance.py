"""The meter against networks whose symmetries are known, and against NumPy and SciPy."""

import keras
import numpy as np
import pytest
from backends import randomize, to_numpy
from keras import layers, ops

import low_rank_local_connectivity as ours
from low_rank_local_connectivity import equivariance, plots
from low_rank_local_connectivity.equivariance import (
    Curve,
    Rotation,
    Scale,
    Shift,
    accuracy_under_shifts,
    curve,
    error,
    location_probe,
    shift_consistency,
)

SHAPE = (11, 14, 2)
SHIFTS = [Shift(1, -2), Shift(-3, 0), Shift(0, 4, fill=0.7)]


def chain(*stack, shape=SHAPE, rng=None, name="net"):
    """A model whose weights are small whole numbers, so that its arithmetic is exact."""
    model = keras.Sequential([keras.Input(shape), *stack], name=name)
    rng = rng or np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(rng.integers(-3, 4, size=weight.shape))
    return model


def pictures(rng, count=3, shape=SHAPE):
    return rng.integers(-4, 5, size=(count, *shape)).astype("float32")


def circular(x):
    """A 3 x 3 mean with circular padding, and a square behind it."""
    x = np.asarray(x, float)
    shifted = [np.roll(x, (i, j), axis=(1, 2)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return np.mean(shifted, axis=0) ** 2


@pytest.mark.parametrize("shift", [Shift(3, -2, wrap=True), Shift(-5, 0, wrap=True)], ids=str)
def test_a_circular_convolution_commutes_with_wrapped_shifts(shift, rng):
    assert (error(circular, pictures(rng), shift) < 1e-10).all()
    wrapped = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Lambda(lambda x: ops.concatenate([x[:, -1:], x, x[:, :1]], axis=1)),
            layers.Lambda(lambda x: ops.concatenate([x[:, :, -2:], x, x[:, :, :2]], axis=2)),
            layers.Conv2D(3, (3, 5), activation="tanh"),
        ]
    )
    assert (error(wrapped, pictures(rng), shift) < 1e-10).all()
    cut = chain(layers.Conv2D(3, 3, padding="same"))
    assert (error(cut, pictures(rng), shift) > 1e-3).all()


@pytest.mark.parametrize("shift", SHIFTS, ids=str)
def test_a_valid_convolution_commutes_exactly_where_both_sides_exist(shift, rng):
    model = chain(layers.Conv2D(4, (3, 2), activation="relu"), layers.Conv2D(3, (2, 3)))
    np.testing.assert_array_equal(error(model, pictures(rng), shift), np.zeros(3))
    # A low-rank layer of rank 1 is a convolution, in both data formats on every backend.
    conv = ours.LowRankLocallyConnected2D(
        4, (3, 2), 1, data_format="channels_first", use_spatial_bias=False
    )
    images = np.moveaxis(pictures(rng), -1, 1)
    front = chain(conv, shape=images.shape[1:])
    found = error(front, images, shift, data_format="channels_first")
    np.testing.assert_array_equal(found, np.zeros(3))


@pytest.mark.parametrize("shift", SHIFTS, ids=str)
def test_a_same_convolution_commutes_from_the_margin_of_its_reach_on(shift, rng):
    model = chain(layers.Conv2D(4, 3, padding="same"), layers.Conv2D(3, 3, padding="same"))
    images = pictures(rng) + 1
    found = [error(model, images, shift, margin=margin) for margin in (0, 1, 2)]
    assert (found[0] > 0).all()
    np.testing.assert_array_equal(found[2], np.zeros(3))


@pytest.mark.parametrize("shift", [Shift(2, -4), Shift(0, 2), Shift(-2, 0)], ids=str)
def test_strides_commute_with_their_multiples(shift, rng):
    model = chain(layers.Conv2D(4, 3, 2, padding="same"), layers.Conv2D(3, 3), shape=(15, 18, 2))
    images = pictures(rng, shape=(15, 18, 2))
    np.testing.assert_array_equal(error(model, images, shift, margin=1), np.zeros(3))
    uneven = chain(layers.Conv2D(3, 3, (2, 3)), shape=(15, 18, 2))
    found = error(uneven, images, Shift(shift.rows, 3 * shift.columns // 2))
    np.testing.assert_array_equal(found, np.zeros(3))
    lrlc = chain(ours.LowRankLocallyConnected2D(3, 3, spatial_rank=2, strides=2))
    assert (error(lrlc, pictures(rng), shift) > 1e-6).all()


def test_pooling_over_all_positions_is_invariant_to_what_stays_inside(rng):
    images = np.zeros((3, *SHAPE), "float32")
    images[:, 4:7, 5:8] = pictures(rng, shape=(3, 3, 2))
    model = chain(
        layers.ZeroPadding2D(2),
        layers.Conv2D(4, 3, use_bias=False, activation="relu"),
        layers.GlobalMaxPooling2D(),
    )
    for shift in (Shift(2, 3), Shift(-4, -5), Shift(-1, 0, wrap=True)):
        np.testing.assert_array_equal(error(model, images, shift, "invariance"), np.zeros(3))
    assert (error(model, images, Shift(9, 9), "invariance") > 0).all()


@pytest.mark.parametrize("degrees", [90, 180, 270, -90, 360])
def test_a_rotation_symmetric_kernel_commutes_exactly_with_quarter_turns(degrees, rng):
    model = chain(layers.Conv2D(3, 3, padding="same", activation="relu"), shape=(9, 9, 2))
    kernel = rng.integers(-2, 3, size=(2, 2, 3))
    plus = np.array([[1, 2, 1], [2, 5, 2], [1, 2, 1]])
    model.weights[0].assign(plus[:, :, None, None] * kernel[0])
    images = pictures(rng, shape=(9, 9, 2))
    np.testing.assert_array_equal(error(model, images, Rotation(degrees)), np.zeros(3))
    if degrees % 360:
        model.weights[0].assign(plus[:, :, None, None] + rng.integers(-2, 3, size=(3, 3, 2, 3)))
        assert (error(model, images, Rotation(degrees)) > 0).all()


@pytest.mark.parametrize("transform", [Rotation(90), Rotation(180)], ids=str)
def test_a_grid_of_positions_beside_the_centre_does_not_commute_with_rotations(transform, rng):
    """With an even size, stride 2 and padding="same" the grid begins at pixel 0 and not at 1/2."""
    plus = np.array([[1, 2, 1], [2, 5, 2], [1, 2, 1]])[:, :, None, None]
    for size, commutes in ((9, True), (10, False)):
        shape = (size, size, 1)
        model = chain(layers.Conv2D(1, 3, 2, padding="same", use_bias=False), shape=shape)
        model.weights[0].assign(plus)
        assert (error(model, pictures(rng, shape=shape), transform) == 0).all() == commutes


@pytest.mark.parametrize(
    ("transform", "margin"),
    [(Rotation(45, "bicubic", 99), 3), (Scale(0.7, "bicubic", 99), 3)],
    ids=str,
)
def test_a_margin_keeps_windows_free_of_what_moved_in(transform, margin, rng):
    rows, columns = np.indices((33, 33)) / 8
    images = (np.sin(rows) + np.cos(columns + rng.uniform()))[None, :, :, None]

    def mean(x):  # nearly isotropic, and linear images stay what they are
        padded = np.pad(np.asarray(x, float), ((0, 0), (2, 2), (2, 2), (0, 0)))
        around = [(0, 1), (0, -1), (1, 0), (-1, 0), (2, 0), (-2, 0), (0, 2), (0, -2)]
        total = np.sum([np.roll(padded, step, axis=(1, 2)) for step in around], axis=0)
        return total[:, 2:-2, 2:-2] / 8

    near, far = (error(mean, images, transform, margin=m)[0] for m in (0, margin))
    assert near > 1
    assert far < 2e-4


def test_low_precision_and_whole_numbers_are_measured(rng):
    images = rng.integers(0, 256, size=(3, *SHAPE), dtype="uint8")
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Rescaling(1 / 255, dtype="mixed_bfloat16"),
            layers.Conv2D(4, 3, dtype="mixed_bfloat16"),
        ]
    )
    randomize(model, rng)
    assert (error(model, images, Shift(2, 1)) < 1e-4).all()
    turned = error(model, images, Rotation(20))
    assert np.isfinite(turned).all()
    assert (turned > 1e-3).all()


def test_the_error_is_the_ratio_of_squared_norms(rng):
    """Against NumPy, for functions without any symmetry."""
    images = rng.normal(size=(4, *SHAPE))
    weights = rng.normal(size=(*SHAPE[:2], 3))

    def function(x):
        return np.asarray(x)[..., :1] * weights + 0.3

    moved = np.zeros_like(images)
    moved[:, 2:, :-3] = images[:, :-2, 3:]
    expected = function(images)[:, :-2, 3:]
    got = function(moved)[:, 2:, :-3]
    ratios = ((got - expected) ** 2).sum(axis=(1, 2, 3)) / (expected**2).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(error(function, images, Shift(2, -3)), ratios, rtol=1e-12)
    inner = (slice(None), slice(1, -1), slice(1, -1))
    difference = (function(moved) - function(images))[inner]
    ratios = (difference**2).sum(axis=(1, 2, 3)) / (function(images)[inner] ** 2).sum(
        axis=(1, 2, 3)
    )
    found = error(function, images, Shift(2, -3), kind="invariance", margin=1)
    np.testing.assert_allclose(found, ratios, rtol=1e-12)


@pytest.mark.filterwarnings("error")
def test_nothing_over_nothing_is_0_and_something_over_nothing_is_infinite():
    images = np.zeros((2, 5, 6, 1))
    images[1, 0, 0] = 1  # moves out of the map that is compared, into where nothing was
    found = error(lambda x: x, images, Shift(1, 1), kind="invariance", margin=1)
    assert found.tolist() == [0.0, np.inf]


def test_a_pointwise_function_commutes_with_an_enlargement_up_to_interpolation():
    """A linear one exactly; a smooth one the better, the finer the grid."""
    errors = []
    for size in (16, 32, 64):
        rows, columns = np.indices((size, size)) / size
        images = np.sin(3 * rows + 2 * columns)[None, :, :, None]
        for transform in (Scale(1.5), Rotation(25)):
            assert error(lambda x: 2 * x, images, transform)[0] < 1e-20
        errors.append(error(lambda x: x**2, images, Scale(1.5))[0])
    assert errors[0] > 10 * errors[1] > 100 * errors[2] > 0


def test_a_function_of_the_features_says_what_a_scaling_is(rng):
    """Subsampling twice, of a function that answers at two resolutions at once."""
    images = rng.normal(size=(2, 8, 12, 1))

    def half(x):
        return np.asarray(x)[:, ::2, ::2]

    assert (error(np.square, images, half, act_on_outputs=half) == 0).all()
    first_row = np.zeros((4, 6), bool)
    first_row[0] = True
    damaged = images.copy()

    def act(features):
        changed = half(features).copy()
        changed[:, 1:] += 1
        return changed, first_row

    assert (error(np.square, damaged, half, act_on_outputs=act) == 0).all()
    found = error(lambda x: np.asarray(x)[:, ::2], images, Shift(2), act_on_outputs=Shift(1))
    assert (found == 0).all()


def streams(images, labels):
    """Ways to say the same images."""
    yield [images[:2], images[2:5], images[5:]]
    yield iter([(images[:4], labels[:4]), [images[4:], labels[4:]]])

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return images[2 * index : 2 * index + 2], labels[2 * index : 2 * index + 2]

    yield Batches()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        dataset = tf.data.Dataset.from_tensor_slices((images, labels))
        yield dataset.batch(3)
        yield dataset.map(lambda image, _: image).filter(lambda _: True).batch(3)


def test_a_stream_gives_what_an_array_does(rng, capsys):
    images, labels = pictures(rng, 7), rng.integers(3, size=7)
    model = chain(layers.Conv2D(3, 3, padding="same"))
    scores = chain(layers.Conv2D(3, 3, padding="same"), layers.GlobalAveragePooling2D())
    whole = error(model, images, Shift(1, 0), batch_size=3)
    consistency = shift_consistency(scores, images, max_shift=4, pairs=3)
    probe = location_probe(model, images)
    right = accuracy_under_shifts(scores, images, labels, [0, 2]).per_example
    assert not capsys.readouterr().out
    for stream in streams(images, labels):
        np.testing.assert_allclose(error(model, stream, Shift(1, 0)), whole, rtol=1e-5)
    for stream in streams(images, labels):
        assert shift_consistency(scores, stream, max_shift=4, pairs=3) == consistency
    for stream in streams(images, labels):
        found = location_probe(model, stream)
        assert (found.row, found.column) == pytest.approx((probe.row, probe.column), abs=1e-6)
    found = accuracy_under_shifts(
        scores, next(iter(list(streams(images, labels))[1:])), shifts=[0, 2]
    )
    np.testing.assert_array_equal(found.per_example, right)
    assert capsys.readouterr().out.count("batch") > 5  # progress bars


def test_layers_are_measured_by_their_names_nested_too(rng):
    conv = layers.Conv2D(4, 3, padding="same", name="conv")
    block = keras.Sequential([keras.Input(SHAPE), conv, layers.ReLU(name="relu")], name="block")
    inner = keras.Input(SHAPE)
    outer = keras.Model(inner, block(layers.Rescaling(2.0, name="double")(inner)), name="outer")
    inputs = keras.Input(SHAPE)
    outputs = layers.Dense(3)(layers.Flatten(name="flat")(outer(inputs)))
    model = keras.Model(inputs, outputs, name="net")
    randomize(model, rng)
    images = rng.normal(size=(3, *SHAPE)).astype("float32")

    def by_hand(x):
        return np.maximum(to_numpy(conv(2 * x)), 0)

    for path, function in {
        "outer/block/conv": lambda x: to_numpy(conv(2 * x)),
        "outer/block/relu": by_hand,
        "outer/block": by_hand,
        "outer": by_hand,
    }.items():
        found = error(model, images, Shift(2, 1), layer=path)
        np.testing.assert_allclose(found, error(function, images, Shift(2, 1)), rtol=1e-4)
    found = error(model, images, Shift(2, 1), "invariance", layer="flat")
    np.testing.assert_allclose(
        found, error(model, images, Shift(2, 1), "invariance", "outer"), 1e-4
    )


def test_a_curve_is_one_error_for_each_transform(rng, tmp_path):
    images = pictures(rng, 5)
    model = chain(layers.Conv2D(3, 3, padding="same"))
    shifts = [Shift(k, k) for k in (-2, 0, 1, 3)]
    found = curve(model, images, shifts, batch_size=2)
    assert found.values.tolist() == [-2, 0, 1, 3]
    for shift, errors in zip(shifts, found.per_example, strict=True):
        np.testing.assert_allclose(errors, error(model, images, shift), rtol=1e-5)
    np.testing.assert_allclose(found.mean, found.per_example.mean(axis=1))
    spread = np.sqrt(((found.per_example - found.mean[:, None]) ** 2).sum(axis=1) / 4)
    np.testing.assert_allclose(found.standard_error, spread / np.sqrt(5))
    assert np.isnan(Curve(np.zeros(1), np.zeros((1, 1))).standard_error).all()
    functions = [lambda x, k=k: k * x for k in (1, 2)]
    scaled = curve(model, images, functions, act_on_outputs=functions, values=[1, 2])
    assert scaled.mean[0] == 0
    plots.equivariance_curves({"same": found, "scaled": scaled}, tmp_path / "curves.png")
    plots.equivariance_curves({"same": found}, tmp_path / "log.png", log_y=True)
    assert (tmp_path / "log.png").stat().st_size > 1000


def peak_column(x):
    """Scores that are highest for the brightest column."""
    return np.asarray(x).max(axis=(1, 3))


def test_consistency_is_the_share_of_pairs_with_one_class():
    images = np.zeros((2, 5, 6, 1))
    images[0, 2, 2] = images[1, 2, 5] = 1
    # Example 0: columns 2, 3, 2 -> one pair in three agrees; example 1: 5, gone (so 0), 5.
    shifts = [(0, 0), (0, 1), (1, 0)]
    assert shift_consistency(peak_column, images, shifts=shifts) == pytest.approx(1 / 3)
    wrapped = shift_consistency(peak_column, images, shifts=[(0, 6), (5, 0)], wrap=True)
    assert wrapped == 1
    drawn = [shift_consistency(peak_column, images, 2, seed=seed, pairs=50) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    # Two draws of the column from 5 agree in 1 case of 5; near the border two shifts leave the map.
    many = np.zeros((1, 5, 9, 1))
    many[0, 2, 4] = 1
    rows_too = shift_consistency(lambda x: np.asarray(x).max(axis=(1, 3)), many, 2, pairs=4000)
    assert rows_too == pytest.approx(0.2, abs=0.03)
    first = np.moveaxis(images, -1, 1)
    found = shift_consistency(
        lambda x: np.asarray(x).max(axis=(1, 2)), first, shifts=shifts, data_format="channels_first"
    )
    assert found == pytest.approx(1 / 3)


def test_accuracy_under_shifts_is_that_of_the_shifted_images():
    images = np.zeros((3, 5, 6, 1))
    for index, column in enumerate((1, 2, 3)):
        images[index, 2, column] = 1
    found = accuracy_under_shifts(peak_column, images, [1, 2, 4], [0, (3, 0), (0, 1), -1])
    assert found.values.tolist() == [0, 3, 1, -1]
    np.testing.assert_allclose(found.mean, [2 / 3, 0, 1 / 3, 0])
    one_hot = accuracy_under_shifts(peak_column, images, np.eye(6)[[1, 2, 4]])
    np.testing.assert_allclose(one_hot.mean, [2 / 3])


def test_a_probe_reads_coordinates_and_padding_but_not_valid_convolutions():
    coordinates = chain(layers.Conv2D(4, 3), ours.AddCoordinates2D())
    found = location_probe(coordinates, image_shape=SHAPE)
    assert min(found.row, found.column) > 0.99
    columns = chain(ours.AddCoordinates2D(), layers.Lambda(lambda x: x[..., -1:]))
    found = location_probe(columns, image_shape=SHAPE)
    assert abs(found.row) < 1e-3
    assert found.column > 0.99
    valid = chain(layers.Conv2D(6, 3, activation="relu"), layers.Conv2D(6, 3))
    found = location_probe(valid, image_shape=SHAPE, examples=200)
    assert max(abs(found.row), abs(found.column)) < 0.01
    # On images without content: what is read is the border.
    same = chain(
        *(layers.Conv2D(8, 3, padding="same", activation="relu") for _ in range(4)),
        shape=(9, 10, 1),
    )
    randomize(same, np.random.default_rng(3))
    for blank in (np.zeros((4, 9, 10, 1)), np.ones((4, 9, 10, 1))):
        found = location_probe(same, blank)
        assert min(found.row, found.column) > 0.3
        found = location_probe(chain(layers.Conv2D(6, 3), shape=(9, 10, 1)), blank)
        assert (found.row, found.column) == (0, 0)


def test_a_probe_is_ridge_regression(rng):
    """Against NumPy's least squares on the stacked rows of the images that train."""
    maps = rng.normal(size=(6, 4, 5, 3))
    maps[..., 0] += np.arange(4)[:, None]
    maps[..., 2] += np.arange(5) ** 2
    found = location_probe(lambda x: x, maps, ridge=0.1, seed=2)
    trains = [[0, 1][lot] + 2 * pair for pair, lot in enumerate(lots(3, 2))]
    tests = sorted(set(range(6)) - set(trains))
    targets = np.stack(np.indices((4, 5)), axis=-1).reshape(-1, 2)
    targets = (targets - targets.mean(axis=0)) / targets.std(axis=0)
    one, other = (maps[chosen].reshape(-1, 3) for chosen in (trains, tests))
    mean, std = one.mean(axis=0), one.std(axis=0)
    one, other = (one - mean) / std, (other - mean) / std
    above = np.vstack([one, np.sqrt(0.1 * len(one)) * np.eye(3)])
    weights = np.linalg.lstsq(above, np.vstack([*[targets] * 3, np.zeros((3, 2))]), rcond=None)[0]
    losses = ((np.vstack([targets] * 3) - other @ weights) ** 2).mean(axis=0)
    np.testing.assert_allclose((found.row, found.column), 1 - losses, rtol=1e-9)


def lots(pairs, seed):
    """Which image of each pair trains, as the probe draws."""
    rest = [np.random.default_rng([seed, pair]).integers(2) for pair in range(1, pairs)]
    return [0, *rest]


def test_no_image_is_in_both_splits(rng):
    """Features that name their image and place at once cannot be read on other images."""
    codes = rng.normal(size=(12, 4, 5, 60))
    found = location_probe(lambda x: x, codes, ridge=1e-6)
    assert max(found.row, found.column) < 0


def test_the_module_is_reached_from_the_package():
    from low_rank_local_connectivity import equivariance as reached

    assert reached is equivariance
