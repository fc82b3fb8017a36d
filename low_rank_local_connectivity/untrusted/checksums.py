"""CRC-32C, the checksum in TensorFlow's files, in NumPy.

A message is cut into rows of equal length, whose checksums are computed side by side and then put
together in pairs: before another message, a checksum goes through as many zero bytes as that has.
"""

import functools

import numpy as np

# Castagnoli's polynomial, the lowest bit first.
POLYNOMIAL = 0x82F63B78
# Bytes of a row, a power of 2; and the rows whose checksums are computed at once.
ROW, ROWS = 256, 1 << 16
ALL = np.uint32(0xFFFFFFFF)


@functools.cache
def _table() -> np.ndarray:
    """Returns what each byte does to a checksum."""
    table = np.arange(256, dtype="uint32")
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(POLYNOMIAL), table >> 1)
    return table


def _with_bytes(states: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Returns states after some bytes each, which are columns."""
    table = _table()
    for column in columns:
        states = table[(states ^ column) & 0xFF] ^ (states >> 8)
    return states


@functools.cache
def _zeros(power: int) -> np.ndarray:
    """Returns what each bit of a state becomes after `2 ** power` zero bytes."""
    if power == 0:
        return _with_bytes(np.uint32(1) << np.arange(32, dtype="uint32"), np.zeros((1, 1), "uint8"))
    return _through(_zeros(power - 1), power - 1)


def _through(states: np.ndarray, power: int) -> np.ndarray:
    """Returns states after `2 ** power` zero bytes."""
    after = np.zeros_like(states)
    for bit, image in enumerate(_zeros(power)):
        after ^= np.where(states >> np.uint32(bit) & 1, image, np.uint32(0))
    return after


def _of_rows(octets: np.ndarray) -> int:
    """Returns the state after whole rows, at most `ROWS` and a power of 2 of them, from zero."""
    states = np.zeros(len(octets) // ROW, "uint32")
    states = _with_bytes(states, np.ascontiguousarray(octets.reshape(-1, ROW).T))
    power = ROW.bit_length() - 1
    while len(states) > 1:
        states = _through(states[::2], power) ^ states[1::2]
        power += 1
    return int(states[0])


def _after_zeros(state: int, count: int) -> int:
    states = np.array([state], "uint32")
    for power in range(count.bit_length()):
        if count >> power & 1:
            states = _through(states, power)
    return int(states[0])


def crc32c(message: bytes | np.ndarray) -> int:
    """Returns the CRC-32C of a message.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    octets = np.frombuffer(message, "uint8")
    state, at = int(ALL), 0
    while len(octets) - at >= ROW:
        rows = min(1 << ((len(octets) - at) // ROW).bit_length() - 1, ROWS)
        part = octets[at : at + rows * ROW]
        state = _after_zeros(state, len(part)) ^ _of_rows(part)
        at += len(part)
    table = _table().tolist()
    for octet in octets[at:].tolist():
        state = table[(state ^ octet) & 0xFF] ^ (state >> 8)
    return state ^ int(ALL)


def masked(checksum: int) -> int:
    """Returns a checksum as TensorFlow stores it beside what it is of."""
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF
