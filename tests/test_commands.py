"""Commands that are forks: to their caller they are processes like any other."""

import os
import signal

import commands
import pytest

pytestmark = pytest.mark.once
ENDS = {
    "nothing": "pass",
    "status": "import sys; print('so far'); sys.exit(3)",
    "words": "import sys; sys.exit('It cannot be.')",
    "error": "raise ValueError('no such thing')",
    "killed": "import os; os.kill(os.getpid(), 9)",
    "at exit": "import atexit; atexit.register(print, 'last'); print('first')",
    "thread": "import threading\nthreading.Timer(0.1, print, ['late']).start()",
    "surroundings": "import os, sys\nprint(os.getcwd(), os.environ['SAID'], sys.argv, __name__)",
    "input": "import sys; print(sys.stdin.read())",
}


@pytest.mark.parametrize("name", ENDS)
def test_a_fork_ends_as_an_interpreter_does(name, tmp_path):
    arguments = ("-c", ENDS[name], "--flag", 7)
    environment = {"SAID": "here", "PYTHONUNBUFFERED": ""}
    found, expected = (
        python(*arguments, cwd=tmp_path, **environment)
        for python in (commands.light_server().python, commands.new_python)
    )
    assert (found.returncode, found.stdout) == (expected.returncode, expected.stdout)
    # Of an error's traceback the last line: others show where the code was called from.
    assert found.stderr.splitlines()[-1:] == expected.stderr.splitlines()[-1:]


def test_several_commands_run_at_a_time_and_take_signals_and_end_apart(tmp_path):
    code = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))\n"
        "print('ready', flush=True)\n"
        f"while not pathlib.Path({str(tmp_path)!r}, sys.argv[1]).exists():\n"
        "    time.sleep(0.01)\n"
        "print('told to')\n"
    )
    server = commands.light_server()
    first, second, third, fourth = (server.start("-c", code, name) for name in "abcd")
    for process in (first, second, third, fourth):
        process.wait_for("ready\n")
        assert process.poll() is None
    assert len({os.getpid(), first.pid, second.pid, third.pid, fourth.pid}) == 5
    second.kill()
    third.send_signal(signal.SIGTERM)
    fourth.send_signal(signal.SIGINT)
    (tmp_path / "a").touch()
    assert first.communicate() == ("ready\ntold to\n", "")
    assert [process.communicate()[0] for process in (second, third)] == ["ready\n"] * 2
    assert [process.poll() for process in (first, second, third)] == [0, -9, 4]
    assert fourth.communicate()[1].endswith("KeyboardInterrupt\n")
    assert fourth.poll() != 0


def test_other_settings_that_imports_read_get_an_interpreter_of_their_own():
    code = "import os, sys; print(os.environ['KERAS_HOME'], 'numpy' in sys.modules)"
    assert commands.python("-c", code, KERAS_HOME="/nowhere").stdout == "/nowhere False\n"


def test_a_server_that_was_killed_is_replaced():
    first = commands.Server("colorsys")
    server = int(first.python("-c", "import os; print(os.getppid())").stdout)
    assert server != os.getpid()
    os.kill(server, signal.SIGKILL)
    os.waitpid(server, 0)
    second = commands.Server("colorsys")
    code = "import os, sys; print('colorsys' in sys.modules, os.getppid())"
    imported, other = second.python("-c", code).stdout.split()
    assert imported == "True"
    assert int(other) != server
    for one in (first, second):
        one.close()
