"""Ways in which the files of a store get damaged: each takes the store's folder and a seeded source of chance."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import lmdb

PAGE_BYTES = 4096


class Originals(NamedTuple):
    """What a damage may draw on: the store's own past, and files of others."""

    older_data: bytes
    other_agents_data: bytes
    foreign_lmdb: bytes


Damage = Callable[[random.Random, Path, Originals], None]

DAMAGES: dict[str, Damage] = {}


def _damage(function: Damage) -> Damage:
    DAMAGES[function.__name__] = function
    return function


def _data(folder: Path) -> Path:
    return folder / "data.mdb"


def _used(folder: Path) -> int:
    """Bytes up to the last page that is in use: what comes after is never read."""
    head = _data(folder).read_bytes()[: 2 * PAGE_BYTES]
    last_page: int = max(struct.unpack_from("=Q", head, page * PAGE_BYTES + 136)[0] for page in (0, 1))
    return PAGE_BYTES * (1 + last_page)


def _patch(folder: Path, offset: int, new: bytes) -> None:
    with _data(folder).open("r+b") as file:
        file.seek(offset)
        file.write(new)


def _flip(draw: random.Random, folder: Path, offsets: list[int]) -> None:
    data = _data(folder).read_bytes()
    for offset in offsets:
        _patch(folder, offset, bytes([data[offset] ^ (1 << draw.randrange(8))]))


@_damage
def truncate(draw: random.Random, folder: Path, _: Originals) -> None:
    os.truncate(_data(folder), draw.randrange(_used(folder) + PAGE_BYTES))


@_damage
def zero_a_range(draw: random.Random, folder: Path, _: Originals) -> None:
    used = _used(folder)
    _patch(folder, draw.randrange(used), bytes(draw.choice([1, 16, 512, PAGE_BYTES, 16 * PAGE_BYTES])))


@_damage
def flip_bits(draw: random.Random, folder: Path, _: Originals) -> None:
    used = _used(folder)
    _flip(draw, folder, [draw.randrange(used) for _ in range(draw.choice([1, 1, 1, 2, 8, 64, 1000]))])


@_damage
def flip_bits_of_the_meta_pages(draw: random.Random, folder: Path, _: Originals) -> None:
    offsets = [draw.randrange(2) * PAGE_BYTES + draw.randrange(152) for _ in range(draw.choice([1, 1, 2, 4]))]
    _flip(draw, folder, offsets)


@_damage
def flip_bits_of_page_heads(draw: random.Random, folder: Path, _: Originals) -> None:
    pages = _used(folder) // PAGE_BYTES
    offsets = [
        draw.randrange(pages) * PAGE_BYTES + draw.randrange(64) for _ in range(draw.choice([1, 4, 32]))
    ]
    _flip(draw, folder, offsets)


@_damage
def write_small_numbers(draw: random.Random, folder: Path, _: Originals) -> None:
    used = _used(folder)
    for _number in range(draw.choice([1, 4, 16, 64])):
        width, form = draw.choice([(2, "=H"), (4, "=I"), (8, "=Q")])
        number = draw.choice([0, 1, 0xFFFF, draw.randrange(64), draw.randrange(used // PAGE_BYTES + 2)])
        _patch(folder, draw.randrange(used // width) * width, struct.pack(form, number))


@_damage
def swap_pages(draw: random.Random, folder: Path, _: Originals) -> None:
    data = _data(folder).read_bytes()
    for _number in range(draw.choice([1, 4])):
        a, b = (draw.randrange(_used(folder) // PAGE_BYTES) * PAGE_BYTES for _ in "ab")
        _patch(folder, a, data[b : b + PAGE_BYTES])
        _patch(folder, b, data[a : a + PAGE_BYTES])


@_damage
def copy_a_page_over_another(draw: random.Random, folder: Path, _: Originals) -> None:
    data = _data(folder).read_bytes()
    a, b = (draw.randrange(_used(folder) // PAGE_BYTES) * PAGE_BYTES for _ in "ab")
    _patch(folder, a, data[b : b + PAGE_BYTES])


@_damage
def swap_values(draw: random.Random, folder: Path, _: Originals) -> None:
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as txn:
        pairs = list(txn.cursor())
        for (a, a_value), (b, b_value) in (draw.sample(pairs, 2) for _ in range(draw.choice([1, 10, 200]))):
            txn.put(a, b_value)
            txn.put(b, a_value)


@_damage
def delete_values(draw: random.Random, folder: Path, _: Originals) -> None:
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as txn:
        pairs = list(txn.cursor())
        for key, _value in draw.sample(pairs, draw.choice([1, 10, len(pairs) // 2])):
            txn.delete(key)


@_damage
def forge_values(draw: random.Random, folder: Path, _: Originals) -> None:
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as txn:
        for key, value in draw.sample(list(txn.cursor()), draw.choice([1, 10])):
            txn.put(
                key, draw.choice([b"", draw.randbytes(len(value)), value + b"\0", value[:-1], value * 20])
            )


@_damage
def replace_by_something_else(draw: random.Random, folder: Path, originals: Originals) -> None:
    data = _data(folder)
    data.unlink()
    match draw.randrange(8):
        case 0:
            data.write_bytes(originals.other_agents_data)
        case 1:
            data.write_bytes(originals.foreign_lmdb)
        case 2:
            data.write_bytes(b"")
        case 3:
            data.mkdir()
        case 4:
            data.write_text("not a database\n" * draw.randrange(1, 5000))
        case 5:
            data.symlink_to("/etc/passwd")
        case 6:
            os.mkfifo(data, 0o600)
        case 7:
            data.write_bytes(draw.randbytes(draw.randrange(1, 100_000)))
    if data.is_file() and not data.is_symlink():
        data.chmod(0o600)


@_damage
def mix_with_older_pages(draw: random.Random, folder: Path, originals: Originals) -> None:
    share = draw.choice([0.02, 0.3, 0.8])
    for offset in range(0, min(_used(folder), len(originals.older_data)), PAGE_BYTES):
        if draw.random() < share:
            _patch(folder, offset, originals.older_data[offset : offset + PAGE_BYTES])


@_damage
def exchange_the_meta_pages(draw: random.Random, folder: Path, originals: Originals) -> None:
    data, page = _data(folder).read_bytes(), draw.randrange(2) * PAGE_BYTES
    source = draw.choice(
        [originals.older_data, originals.other_agents_data, data[PAGE_BYTES:], bytes(PAGE_BYTES)]
    )
    _patch(folder, page, source[page : page + PAGE_BYTES] or data[:PAGE_BYTES])


@_damage
def damage_the_lock_files(draw: random.Random, folder: Path, _: Originals) -> None:
    lock = folder / draw.choice(["lock.mdb", "agentd.lock", "stopped"])
    lock.unlink(missing_ok=True)
    match draw.randrange(5):
        case 0:
            lock.mkdir()
        case 1:
            lock.symlink_to("/etc/passwd")
        case 2:
            os.mkfifo(lock, 0o600)
        case 3:
            pass
        case 4:
            lock.write_bytes(draw.randbytes(draw.randrange(20_000)))
            lock.chmod(0o600)
