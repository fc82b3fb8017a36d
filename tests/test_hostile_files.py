"""Files that are made to do harm: refused before anything is allocated, opened or waited for."""

import json
import os
import shutil
import struct
import warnings

import h5py
import keras
import numpy as np
import pytest

from benchmarks.reliability import damages, hostile
from low_rank_local_connectivity import legacy
from low_rank_local_connectivity.untrusted import checksums, models, sizes

pytestmark = pytest.mark.once
DENSE = {"class_name": "Dense", "config": {"name": "d", "units": 3, "use_bias": False}}
INPUT = {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 4], "name": "in"}}
KERNEL = np.arange(12, dtype="float32").reshape(4, 3)


def sequential(*layers):
    return {"class_name": "Sequential", "config": {"name": "m", "layers": list(layers)}}


def write_h5(path, config=None, kernel=KERNEL):
    """Writes a model as Keras 2 did."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.15.0"
        file.attrs["model_config"] = json.dumps(config or sequential(INPUT, DENSE))
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = np.array([b"d"])
        group.create_group("d").attrs["weight_names"] = np.array([b"kernel:0"])
        if kernel is not None:
            group["d/kernel:0"] = kernel
    return path


@pytest.fixture
def small_limits(monkeypatch):
    """A thousandth of the usual limit, so that what exceeds it is soon written."""
    monkeypatch.setattr(sizes, "ALWAYS", sizes.ALWAYS // 1000)
    monkeypatch.setattr(hostile, "ZEROS", hostile.ZEROS // 1000)


@pytest.fixture
def elsewhere(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "secret").write_bytes(b"what nobody else is to read" * 9)
    with h5py.File(folder / "other.h5", "w") as file:
        file["kernel"] = KERNEL
    return folder


REFUSED = {
    hostile.values_elsewhere: "in which the values of '/model_weights/d/kernel:0' are in other",
    hostile.a_link_elsewhere: "in which 'kernel:0' of '/model_weights/d' is a link to something",
    hostile.a_view_elsewhere: "in which the values of '/model_weights/d/kernel:0' are in other",
    hostile.a_link_out_of_its_group: "in which 'kernel:0' of '/model_weights/d' is a link to",
    hostile.a_bomb: "which declares 10,000,000,",
    hostile.large_chunks: "which declares 1,600,000,",
    hostile.sparse: "which declares 20,000,000,000",
    hostile.wide_layers: "which declares 16,000,000,000",
    hostile.long_sizes: "which declares 16",
    hostile.described_deeply: "RecursionError",
    hostile.a_model_of_models: "whose model would call them",
    hostile.a_vocabulary_elsewhere: "its vocabulary is in another file",
    hostile.a_model_elsewhere: "it stands for what is not in the file",
    hostile.a_pipe: "which is a pipe. Give a file.",
    hostile.a_device: "which is a device. Give a file.",
}


@pytest.mark.parametrize("construct", REFUSED, ids=lambda construct: construct.__name__)
def test_a_hostile_file_of_keras_2_is_refused_with_its_name(construct, tmp_path, elsewhere):
    path = write_h5(tmp_path / "model.h5")
    assert construct(path, elsewhere)
    with pytest.raises(ValueError, match=r"model\.h5") as error:
        legacy.load_model(path)
    assert REFUSED[construct] in str(error.value)


@pytest.mark.parametrize(
    "construct",
    [
        hostile.values_elsewhere,
        hostile.a_link_elsewhere,
        hostile.a_view_elsewhere,
        hostile.a_bomb,
        hostile.wide_layers,
        hostile.described_deeply,
        hostile.a_vocabulary_elsewhere,
        hostile.a_model_elsewhere,
        hostile.an_archive_of_zeros,
        hostile.members_out_of_it,
        hostile.a_pipe,
    ],
    ids=lambda construct: construct.__name__,
)
@pytest.mark.usefixtures("small_limits")
def test_a_hostile_file_of_keras_3_is_refused_with_its_name(construct, tmp_path, elsewhere):
    from low_rank_local_connectivity.experiments import warm_start
    from low_rank_local_connectivity.training import RunError

    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="d")]).save(path)
    assert construct(path, elsewhere)
    with pytest.raises((ValueError, RunError), match=r"model\.keras"):
        warm_start.read(str(path))


def test_a_link_within_its_group_and_groups_of_many_names_are_read_once(tmp_path, elsewhere):
    path = write_h5(tmp_path / "model.h5", kernel=None)
    with h5py.File(path, "r+") as file:
        file["model_weights/d/other"] = KERNEL
        file["model_weights/d/kernel:0"] = h5py.SoftLink("other")
    assert hostile.paths_without_end(path, elsewhere)
    loaded = legacy.load_model(path)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(loaded.weights[0]), KERNEL)


def test_more_memory_is_taken_if_it_is_allowed(tmp_path):
    path = write_h5(tmp_path / "model.h5")
    assert legacy.load_model(path, max_bytes=10_000).count_params() == KERNEL.size
    with pytest.raises(ValueError, match="at most 40 bytes of memory"):
        legacy.load_model(path, max_bytes=40)
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the whole text is compared)
        legacy.load_model(path, max_bytes=-1)
    assert str(error.value) == (
        "`max_bytes` must be a number of bytes, or None. Received: max_bytes=-1."
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_weights_that_are_not_finite_are_loaded_with_a_warning_that_names_their_layer(
    value, tmp_path
):
    path = write_h5(tmp_path / "model.h5", kernel=np.full((4, 3), value))
    with pytest.warns(UserWarning, match="infinite or not numbers") as caught:
        legacy.load_model(path)
    assert str(caught[0].message) == (
        f"Weights in {str(path)!r} are infinite or not numbers, and so is what the model computes "
        "from them: those of 'd'."
    )


def test_a_layer_that_is_called_on_numbers_alone_computes_nothing(tmp_path):
    padded = {"name": "z", "padding": [10**9, 10**9]}
    inputs = [[["_CONSTANT_VALUE", -1, [[[1.0]]], {}]]]
    config = {
        "name": "m",
        "layers": [
            {**INPUT, "name": "in", "inbound_nodes": []},
            {"class_name": "ZeroPadding1D", "config": padded, "name": "z", "inbound_nodes": inputs},
        ],
        "input_layers": [["in", 0, 0]],
        "output_layers": [["z", 0, 0]],
    }
    path = write_h5(tmp_path / "model.h5", {"class_name": "Functional", "config": config})
    with pytest.raises(ValueError, match="called on numbers alone"):
        legacy.load_model(path)


def test_layers_of_a_reversed_description_are_called_in_order(tmp_path):
    layers = [{**INPUT, "name": "in", "inbound_nodes": []}]
    for number in range(30):
        name, before = f"d{number}", f"d{number - 1}" if number else "in"
        one = {"class_name": "Activation", "config": {"name": name, "activation": "relu"}}
        layers.append({**one, "name": name, "inbound_nodes": [[[before, 0, 0, {}]]]})
    config = {"name": "m", "layers": layers[::-1], "input_layers": [["in", 0, 0]]}
    config["output_layers"] = [["d29", 0, 0]]
    path = write_h5(tmp_path / "model.h5", {"class_name": "Functional", "config": config}, None)
    with h5py.File(path, "r+") as file:
        file["model_weights"].attrs["layer_names"] = np.array([], "S1")
    assert len(legacy.load_model(path).layers) == 31


def test_no_damaged_index_of_a_checkpoint_ends_the_process_or_passes_for_a_good_one(tmp_path, rng):
    """TensorFlow's own reader aborts at many of them."""
    from benchmarks.reliability import readers

    readers.write_checkpoint(tmp_path / "weights", rng)
    (tmp_path / "checkpoint").write_text("")
    index = tmp_path / "weights.index"
    whole, model = index.read_bytes(), readers.two_layers()
    expected = readers.weights(legacy.load_weights(model, tmp_path / "weights"))
    for number in range(300):
        way = (damages.outside, damages.one_bit, damages.in_table)[number % 3]
        index.write_bytes(way(rng, whole))
        forged = way is damages.in_table  # which may say that numbers are of another kind
        try:
            loaded = readers.weights(legacy.load_weights(model, tmp_path / "weights"))
        except ValueError as error:
            assert str(tmp_path / "weights") in str(error)  # noqa: PT017
        else:
            assert forged or loaded == expected


@pytest.mark.parametrize("length", [0, 1, 255, 256, 1000, 70_001])
def test_checksums_are_those_of_the_definition(length, rng):
    message, state = rng.bytes(length), 0xFFFFFFFF
    for octet in message:
        state ^= octet
        for _ in range(8):
            state = state >> 1 ^ (checksums.POLYNOMIAL if state & 1 else 0)
    assert checksums.crc32c(message) == state ^ 0xFFFFFFFF


def jpeg(sides):
    from PIL import Image

    path = sides / "image.jpg"
    Image.new("RGB", (16, 16)).save(path)
    octets = bytearray(path.read_bytes())
    struct.pack_into(">HH", octets, octets.index(b"\xff\xc0") + 5, 65_500, 65_500)
    path.write_bytes(bytes(octets))
    return path


def webp(sides, kind, at, stored):
    path = sides / f"{kind}.webp"
    octets = bytearray(b"RIFF\x64\0\0\0WEBP" + kind.encode() + bytes(80))
    octets[at : at + len(stored)] = stored
    path.write_bytes(bytes(octets))
    return path


def image_bombs(folder, elsewhere):
    """Yields files that say that they have four billion pixels, or a hundred million."""
    from PIL import Image

    yield jpeg(folder)
    for suffix in ("png", "bmp", "gif"):
        path = folder / f"image.{suffix}"
        Image.new("RGB", (9, 7)).save(path)
        assert hostile.many_pixels(path, elsewhere)
        yield path
    yield webp(folder, "VP8X", 24, b"\xff\xff\x00\xff\xff\x00")
    yield webp(folder, "VP8L", 20, b"\x2f\xff\xff\xff\x0f")
    yield webp(folder, "VP8 ", 26, b"\xff\x3f\xff\x3f")
    frames = folder / "frames.gif"
    whole = Image.new("P", (9, 7))
    whole.save(frames)
    octets = frames.read_bytes()
    frame = octets.index(b",\0\0\0\0")
    large = octets[frame : frame + 5] + b"\xff\xff\xff\xff" + octets[frame + 9 : -1]
    frames.write_bytes(octets[:frame] + large * 3 + b";")
    yield frames


def test_no_image_of_too_many_pixels_is_decoded(tmp_path, elsewhere):
    import tensorflow as tf

    from low_rank_local_connectivity.data import pillow_images
    from low_rank_local_connectivity.data.decoding import decode

    function = tf.function(decode, input_signature=[tf.TensorSpec((), tf.string)])
    for path in image_bombs(tmp_path, elsewhere):
        with pytest.raises(tf.errors.InvalidArgumentError, match="too many pixels"):
            function(path.read_bytes())
        with pytest.raises(ValueError, match=r"pixels|no complete image"):
            pillow_images.decode(path.read_bytes())


def test_more_pixels_are_decoded_if_they_are_allowed(tmp_path):
    import tensorflow as tf
    from PIL import Image

    from low_rank_local_connectivity.data import pillow_images
    from low_rank_local_connectivity.data.decoding import decode

    def read(encoded):
        return decode(encoded, 3, 63)

    function = tf.function(read, input_signature=[tf.TensorSpec((), tf.string)])
    for suffix in ("png", "bmp", "gif", "webp", "jpg"):
        path = tmp_path / f"image.{suffix}"
        for width in (9, 10):
            Image.new("RGB", (width, 7)).save(path)
            encoded = path.read_bytes()
            if width == 9:
                assert function(encoded).shape == (7, 9, 3)
                assert pillow_images.decode(encoded, 3, 63).shape == (7, 9, 3)
                continue
            with pytest.raises(tf.errors.InvalidArgumentError, match="too many pixels"):
                function(encoded)
            with pytest.raises(ValueError, match=r"at most 63 pixels\. Received: 70"):
                pillow_images.decode(encoded, 3, 63)


def test_no_program_is_run_to_decode_an_image(tmp_path, elsewhere):
    from low_rank_local_connectivity.data import pillow_images

    path = tmp_path / "images" / "image.png"
    path.parent.mkdir()
    assert hostile.a_program(path, elsewhere)
    with pytest.raises(ValueError, match="no complete image"):
        pillow_images.decode(path.read_bytes())


DAMAGED_FILES = {
    "a class of another library": ("features.json", '{"pythonClassName": "os.system"}'),
    "no description": ("dataset_info.json", "[]"),
    "half a description": ("dataset_info.json", '{"name"'),
}


@pytest.mark.parametrize("what", DAMAGED_FILES)
def test_a_damaged_description_of_prepared_data_is_named(what, tmp_path):
    from low_rank_local_connectivity.data import DATASETS
    from low_rank_local_connectivity.data.unreadable import WHOLE, UnreadableError

    name, text = DAMAGED_FILES[what]
    folder = tmp_path / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    (folder / name).write_text(text)
    with pytest.raises(UnreadableError) as error:
        DATASETS["mnist"].load(str(tmp_path))
    assert str(error.value) == WHOLE.format(folder / name)


def test_a_record_that_says_it_is_longer_than_its_file_is_refused(tmp_path):
    """TensorFlow's reader crashes at it, as the checksum of its length fits."""
    from low_rank_local_connectivity.data.prepared_files import require_whole_records
    from low_rank_local_connectivity.data.unreadable import UnreadableError

    path = tmp_path / "one.tfrecord"
    path.write_bytes(struct.pack("<QI", 5, 0) + b"12345" + bytes(4))
    require_whole_records(path, 1)
    with pytest.raises(UnreadableError, match=r"one\.tfrecord"):
        require_whole_records(path, 2)
    path.write_bytes(struct.pack("<QI", 1 << 40, 0) + b"12345" + bytes(4))
    with pytest.raises(UnreadableError, match=r"one\.tfrecord"):
        require_whole_records(path, 1)


@pytest.mark.usefixtures("small_limits")
def test_arrays_have_as_many_numbers_as_they_say_and_inflate_to_no_more_than_they_may(
    tmp_path, elsewhere
):
    from low_rank_local_connectivity.untrusted.archives import read_arrays

    for construct in (hostile.many_numbers, hostile.an_archive_of_zeros):
        path = tmp_path / "data.npz"
        np.savez(path, x=np.arange(5), y=np.ones((2, 3)))
        assert construct(path, elsewhere)
        with pytest.raises(ValueError, match=r"data\.npz"):
            read_arrays(path)


@pytest.mark.parametrize("construct", [hostile.a_pipe, hostile.a_device, hostile.sparse])
def test_a_text_that_is_no_file_or_has_no_end_is_not_read(construct, tmp_path, elsewhere):
    path = tmp_path / "result.json"
    path.write_text("{}")
    assert construct(path, elsewhere)
    with pytest.raises(ValueError, match=r"result\.json"):
        sizes.read_text(path)


def test_a_file_that_takes_no_room_on_disk_is_given_none(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5000)
    assert sizes.on_disk(path) == 5000
    os.truncate(path, 10**10)
    assert sizes.on_disk(path) < 10**5


def test_layers_made_elsewhere_are_drawn_as_ever_while_a_file_is_read(tmp_path):
    """The weights that are counted get no values of their own; others do."""
    import threading

    from low_rank_local_connectivity.untrusted.weights import weights_within

    made = []

    def make():
        layer = keras.layers.Dense(2)
        layer.build((None, 3))
        made.append(layer)

    with weights_within(10_000, tmp_path, drawn=False):
        make()
        other = threading.Thread(target=make)
        other.start()
        other.join()
    make()
    drawn = [bool(np.any(keras.ops.convert_to_numpy(layer.kernel))) for layer in made]
    assert drawn == [False, True, True]


def test_a_model_of_keras_3_loads_as_before(tmp_path):
    path = tmp_path / "model.keras"
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="d")])
    model.save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = models.load_model(path)
    for one, other in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other)
        )
    assert not models.layers_not_finite(loaded)
    shutil.rmtree(tmp_path)
