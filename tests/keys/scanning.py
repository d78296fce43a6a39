"""Search the memory of another process for keys: raw, hexadecimal and base64."""

from __future__ import annotations

import os
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path
from typing import NamedTuple

STEP_BYTES = 16 * 1024 * 1024


class Found(NamedTuple):
    """How many copies of a key there are, and how many of them are locked and left out of dumps."""

    copies: int
    locked: int


def scan(pid: int, keys: dict[str, bytes]) -> dict[str, Found]:
    """The copies of each key in every readable mapping of a process. Raises PermissionError."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        return scan_through(memory.fileno(), pid, keys)


def scan_through(memory: int, pid: int, keys: dict[str, bytes]) -> dict[str, Found]:
    """Like `scan`, through an open /proc/PID/mem."""
    found = dict.fromkeys(keys, Found(0, 0))
    for start, end, is_locked in _mappings(pid):
        content = _read(memory, start, end)
        for name, key in keys.items():
            copies = sum(content.count(spelling) for spelling in spellings(key))
            before = found[name]
            found[name] = Found(before.copies + copies, before.locked + copies * is_locked)
    return found


def spellings(key: bytes) -> set[bytes]:
    """Base64 is cut where it depends on the bytes that follow."""
    encoded = {b64encode(key)[:42], urlsafe_b64encode(key)[:42]}
    return {key, key.hex().encode(), key.hex().upper().encode(), *encoded}


def _mappings(pid: int) -> list[tuple[int, int, bool]]:
    mappings: list[tuple[int, int, bool]] = []
    start = end = 0
    is_readable = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            start, end = (int(part, 16) for part in first.split("-"))
            is_readable = rest[0].startswith("r") and "[v" not in line
        elif first == "VmFlags:" and is_readable:
            mappings.append((start, end, {"lo", "dd"} <= set(rest)))
    return mappings


def _read(descriptor: int, start: int, end: int) -> bytes:
    pieces = []
    while start < end:
        try:
            piece = os.pread(descriptor, min(STEP_BYTES, end - start), start)
        except OSError:
            break  # a guard page, or unmapped meanwhile
        if not piece:
            break
        pieces.append(piece)
        start += len(piece)
    return b"".join(pieces)
