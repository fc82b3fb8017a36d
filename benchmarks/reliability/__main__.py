"""Kills runs and fails the calls on their files, until a time is over; tells what was not allowed.

    python -m benchmarks.reliability --minutes=30 --seed=1 --out=reliability.md

The exit status is 1 if anything ended otherwise than it may. Needs Linux and a C compiler.
"""

import argparse
import importlib
import importlib.util
import sys
import tempfile
from pathlib import Path

from benchmarks.reliability.processes import import_what_runs_import, preload
from benchmarks.reliability.tally import Tally

PARTS = ("kills", "faults", "damage")
PACKAGE = "benchmarks.reliability"


def main() -> None:
    """Runs the parts that are there, each for its share of the time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, help="file for the tables, in Markdown")
    given = parser.parse_args()
    there = [name for name in PARTS if importlib.util.find_spec(f"{PACKAGE}.{name}")]
    chosen = [name for name in given.only.split(",") if name in there]
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        preload(Path(tempfile.gettempdir()))
        import_what_runs_import()
        tallies = []
        for name in chosen:
            part = importlib.import_module(f"{PACKAGE}.{name}")
            own = Path(folder) / name
            own.mkdir()
            tallies.append(part.run(given.minutes / len(chosen), given.seed, own))
            tell(tallies, given.out)
    sys.exit(1 if any(tally.wrong for tally in tallies) else 0)


def tell(tallies: list[Tally], out: Path | None) -> None:
    """Prints the tables so far, and writes them."""
    text = "\n".join(tally.in_markdown() for tally in tallies)
    print(tallies[-1].in_markdown(), flush=True)
    if out is not None:
        out.write_text(text)


if __name__ == "__main__":
    main()
