"""What pictures show, read back from matplotlib's own objects."""

import itertools

import keras
import numpy as np
import pytest
from backends import randomize, to_numpy
from matplotlib.figure import Figure

from low_rank_local_connectivity import layers, plots

pytestmark = pytest.mark.once
IMAGES = np.random.default_rng(0).normal(size=(3, 12, 11, 2)).astype("float32")


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, laid out as they are in the file."""
    saved = []
    save = Figure.savefig

    def record(figure, *arguments, **options):
        save(figure, *arguments, **options)
        figure.draw_without_rendering()  # at its own resolution again
        saved.append(figure)

    monkeypatch.setattr(Figure, "savefig", record)
    return saved


def texts(figure):
    """Returns every text that is drawn, with its box in pixels."""
    found = [one for one in figure.findobj() if hasattr(one, "get_text") and one.get_visible()]
    return {one: one.get_window_extent() for one in found if one.get_text().strip()}


def shown(figure):
    return [np.asarray(axis.images[0].get_array()) for axis in figure.axes if axis.images]


def low_rank(rank=2, **options):
    return layers.LowRankLocallyConnected2D(3, 3, spatial_rank=rank, **options)


@pytest.mark.parametrize("rank", [pytest.param(2, marks=pytest.mark.slow), 11])
def test_titles_of_default_names_neither_overlap_nor_leave_the_picture(rank, figures, tmp_path):
    name = "a_name_that_is_longer_than_all_of_the_panels_that_stand_below_it_and_longer_still"
    parts = [low_rank(rank), low_rank(rank), low_rank(rank, name=name)]
    model = keras.Sequential([keras.Input((12, 11, 2)), *parts])
    drawn = plots.combining_weight_maps(model, tmp_path / "maps.png")
    assert drawn == [layer.name for layer in parts]
    (figure,) = figures
    boxes = texts(figure)
    width, height = figure.canvas.get_width_height()
    for box in boxes.values():
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    for one, other in itertools.combinations(boxes, 2):
        assert not boxes[one].overlaps(boxes[other]), (one.get_text(), other.get_text())
    written = "".join(text.get_text() for text in boxes).replace("\n", "")
    assert all(layer.name in written for layer in parts)
    assert written.count("combining weight") == 3


def test_layers_within_models_and_wrappers_are_drawn_with_what_they_read(figures, tmp_path, rng):
    asked = low_rank(name="asked", input_dependent=True)
    block = keras.Sequential([keras.Input((10, 9, 3)), asked, low_rank(name="fixed")], name="block")
    inputs = keras.Input((12, 11, 2))
    first = keras.layers.Conv2D(3, 3)
    x = keras.layers.Reshape((1, 6, 5, 3))(block(first(inputs)))
    wrapped = keras.layers.TimeDistributed(low_rank(name="wrapped"), name="frames")
    model = keras.Model(inputs, wrapped(x))
    randomize(model, rng)
    drawn = plots.combining_weight_maps(model, tmp_path / "maps.png", IMAGES)
    assert drawn == ["block/asked", "block/fixed", "frames/wrapped"]
    assert plots.spatial_spectra(model, tmp_path / "s.png") == ["block/fixed", "frames/wrapped"]
    panels = shown(figures[0])
    weights = to_numpy(asked.combining_weights(first(IMAGES)))
    for index in range(3):
        # The example itself comes before its banks.
        np.testing.assert_allclose(panels[3 * index + 1], weights[index, ..., 0], atol=1e-6)
        np.testing.assert_allclose(panels[3 * index + 2], weights[index, ..., 1], atol=1e-6)
    fixed = to_numpy(block.get_layer("fixed").combining_weights())
    np.testing.assert_allclose(np.stack(panels[9:11], -1), fixed, atol=1e-6)


def test_of_several_inputs_in_channels_first_the_first_is_shown(figures, tmp_path, rng):
    one, other = keras.Input((2, 12, 11), name="b"), keras.Input((2, 12, 11), name="a")
    asked = low_rank(name="asked", input_dependent=True, data_format="channels_first")
    model = keras.Model({"a": other, "b": one}, asked(keras.layers.Subtract()([one, other])))
    randomize(model, rng)
    images = np.moveaxis(IMAGES, -1, 1)
    given = {"a": images, "b": 3 * images}
    assert plots.combining_weight_maps(model, tmp_path / "maps.png", given) == ["asked"]
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the whole text is compared)
        plots.combining_weight_maps(model, tmp_path / "maps.png", images)
    assert str(caught.value) == (
        "`images` must hold a tensor for each of the model's 2 inputs. Received: images of "
        "shape (3, 2, 12, 11) and dtype float32."
    )
    panels = shown(figures[0])
    scaled = (IMAGES[0] - IMAGES[0].min()) / np.ptp(IMAGES[0])
    np.testing.assert_allclose(panels[0], scaled.mean(-1), atol=1e-6)
    weights = to_numpy(asked.combining_weights(2 * images))
    np.testing.assert_allclose(panels[2], weights[0, ..., 1], atol=1e-5)


def test_a_layer_that_depends_on_inputs_out_of_sight_is_named_in_a_warning(tmp_path):
    frames = keras.Input((2, 12, 11, 2))
    wrapped = keras.layers.TimeDistributed(low_rank(name="asked", input_dependent=True))
    model = keras.Model(frames, wrapped(frames))
    with pytest.warns(UserWarning, match="layer 'asked' depend on inputs out of sight"):
        assert plots.combining_weight_maps(model, tmp_path / "maps.png", IMAGES) == []
    assert not list(tmp_path.iterdir())


def test_weights_over_one_axis_are_strips_and_over_three_slices(figures, tmp_path, rng):
    series = layers.LowRankLocallyConnected1D(3, 3, spatial_rank=2)
    volume = layers.LowRankLocallyConnected3D(3, 2, spatial_rank=2)
    for layer, shape in ((series, (9, 2)), (volume, (4, 6, 5, 2))):
        model = keras.Sequential([keras.Input(shape), layer])
        randomize(model, rng)
        assert plots.combining_weight_maps(model, tmp_path / "maps.png") == [layer.name]
    strips, slices = (shown(figure) for figure in figures)
    np.testing.assert_allclose(np.concatenate(strips).T, to_numpy(series.combining_weights()))
    weights = to_numpy(volume.combining_weights())
    assert slices[0].shape == (5, 3 * 4 + 2)
    for index in range(3):
        part = slices[1][:, 5 * index : 5 * index + 4]
        np.testing.assert_allclose(part, weights[index, ..., 1], atol=1e-6)


def test_zeros_of_a_spectrum_are_not_drawn(figures, tmp_path, rng):
    parts = [low_rank(4, normalize_weights=None, name="rank 4"), low_rank(name="all zero")]
    model = keras.Sequential([keras.Input((12, 11, 2)), *parts])
    randomize(model, rng)
    parts[1].kernel_bases.assign(np.zeros(parts[1].kernel_bases.shape))
    assert plots.spatial_spectra(model, tmp_path / "spectra.png") == ["rank 4"]
    (axis,) = figures[0].axes
    (line,) = [line for line in axis.lines if len(line.get_xdata()) > 0][:1]
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4])
    assert axis.get_yscale() == "log"


def test_fifty_lines_have_fifty_looks_and_a_legend_within_the_picture(figures, tmp_path):
    names = [
        f"low_rank_locally_connected2d_{index} with a long name of its own" for index in range(50)
    ]
    curves = {name: [(1, 2.0, 0.1), (2, 3.0, float("nan"))] for name in names}
    plots.lines_with_errors(curves, tmp_path / "lines.png", "rank K", "accuracy, %")
    (figure,) = figures
    (axis,) = figure.axes
    looks = {(tuple(one[0].get_color()), one[0].get_linestyle()) for one in axis.containers}
    assert len(looks) == 50
    box, (width, height) = axis.get_legend().get_window_extent(), figure.canvas.get_width_height()
    assert 0 <= box.x0 < box.x1 <= width
    assert 0 <= box.y0 < box.y1 <= height
    assert axis.get_window_extent().width > 400


def test_bars_without_errors_and_no_bars_at_all(figures, tmp_path):
    nan = float("nan")
    plots.bars_with_errors({"one": {"a": (3.0, nan), "b": (4.0, 0.5)}}, tmp_path / "b.png", "x, %")
    (axis,) = figures[0].axes
    assert len(axis.collections) == 1
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the whole text is compared)
        plots.bars_with_errors({"one": {}}, tmp_path / "none.png", "x, %")
    assert str(caught.value) == (
        "bars_with_errors() draws at least one bar. Received: groups={'one': {}}."
    )
