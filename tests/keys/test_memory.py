from __future__ import annotations

import ctypes
import errno
import mmap
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from agentd.keys import SecretMemory, memory
from agentd_client.errors import KeyUnavailableError
from tests.keys.ordinary_memory import HAS_SECRET_MEMORY, KINDS, python


def test_a_key_is_32_bytes_and_bytes_gives_a_copy():
    key = SecretMemory().new_key()
    with key as view:
        view[:] = b"k" * 32
    copy = bytes(key)
    key.wipe()
    assert len(key) == 32
    assert copy == b"k" * 32


def test_a_wiped_key_is_zeroed_and_refuses_every_use():
    key = SecretMemory().new_key()
    with key as view:
        view[:] = b"k" * 32
    key.wipe()
    key.wipe()
    assert bytes(view) == bytes(32)
    assert key.is_wiped
    with pytest.raises(KeyUnavailableError):
        bytes(key)
    with pytest.raises(KeyUnavailableError), key:
        pass


def test_a_key_that_is_wiped_while_it_is_used_is_zeroed_at_the_end_of_that():
    key = SecretMemory().new_key()
    with key as view:
        view[:] = b"k" * 32
        key.wipe()
        assert bytes(view) == b"k" * 32
        assert key.is_wiped
    assert bytes(view) == bytes(32)


def test_no_repr_shows_key_bytes():
    key = SecretMemory().new_key()
    assert repr(key) == "<SecretKey, in memory>"
    key.wipe()
    assert repr(key) == "<SecretKey, wiped>"


def test_a_wiped_slot_is_used_again_and_pages_are_added_when_all_are_taken():
    secret_memory = SecretMemory()
    per_page = mmap.PAGESIZE // 32
    keys = [secret_memory.new_key() for _ in range(per_page + 1)]
    for number, key in enumerate(keys):
        with key as view:
            view[:] = number.to_bytes(32)
    assert [int.from_bytes(bytes(key)) for key in keys] == list(range(per_page + 1))
    keys.pop().wipe()
    assert bytes(secret_memory.new_key()) == bytes(32)


LOOK = """
import ctypes, os, sys
from pathlib import Path
from agentd.keys import SecretMemory

memory = SecretMemory()
key = memory.new_key()
with key as view:
    view[:] = b"k" * 32
    address = ctypes.addressof(ctypes.c_char.from_buffer(view))
flags = []
for line in Path("/proc/self/smaps").read_text().splitlines():
    first, *rest = line.split()
    if not first.endswith(":"):
        start, end = (int(part, 16) for part in first.split("-"))
    elif first == "VmFlags:" and start <= address < end:
        flags = rest
print(memory.secret, memory.locked, *sorted({"lo", "dd", "dc"} & set(flags)))
"""
READ = """
try:
    print(os.pread(os.open("/proc/self/mem", os.O_RDONLY), 32, address))
except OSError as error:
    print(error.strerror)
"""
FORK = """
from agentd_client.errors import KeyUnavailableError

child = os.fork()
if child == 0:
    try:
        bytes(key)
    except KeyUnavailableError:
        own = memory.new_key()
        with own as view:
            view[:] = b"c" * 32
        key.wipe()
        assert bytes(own) == b"c" * 32
        os._exit(7)
    os._exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), bytes(key) == b"k" * 32, bytes(memory.new_key()) == bytes(32))
"""


@pytest.fixture(params=KINDS)
def kind(request):
    if request.param == "secret" and not HAS_SECRET_MEMORY:
        pytest.skip("this kernel has no secret memory")
    return request.param


def run(kind: str, code: str, *before: str) -> list[str]:
    ended = subprocess.run(
        [*before, *python(kind), "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


def test_key_memory_is_locked_and_neither_dumped_nor_inherited(kind):
    assert run(kind, LOOK) == [f"{kind == 'secret'} True dc dd lo"]


def test_secret_memory_cannot_be_read_through_proc(kind):
    assert run(kind, LOOK + READ)[1] == ("Input/output error" if kind == "secret" else str(b"k" * 32))


def test_a_fork_has_none_of_its_parents_keys_and_wipes_none(kind):
    assert run(kind, LOOK + FORK)[1] == "7 True True"


def test_memory_that_could_not_be_locked_is_reported():
    limited = ["prlimit", "--memlock=0"]
    if os.geteuid() == 0:  # root is not limited
        limited = ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", *limited]
    if shutil.which(limited[0]) is None:
        pytest.skip(f"{limited[0]} is missing")
    assert run("secret", LOOK, *limited) == ["False False dc dd"]


def test_secret_memory_that_the_kernel_cannot_give_after_all_is_not_used(monkeypatch):
    refused: list[int] = []

    def readv(descriptor: int, buffers: list[memoryview]) -> int:
        refused.append(len(buffers[0]))
        raise OSError(errno.EFAULT, "Bad address")

    monkeypatch.setattr(memory.os, "readv", readv)
    assert memory.new_pages(1)[1:] == (False, True)
    assert refused == ([1] if HAS_SECRET_MEMORY else [])


@pytest.mark.skipif(not HAS_SECRET_MEMORY, reason="this kernel has no secret memory")
def test_secret_pages_are_given_back_with_the_last_view_of_them():
    key = SecretMemory().new_key()
    with key as view:
        address = ctypes.addressof(ctypes.c_char.from_buffer(view))

    def is_mapped() -> bool:
        """Asked of this page alone: keys of earlier tests may be collected at any time."""
        for line in Path("/proc/self/maps").read_text().splitlines():
            start, end = (int(part, 16) for part in line.split(maxsplit=1)[0].split("-"))
            if start <= address < end:
                return "/secretmem" in line
        return False

    assert is_mapped()
    key.wipe()
    assert is_mapped()
    del view
    assert not is_mapped(), "a wiped key holds no page"
