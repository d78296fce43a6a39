"""LMDB's pages, read without LMDB: for who must neither trust a data file nor disturb its writer.

Layout: LMDB 0.9 `mdb.c`, `MDB_page`, `MDB_node` and `MDB_db` of a 64-bit build, as in `meta_pages.py`.
Nothing here maps the file or believes a length: what does not fit is `TreeError`.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

_HEADER = struct.Struct("=Q2xHHH")  # page number, pad, FLAGS, LOWER, UPPER
_NODE = struct.Struct("=HHHH")  # low and high half of a size or a page number, flags, size of the key
_POINTER = struct.Struct("=H")
_BRANCH, _LEAF = 0x01, 0x02
_BIG_VALUE, _PLAIN_VALUE = 0x01, 0x00
_NO_PAGE = 2**64 - 1
_NUMBER_BYTES = 8
_MAX_DEPTH = 32  # LMDB's own CURSOR_STACK

Pair = tuple[bytes, bytes]
"""A stored key and its sealed value."""

ReadAt = Callable[[int, int], bytes]
"""How many bytes from which offset: a file that ends before gives fewer."""


class TreeError(ValueError):
    """What stands in the file is no page of a tree of plain entries; the text says where."""


class Root(NamedTuple):
    """Where a tree begins, its depth in pages, and how many pages it can have at the most."""

    page: int
    depth: int
    most_pages: int


class Tree:
    """The entries below a root.

    Args:
        read_at: the file.
        page_bytes: of one page.
        root: of the tree; one of an empty tree has no page.
    """

    def __init__(self, read_at: ReadAt, page_bytes: int, root: Root) -> None:
        self._read_at = read_at
        self._page_bytes = page_bytes
        self._root = root

    def leaves(self) -> Iterator[int]:
        """The numbers of the pages that hold entries, in the order of the keys; reads branch pages only."""
        if self._root.page == _NO_PAGE:
            return
        for place, leaf in enumerate(self._leaves(self._root.page, self._root.depth)):
            if place >= self._root.most_pages:
                raise TreeError("a tree that runs into itself")
            yield leaf

    def entries(self, leaf: int) -> list[Pair]:
        """What one leaf holds, in the order of the keys."""
        page = self._page(leaf, _LEAF)
        return [self._entry(leaf, page, offset) for offset in _nodes(leaf, page)]

    def get(self, key: bytes) -> bytes | None:
        """The value of a stored key, or None."""
        found = self.last_up_to(key)
        return found[1] if found is not None and found[0] == key else None

    def last_up_to(self, key: bytes) -> Pair | None:
        """The entry of the greatest stored key that is not greater than `key`, or None."""
        if self._root.page == _NO_PAGE:
            return None
        number = self._root.page
        for _ in range(_checked_depth(self._root.depth) - 1):
            page = self._page(number, _BRANCH)
            nodes = _nodes(number, page)
            # The first key of a branch page stands for everything that is smaller.
            smaller = [node for node in nodes[1:] if _key(number, page, node) <= key]
            number = _child(page, smaller[-1] if smaller else nodes[0])
        return max((pair for pair in self.entries(number) if pair[0] <= key), default=None)

    def _leaves(self, number: int, depth: int) -> Iterator[int]:
        if _checked_depth(depth) == 1:
            yield number
            return
        page = self._page(number, _BRANCH)
        for node in _nodes(number, page):
            yield from self._leaves(_child(page, node), depth - 1)

    def _page(self, number: int, kind: int) -> bytes:
        page = self._read_at(number * self._page_bytes, self._page_bytes)
        if len(page) < self._page_bytes:
            raise TreeError(f"page {number} is beyond the end")
        own_number, flags, _, _ = _HEADER.unpack_from(page)
        if own_number != number or flags != kind:
            raise TreeError(f"page {number} is not what the page above it says")
        return page

    def _entry(self, number: int, page: bytes, offset: int) -> Pair:
        low, high, flags, key_bytes = _NODE.unpack_from(page, offset)
        size = low | high << 16
        key = _key(number, page, offset)
        start = offset + _NODE.size + key_bytes
        if flags == _PLAIN_VALUE:
            value = page[start : start + size]
        elif flags == _BIG_VALUE:
            first = int.from_bytes(page[start : start + _NUMBER_BYTES], sys.byteorder)
            value = self._read_at(first * self._page_bytes + _HEADER.size, size)
        else:
            raise TreeError(f"page {number} holds an entry of another kind ({flags})")
        if len(value) != size:
            raise TreeError(f"page {number} holds a value that goes beyond its end")
        return key, value


def _checked_depth(depth: int) -> int:
    if not 1 <= depth <= _MAX_DEPTH:
        raise TreeError(f"a tree of depth {depth}")
    return depth


def _nodes(number: int, page: bytes) -> list[int]:
    _, _, lower, _ = _HEADER.unpack_from(page)
    if not _HEADER.size < lower <= len(page):
        raise TreeError(f"page {number} has no entries")
    offsets = [offset for (offset,) in _POINTER.iter_unpack(page[_HEADER.size : lower & ~1])]
    if max(offsets) + _NODE.size > len(page):
        raise TreeError(f"page {number} points beyond its end")
    return offsets


def _key(number: int, page: bytes, offset: int) -> bytes:
    size: int = _NODE.unpack_from(page, offset)[3]
    key = page[offset + _NODE.size : offset + _NODE.size + size]
    if len(key) != size:
        raise TreeError(f"page {number} holds a key that goes beyond its end")
    return key


def _child(page: bytes, offset: int) -> int:
    low, high, more, _ = _NODE.unpack_from(page, offset)
    return int(low | high << 16 | more << 32)
