"""Writers take turns, readers see whole tokens: over processes, forks and a lock file that disappears."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agentd_client import file_locks
from agentd_client.errors import TokenFileBusyError, TokenFileError
from agentd_client.token_file import TokenFile
from agentd_client.token_file import folder as token_folder
from agentd_client.token_file.folder import TokenFolder
from tests.forking import fork

WRITERS, READERS, WRITES = 3, 3, 60

WRITER = """
import sys
from agentd_client.token_file import TokenFile
file, name, count = TokenFile(sys.argv[1]), sys.argv[2], int(sys.argv[3])
sys.stdin.readline()
for number in range(count):
    before = file.exchange(f"{name}-{number}-" + name * 4000)
    print(before.partition("-")[2].partition("-")[0] if before else "none", before[:1] if before else "-")
"""

READER = """
import sys
from agentd_client.token_file import TokenFile
file = TokenFile(sys.argv[1])
sys.stdin.readline()
reads = 0
while True:
    token = file.read()
    name, number, rest = token.split("-")
    assert rest == name * 4000, token[:40]
    reads += 1
    if name == "z":
        break
print(reads)
"""


def _start(program: str, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_that_write_and_read_at_once_see_whole_tokens_and_lose_none(tmp_path: Path) -> None:
    path = tmp_path / "token"
    file = TokenFile(path)
    file.write("y-0-" + "y" * 4000)
    readers = [_start(READER, path) for _ in range(READERS)]
    writers = [_start(WRITER, path, name, WRITES) for name in "abc"]
    assert len(writers) == WRITERS
    for process in readers + writers:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    replaced = [line for writer in writers for line in writer.communicate()[0].splitlines()]
    last = file.exchange("z-0-" + "z" * 4000)
    assert last is not None
    for reader in readers:
        assert int(reader.communicate()[0]) > 0
    assert all(process.returncode == 0 for process in readers + writers)
    name, number, _ = last.split("-")
    # Every token but the last was handed to exactly one writer: no write was lost, none was doubled.
    expected = {f"{number} {name}" for name in "abc" for number in range(WRITES)} | {"0 y"}
    assert sorted([*replaced, f"{number} {name}"]) == sorted(expected)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_folder, "LOCK_SECONDS", 0)


def _hold(path: Path) -> int:
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def test_a_writer_that_does_not_get_the_lock_in_time_says_so_and_readers_do_not_care(
    tmp_path: Path, no_waiting: None
) -> None:
    path = tmp_path / "token"
    file = TokenFile(path)
    file.write("one")
    held = _hold(path)
    for act in (lambda: file.write("two"), lambda: file.exchange("two"), file.remove):
        with pytest.raises(TokenFileBusyError, match=f"lock {path}.lock; try again.*fuser"):
            act()
    assert file.read() == "one"
    os.close(held)
    file.write("two")
    assert file.read() == "two"


def test_a_writer_gets_the_lock_when_it_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    held = _hold(path)
    flock = fcntl.flock

    def let_go_when_waited_for(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX:  # the thread that waits
            os.close(held)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", let_go_when_waited_for)
    TokenFile(path).write("one")
    assert TokenFile(path).read() == "one"


def test_a_lock_that_is_granted_after_the_wait_was_given_up_is_let_go_again(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    held, late = os.open(path, os.O_RDWR), os.open(path, os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert not file_locks.lock_within(late, 0.01)
    (waiting,) = [thread for thread in threading.enumerate() if thread.name == "agentd-file-lock"]
    os.close(held)
    waiting.join(30)
    assert not waiting.is_alive()
    again = os.open(path, os.O_RDWR)
    fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(late)
    os.close(again)


def test_a_token_is_taken_once_however_many_take_it(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "token")
    file.write("one")
    taken: list[str | None] = []
    threads = [threading.Thread(target=lambda: taken.append(file.take())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(token or "" for token in taken) == [""] * 7 + ["one"]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("made_anew", [False, True])
def test_a_lock_file_that_was_removed_before_it_was_locked_is_not_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_anew: bool
) -> None:
    path, lock = tmp_path / "token", tmp_path / "token.lock"
    flock = fcntl.flock
    locked: list[int] = []

    def flock_too_late(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX | fcntl.LOCK_NB:
            if not locked:
                lock.unlink()
                if made_anew:
                    lock.touch()
            locked.append(os.fstat(descriptor).st_nlink)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_too_late)
    TokenFile(path).write("one")
    assert locked == [0, 1], "the second is the one that the folder names"


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_forked_under_the_lock_does_not_keep_it(tmp_path: Path, no_waiting: None) -> None:
    go, gone = os.pipe()

    def wait() -> None:
        os.close(gone)
        os.read(go, 1)

    with TokenFolder.opened(os.fspath(tmp_path)) as folder, folder.locked("token.lock"):
        child = fork(wait)
    try:
        TokenFile(tmp_path / "token").write("one")
    finally:
        os.close(gone)
        os.waitpid(child, 0)
        os.close(go)


def test_a_lock_that_others_could_hold_is_made_private(tmp_path: Path) -> None:
    lock = tmp_path / "token.lock"
    lock.touch()
    lock.chmod(0o666)
    TokenFile(tmp_path / "token").write("one")
    assert lock.stat().st_mode & 0o777 == 0o600


def test_a_lock_that_is_no_file_of_our_own_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "token.lock"
    os.mkfifo(lock, 0o600)
    with pytest.raises(TokenFileError, match=r"not a lock file of your own, move it away \(token.lock\)"):
        TokenFile(tmp_path / "token").write("one")
    lock.unlink()
    lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TokenFileError, match=r"not a lock file of your own, move it away \(token.lock\)"):
        TokenFile(tmp_path / "token").write("one")
    assert not (tmp_path / "elsewhere").exists()
    lock.unlink()
    if os.geteuid() == 0:
        lock.touch()
        os.chown(lock, 65534, -1)
        with pytest.raises(TokenFileError, match="not a lock file of your own"):
            TokenFile(tmp_path / "token").write("one")


def test_a_folder_that_another_makes_meanwhile_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = os.mkdir

    def mkdir_too_late(path: str, mode: int) -> None:
        mkdir(path, mode)
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", mkdir_too_late)
    TokenFile(tmp_path / "a" / "token").write("one")
    assert TokenFile(tmp_path / "a" / "token").read() == "one"
