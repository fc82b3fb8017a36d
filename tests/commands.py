"""Commands of Python in processes of their own, which have imported already what takes long.

A small run spends more time on importing a framework than on training. So a server imports what a
run imports; it computes nothing, and has therefore neither devices nor threads that a fork would
lose. Each command is a fork of it: a process like any other, with arguments, environment, folder,
output, signals and exit status of its own. The processes that share the tests share the server.

    python tests/commands.py SOCKET MODULE...     the server: requests as lines of JSON, and answers
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zlib
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
SCRIPT = str(ROOT / "run_experiment.py")
LIBRARY = "low_rank_local_connectivity"
# What run_experiment.py imports at once, and what a run imports before: Keras first.
LIGHT = ("absl.app", f"{LIBRARY}.experiments.command")
PARTS = ("layers", "training", "export.exporting", "plots", "data.pipeline")
RUN = ("keras", *(f"{LIBRARY}.{part}" for part in PARTS), "matplotlib.pyplot")
RUN += ("sklearn.datasets", "sklearn.model_selection", "scipy.ndimage", *LIGHT)
# What takes long of what Keras imports on JAX.
BENEATH_KERAS = ("jax", "h5py", "matplotlib.pyplot", "scipy.stats", "sklearn.base")
# What frameworks read while they are imported: with other values a command imports them itself.
READ_BY_IMPORTS = ("KERAS_BACKEND", "KERAS_HOME", "PYTHONPATH")
POLL = 0.01
# Every test process's, before it has a temporary folder of its own.
SOCKETS = Path(tempfile.gettempdir())


class Process:
    """A command that was started, with as much of `subprocess.Popen` as tests use."""

    def __init__(self, server: "Server", number: int, arguments, cwd, environment):
        self.args, self.returncode = [*map(str, arguments)], None
        self._server = server
        self._files = [server.folder / f"{number}.{name}" for name in ("out", "err")]
        for file in self._files:
            file.touch()
        request = {"argv": self.args, "cwd": str(cwd), "environment": environment}
        self.pid = server.ask({**request, "files": [*map(str, self._files)]})

    def poll(self) -> int | None:
        """Returns the exit status, negative if a signal ended it, or None while it runs."""
        self.returncode = self._server.status_of(self.pid)
        return self.returncode

    def communicate(self, timeout: float = 3600) -> tuple[str, str]:
        """Returns what it has printed when it has ended."""
        stop = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > stop:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(POLL)
        output, errors = (file.read_text(errors="replace") for file in self._files)
        return output, errors

    def wait_for(self, text: str) -> None:
        """Waits until it has printed a text."""
        while text not in self._files[0].read_text(errors="replace"):
            assert self.poll() is None, self.communicate()
            time.sleep(POLL)

    def send_signal(self, number: int) -> None:
        """Sends a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it at once."""
        self.send_signal(signal.SIGKILL)


class Server:
    """The process of which commands are forks."""

    def __init__(self, *modules: str):
        self._folder = tempfile.TemporaryDirectory()
        self.folder = Path(self._folder.name)
        self._socket = connected(*modules)
        self._statuses: dict[int, int] = {}
        self._started = 0
        atexit.register(self.close)

    def start(self, *arguments, cwd=None, **environment) -> Process:
        """Starts `python ARGUMENTS`."""
        self._started += 1
        environment = {**os.environ, **environment}
        return Process(self, self._started, arguments, cwd or Path.cwd(), environment)

    def python(self, *arguments, cwd=None, **environment) -> subprocess.CompletedProcess[str]:
        """Runs `python ARGUMENTS` to its end."""
        process = self.start(*arguments, cwd=cwd, **environment)
        output, errors = process.communicate()
        return subprocess.CompletedProcess(process.args, process.poll() or 0, output, errors)

    def ask(self, request) -> int:
        """Hands a request over and returns the pid of the process that it became."""
        self._socket.sendall(f"{json.dumps(request)}\n".encode())
        while (answer := self._answer())["status"] is not None:
            self._statuses[answer["pid"]] = answer["status"]
        self._statuses.pop(answer["pid"], None)  # of an earlier process of this number
        return answer["pid"]

    def status_of(self, pid: int) -> int | None:
        """Returns the exit status of a command, or None if it has none yet."""
        while select.select([self._socket], [], [], 0)[0]:
            answer = self._answer()
            self._statuses[answer["pid"]] = answer["status"]
        return self._statuses.get(pid)

    def _answer(self):
        line = self._socket.recv(LINE, socket.MSG_WAITALL)
        assert line, "The server of commands has ended."
        return json.loads(line)

    def close(self) -> None:
        """Leaves the server, which the last one ends; commands that still run go on."""
        self._socket.close()
        self._folder.cleanup()


def connected(*modules: str) -> socket.socket:
    """Returns a connection to the server with these modules, and starts it if there is none."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"{os.getpid()}")
    path = SOCKETS / f"commands-{run[:12]}-{zlib.crc32(' '.join(modules).encode()):x}"
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)  # of a server that was killed
        else:
            return connection
        connection.close()
        start_server(path, *modules)


def start_server(path: Path, *modules: str) -> None:
    """Starts a server, and waits until one takes connections there.

    Of two that are started at once the second finds that the first does, and ends.
    """
    arguments = [sys.executable, __file__, str(path), *modules]
    server = os.posix_spawn(sys.executable, arguments, os.environ)
    while not path.exists():
        ended, status = os.waitpid(server, os.WNOHANG)
        assert not status, "The server of commands cannot be started."
        if ended:
            break
        time.sleep(POLL)


def listening(path: str) -> socket.socket | None:
    """Returns the socket of a server, which nobody sees before it listens; None if there is one."""
    listener, hidden = socket.socket(socket.AF_UNIX), f"{path}.{os.getpid()}"
    listener.bind(hidden)
    listener.listen()
    try:
        os.link(hidden, path)
    except FileExistsError:
        return None
    finally:
        Path(hidden).unlink()
    return listener


# Every answer is padded to as many bytes, so that reading one leaves the others.
LINE = 64
RECEIVED = 1 << 16
# Seconds that a server waits for its first command.
PATIENCE = 60


@functools.cache
def run_server() -> Server:
    """The server that has imported what a run imports."""
    return Server(*RUN)


@functools.cache
def light_server() -> Server:
    """The server that has imported what run_experiment.py imports to check its flags."""
    return Server(*LIGHT)


@functools.cache
def server_beneath_keras() -> Server:
    """The server that has imported what Keras imports, but not Keras."""
    return Server(*BENEATH_KERAS)


def start(*arguments, cwd=None, **environment) -> Process:
    """Starts `python ARGUMENTS` in a process that has imported what a run imports."""
    return run_server().start(*arguments, cwd=cwd, **environment)


def python(*arguments, cwd=None, **environment) -> subprocess.CompletedProcess[str]:
    """Runs `python ARGUMENTS`, in a new interpreter if it would import something else."""
    if any(
        environment.get(name) != os.environ.get(name)
        for name in READ_BY_IMPORTS
        if name in environment
    ):
        return new_python(*arguments, cwd=cwd, **environment)
    return run_server().python(*arguments, cwd=cwd, **environment)


def new_python(*arguments, cwd=None, **environment) -> subprocess.CompletedProcess[str]:
    """Runs `python ARGUMENTS` in an interpreter that has imported nothing."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, **environment},
    )


def serve(listener: socket.socket, path: str) -> None:
    """Forks for every request, and tells who asked what became of it, until all have left."""
    clients: dict[socket.socket, bytes] = {}
    running: dict[int, socket.socket] = {}
    while True:
        wait = POLL if running else PATIENCE
        for ready in select.select([listener, *clients], [], [], wait)[0]:
            if ready is listener:
                clients[listener.accept()[0]] = b""
                continue
            for request in requests_of(ready, clients):
                pid = forked(request, [listener, *clients])
                running[pid] = ready
                answer(ready, pid, None)
        answer_for_ended(running)
        if not clients:
            Path(path).unlink(missing_ok=True)
            if not select.select([listener], [], [], 0)[0]:
                return


def answer_for_ended(running: dict[int, socket.socket]) -> None:
    """Tells who asked for a command that it has ended, and forgets it."""
    for pid in sorted(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            answer(running.pop(pid), pid, os.waitstatus_to_exitcode(status))


def requests_of(client: socket.socket, clients: dict[socket.socket, bytes]) -> list[Any]:
    """Returns what has been asked for in full, and forgets a client that has left."""
    if received := client.recv(RECEIVED):
        *requests, clients[client] = (clients[client] + received).split(b"\n")
        return [json.loads(request) for request in requests]
    del clients[client]
    return []


def forked(request, sockets: list[socket.socket]) -> int:
    """Returns the pid of the process that becomes a command, and has none of these sockets."""
    pid = os.fork()
    if not pid:
        for one in sockets:
            one.close()
        end_with(become, request)
    return pid


def answer(client: socket.socket, pid: int, status: int | None) -> None:
    """Says that a command has started, or ended with a status, unless nobody listens."""
    with contextlib.suppress(OSError):
        client.sendall(json.dumps({"pid": pid, "status": status}).ljust(LINE).encode())


def become(request) -> None:
    """Turns this process into what a command would be, and does what that does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    tempfile.tempdir = None  # the server's, which may be another test process's
    os.fsync = lambda _: None  # what the system has survives a process
    for number, name in enumerate([os.devnull, *request["files"]]):
        opened = os.open(name, os.O_RDWR)
        os.dup2(opened, number)
        os.close(opened)
    first, *rest = request["argv"]
    if first == "-c":
        code, *rest = rest
        sys.argv = ["-c", *rest]
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        module, *rest = rest
        sys.argv = [module, *rest]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


def end_with(function, *arguments) -> NoReturn:
    """Ends this process with a function as an interpreter would, but destroys no modules.

    Destroying a framework's takes longer than many a command.
    """
    status = 0
    try:
        function(*arguments)
    except SystemExit as ended:
        status = ended.code or 0
        if not isinstance(status, int):
            sys.stderr.write(f"{status}\n")
            status = 1
    except BaseException:  # noqa: BLE001 - shown as an interpreter shows it
        status = 1
        traceback.print_exc()
    # What an interpreter calls at its end, in this order; neither has a public name.
    for module, ending in ((threading, "_shutdown"), (atexit, "_run_exitfuncs")):
        getattr(module, ending)()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def main(path: str, *modules: str) -> None:
    """Imports and serves."""
    listener = listening(path)
    if listener is None:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # read by the import; a run says the same
    sys.path[0] = str(ROOT)
    gc.disable()  # among what is imported there is nothing to collect
    for module in modules:
        importlib.import_module(module)
    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a keyboard: commands end, then it is told to
    serve(listener, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
