"""What fails after training: it costs no result, and the same command tries it again."""

import importlib.util
import json
import shutil
import sys

import pytest

from low_rank_local_connectivity import plots, training
from low_rank_local_connectivity.experiments import finishing
from low_rank_local_connectivity.experiments.command import checked, run_or_tell
from low_rank_local_connectivity.experiments.flags import FLAGS as KNOWN_FLAGS

RUNNING = "low_rank_local_connectivity.experiments.command.run_or_refuse"
FLAGS = ("--epochs=1", "--filters=3", "--batch_size=64", "--train_examples=64", "--noevaluation")


def command_in(folder, monkeypatch):
    """A function that does in this process what a command does; returns the status."""
    # It would hold for all later tests of the process.
    monkeypatch.setattr(training, "make_deterministic", lambda *_, **__: None)

    def run(*flags):
        for name in KNOWN_FLAGS:
            KNOWN_FLAGS[name].unparse()
        argv = ["run_experiment.py", f"--model_dir={folder / 'run'}", *FLAGS, *flags]
        monkeypatch.setattr(sys, "argv", argv)
        rest = KNOWN_FLAGS(argv)
        return run_or_tell(*checked(rest))

    return run


@pytest.fixture
def command(monkeypatch, tmp_path):
    return command_in(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run that is finished and has exported nothing."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert command_in(folder, monkeypatch)("--export_formats=none") == 0
    return folder / "run"


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it where `command` looks."""
    shutil.copytree(finished, tmp_path / "run")


def result_in(folder):
    return json.loads((folder / "run" / "result.json").read_text())


def failing(folder, error, seen):
    """A function that fails, and notes what the result said at that moment."""

    def fail(*_, **__):
        seen.append(result_in(folder))
        raise error

    return fail


@pytest.mark.parametrize(
    ("what", "owner", "name", "error", "sentence"),
    [
        ("export", finishing, "export", TypeError("broken\n  here"), "TypeError: broken here"),
        ("evaluation", finishing, "draw_confusions", ValueError("No ink."), "No ink."),
        pytest.param(
            *("picture", plots, "combining_weight_maps", ValueError("No ink."), "No ink."),
            marks=pytest.mark.slow,
        ),
        ("model", training, "save", OSError(28, "No space left on device"), "The disk of"),
    ],
)
def test_a_failure_after_training_costs_no_result_and_is_tried_again(
    what, owner, name, error, sentence, command, monkeypatch, tmp_path, capsys
):
    seen = []
    # A network without low-rank layers has one form to export and no picture.
    formats = "onnx" if what == "export" else "none"
    flags = (f"--export_formats={formats}",)
    flags += ("--layer_types=conv2d",) if what == "export" else ()
    flags += ("--evaluation",) if what == "evaluation" else ()
    with monkeypatch.context() as broken:
        broken.setattr(owner, name, failing(tmp_path, error, seen))
        assert command(*flags) == 1
    # It was there before anything could fail, whole but for what had not been done.
    assert 0 <= seen[0]["test_accuracy"] <= 1
    assert what in seen[0]["failed"]
    result = result_in(tmp_path)
    assert result["test_accuracy"] == seen[0]["test_accuracy"]
    assert result["failed"][what].startswith(sentence)
    shown = capsys.readouterr()
    assert f"run_experiment.py: The {what} failed: {sentence}" in shown.err
    assert "The result is valid, and the same command tries the rest again." in shown.err
    assert f"Result: test accuracy {result['test_accuracy']:.4f}" in shown.out

    if what != "model":  # which has to come from the checkpoint
        monkeypatch.setattr(training, "train", failing(tmp_path, AssertionError("trains"), seen))
    assert command(*flags) == 0
    completed = result_in(tmp_path)
    assert "failed" not in completed
    for key in ("test_accuracy", "valid_accuracy", "parameters"):
        assert completed[key] == result[key]
    assert (tmp_path / "run" / "combining_weights.png").exists() == (what != "export")
    for file in ("evaluation.json", "confusion.png"):
        assert (tmp_path / "run" / file).exists() == (what == "evaluation")
    assert (tmp_path / "run" / "model.keras").exists()
    monkeypatch.setattr(RUNNING, None)  # done: nothing is run
    assert command(*flags) == 0


@pytest.mark.usefixtures("copied")
def test_a_finished_run_answers_for_nothing_that_it_did_not_run(command, monkeypatch, tmp_path):
    before = result_in(tmp_path)
    for flags in (["--seed=3"], ["--epochs=1", "--spatial_rank=3"], ["--train_examples=128"]):
        with pytest.raises(
            ValueError, match="--model_dir must not contain a run with different flags"
        ):
            command("--export_formats=none", *flags)
        with pytest.raises(ValueError, match="only for more epochs"):
            command("--export_formats=none", "--allow_other_flags", *flags)
    assert result_in(tmp_path) == before
    # More epochs are a run to go on with.
    more = ("--export_formats=none", "--epochs=3", "--warmup_epochs=0")
    assert command(*more, "--allow_other_flags") == 0
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "1", "2", "3"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["epochs"] == 3
    monkeypatch.setattr(RUNNING, None)
    assert command(*more) == 0


@pytest.mark.usefixtures("copied")
@pytest.mark.parametrize("missing", ["matplotlib", "sklearn", None])
def test_a_finished_run_is_evaluated_if_that_is_missing_and_possible(
    missing, command, monkeypatch, tmp_path, capsys
):
    seen = importlib.util.find_spec
    monkeypatch.setattr(training, "train", failing(tmp_path, AssertionError("trains"), []))
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *of: None if name == missing else seen(name, *of)
    )
    before = result_in(tmp_path)
    assert command("--export_formats=none", "--evaluation") == 0
    assert result_in(tmp_path) == before
    files = {
        name for name in ("evaluation.json", "confusion.png") if (tmp_path / "run" / name).exists()
    }
    expected = {"evaluation.json": missing != "sklearn", "confusion.png": missing is None}
    assert files == {name for name, there in expected.items() if there}
    if missing == "matplotlib":
        told = "No confusion.png: it needs matplotlib, which is not installed: pip install mat"
        assert capsys.readouterr().out.startswith(told)
    if missing != "sklearn":
        found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
        assert found["accuracy"] == pytest.approx(before["test_accuracy"], abs=1e-6)
    monkeypatch.setattr(RUNNING, None)  # done: nothing is run
    assert command("--export_formats=none", "--evaluation") == 0


@pytest.mark.usefixtures("copied")
def test_a_run_belongs_to_its_backend(command, monkeypatch, tmp_path):
    import keras

    here = keras.backend.backend()
    other = "jax" if here != "jax" else "torch"
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    assert config["backend"] == here
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("KERAS_BACKEND", other)
        with pytest.raises(ValueError, match="with different flags") as caught:
            command("--export_formats=none")
        assert f"where KERAS_BACKEND is {here} there and {other} here" in str(caught.value)
        # One from before it was told is read as it was then.
        del config["backend"]
        path.write_text(json.dumps(config))
        assert command("--export_formats=none") == 0


@pytest.mark.usefixtures("copied")
def test_a_network_that_cannot_go_on_leaves_the_run_as_it_was(command, tmp_path):
    before = (tmp_path / "run" / "config.json").read_text()
    with pytest.raises(SystemExit, match="2"):
        command("--export_formats=none", "--epochs=2", "--filters=4", "--allow_other_flags")
    assert (tmp_path / "run" / "config.json").read_text() == before
    assert command("--export_formats=none") == 0
