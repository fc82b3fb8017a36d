"""Asks a real server that holds an exported model, from many clients, some of them wrong.

    python -m venv server && server/bin/python -m pip install -r docs/server/requirements.txt
    python -m benchmarks.reliability.load --run=RUN --server=server/bin/mlserver --minutes=2

RUN is a finished run of the digits. Every answer must be what its network says, to 1e-4; every
wrong request must be refused with a reason and leave the others alone; the server's memory must not
grow. The exit status is 1 if anything came otherwise. Needs Linux.
"""

import argparse
import dataclasses
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.server import Server, asked, serving
from benchmarks.reliability.tally import Tally

TOLERANCE = 1e-4
# What a server may hold more in the last quarter of the time than in the second.
GROWTH = 32 * 2**20
WRONG_EVERY = 4


@dataclasses.dataclass(frozen=True)
class Examples:
    """Images, and what the network says of them."""

    images: np.ndarray
    logits: np.ndarray


def main() -> None:
    """Starts the server, asks it and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--server", type=Path, required=True, help="the program mlserver")
    parser.add_argument("--model", default="saved_model/1", help="which export, within the folder")
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    examples = drawn(given.run, given.seed)
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        server = given.server.absolute()
        with serving(server, given.run / given.model, Path(folder)) as running:
            tally = load(running, examples, given.minutes, given.clients, given.seed)
    print(tally.in_markdown())
    sys.exit(1 if tally.wrong else 0)


def drawn(run: Path, seed: int, count: int = 256) -> Examples:
    """Returns random images, with the answers of a run's network in Keras."""
    import keras

    import low_rank_local_connectivity as lrlc

    del lrlc  # registers its layers
    model: Any = keras.models.load_model(run / "model.keras", compile=False)
    shape = (count, *model.input_shape[1:])
    images = np.random.default_rng(seed).uniform(-1, 1, shape).astype("float32")
    return Examples(images, model.predict(images, verbose=0))


def load(server: Server, examples: Examples, minutes: float, clients: int, seed: int) -> Tally:
    """Asks from many clients at once, until a time is over.

    Args:
        server: What is asked.
        examples: What good requests hold.
        minutes: The time.
        clients: How many connections there are.
        seed: Of the requests.
    """
    tally, lock = Tally("Load"), threading.Lock()
    until = time.monotonic() + 60 * minutes
    seconds: list[float] = []

    def ask(number: int) -> None:
        chance = random.Random(f"{seed}-{number}")
        while time.monotonic() < until:
            started = time.monotonic()
            kind, ending, wrong = one_request(server, examples, chance)
            with lock:
                tally.add(kind, ending, wrong)
                seconds.append(time.monotonic() - started)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    sizes = memory_of(server, until)
    for thread in threads:
        thread.join()
    judge_memory(tally, sizes)
    slowest = np.quantile(seconds, 0.99) if seconds else 0.0
    tally.remarks.append(
        f"{clients} clients, {minutes:g} minutes, seed {seed}: {len(seconds):,} requests, 99 % of "
        f"them answered within {slowest:.2f} s.\n"
    )
    return tally


def memory_of(server: Server, until: float) -> list[int]:
    """Returns what a server holds, twice a second."""
    sizes = []
    while time.monotonic() < until:
        sizes.append(server.memory())
        time.sleep(0.5)
    return sizes


def judge_memory(tally: Tally, sizes: list[int]) -> None:
    """Tells whether a server holds more in the end than before."""
    quarter = len(sizes) // 4
    before, after = max(sizes[quarter : 2 * quarter]), max(sizes[-quarter:])
    grown = after - before > GROWTH
    told = f"{before / 2**20:.0f} MiB at first, {after / 2**20:.0f} MiB in the end"
    tally.add("memory", "grown" if grown else "flat", told if grown else None)
    tally.remarks.append(f"The server held {told}.\n")


def one_request(
    server: Server, examples: Examples, chance: random.Random
) -> tuple[str, str, str | None]:
    """Asks once; returns the kind of the request, how it ended, and what is not allowed of that."""
    chosen = chance.sample(range(len(examples.images)), chance.randint(1, 8))
    good = request_of(examples.images[chosen])
    kind, body = "good", as_bytes(good)
    if chance.randrange(WRONG_EVERY) == 0:
        kind = chance.choice([*WRONG])
        body = WRONG[kind](good)
    try:
        with server.connected() as connection:
            status, answer = asked(connection, body)
    except (OSError, ValueError) as error:
        return kind, "no answer", f"{type(error).__name__}: {error}"
    if kind == "good":
        return kind, *judged(status, answer, examples.logits[chosen])
    told = str(answer.get("error") or answer.get("detail") or "")
    if 400 <= status < 500 and told:
        return kind, "refused", None
    return kind, "not refused", f"status {status}, {told[:200]}"


def judged(status: int, answer: dict, expected: np.ndarray) -> tuple[str, str | None]:
    """Tells how the answer to a good request ended."""
    if status != 200:
        return "refused", f"status {status}, {str(answer)[:200]}"
    (output,) = answer["outputs"]
    found = np.reshape(output["data"], output["shape"])
    if found.shape != expected.shape:
        return "other", f"{found.shape} for {expected.shape}"
    difference = float(np.abs(found - expected).max())
    return ("equal", None) if difference < TOLERANCE else ("other", f"{difference:.1e} off")


def request_of(images: np.ndarray) -> dict[str, Any]:
    """Returns the request for the answers to images."""
    values = images.ravel().tolist()
    image = {"name": "image", "shape": [*images.shape], "datatype": "FP32", "data": values}
    return {"inputs": [image]}


def as_bytes(request: Any) -> bytes:
    """Returns a request as it is sent."""
    return json.dumps(request).encode()


def changed(**changes: Any) -> Callable[[dict], bytes]:
    """Returns a function that changes the input of a good request."""
    return lambda good: as_bytes({"inputs": [{**good["inputs"][0], **changes}]})


WRONG: dict[str, Callable[[dict], bytes]] = {
    "another name": changed(name="picture"),
    "another shape": changed(shape=[1, 8, 32, 1], data=[0.5] * 256),
    "fewer numbers": changed(data=[0.5, 0.25]),
    "a huge shape": changed(shape=[2**40, 16, 16, 1]),
    "integers": changed(datatype="INT64"),
    "an unknown type": changed(datatype="FLOAT"),
    "text": changed(data=["a", "b"]),
    "not finite": changed(shape=[1, 16, 16, 1], data=[float("nan")] * 256),
    "no inputs": lambda _: as_bytes({"inputs": []}),
    "the input twice": lambda good: as_bytes({"inputs": 2 * good["inputs"]}),
    "half of the body": lambda good: as_bytes(good)[: len(as_bytes(good)) // 2],
    "no JSON": lambda _: b"\xff\xfe\x00",
    "a list": lambda good: as_bytes(good["inputs"]),
    "brackets": lambda _: b"[" * 100_000,
}


if __name__ == "__main__":
    main()
