"""Sorted tables of keys and values: the index of a TensorFlow checkpoint.

TensorFlow's own reader ends the process at a damaged one. A table is blocks, each followed by a
byte that says whether it is compressed and by a checksum; the last bytes say where the block is
that says where the others are.
"""

from collections.abc import Iterator

from low_rank_local_connectivity.legacy.messages import varint
from low_rank_local_connectivity.untrusted.checksums import crc32c, masked

FOOTER, TRAILER, NUMBER = 48, 5, 4
MAGIC = bytes.fromhex("57fb808b247547db")


def read_table(content: bytes) -> dict[bytes, bytes]:
    """Returns the keys and values of a table.

    Raises:
        OSError: If it is damaged.
    """
    if len(content) < FOOTER or content[-len(MAGIC) :] != MAGIC:
        raise OSError("the end of the index is not an index's")
    footer = content[-FOOTER:]
    _, at = _place(footer, 0)
    place, _ = _place(footer, at)
    found: dict[bytes, bytes] = {}
    for _, value in _entries(_block(content, place)):
        found.update(_entries(_block(content, _place(value, 0)[0])))
    return found


def _place(octets: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Returns where a block begins and its length, and where the next such note begins."""
    begin, at = varint(octets, at)
    length, at = varint(octets, at)
    return (begin, length), at


def _block(content: bytes, place: tuple[int, int]) -> bytes:
    """Returns a block whose checksum fits."""
    begin, length = place
    end = begin + length
    if end + TRAILER > len(content) - FOOTER:
        raise OSError("a block of the index is not in it")
    checksum = int.from_bytes(content[end + 1 : end + TRAILER], "little")
    if masked(crc32c(content[begin : end + 1])) != checksum:
        raise OSError("a checksum of the index does not fit")
    if content[end]:
        raise OSError("the index is compressed")
    return content[begin:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the keys and values of a block; a key leaves out what it shares with the last."""
    restarts = int.from_bytes(block[-NUMBER:], "little")
    end = len(block) - NUMBER * (restarts + 1)
    if len(block) < NUMBER or end < 0:
        raise OSError("a block of the index is not whole")
    key, at = b"", 0
    while at < end:
        shared, at = varint(block, at)
        added, at = varint(block, at)
        length, at = varint(block, at)
        if shared > len(key) or at + added + length > end:
            raise OSError("an entry of the index is not whole")
        key = key[:shared] + block[at : at + added]
        at += added
        yield key, block[at : at + length]
        at += length
