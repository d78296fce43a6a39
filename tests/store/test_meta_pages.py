from __future__ import annotations

import os
import struct
from pathlib import Path

import lmdb
import pytest

from agentd.store.data_file import HEAD_BYTES, Meta, newest_meta
from agentd_client.errors import StoreDamagedError

PAGE_BYTES = os.sysconf("SC_PAGESIZE")  # of a file that LMDB creates
FLAGS, MAGIC, VERSION, PAGE_SIZE, LAST_PAGE, TRANSACTION = 10, 16, 20, 40, 136, 144


@pytest.fixture
def data(tmp_path: Path) -> bytearray:
    with lmdb.open(str(tmp_path / "env"), map_size=1 << 20) as environment:
        for number in range(3):
            with environment.begin(write=True) as txn:
                txn.put(b"key %d" % number, b"value" * 2000)
    return bytearray((tmp_path / "env" / "data.mdb").read_bytes())


def check(data: bytes | bytearray) -> Meta:
    return newest_meta("the file", bytes(data[:HEAD_BYTES]), len(data))


def patch(data: bytearray, page: int, offset: int, form: str, value: int) -> None:
    struct.pack_into(f"={form}", data, page * PAGE_BYTES + offset, value)


def test_the_newest_meta_page_is_used_as_by_lmdb(data: bytearray, tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "env"), readonly=True, lock=False) as environment:
        info, page_bytes = environment.info(), environment.stat()["psize"]
    meta = check(data)
    assert meta == Meta(page_bytes, info["last_pgno"], info["last_txnid"])
    assert meta.file_bytes == len(data)


def test_space_past_the_last_page_does_no_harm(data: bytearray) -> None:
    assert check(data + bytes(1 << 20)) == check(data)


def test_the_first_meta_page_is_used_if_its_transaction_is_newer(data: bytearray) -> None:
    patch(data, 0, TRANSACTION, "Q", 4)
    assert check(data).transaction == 4


@pytest.mark.parametrize("numbers", [(2, 1000), (1000, 3), (4, 1), (3, 2), (2, 2), (0, 3), (1, 1), (3, 3)])
def test_meta_pages_of_commits_that_do_not_follow_each_other_are_refused(
    data: bytearray, numbers: tuple[int, int]
) -> None:
    for page, number in enumerate(numbers):
        patch(data, page, TRANSACTION, "Q", number)
    with pytest.raises(StoreDamagedError, match="do not follow each other"):
        check(data)


@pytest.mark.parametrize("numbers", [(0, 0), (0, 1), (2, 1), (2, 3)])
def test_meta_pages_of_two_commits_that_follow_each_other_are_taken(
    data: bytearray, numbers: tuple[int, int]
) -> None:
    for page, number in enumerate(numbers):
        patch(data, page, TRANSACTION, "Q", number)
    assert check(data).transaction == max(numbers)


def test_meta_pages_that_stand_in_each_others_place_are_refused(data: bytearray) -> None:
    first, second = data[:PAGE_BYTES], data[PAGE_BYTES : 2 * PAGE_BYTES]
    with pytest.raises(StoreDamagedError, match="its meta page 0 is page 1"):
        check(second + first + data[2 * PAGE_BYTES :])


def test_every_cut_of_a_file_is_refused_before_it_is_mapped(data: bytearray) -> None:
    for size in [*range(0, len(data), 512), len(data) - 1]:
        with pytest.raises(StoreDamagedError, match=r"agentd init --fresh"):
            check(data[:size])


@pytest.mark.parametrize("page", [0, 1])
@pytest.mark.parametrize(
    ("offset", "form", "value", "told"),
    [
        (FLAGS, "H", 0, "not an LMDB data file"),
        (MAGIC, "I", 0, "not an LMDB data file"),
        (VERSION, "I", 3, "data version 3"),
        (PAGE_SIZE, "I", 4097, "pages of 4097 bytes"),
        (PAGE_SIZE, "I", 0, "pages of 0 bytes"),
    ],
)
def test_a_file_that_is_not_lmdbs_is_refused_with_the_reason(
    data: bytearray, page: int, offset: int, form: str, value: int, told: str
) -> None:
    patch(data, page, offset, form, value)
    with pytest.raises(StoreDamagedError, match=told):
        check(data)


def test_meta_pages_that_disagree_on_the_page_size_are_refused(data: bytearray) -> None:
    patch(data, 1, PAGE_SIZE, "I", 8192)
    with pytest.raises(StoreDamagedError, match="differ in page size"):
        check(data)


def test_a_claim_of_more_pages_than_the_file_holds_is_refused(data: bytearray) -> None:
    for page in (0, 1):
        patch(data, page, LAST_PAGE, "Q", 2**50)
    with pytest.raises(StoreDamagedError, match="cut short"):
        check(data)


def test_a_foreign_file_is_refused() -> None:
    with pytest.raises(StoreDamagedError, match="not an LMDB data file"):
        check(b"SQLite format 3\0" * 10000)
