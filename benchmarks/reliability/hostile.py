"""Files that are made to do harm: links, bombs, nesting, pipes.

Each function makes one of a whole file and returns whether it can.
"""

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.reliability.damages import table

HUGE = 10**9
ZEROS = 4 * 10**8


def a_pipe(path: Path, elsewhere: Path) -> bool:
    """Nothing ever comes out of it."""
    del elsewhere
    path.unlink()
    os.mkfifo(path)
    return True


def a_device(path: Path, elsewhere: Path) -> bool:
    """It has no end."""
    del elsewhere
    path.unlink()
    path.symlink_to("/dev/zero")
    return True


def sparse(path: Path, elsewhere: Path) -> bool:
    """It has 20 GB, of which nothing was written."""
    del elsewhere
    os.truncate(path, 20 * HUGE)
    return True


def empty(path: Path, elsewhere: Path) -> bool:
    """It has nothing."""
    del elsewhere
    path.write_bytes(b"")
    return True


def nested(path: Path, elsewhere: Path) -> bool:
    """Its JSON is nested more deeply than a reader can follow."""
    del elsewhere
    if path.suffix not in (".json", ".jsonl"):
        return False
    path.write_text("[" * 200_000)
    return True


def long_numbers(path: Path, elsewhere: Path) -> bool:
    """Its JSON has a number of ten thousand digits."""
    del elsewhere
    if path.suffix not in (".json", ".jsonl"):
        return False
    path.write_text('{"name": ' + "9" * 10_000 + "}")
    return True


def brackets(path: Path, elsewhere: Path) -> bool:
    """Its JSON takes 24 times as much when it is parsed."""
    del elsewhere
    if path.suffix not in (".json", ".jsonl"):
        return False
    path.write_text("[" + "{}," * 60_000_000 + "{}]")
    return True


def _changed_hdf5(path: Path, change: Callable[[Any], None]) -> bool:
    """Changes an HDF5 file, also in an archive."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            change(file)
        return True
    if path.suffix != ".keras":
        return False
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    stream = io.BytesIO(content["model.weights.h5"])
    with h5py.File(stream, "r+") as file:
        change(file)
    content["model.weights.h5"] = stream.getvalue()
    _write_archive(path, content)
    return True


def _write_archive(path: Path, content: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, stored in content.items():
            archive.writestr(name, stored)


def _first_dataset(file: Any) -> Any:
    found: list[Any] = []
    file.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    return found[0]


def _replaced(file: Any, put: Callable[[Any, str, Any], None]) -> None:
    """Puts something else in the place of a dataset."""
    dataset = _first_dataset(file)
    parent, name, shape = dataset.parent, dataset.name.rpartition("/")[2], dataset.shape
    del parent[name]
    put(parent, name, shape)


def values_elsewhere(path: Path, elsewhere: Path) -> bool:
    """The values of a dataset are those of another file."""

    def put(parent: Any, name: str, shape: Any) -> None:
        size = int(4 * np.prod(shape))
        external = [(str(elsewhere / "secret"), 0, size)]
        parent.create_dataset(name, shape, "f4", external=external)

    return _changed_hdf5(path, lambda file: _replaced(file, put))


def a_link_elsewhere(path: Path, elsewhere: Path) -> bool:
    """A dataset is one of another file."""

    def put(parent: Any, name: str, shape: Any) -> None:
        del shape
        parent[name] = h5py.ExternalLink(str(elsewhere / "other.h5"), "/kernel")

    return _changed_hdf5(path, lambda file: _replaced(file, put))


def a_view_elsewhere(path: Path, elsewhere: Path) -> bool:
    """A dataset is put together from those of another file."""

    def put(parent: Any, name: str, shape: Any) -> None:
        layout = h5py.VirtualLayout(shape, "f4")
        layout[:] = h5py.VirtualSource(str(elsewhere / "other.h5"), "kernel", shape)
        parent.create_virtual_dataset(name, layout)

    return _changed_hdf5(path, lambda file: _replaced(file, put))


def a_link_out_of_its_group(path: Path, elsewhere: Path) -> bool:
    """A dataset is one of another group."""
    del elsewhere

    def put(parent: Any, name: str, shape: Any) -> None:
        parent.file["beside"] = np.ones(shape, "f4")
        parent[name] = h5py.SoftLink("/beside")

    return _changed_hdf5(path, lambda file: _replaced(file, put))


def a_bomb(path: Path, elsewhere: Path) -> bool:
    """A dataset declares 10 GB, of which nothing is stored."""
    del elsewhere

    def put(parent: Any, name: str, shape: Any) -> None:
        del shape
        sides = {"shape": (50_000, 50_000), "chunks": (5000, 5000)}
        parent.create_dataset(name, dtype="f4", compression="gzip", **sides)

    return _changed_hdf5(path, lambda file: _replaced(file, put))


def large_chunks(path: Path, elsewhere: Path) -> bool:
    """A dataset of a few numbers is stored in a chunk of 1.6 GB."""
    del elsewhere

    def put(parent: Any, name: str, shape: Any) -> None:
        one, rest = (20_000, 20_000), (None,) * len(shape)
        chunks = (*one, *(1,) * len(shape))[: len(shape)]
        parent.create_dataset(name, shape, "f4", maxshape=rest, chunks=chunks, compression="gzip")

    return _changed_hdf5(path, lambda file: _replaced(file, put))


def paths_without_end(path: Path, elsewhere: Path) -> bool:
    """A group within itself, and sixty groups of two names each."""
    del elsewhere

    def change(file: Any) -> None:
        file["itself"] = file
        group = file.create_group("a0")
        for number in range(60):
            inner = file.create_group(f"a{number + 1}")
            group["real"] = group["imag"] = inner
            group = inner

    return _changed_hdf5(path, change)


def not_finite(path: Path, elsewhere: Path) -> bool:
    """A dataset has no numbers but infinities."""
    del elsewhere

    def put(parent: Any, name: str, shape: Any) -> None:
        parent[name] = np.full(shape, np.inf, "f4")

    return _changed_hdf5(path, lambda file: _replaced(file, put))


def _described(path: Path, change: Callable[[Any], Any]) -> bool:
    """Changes the description of a model."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        config = change(json.loads(content["config.json"]))
        content["config.json"] = (
            config if isinstance(config, str) else json.dumps(config)
        ).encode()
        _write_archive(path, content)
        return True
    if path.suffix != ".h5":
        return False
    with h5py.File(path, "r+") as file:
        if "model_config" not in file.attrs:
            return False
        config = change(json.loads(file.attrs["model_config"]))
        file.attrs["model_config"] = config if isinstance(config, str) else json.dumps(config)
    return True


def _each(value: Any, name: str, changed: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: changed if key == name and type(one) is int else _each(one, name, changed)
            for key, one in value.items()
        }
    return [_each(one, name, changed) for one in value] if isinstance(value, list) else value


def wide_layers(path: Path, elsewhere: Path) -> bool:
    """It describes layers of 4 GB."""
    del elsewhere
    return _described(path, lambda config: _each(_each(config, "units", HUGE), "filters", HUGE))


def long_sizes(path: Path, elsewhere: Path) -> bool:
    """It describes layers of more units than a number of 64 bits counts."""
    del elsewhere
    many = 10**40
    return _described(path, lambda config: _each(_each(config, "units", many), "filters", many))


def described_deeply(path: Path, elsewhere: Path) -> bool:
    """Its description is nested more deeply than a reader can follow."""
    del elsewhere
    return _described(path, lambda _: "[" * 30_000)


def a_model_of_models(path: Path, elsewhere: Path) -> bool:
    """A model calls a model twice, which calls a model twice, and so on."""
    del elsewhere

    def change(config: Any) -> Any:
        for number in range(30):
            layer = {**config, "name": f"m{number}", "inbound_nodes": [[["in", 0, 0, {}]]] * 2}
            layers = {"name": f"m{number}", "layers": [layer], "input_layers": []}
            config = {**config, "config": {**layers, "output_layers": []}}
        return config

    return _described(path, change)


def a_vocabulary_elsewhere(path: Path, elsewhere: Path) -> bool:
    """A layer takes its words from another file."""

    def change(config: Any) -> Any:
        words = {"name": "words", "vocabulary": str(elsewhere / "secret")}
        layer = {"class_name": "StringLookup", "config": words, "name": "words"}
        layer |= {"module": "keras.layers", "registered_name": None, "inbound_nodes": []}
        config["config"]["layers"].append(layer)
        return config

    return _described(path, change)


def a_model_elsewhere(path: Path, elsewhere: Path) -> bool:
    """A layer is a model of another folder."""

    def change(config: Any) -> Any:
        layer = {"class_name": "TFSMLayer", "name": "other", "inbound_nodes": []}
        layer |= {"module": "keras.layers", "registered_name": None}
        layer["config"] = {"name": "other", "filepath": str(elsewhere)}
        config["config"]["layers"].append(layer)
        return config

    return _described(path, change)


def an_archive_of_zeros(path: Path, elsewhere: Path) -> bool:
    """A member of it inflates to 400 MB."""
    del elsewhere
    if path.suffix not in (".keras", ".npz"):
        return False
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    name = sorted(content)[-1]
    content[name] = content[name] + bytes(ZEROS)
    _write_archive(path, content)
    return True


def members_out_of_it(path: Path, elsewhere: Path) -> bool:
    """A member of it has a name that leaves the archive."""
    if path.suffix != ".keras":
        return False
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"assets/../../../../../..{elsewhere}/secret", "x")
    return True


def many_numbers(path: Path, elsewhere: Path) -> bool:
    """An array says that it has more numbers than there are."""
    del elsewhere
    if path.suffix != ".npz":
        return False
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    stream = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (HUGE,)}
    np.lib.format.write_array_header_1_0(stream, header)
    content[sorted(content)[-1]] = stream.getvalue() + bytes(80)
    _write_archive(path, content)
    return True


def a_large_tensor(path: Path, elsewhere: Path) -> bool:
    """The index of a checkpoint says that a tensor has 4 TB."""
    del elsewhere
    if path.suffix != ".index":
        return False
    entry = (
        b"\x08\x01\x12\x08\x12\x06\x08" + b"\x80\x80\x80\x80\x20" + b"\x28\x80\x80\x80\x80\x80\x02"
    )
    path.write_bytes(table({b"": b"\x08\x01", b"_CHECKPOINTABLE_OBJECT_GRAPH": entry}))
    return True


def a_far_block(path: Path, elsewhere: Path) -> bool:
    """The end of an index says that its blocks are somewhere else."""
    del elsewhere
    if path.suffix != ".index":
        return False
    whole = path.read_bytes()
    path.write_bytes(whole[:-48] + b"\xff\xff\xff\xff\xff\xff\xff\x7f" * 5 + whole[-8:])
    return True


def many_pixels(path: Path, elsewhere: Path) -> bool:
    """An image says that it has four billion pixels."""
    del elsewhere
    places = {".png": (16, ">II"), ".bmp": (18, "<ii"), ".gif": (6, "<HH")}
    if path.suffix not in places:
        return False
    at, sides = places[path.suffix]
    octets = bytearray(path.read_bytes())
    struct.pack_into(sides, octets, at, 65_500, 65_500)
    if path.suffix == ".png":
        struct.pack_into(">I", octets, 29, zlib.crc32(octets[12:29]))
    path.write_bytes(bytes(octets))
    return True


def black(path: Path, elsewhere: Path) -> bool:
    """A small file of a black image of 169 million pixels."""
    del elsewhere
    from PIL import Image

    if path.suffix not in (".png", ".gif", ".webp", ".tiff"):
        return False
    kinds: dict[str, dict[str, Any]] = {".tiff": {"compression": "tiff_deflate"}}
    kinds[".webp"] = {"lossless": True}
    Image.new("L", (13_000, 13_000)).save(path, **kinds.get(path.suffix, {}))
    return True


def a_program(path: Path, elsewhere: Path) -> bool:
    """A file of another format, whose reader runs a program."""
    del elsewhere
    if path.parent.name != "images":
        return False
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    return True


CONSTRUCTIONS: tuple[Callable[[Path, Path], bool], ...] = (
    a_pipe,
    a_device,
    sparse,
    empty,
    nested,
    long_numbers,
    brackets,
    values_elsewhere,
    a_link_elsewhere,
    a_view_elsewhere,
    a_link_out_of_its_group,
    a_bomb,
    large_chunks,
    paths_without_end,
    not_finite,
    wide_layers,
    long_sizes,
    described_deeply,
    a_model_of_models,
    a_vocabulary_elsewhere,
    a_model_elsewhere,
    an_archive_of_zeros,
    members_out_of_it,
    many_numbers,
    a_large_tensor,
    a_far_block,
    many_pixels,
    black,
    a_program,
)
