"""An exported model behind a real server, which many clients ask at once."""

import subprocess
import sys

import commands
import pytest

from benchmarks.reliability import load, server

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The server's program, in an environment of its own."""
    folder = tmp_path_factory.mktemp("server")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--requirement"]
    subprocess.run([*install, server.PAGE / "requirements.txt"], check=True)
    return folder / "bin" / "mlserver"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that has exported what OpenVINO reads."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    flags = ["--epochs=1", "--filters=3", "--train_examples=64", "--noevaluation"]
    flags += ["--export_formats=tf_saved_model,onnx", f"--model_dir={folder}"]
    assert commands.python(commands.SCRIPT, *flags).returncode == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("model", ["saved_model/1", "saved_model/model.onnx"])
def test_a_server_answers_as_the_model_does_and_refuses_what_is_wrong(
    model, program, run, tmp_path
):
    examples = load.drawn(run, seed=3)
    with server.serving(program, run / model, tmp_path) as running:
        tally = load.load(running, examples, minutes=0.3, clients=20, seed=3)
    assert tally.wrong == []
    assert tally.kinds["good"]["equal"] > 20
    assert tally.kinds["memory"] == {"flat": 1}
    assert tally.kinds.keys() == {"good", "memory", *load.WRONG}


@pytest.mark.parametrize(
    ("status", "answer", "ending"),
    [
        (200, {"outputs": [{"shape": [1, 2], "data": [1.0, 2.0]}]}, "equal"),
        (200, {"outputs": [{"shape": [1, 2], "data": [1.0, 2.1]}]}, "other"),
        (200, {"outputs": [{"shape": [2, 1], "data": [1.0, 2.0]}]}, "other"),
        (500, {"error": "Internal"}, "refused"),
    ],
)
def test_an_answer_is_held_against_the_network_s(status, answer, ending):
    found, wrong = load.judged(status, answer, load.np.array([[1.0, 2.0]]))
    assert found == ending
    assert (wrong is None) == (ending == "equal")


def test_memory_that_grows_is_told():
    for sizes, ending in (([2**28] * 12, "flat"), ([2**28] * 9 + [2**29] * 3, "grown")):
        tally = load.Tally("Load")
        load.judge_memory(tally, sizes)
        assert tally.kinds["memory"] == {ending: 1}
        assert bool(tally.wrong) == (ending == "grown")
