"""Standard streams that are closed, broken or full."""

import os
import subprocess
import sys

import commands
import pytest

pytestmark = pytest.mark.once

# Prints as a run does, opens a file, and says in another how it ended.
PRINTING = """
import contextlib, os, sys
from low_rank_local_connectivity.experiments.streams import keep_streams_open, lost_output
keep_streams_open()
for number in range(2000):
    print("Epoch", number, flush=True)
    print("Epoch", number, file=sys.stderr)
with open(sys.argv[1], "w") as file:
    with contextlib.suppress(OSError):
        os.write(1, b"of a library")
    file.write(f"{file.fileno() > 2} {lost_output()}")
"""
CLOSED, FULL, BROKEN = "{} >&- 2>&-", "{} >/dev/full 2>/dev/full", "{} 2>&1 | head -1"


@pytest.mark.parametrize("streams", [CLOSED, FULL, BROKEN, "{} <&- >&- 2>/dev/full"])
def test_what_is_printed_may_be_lost_but_ends_nothing(streams, tmp_path):
    words = f"{sys.executable} -c '{PRINTING}' {tmp_path / 'told'}"
    environment = {**os.environ, "PYTHONPATH": str(commands.ROOT)}
    subprocess.run(streams.format(words), shell=True, check=True, env=environment)
    full = "Standard output must take what is printed. Received: No space left on device."
    told = (tmp_path / "told").read_text()
    assert told.startswith("True ")
    assert told[5:].startswith(full if streams == FULL else "None")


@pytest.mark.slow
@pytest.mark.parametrize("streams", [CLOSED, FULL, BROKEN])
def test_a_run_trains_to_its_end_whatever_its_streams_are(streams, tmp_path):
    flags = "--epochs=1 --train_examples=128 --filters=4 --export_formats=none"
    words = f"{sys.executable} {commands.SCRIPT} --model_dir={tmp_path / 'run'} {flags}"
    subprocess.run(["bash", "-c", f"set -o pipefail; {streams.format(words)}"], check=True)
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize(("streams", "status"), [("{} >/dev/full", 2), ("{} | head -0", 0)])
def test_a_command_whose_rows_are_lost_says_so_unless_nobody_wants_them(streams, status):
    code = (
        "import dataclasses\n"
        "from low_rank_local_connectivity.experiments.side_command import carry_out\n"
        'options = dataclasses.make_dataclass("Options", [])\n'
        'carry_out(options, lambda *_: [print("row") for _ in range(9999)] and 0, "", ["x"])\n'
    )
    words = streams.format(f"{sys.executable} -c '{code}'")
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(commands.ROOT)},
    )
    assert done.returncode == status
    told = "x: Standard output must take what is printed. Received: No space left on device. Make "
    assert done.stderr.startswith(told) if status else not done.stderr
