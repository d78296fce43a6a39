"""Pages read without LMDB are what LMDB reads; pages that are damaged are an error and nothing worse."""

from __future__ import annotations

import random
from pathlib import Path

import lmdb
import pytest

from agentd.store.snapshot import snapshot
from agentd.store.tree_pages import Root, Tree, TreeError

PAGE_BYTES = 4096


def written(folder: Path, entries: dict[bytes, bytes]) -> Path:
    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as txn:
        for key, value in entries.items():
            txn.put(key, value)
    return folder / "data.mdb"


def several(count: int, seed: int = 0) -> dict[bytes, bytes]:
    draw = random.Random(seed)
    return {
        draw.randbytes(draw.randrange(1, 200)): draw.randbytes(draw.choice([0, 9, 300, 2500, 9000]))
        for _ in range(count)
    }


@pytest.mark.parametrize("count", [0, 1, 5, 400])
def test_all_entries_in_order(tmp_path, count):
    entries = several(count)
    with snapshot(written(tmp_path, entries)) as found:
        tree = found.tree()
        read = [pair for leaf in tree.leaves() for pair in tree.entries(leaf)]
        assert read == sorted(entries.items())
        assert found.entries == len(entries)


def test_single_entries_and_those_before_a_key(tmp_path):
    entries = several(300)
    keys = sorted(entries)
    draw = random.Random(1)
    with snapshot(written(tmp_path, entries)) as found:
        tree = found.tree()
        for key in keys:
            assert tree.get(key) == entries[key]
        for _ in range(300):
            key = draw.randbytes(draw.randrange(1, 40))
            expected = max((known for known in keys if known <= key), default=None)
            last = tree.last_up_to(key)
            assert (None if last is None else last[0]) == expected
            assert tree.get(key) == entries.get(key)


def test_an_empty_tree_has_nothing(tmp_path):
    with snapshot(written(tmp_path, {})) as found:
        assert found.tree().get(b"a") is None
        assert list(found.tree().leaves()) == []


def test_500_damaged_files_end_in_an_error_or_in_entries(tmp_path):
    data = written(tmp_path, several(60)).read_bytes()
    draw = random.Random(2)
    with snapshot(tmp_path / "data.mdb") as found:
        whole = found.tree()
        root, used = whole._root, found.meta.file_bytes
    ends = {"error": 0, "entries": 0}
    for _ in range(500):
        damaged = bytearray(data)
        for _ in range(draw.choice([1, 8, 100])):
            damaged[draw.randrange(2 * PAGE_BYTES, used)] = draw.choice([0, 1, 255, draw.randrange(256)])
        tree = Tree(
            lambda at, size, data=bytes(damaged): data[at : at + size] if size < used else b"",
            PAGE_BYTES,
            root,
        )
        try:
            for leaf in tree.leaves():
                tree.entries(leaf)
            tree.last_up_to(draw.randbytes(10))
            ends["entries"] += 1
        except TreeError:
            ends["error"] += 1
    assert min(ends.values()) > 10, ends


@pytest.mark.parametrize("depth", [0, 33, 65535])
def test_an_impossible_depth_is_refused(depth):
    tree = Tree(lambda at, size: bytes(size), PAGE_BYTES, Root(2, depth, 10))
    with pytest.raises(TreeError, match="depth"):
        list(tree.leaves())
    with pytest.raises(TreeError, match="depth"):
        tree.get(b"a")


def test_a_tree_that_runs_into_itself_ends(tmp_path):
    with snapshot(written(tmp_path, several(400))) as found:
        tree = found.tree()
        small = Tree(tree._read_at, PAGE_BYTES, tree._root._replace(most_pages=3))
        with pytest.raises(TreeError, match="itself"):
            list(small.leaves())
