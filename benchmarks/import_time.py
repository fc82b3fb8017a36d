"""Seconds that importing the package takes beyond importing Keras.

    KERAS_BACKEND=tensorflow python -m benchmarks.import_time

Each import runs in a process of its own, in turn.
"""

import statistics
import subprocess
import sys

ROUNDS = 5
PROGRAM = """
import time
import keras
started = time.perf_counter()
import low_rank_local_connectivity
print(time.perf_counter() - started)
"""


def main() -> None:
    """Prints the median."""
    taken = []
    for _ in range(ROUNDS):
        found = subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
        )
        taken.append(float(found.stdout))
    print(f"import low_rank_local_connectivity beyond keras: {statistics.median(taken):.3f} s")


if __name__ == "__main__":
    main()
