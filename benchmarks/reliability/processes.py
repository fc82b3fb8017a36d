"""Commands as forks of a process that has imported TensorFlow, whose calls on files can be failed.

The process itself must be started with the library of `calls.c` preloaded, and have one thread.
"""

import atexit
import ctypes
import dataclasses
import importlib
import os
import pkgutil
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = str(ROOT / "run_experiment.py")
KILLED_BEFORE, KILLED_AFTER = -1, -2
POLL = 0.01
# What a run takes at the most; a longer one hangs, which is nothing that may happen.
LONGEST = 300


@dataclasses.dataclass(frozen=True)
class Harm:
    """What happens to a process at one of its calls on files.

    Args:
        folder: The calls on files in this folder are counted.
        call: The number of the call, from 1; 0 for none.
        error: What it returns: an `errno`, or one of `KILLED_BEFORE` and `KILLED_AFTER`.
        log: A file that gets the name and path of each call; None for none.
    """

    folder: Path
    call: int = 0
    error: int = 0
    log: Path | None = None


@dataclasses.dataclass
class Ended:
    """What became of a command."""

    status: int
    output: str
    errors: str

    @property
    def has_traceback(self) -> bool:
        """Whether it ended in one."""
        return "Traceback (most recent call last)" in self.errors + self.output


class Command:
    """A command that runs.

    Args:
        words: The words after `python`, of which the first is a script; or `-m` and a module.
        environment: Variables beside those of this process.
        harm: What happens to it; None for nothing.
        fresh: Whether it is a process of its own and no fork, as another backend needs.
    """

    def __init__(
        self,
        words: Sequence[str],
        environment: Mapping[str, str] | None = None,
        harm: Harm | None = None,
        fresh: bool = False,
    ) -> None:
        self.files = [Path(name) for name in (_temporary(), _temporary())]
        self.given = {**os.environ, **(environment or {})}
        self.words = [*map(str, words)]
        sys.stdout.flush()
        self.pid = self._started() if fresh else self._forked(harm)
        self.status: int | None = None

    def _started(self) -> int:
        self.given.pop("LD_PRELOAD", None)
        output, errors = (file.open("w") for file in self.files)
        command = [sys.executable, *self.words]
        process = subprocess.Popen(
            command,
            env=self.given,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            process_group=0,
        )
        process.returncode = 0  # waited for here
        return process.pid

    def _forked(self, harm: Harm | None) -> int:
        pid = os.fork()
        if pid:
            return pid
        status = 0
        try:
            os.setpgid(0, 0)
            self._become(harm)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:  # noqa: BLE001 - shown as an interpreter shows it
            status = 1
            traceback.print_exc()
        # What an interpreter calls at its end, in this order; neither has a public name.
        for module, ending in ((threading, "_shutdown"), (atexit, "_run_exitfuncs")):
            getattr(module, ending)()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)

    def _become(self, harm: Harm | None) -> None:
        atexit._clear()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(self.given)
        tempfile.tempdir = None
        for number, file in enumerate([Path(os.devnull), *self.files]):
            opened = os.open(file, os.O_RDWR | os.O_APPEND)
            os.dup2(opened, number)
            os.close(opened)
        if harm is not None:
            log = None if harm.log is None else os.fsencode(harm.log)
            arm = ctypes.CDLL(None).calls_arm
            arm(os.fsencode(harm.folder), ctypes.c_long(harm.call), harm.error, log)
        module = self.words[1] if self.words[0] == "-m" else None
        sys.argv = self.words[1:] if module else self.words
        if module:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(self.words[0], run_name="__main__")

    def ended(self) -> bool:
        """Returns whether it has ended."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def kill(self, number: int = signal.SIGKILL, group: bool = False) -> None:
        """Sends it a signal, and to the processes that it started if they are to have it too."""
        if not self.ended():
            (os.killpg if group else os.kill)(self.pid, number)

    def wait(self, seconds: float = LONGEST) -> Ended | None:
        """Returns what became of it; None if it still runs after some time."""
        until = time.monotonic() + seconds
        while not self.ended():
            if time.monotonic() > until:
                return None
            time.sleep(POLL)
        return self.told()

    def told(self) -> Ended:
        """Returns its status and what it has printed."""
        output, errors = (file.read_text(errors="replace") for file in self.files)
        for file in self.files:
            file.unlink()
        return Ended(self.status if self.status is not None else -1, output, errors)


def finished(command: Command) -> Ended:
    """Returns what became of a command that must end by itself; one that hangs is killed."""
    ended = command.wait()
    if ended is None:
        command.kill(group=True)
        ended = command.wait() or Ended(-1, "", "")
        ended.errors += f"\nTraceback (most recent call last): it ran for {LONGEST} s"
    return ended


def _temporary() -> str:
    handle, name = tempfile.mkstemp(prefix="command-")
    os.close(handle)
    return name


def preload(folder: Path) -> None:
    """Starts this process again with the library of `calls.c`, unless it has it.

    Raises:
        SystemExit: If there is no compiler.
    """
    if "calls.so" in os.environ.get("LD_PRELOAD", ""):
        return
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        sys.exit("The campaign needs a C compiler: apt-get install gcc.")
    library = folder / "calls.so"
    source = Path(__file__).parent / "calls.c"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    os.environ["LD_PRELOAD"] = str(library)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    words = [sys.executable, "-m", "benchmarks.reliability", *sys.argv[1:]]
    os.execv(sys.executable, words)


def import_what_runs_import() -> None:
    """Imports once what every fork would import, so that all of them run the same code."""
    library = "low_rank_local_connectivity"
    parts = ("layers", "training", "export.exporting", "plots", "data.pipeline")
    beside = ("matplotlib.pyplot", "sklearn.datasets", "sklearn.model_selection", "scipy.ndimage")
    names = ("keras", *(f"{library}.{part}" for part in parts), *beside)
    for name in (*names, f"{library}.experiments.command", f"{library}.experiments.sweeping"):
        importlib.import_module(name)
    for package in ("training", "data", "experiments"):
        found = importlib.import_module(f"{library}.{package}")
        for one in pkgutil.iter_modules(found.__path__, f"{found.__name__}."):
            importlib.import_module(one.name)
