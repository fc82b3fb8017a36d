"""An exported model behind MLServer, as docs/serving.md shows it."""

import contextlib
import http.client
import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "server"
NAME = "digits"


class Server:
    """A process that answers requests over HTTP.

    Args:
        pid: Number of the process.
        port: Where it listens on this machine.
    """

    def __init__(self, pid: int, port: int) -> None:
        self.pid, self.port = pid, port

    @contextlib.contextmanager
    def connected(self) -> Iterator[http.client.HTTPConnection]:
        """Yields a connection."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, 60)) as opened:
            yield opened

    def memory(self) -> int:
        """Returns the bytes of memory that the process holds."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
        return 1024 * int(line.split()[1])


def asked(connection: http.client.HTTPConnection, body: bytes) -> tuple[int, dict]:
    """Returns the status and the answer to a request for predictions."""
    headers = {"Content-Type": "application/json"}
    connection.request("POST", f"/v2/models/{NAME}/infer", body, headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


@contextlib.contextmanager
def serving(program: Path, model: Path, folder: Path) -> Iterator[Server]:
    """Starts a server and stops it.

    Args:
        program: `mlserver`, of an environment with docs/server/requirements.txt.
        model: A SavedModel's folder, or an ONNX or LiteRT file.
        folder: An empty folder for what it reads and writes.

    Raises:
        RuntimeError: If it does not start within a minute.
    """
    for file in PAGE.glob("*"):
        if file.is_file():
            shutil.copy(file, folder)
    settings = json.loads((folder / "model-settings.json").read_text())
    settings["parameters"]["uri"] = str(model.resolve())
    (folder / "model-settings.json").write_text(json.dumps(settings))
    names = ("http_port", "grpc_port", "metrics_port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    plain = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps({**plain, **ports}))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "start", "."], cwd=folder, stdout=log, stderr=log)
        try:
            wait_until_ready(process, ports["http_port"], folder / "log")
            yield Server(process.pid, ports["http_port"])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def wait_until_ready(process: subprocess.Popen, port: int, log: Path) -> None:
    """Waits until a server says that its models are loaded."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, 5)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", f"/v2/models/{NAME}/ready")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.2)
    told = log.read_text()[-2000:]
    raise RuntimeError(f"The server must start within a minute. Received: {told}")


def free_ports(count: int) -> list[int]:
    """Returns ports of this machine that nothing listens on."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in opened:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in opened]
