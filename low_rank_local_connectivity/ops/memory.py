"""How much memory there is, and refusing what cannot fit."""

import os
from pathlib import Path

from low_rank_local_connectivity.ops.constants import known_while_traced

# Limits that containers put on their processes: control groups, version 2 and 1.
LIMIT_FILES = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@known_while_traced
def memory_bytes() -> int | None:
    """Returns the bytes of memory that this process may use, or None if that is not known.

    Counts the machine's own memory or its container's limit; an accelerator's, which Keras does
    not tell, may be smaller.
    """
    try:
        known = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):
        return None
    for path in LIMIT_FILES:
        try:
            known.append(int(path.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(known)


def require_memory(size: int, what: str, instead: str) -> None:
    """Refuses a tensor that is larger than the memory.

    Args:
        size: Its bytes.
        what: A sentence's start that says what takes them.
        instead: A sentence that says what to do.

    Raises:
        ValueError: If the tensor cannot fit.
    """
    limit = memory_bytes()
    if limit is not None and size > limit:
        raise ValueError(
            f"{what} must fit into memory. Received: a request for {size:,} bytes, of "
            f"{limit:,} that there are. {instead}"
        )
