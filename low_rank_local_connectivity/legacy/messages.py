"""Protocol buffers: the fields of a message, by their numbers."""

from collections import defaultdict
from typing import Any

VARINT, FIXED_64, BYTES, FIXED_32 = 0, 1, 2, 5


def varint(octets: bytes, at: int) -> tuple[int, int]:
    """Returns a number of variable length, and where the next begins.

    Raises:
        EOFError: If the bytes end before it.
    """
    value = shift = 0
    while True:
        if at >= len(octets) or shift > 63:
            raise EOFError("a number is not whole")
        value |= (octets[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if octets[at - 1] < 0x80:
            return value, at


def fields(message: bytes) -> dict[int, list[Any]]:
    """Returns the values of a message's fields: numbers, or bytes.

    Raises:
        EOFError: If a field is not whole, or of an unknown kind.

    Example:
        >>> dict(fields(bytes.fromhex("089601 1203616263")))
        {1: [150], 2: [b'abc']}
    """
    found: dict[int, list[Any]] = defaultdict(list)
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        kind, size = tag & 7, {FIXED_64: 8, FIXED_32: 4}.get(tag & 7)
        if kind in (VARINT, BYTES):
            size, at = varint(message, at)
        if size is None or (kind != VARINT and at + size > len(message)):
            raise EOFError(f"field {tag >> 3} is not whole")
        if kind == VARINT:
            found[tag >> 3].append(size)
            continue
        value = message[at : at + size]
        found[tag >> 3].append(value if kind == BYTES else int.from_bytes(value, "little"))
        at += size
    return found


def number(message: dict[int, list[Any]], field: int) -> int:
    """Returns a field that is a number; 0 if it is missing."""
    value = message[field][-1] if field in message else 0
    if not isinstance(value, int):
        raise TypeError(f"field {field} is no number")
    return value


def octets(message: dict[int, list[Any]], field: int) -> bytes:
    """Returns a field that is a text or a message; empty if it is missing."""
    value = message[field][-1] if field in message else b""
    if not isinstance(value, bytes):
        raise TypeError(f"field {field} is no text")
    return value


def texts(message: dict[int, list[Any]], field: int) -> list[bytes]:
    """Returns all values of a field that may be repeated, as texts or messages."""
    return [octets({field: [value]}, field) for value in message.get(field, [])]
