"""Names, types and structures of what is exported, read and run by the runtimes that serve it."""

import keras
import numpy as np
import pytest
from backends import randomize, to_numpy
from runtimes import OPEN

from low_rank_local_connectivity import layers
from low_rank_local_connectivity.export import FORMATS, export_model
from low_rank_local_connectivity.export.onnx_names import declare_input_types, rename_values
from low_rank_local_connectivity.export.samples import sample_inputs
from low_rank_local_connectivity.export.signatures import ports, valid_name

BACKEND = keras.backend.backend()
WRITABLE = [name for name in OPEN if BACKEND in FORMATS[name].backends]
writable = pytest.mark.parametrize("name", WRITABLE)


def exported(model, folder, name, **arguments):
    """Exports a model; returns the manifest, the types of its inputs and what runs it."""
    manifest = export_model(model, folder, [name], **arguments)
    return manifest, *OPEN[name](folder / manifest["formats"][name]["file"])


def assert_served(run, inputs, expected):
    """Compares the answers for all examples, and for the first alone, by name."""
    for count in (1, None):
        answers = run({name: values[:count] for name, values in inputs.items()})
        assert set(answers) == set(expected)
        for name, values in expected.items():
            np.testing.assert_allclose(
                answers[name], values[:count], rtol=0, atol=1e-4 * max(np.abs(values).max(), 1e-30)
            )


@writable
def test_a_sequential_model_is_exported(name, tmp_path, rng):
    model = keras.Sequential(
        [
            keras.Input((9, 8, 2), name="image"),
            keras.layers.Conv2D(5, 3),
            layers.LowRankLocallyConnected2D(4, 3, spatial_rank=3),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, name="logits"),
        ]
    )
    randomize(model, rng)
    manifest, types, run = exported(model, tmp_path, name)
    assert types == {"image": "float32"}
    assert (manifest["input"]["name"], manifest["output"]) == ("image", "logits")
    images = rng.normal(size=(6, 9, 8, 2)).astype("float32")
    assert_served(run, {"image": images}, {"logits": to_numpy(model(images))})


def mixed_model():
    """A model of a dictionary with a dictionary in it, of three types, and with nested outputs."""
    image = keras.Input((6, 5, 2), dtype="uint8", name="pixels")
    tokens = keras.Input((7,), dtype="int32", name="some tokens")
    extra = keras.Input((4,), name="extra")
    pixels = layers.LocallyConnected2D(3, 3)(keras.layers.Rescaling(1 / 255)(image))
    words = layers.LocallyConnected1D(2, 3)(keras.layers.Embedding(50, 4)(tokens))
    parts = [keras.layers.Flatten()(pixels), keras.layers.Flatten()(words), extra]
    features = keras.layers.Concatenate()(parts)
    return keras.Model(
        {"pixels": image, "text": {"ids": tokens, "extra": extra}},
        {
            "logits": keras.layers.Dense(3)(features),
            "more": [
                keras.layers.Dense(2, name="first")(features),
                keras.layers.Dense(5, name="second")(features),
            ],
        },
        name="mixed",
    )


@writable
def test_nested_inputs_and_outputs_keep_their_names_and_types(name, tmp_path, rng):
    model = mixed_model()
    randomize(model, rng, 0.3)
    manifest, types, run = exported(model, tmp_path, name)
    assert types == {"pixels": "uint8", "text_ids": "int32", "text_extra": "float32"}
    listed = {port["name"]: (port["dtype"], port["shape"]) for port in manifest["inputs"]}
    assert listed == {
        "pixels": ("uint8", [None, 6, 5, 2]),
        "text_ids": ("int32", [None, 7]),
        "text_extra": ("float32", [None, 4]),
    }
    ranges = {port["name"]: port["sample_range"] for port in manifest["inputs"]}
    assert ranges["pixels"][1] > 200
    assert 0 <= ranges["text_ids"][0] <= ranges["text_ids"][1] < 50
    assert {"input", "output"}.isdisjoint(manifest)
    pixels = rng.integers(0, 256, (6, 6, 5, 2)).astype("uint8")
    ids = rng.integers(0, 50, (6, 7)).astype("int32")
    extra = rng.normal(size=(6, 4)).astype("float32")
    answer = model({"pixels": pixels, "text": {"ids": ids, "extra": extra}})
    first, second = answer["more"]
    expected = {"logits": answer["logits"], "first": first, "second": second}
    assert [port["name"] for port in manifest["outputs"]] == ["logits", "first", "second"]
    assert_served(
        run,
        {"pixels": pixels, "text_ids": ids, "text_extra": extra},
        {one: to_numpy(value) for one, value in expected.items()},
    )
    if name == "tf_saved_model":
        assert warmup_types(tmp_path) == {"pixels": 4, "text_ids": 3, "text_extra": 1}


def warmup_types(folder):
    """Returns the types in the warm-up request, as TensorFlow's `DataType` numbers them."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    path = folder / "1" / "assets.extra" / "tf_serving_warmup_requests"
    (record,) = tf.data.TFRecordDataset(str(path))
    log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
    inputs = log.predict_log.request.inputs
    return {name: tensor.dtype for name, tensor in inputs.items()}


@writable
def test_integers_of_every_size_are_served_as_such(name, tmp_path, rng):
    types = ["bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64"]
    if keras.backend.backend() == "jax":
        types.remove("int64")  # JAX has none unless it is configured to
    inputs = [keras.Input((2 + k,), dtype=dtype, name=dtype) for k, dtype in enumerate(types)]
    scaled = [keras.layers.Rescaling(0.01)(one) for one in inputs]
    logits = keras.layers.Dense(3, name="logits")(keras.layers.Concatenate()(scaled))
    model = keras.Model(inputs, logits)
    _, found, run = exported(model, tmp_path, name, convert=False)
    assert found == {dtype: dtype for dtype in types}
    values = [
        rng.integers(0, 2 if dtype == "bool" else 100, (6, 2 + k)).astype(dtype)
        for k, dtype in enumerate(types)
    ]
    assert_served(run, dict(zip(types, values, strict=True)), {"logits": to_numpy(model(values))})


AWKWARD = ["my image", "image:0", "été", "class", "1st", "a-b.c", "self", "日本", "Image", "image"]
VALID = ["my_image", "image_0", "ete", "class_", "input_1st", "a_b_c", "self_", "input"]


@writable
def test_names_that_a_format_could_not_take_get_an_alias_in_all(name, tmp_path, rng):
    inputs = [keras.Input((2 + k,), name=one) for k, one in enumerate(AWKWARD)]
    joined = keras.layers.Concatenate()(inputs)
    # Some outputs have the name of an input.
    outputs = {"image": keras.layers.Dense(3)(joined), "def": keras.layers.Dense(2)(joined)}
    model = keras.Model(inputs, outputs)
    manifest, types, run = exported(model, tmp_path, name, convert=False)
    aliases = [*VALID, "Image", "image_1"]
    assert [port["name"] for port in manifest["inputs"]] == aliases
    assert [port["model_name"] for port in manifest["inputs"]] == AWKWARD
    told = {port["model_name"]: port["name"] for port in manifest["outputs"]}
    assert told == {"image": "image_2", "def": "def_"}
    assert set(types) == set(aliases)
    values = [rng.normal(size=(6, 2 + k)).astype("float32") for k in range(len(AWKWARD))]
    answer = model(values)
    assert_served(
        run,
        dict(zip(aliases, values, strict=True)),
        {alias: to_numpy(answer[one]) for one, alias in told.items()},
    )


@pytest.mark.once
def test_a_valid_name_is_kept_and_any_other_becomes_an_identifier():
    for name in ("image", "x_1", "Logits", "inputs"):
        assert valid_name(name, "input") == name
    for name in (*AWKWARD, "_x", "None", "a/b", "\N{GREEK SMALL LETTER ALPHA}", ""):
        found = valid_name(name, "output")
        assert found.isascii()
        assert found.isidentifier()


@pytest.mark.once
def test_an_onnx_value_that_has_a_wanted_name_makes_way():
    import onnxruntime
    from onnx import TensorProto, helper

    def value(name, kind=TensorProto.FLOAT, shape=(3,)):
        return helper.make_tensor_value_info(name, kind, shape)

    node = helper.make_node
    # A condition's branches name values from outside: the input and `logits`, which is inside.
    branches = {
        f"{word}_branch": helper.make_graph(
            [node(operation, ["x:0", "logits"], [word])], word, [], [value(word)]
        )
        for word, operation in (("then", "Add"), ("else", "Sub"))
    }
    graph = helper.make_graph(
        [
            node("Mul", ["x:0", "x:0"], ["logits"]),
            node("If", ["c:0"], ["Identity:0"], **branches),
        ],
        "graph",
        [value("x:0"), value("c:0", TensorProto.BOOL, ())],
        [value("Identity:0")],
    )
    rename_values(graph, ["x", "then"], ["logits"])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    x = np.array([1, 2, 4], "float32")
    for condition, expected in ((True, x + x**2), (False, x - x**2)):
        (found,) = session.run(["logits"], {"x": x, "then": np.array(condition)})
        np.testing.assert_array_equal(found, expected)


def reads(layer, dtype="int32", shape=(7,)):
    """Returns a model in which a layer reads a vector of integers, reshaped on the way."""
    inputs = keras.Input(shape, dtype=dtype)
    x = layer(keras.layers.Reshape(shape)(inputs))
    return keras.Model(inputs, keras.layers.Flatten()(x))


def nested(entries):
    inner = keras.Input((7,), dtype="int32")
    model = keras.Model(inner, keras.layers.Embedding(entries, 3)(inner))
    return keras.Sequential([keras.Input((7,), dtype="int32"), model])


TOKENS = {
    "embedding": (lambda: reads(keras.layers.Embedding(5, 3)), 5),
    "nested models": (lambda: reads(nested(4)), 4),
    "wrapper": (lambda: reads(keras.layers.TimeDistributed(nested(6)), shape=(2, 7)), 6),
    "one-hot": (lambda: reads(keras.layers.CategoryEncoding(4, output_mode="multi_hot")), 4),
    "bytes": (lambda: reads(keras.layers.Embedding(300, 3), "uint8"), 256),
    "pixels": (lambda: reads(keras.layers.Rescaling(0.1)), 256),
    "signed pixels": (lambda: reads(keras.layers.Rescaling(0.1), "int8"), 128),
}


@pytest.mark.parametrize("kind", TOKENS)
def test_random_integers_are_those_that_the_layers_behind_the_input_know(kind):
    make, end = TOKENS[kind]
    model = make()
    inputs, _ = ports(model)
    (found,) = sample_inputs(model, inputs, None)
    assert found.dtype == inputs[0].dtype
    assert found.min() >= 0
    assert end * 0.6 <= found.max() < end


@pytest.mark.once
def test_two_inputs_of_one_model_have_vocabularies_of_their_own():
    one, other = (keras.Input((40,), dtype="int32", name=name) for name in ("one", "other"))
    embedded = [keras.layers.Embedding(3, 2)(one), keras.layers.Embedding(90, 2)(other)]
    model = keras.Model([one, other], keras.layers.Concatenate()(embedded))
    found = sample_inputs(model, ports(model)[0], None)
    assert [int(values.max()) for values in found] == [2, 89]


class Subclassed(keras.Model):
    """Says in Python what it does."""


SAMPLES = {
    "list": ([np.zeros((2, 6, 5, 2)), np.zeros((2, 7)), np.zeros((2, 4))], "list"),
    "keys": ({"pixels": np.zeros((2, 6, 5, 2))}, "dict"),
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_sample_that_is_arranged_otherwise_is_refused(kind, tmp_path):
    sample, received = SAMPLES[kind]
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        export_model(mixed_model(), tmp_path, (), sample=sample)
    arranged = "{'pixels': 'pixels', 'text': {'ids': 'text_ids', 'extra': 'text_extra'}}"
    assert str(caught.value) == (
        f"`sample` must be arranged as the model's inputs are: {arranged}. Received: {received} "
        "arranged otherwise."
    )


VALUES = {
    "type": (
        {"pixels": np.full((2, 6, 5, 2), -1.5)},
        (
            "`sample` must hold values of the type of input 'pixels', uint8. Received: float64 "
            "from -1.5 to -1.5."
        ),
    ),
    "number": (
        {"pixels": np.zeros((3, 6, 5, 2))},
        (
            "`sample` must have as many examples for one input as for the others. Received: 3, 2, "
            "2 examples."
        ),
    ),
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_sample_that_does_not_fit_is_refused(kind, tmp_path):
    changes, sentence = VALUES[kind]
    text = {"ids": np.zeros((2, 7)), "extra": np.zeros((2, 4))}
    sample = {"pixels": np.zeros((2, 6, 5, 2)), "text": text, **changes}
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        export_model(mixed_model(), tmp_path, (), sample=sample)
    assert str(caught.value) == sentence


def test_a_sample_may_name_the_inputs_of_a_list(tmp_path):
    one, two = keras.Input((3,), name="one"), keras.Input((2,), name="two")
    model = keras.Model([one, two], keras.layers.Concatenate()([one, two]))
    sample = {"two": np.full((4, 2), 2.0), "one": np.full((4, 3), 1.0)}
    manifest = export_model(model, tmp_path, (), sample=sample)
    ranges = {port["name"]: port["sample_range"] for port in manifest["inputs"]}
    assert ranges == {"one": [1.0, 1.0], "two": [2.0, 2.0]}


def test_a_model_without_a_graph_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        export_model(Subclassed(), tmp_path, ())
    assert str(caught.value) == (
        "export_model() takes functional and Sequential models, whose layers it can see. Received: "
        "Subclassed, which says in Python what it does. Make it functional: keras.Model(inputs, "
        "outputs)."
    )


def test_a_functional_model_with_a_call_of_its_own_is_exported_as_it_is(tmp_path):
    class Doubling(keras.Model):
        def call(self, inputs, training=None, mask=None):
            return 2 * super().call(inputs, training=training, mask=mask)

    inputs = keras.Input((5,))
    model = Doubling(inputs, keras.layers.Dense(2)(inputs))
    sample = np.ones((3, 5), "float32")
    assert export_model(model, tmp_path / "kept", (), convert=False, sample=sample)["parameters"]


def test_a_model_that_is_not_built_is_refused_in_a_sentence(tmp_path):
    model = keras.Sequential([keras.layers.Dense(2)], name="dense")
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        export_model(model, tmp_path, ())
    assert str(caught.value) == (
        "What export_model() is given must be built. Received: 'dense', which is not. Call it on "
        "inputs first, or its build(input_shape)."
    )


@pytest.mark.once
def test_an_onnx_graph_reads_declared_integers_in_the_type_that_it_was_written_with():
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    written = onnx.TensorProto.INT32
    ends = [onnx.helper.make_tensor_value_info(name, written, ["batch", 3]) for name in "xy"]
    # No runtime adds integers of 16 bits.
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "x"], ["y"])], "doubled", ends[:1], ends[1:]
    )
    declare_input_types(graph, ["uint16"])
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    session = runtime.InferenceSession(model.SerializeToString())
    numbers = np.array([[1, 2, 65535]], "uint16")
    np.testing.assert_array_equal(session.run(None, {"x": numbers})[0], [[2, 4, 131070]])
