"""Damages of files: of their bytes, and of fields within containers whose checksums fit again."""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from low_rank_local_connectivity.experiments.folder import result_digest
from low_rank_local_connectivity.legacy.tables import read_table
from low_rank_local_connectivity.training.checkpoints import arrays_digest
from low_rank_local_connectivity.untrusted.checksums import crc32c, masked

Rng = np.random.Generator
Damage = Callable[[Rng, bytes], bytes]
# What takes the place of a field.
VALUES: tuple[Any, ...] = (None, [], {}, "x", "", -1, 0, 10**30, 1e400, float("nan"), True, [[]])
VALUES += ({"class_name": "Dense", "config": {}}, "\u0000", 2**31, [1] * 9)


def outside(rng: Rng, whole: bytes) -> bytes:
    """Cuts bytes off, or flips, zeros or repeats some."""
    start, length = int(rng.integers(len(whole) + 1)), int(rng.integers(1, 200))
    part = whole[start : start + length]
    flipped = bytes(byte ^ int(rng.integers(1, 256)) for byte in part)
    rest = whole[start + length :]
    parts = (b"", flipped + rest, bytes(len(part)) + rest, part + part + rest)
    return whole[:start] + parts[rng.integers(4)]


def one_bit(rng: Rng, whole: bytes) -> bytes:
    """Flips a bit."""
    octets = bytearray(whole)
    octets[rng.integers(len(octets))] ^= 1 << int(rng.integers(8))
    return bytes(octets)


def value_within(rng: Rng, value: Any) -> Any:
    """Replaces, removes or repeats something at a random place of a value of JSON."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        name = sorted(value)[rng.integers(len(value))]
        if rng.random() < 0.1:
            return {key: one for key, one in value.items() if key != name}
        return {**value, name: value_within(rng, value[name])}
    if isinstance(value, list) and value and rng.random() < 0.85:
        place = int(rng.integers(len(value)))
        changed = [value_within(rng, value[place])] * int(rng.integers(3))
        return value[:place] + changed + value[place + 1 :]
    return VALUES[rng.integers(len(VALUES))]


def in_json(rng: Rng, whole: bytes) -> bytes:
    """Damages a field of a JSON file."""
    return json.dumps(value_within(rng, json.loads(whole))).encode()


def in_lines(rng: Rng, whole: bytes) -> bytes:
    """Damages a field in a line of JSON."""
    lines = whole.splitlines()
    place = rng.integers(len(lines))
    lines[place] = in_json(rng, lines[place])
    return b"\n".join([*lines, b""])


def in_result(rng: Rng, whole: bytes) -> bytes:
    """Damages a field of a result, whose digest fits again."""
    result = json.loads(whole)
    del result["digest"]
    result = value_within(rng, result)
    if not isinstance(result, dict):
        return json.dumps(result).encode()
    return json.dumps({**result, "digest": result_digest(result)}).encode()


def array_within(rng: Rng, array: np.ndarray) -> np.ndarray:
    """Damages the numbers, the shape or the type of an array."""
    choices: list[Callable[[], np.ndarray]] = [
        lambda: array.astype("float64"),
        lambda: array.astype("complex64"),
        lambda: array.astype("U8"),
        lambda: array[..., np.newaxis],
        lambda: array.reshape(-1)[: array.size // 2],
        lambda: np.full_like(array, np.nan) if array.dtype.kind == "f" else array - 1,
        lambda: np.full_like(array, np.inf) if array.dtype.kind == "f" else array * 0,
        lambda: np.zeros((0, *array.shape), array.dtype),
        lambda: array[::-1].copy() if array.ndim else array,
        lambda: array.astype("int8") if array.dtype.kind in "fiub" else array,
    ]
    if array.dtype.kind not in "fiub":
        return np.array(["something else"])
    with np.errstate(all="ignore"):
        return choices[rng.integers(len(choices))]()


def in_npz(rng: Rng, whole: bytes) -> bytes:
    """Damages, removes or adds an array."""
    with np.load(io.BytesIO(whole)) as file:
        arrays = dict(file)
    name = sorted(arrays)[rng.integers(len(arrays))]
    arrays[name] = array_within(rng, arrays[name])
    if rng.integers(5) == 0:
        del arrays[name]
    return _saved(arrays)


def _saved(arrays: dict[str, np.ndarray]) -> bytes:
    written = io.BytesIO()
    named: dict[str, Any] = dict(arrays)
    np.savez(written, **named)
    return written.getvalue()


def in_checkpoint(rng: Rng, whole: bytes) -> bytes:
    """Damages arrays or facts of a checkpoint, whose digest fits again."""
    with np.load(io.BytesIO(whole)) as file:
        arrays = dict(file)
    about = json.loads(str(arrays.pop("about")[()]))
    count = about.pop("arrays")
    del about["digest"]
    kept = [arrays[f"array_{index}"] for index in range(count)]
    if rng.integers(2):
        about = value_within(rng, about)
    else:
        place = int(rng.integers(count))
        kept[place] = array_within(rng, kept[place])
    if not isinstance(about, dict):
        about = {"step": about}
    text = {**about, "arrays": count, "digest": arrays_digest(kept, about)}
    named = {f"array_{index}": array for index, array in enumerate(kept)}
    return _saved({"about": np.array(json.dumps(text)), **named})


def in_zip(members: dict[str, Damage]) -> Damage:
    """Returns a damage of a member of a zip archive, whose checksums fit again."""

    def damage(rng: Rng, whole: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(whole)) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        name = sorted(members)[rng.integers(len(members))]
        content[name] = members[name](rng, content[name])
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w") as archive:
            for member, stored in content.items():
                archive.writestr(member, stored)
        return written.getvalue()

    return damage


def in_hdf5(rng: Rng, whole: bytes) -> bytes:
    """Damages a dataset or an attribute of an HDF5 file."""
    stream = io.BytesIO(whole)
    with h5py.File(stream, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        items = [file, *(file[name] for name in names)]
        datasets = [item for item in items if isinstance(item, h5py.Dataset)]
        described = [item for item in items if item.attrs]
        if described and rng.integers(2):
            _damage_attribute(rng, described[rng.integers(len(described))])
        elif datasets:
            _damage_dataset(rng, datasets[rng.integers(len(datasets))])
    return stream.getvalue()


def _damage_attribute(rng: Rng, item: Any) -> None:
    name = sorted(item.attrs)[rng.integers(len(item.attrs))]
    value = item.attrs[name]
    if isinstance(value, str) and value.startswith("{"):
        item.attrs[name] = json.dumps(value_within(rng, json.loads(value)))
    elif rng.integers(4) == 0:
        del item.attrs[name]
    elif isinstance(value, np.ndarray):
        changed = [one for one in value if rng.integers(2)]
        item.attrs[name] = np.array(changed + changed[:1], value.dtype) if changed else "x"
    else:
        item.attrs[name] = [b"x", 7, np.nan, "3.0.0", b"\xff"][rng.integers(5)]


def _damage_dataset(rng: Rng, dataset: Any) -> None:
    parent, name = dataset.parent, dataset.name
    changed = array_within(rng, np.asarray(dataset[()]))
    del parent[name]
    if rng.integers(4) == 0:
        parent.create_group(name)
    elif changed.dtype.kind in "US":
        parent[name] = changed.astype("S8")
    else:
        parent[name] = changed


def in_table(rng: Rng, whole: bytes) -> bytes:
    """Damages an entry of a checkpoint's index, whose checksums fit again."""
    entries = dict(read_table(whole))
    key = sorted(entries)[rng.integers(len(entries))]
    entries[key] = outside(rng, entries[key])
    return table(entries)


def table(entries: dict[bytes, bytes]) -> bytes:
    """Returns a sorted table of one block."""
    content = bytearray()
    block = b"".join(_entry(key, value) for key, value in sorted(entries.items()))
    places = []
    end = max(entries)
    for entries_of in (lambda: block, lambda: b"", lambda: _entry(end, places[0])):
        stored = entries_of() + struct.pack("<II", 0, 1) + b"\0"
        places.append(_varint(len(content)) + _varint(len(stored) - 1))
        content += stored + struct.pack("<I", masked(crc32c(stored)))
    footer = (places[1] + places[2]).ljust(40, b"\0")
    return bytes(content) + footer + bytes.fromhex("57fb808b247547db")


def _entry(key: bytes, value: bytes) -> bytes:
    return _varint(0) + _varint(len(key)) + _varint(len(value)) + key + value


def field(number: int, value: int | bytes) -> bytes:
    """Returns a field of a protocol buffer."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def checkpoint(arrays: dict[str, np.ndarray], graph: bytes) -> tuple[bytes, bytes]:
    """Returns the index and the numbers of a checkpoint of float32 arrays, and of its objects."""
    lengths = struct.pack("<I", len(graph))
    text = _varint(len(graph)) + struct.pack("<I", masked(crc32c(lengths))) + graph
    checksum = masked(crc32c(lengths + text[len(_varint(len(graph))) :]))
    stored, entries = text, {b"": field(1, 1)}
    entry = field(1, 7) + field(2, b"") + field(5, len(text))
    entries[b"_CHECKPOINTABLE_OBJECT_GRAPH"] = entry + b"\x35" + struct.pack("<I", checksum)
    for name, array in arrays.items():
        content = array.astype("<f4").tobytes()
        shape = b"".join(field(2, field(1, size)) for size in array.shape)
        entry = field(1, 1) + field(2, shape) + field(4, len(stored)) + field(5, len(content))
        entries[name.encode()] = entry + b"\x35" + struct.pack("<I", masked(crc32c(content)))
        stored += content
    return table(entries), stored


def _varint(number: int) -> bytes:
    octets = b""
    while number > 0x7F:
        octets, number = octets + bytes([number & 0x7F | 0x80]), number >> 7
    return octets + bytes([number])


def in_png(rng: Rng, whole: bytes) -> bytes:
    """Damages a chunk of a PNG file, whose checksums fit again."""
    content, at, chunks = whole[:8], 8, []
    while at < len(whole):
        (length,) = struct.unpack_from(">I", whole, at)
        chunks.append((whole[at + 4 : at + 8], whole[at + 8 : at + 8 + length]))
        at += 12 + length
    place = int(rng.integers(len(chunks)))
    kind, stored = chunks[place]
    chunks[place] = kind, outside(rng, stored) if stored else b"x"
    for kind, stored in chunks:
        checksum = zlib.crc32(kind + stored)
        content += struct.pack(">I", len(stored)) + kind + stored + struct.pack(">I", checksum)
    return content


def in_records(rng: Rng, whole: bytes) -> bytes:
    """Damages a record of a TFRecord file, whose checksums fit again; or its length."""
    (length,) = struct.unpack_from("<Q", whole)
    record, rest = whole[12 : 12 + length], whole[16 + length :]
    record = outside(rng, record)
    told = len(record) if rng.integers(4) else int(rng.integers(1 << 40))
    header = struct.pack("<Q", told)
    checksums = [struct.pack("<I", masked(crc32c(part))) for part in (header, record)]
    return header + checksums[0] + record + checksums[1] + rest
