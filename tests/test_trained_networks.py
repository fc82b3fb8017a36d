"""The commands that evaluate, export and apply a trained network."""

import csv
import io
import json
import shutil
from pathlib import Path

import commands
import numpy as np
import pytest
from test_experiment import finish

from low_rank_local_connectivity.data import DATASETS
from low_rank_local_connectivity.data.dataset import Examples
from low_rank_local_connectivity.experiments import evaluating, exporting, predicting
from low_rank_local_connectivity.experiments.experiment import Experiment
from low_rank_local_connectivity.experiments.trained import KEPT, dataset_of, write_inputs

pytestmark = pytest.mark.once
Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
NAMES = {"evaluate": evaluating, "export": exporting, "predict": predicting}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    flags = ("--epochs=2", "--filters=4", "--batch_size=32", "--layer_types=conv2d,conv2d,conv2d")
    finish(folder, *flags, "--export_formats=none", "--noevaluation")
    return folder


def told(capsys, monkeypatch, name, *words):
    """Carries out a command in this process; returns its status, output and errors."""
    monkeypatch.setattr("sys.argv", [f"lrlc-{name}", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        NAMES[name].main()
    printed = capsys.readouterr()
    return ended.value.code, printed.out, printed.err


@pytest.fixture
def command(capsys, monkeypatch):
    return lambda name, *words: told(capsys, monkeypatch, name, *words)


def digits():
    test = DATASETS["digits"].load()["test"]
    assert isinstance(test, Examples)
    return test


def scores_of(folder):
    import keras

    dataset, test = DATASETS["digits"], digits()
    model = keras.models.load_model(folder / "model.keras")
    return model.predict(dataset.prepare(test.images), verbose=0), test.labels


def test_an_evaluation_is_that_of_the_network_s_own_answers(trained, command, tmp_path):
    status, output, errors = command("evaluate", f"--model={trained}", f"--out={tmp_path / 'out'}")
    assert (status, errors) == (0, "")
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    scores, labels = scores_of(trained)
    answers = scores.argmax(1)
    right = answers == labels
    recalls = [right[labels == one].mean() for one in range(10)]
    precisions = [right[answers == one].mean() for one in range(10) if (answers == one).any()]
    among_five = (np.argsort(-scores, 1)[:, :5] == labels[:, np.newaxis]).any(1)
    assert found["accuracy"] == pytest.approx(right.mean())
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert found["top_5_accuracy"] == pytest.approx(among_five.mean())
    assert [one["recall"] for one in found["classes"]] == pytest.approx(recalls)
    known = [one["precision"] for one in found["classes"] if one["precision"] is not None]
    assert known == pytest.approx(precisions)
    result = json.loads((trained / "result.json").read_text())
    assert found["accuracy"] == pytest.approx(result["test_accuracy"], abs=1e-6)
    _, *rows = csv.reader((tmp_path / "out" / "confusion.csv").read_text().splitlines())
    counts = np.array([[int(number) for number in row[1:]] for row in rows])
    expected = np.zeros((10, 10), int)
    np.add.at(expected, (labels, answers), 1)
    np.testing.assert_array_equal(counts, expected)
    with Image.open(tmp_path / "out" / "confusion.png") as picture:
        assert picture.width > 400
    assert (tmp_path / "out" / "evaluation.md").read_text() in output
    assert f"accuracy {100 * right.mean():.2f} %" in output


def test_other_splits_and_files_of_the_same_shape_are_evaluated(trained, command, tmp_path):
    status, output, _ = command("evaluate", f"--model={trained / 'model.keras'}", "--split=all")
    assert status == 0
    assert output.startswith("1,797 examples of digits, all: ")
    assert (trained / "evaluation-all" / "evaluation.json").exists()
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(0, 16, (40, 16, 16, 1)), np.arange(40) % 10
    path = tmp_path / "other.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])
    flags = (f"--model={trained}", "--dataset=npz", f"--data_dir={path}", f"--out={tmp_path}")
    status, output, errors = command("evaluate", *flags)
    assert (status, errors) == (0, "")
    assert output.startswith("20 examples of npz, test: ")
    np.savez(path, x_train=images, y_train=labels % 9, x_test=images[:9], y_test=labels[:9])
    status, _, errors = command("evaluate", *flags)
    assert status == 2
    assert errors.startswith("lrlc-evaluate: The examples must have the network's class names, (")
    assert len(errors.splitlines()) == 1


def written(folder, count=3):
    """Images of the test split as files, and the network's inputs that they become."""
    folder.mkdir()
    images = digits().images[:count]
    for number, image in enumerate(images):
        pixels = np.round(image[..., 0] * (255 / 16)).astype("uint8")
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def probabilities(folder, count=3):
    scores = scores_of(folder)[0][:count].astype("float64")
    shares = np.exp(scores)
    return shares / shares.sum(1, keepdims=True)


def test_images_are_predicted_as_in_training(trained, command, tmp_path):
    paths = written(tmp_path / "images")
    expected = probabilities(trained)
    status, output, errors = command("predict", f"--model={trained}", "--top=2", *paths)
    assert (status, errors) == (0, "")
    header, *rows = csv.reader(io.StringIO(output))
    assert header == ["path", "class", "probability", "class_2", "probability_2"]
    assert [row[0] for row in rows] == [*map(str, paths)]
    for row, shares in zip(rows, expected, strict=True):
        best = np.argsort(-shares)[:2]
        assert (row[1], row[3]) == tuple(str(one) for one in best)
        # Pixels of 8 bits differ from those of the training, which had 16 steps, by rounding.
        assert (float(row[2]), float(row[4])) == pytest.approx(shares[best], abs=0.01)


def test_folders_and_patterns_name_images_and_the_rest_is_reported(trained, command, tmp_path):
    paths = written(tmp_path / "images")
    (tmp_path / "images" / "notes.txt").write_text("no image")
    paths[1].write_bytes(paths[1].read_bytes()[:-30])
    output = tmp_path / "rows.jsonl"
    flags = (f"--model={trained}", "--format=jsonl", f"--output={output}", "--batch_size=2")
    status, printed, errors = command(
        "predict", *flags, tmp_path / "images", tmp_path / "im*" / "2.png", tmp_path / "none.png"
    )
    assert (status, printed) == (1, "")
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [Path(row["path"]).name for row in rows] == ["0.png", "2.png", "2.png"]
    assert [len(row["classes"]) for row in rows] == [1, 1, 1]
    assert errors.splitlines() == [
        f"lrlc-predict: {paths[1]} was skipped: It is no complete image of a known format.",
        f"lrlc-predict: {tmp_path / 'none.png'} was skipped: No such file or directory",
    ]


def test_a_network_leaves_with_its_preprocessing(trained, command, tmp_path):
    kept = ("config.json", "inputs.json", "model.keras", "result.json")
    (tmp_path / "elsewhere").mkdir()
    for name in kept:
        shutil.copy(trained / name, tmp_path / "elsewhere" / name)
    (path, *_) = written(tmp_path / "images", 1)
    here, there = (
        command("predict", f"--model={folder}", path)
        for folder in (trained, tmp_path / "elsewhere")
    )
    assert here == there
    (tmp_path / "elsewhere" / "inputs.json").unlink()  # of an older run
    assert command("predict", f"--model={tmp_path / 'elsewhere'}", path) == here


@pytest.mark.parametrize(
    "changes", [{"translate": True, "canvas_size": 20}, {"augment": ("flip",)}]
)
def test_the_inputs_of_an_older_run_follow_from_its_flags(changes, tmp_path):
    experiment = Experiment(**changes)
    (tmp_path / "config.json").write_text(json.dumps(experiment.config()))
    older = dataset_of(tmp_path)
    write_inputs(tmp_path, experiment.data)
    for name in KEPT:
        assert getattr(older, name) == getattr(dataset_of(tmp_path), name), name
    assert older.input_shape == experiment.data.input_shape


def test_a_network_is_exported_from_the_shell(trained, command, tmp_path):
    import keras
    import tensorflow as tf

    out, new = tmp_path / "out", tmp_path / "new.keras"
    status, output, _ = command(
        "export", f"--model={trained}", "--convert=no", f"--out={out}", f"--to_keras={new}"
    )
    assert status == 0
    assert f"Saved to {new}." in output
    (path, *_) = written(tmp_path / "images", 1)
    served = tf.saved_model.load(str(out / "1"))
    answer = served.signatures["serving_bytes"](tf.constant([path.read_bytes()]))
    assert answer["class"].numpy()[0].decode() == str(probabilities(trained, 1).argmax())
    again = keras.models.load_model(new)
    images = np.zeros((1, 16, 16, 1), "float32")
    old = keras.models.load_model(trained / "model.keras")
    np.testing.assert_array_equal(again.predict(images, verbose=0), old.predict(images, verbose=0))
    status, _, errors = command("export", f"--model={trained}", f"--to_keras={new}")
    assert status == 2
    assert "must be a new file" in errors


def test_a_file_of_keras_2_becomes_one_of_keras_3(command, tmp_path):
    tf_keras = pytest.importorskip("tf_keras", reason="tf_keras is not installed")
    import keras

    layers = [tf_keras.Input((9, 8, 2)), tf_keras.layers.LocallyConnected2D(3, 3)]
    old = tf_keras.Sequential(layers)
    old.save(tmp_path / "old.keras")
    new = tmp_path / "new.keras"
    flags = (f"--model={tmp_path / 'old.keras'}", "--formats=none", f"--to_keras={new}")
    assert command("export", *flags)[0] == 0
    images = np.random.default_rng(0).normal(size=(2, 9, 8, 2)).astype("float32")
    found = keras.models.load_model(new).predict(images, verbose=0)
    np.testing.assert_allclose(found, old.predict(images, verbose=0), atol=1e-5)


REFUSED = {
    "predict": "lrlc-predict: --model must be a trained network. Received: no --model. Give the",
    "predict --model=nothing x.png": "lrlc-predict: --model must be a trained network. Received: "
    "--model=nothing, without config.json and model.keras.",
    "predict --model={run}": "lrlc-predict: The images must be named. Received: no file.",
    "predict --model={run} --top=0 x.png": "lrlc-predict: --top must be at least 1. Received: ",
    "predict --nonsense": "lrlc-predict: Unknown command line flag 'nonsense'",
    "evaluate --model={run} words": "lrlc-evaluate: Only flags are taken. Received: words.",
    "evaluate --model={run} --split=some": "lrlc-evaluate: flag --split=some",
    "evaluate --model={run}/metrics.csv": "lrlc-evaluate: --model must be a trained network. Rec",
    "evaluate --model={run} --dataset=mnist --data_dir=nowhere": "lrlc-evaluate: The examples must "
    "have the network's image shape, (16, 16, 1). Received: (28, 28, 1)",
    "export --model=nothing.h5": "lrlc-export: --model must be a run's folder or a model's file.",
    "export --model={run} --to_keras=x.h5": "lrlc-export: --to_keras must be a new file whose name "
    "ends in .keras. Received: --to_keras=x.h5, which has another ending.",
    "export --model={run} --formats=zip": "lrlc-export: --formats takes tf_saved_model, ",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_makes_no_sense_is_refused_in_a_sentence(words, trained, command):
    status, output, errors = command(*words.format(run=trained).split())
    assert (status, output) == (2, "")
    assert errors.startswith(REFUSED[words])
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("name", NAMES)
def test_help_lists_the_flags_by_group(name, command):
    status, output, errors = command(name, "--help")
    assert (status, errors) == (0, "")
    assert output.index("Input:") < output.index("--model:") < output.index("Output:")


def test_a_reader_that_ends_early_gets_no_traceback(trained, tmp_path):
    paths = written(tmp_path / "images")
    module = "low_rank_local_connectivity.experiments.predicting"
    done = commands.python("-m", module, f"--model={trained}", *paths)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 4
