from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentd_client.errors import InvalidTokenError, TokenFileError
from agentd_client.token_file import TokenFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session-token"


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def private(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_no_file_and_no_folder_is_no_token(path: Path) -> None:
    assert TokenFile(path).read() is None
    assert TokenFile(path / "below" / "nothing").read() is None


@pytest.mark.parametrize("content", [b"", b"\n", b" \t\r\n "])
def test_an_empty_file_is_no_token(path: Path, content: bytes) -> None:
    assert TokenFile(private(path, content)).read() is None


def test_white_space_around_a_token_is_stripped_when_reading(path: Path) -> None:
    assert TokenFile(private(path, b" \n token \r\n\n")).read() == "token"


@pytest.mark.parametrize(
    "content", [b"\0" * 400, b"two tokens", b"two\nlines", "t\u00f6ken".encode(), b"\xff", b"t" * 8193]
)
def test_what_is_no_token_is_not_handed_on(path: Path, content: bytes) -> None:
    with pytest.raises(TokenFileError, match="does not hold one token; run `rm") as caught:
        TokenFile(private(path, content)).read()
    assert "two" not in str(caught.value)


def test_what_is_written_is_read(path: Path) -> None:
    file = TokenFile(path)
    file.write("one")
    assert file.read() == "one"
    file.write("  two\n")
    assert file.read() == "two"
    assert path.read_bytes() == b"two\n"


@pytest.mark.parametrize(
    "token", ["", " ", "a b", "a\nb", "t\u00f6ken", "a\0", "t" * 8193, None, 7, b"token"]
)
def test_only_a_token_is_written(path: Path, token: str) -> None:
    file = TokenFile(path)
    file.write("before")
    for write in (file.write, file.exchange):
        with pytest.raises(InvalidTokenError):
            write(token)
    assert file.read() == "before"


def test_the_largest_token_is_written_and_read(path: Path) -> None:
    file = TokenFile(path)
    file.write("t" * 8192)
    assert file.read() == "t" * 8192


def test_file_lock_and_missing_folders_are_private_under_any_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "a" / "b" / "token"
    file = TokenFile(path)
    file.write("one")
    file.write("two")
    assert mode(path) == 0o600
    assert mode(tmp_path / "a" / "b" / "token.lock") == 0o600
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o755)
    TokenFile(tmp_path / "a" / "token").write("one")
    assert mode(tmp_path / "a") == 0o755


def test_nothing_but_the_token_and_its_lock_is_left_behind(path: Path) -> None:
    file = TokenFile(path)
    file.write("one")
    file.exchange("two")
    assert sorted(os.listdir(path.parent)) == ["session-token", "session-token.lock"]


def test_what_a_killed_writer_left_is_cleared_by_the_next(path: Path) -> None:
    left = path.parent / ".session-token.new"
    left.symlink_to(path.parent / "elsewhere")
    TokenFile(path).write("one")
    assert not left.is_symlink()
    assert not (path.parent / "elsewhere").exists()
    assert TokenFile(path).read() == "one"


def test_exchange_returns_what_was_there_before(path: Path) -> None:
    file = TokenFile(path)
    assert file.exchange("one") is None
    assert file.exchange("two") == "one"
    assert file.read() == "two"


def test_remove_leaves_nothing_and_says_whether_there_was_a_file(path: Path) -> None:
    file = TokenFile(path)
    file.write("one")
    (path.parent / ".session-token.new").touch()
    assert file.remove() is True
    assert os.listdir(path.parent) == []
    assert file.remove() is False
    assert file.read() is None


def test_remove_clears_a_lock_that_was_left_alone(path: Path) -> None:
    (path.parent / "session-token.lock").touch()
    assert TokenFile(path).remove() is False
    assert os.listdir(path.parent) == []


def test_removing_nothing_makes_no_folder(tmp_path: Path) -> None:
    assert TokenFile(tmp_path / "a" / "token").remove() is False
    assert os.listdir(tmp_path) == []


def test_a_file_that_was_replaced_while_it_was_read_is_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = TokenFile(path)
    file.write("one")
    opened = os.open

    def open_and_lose(name: str, flags: int) -> int:
        descriptor = opened(name, flags)
        path.unlink()
        return descriptor

    monkeypatch.setattr(os, "open", open_and_lose)
    assert file.read() == "one"


def test_the_path_stays_where_it_was_when_the_process_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = TokenFile("token")
    monkeypatch.chdir("/")
    file.write("one")
    assert (tmp_path / "token").exists()


def test_the_token_is_synced_before_its_name_and_its_name_before_the_return(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = TokenFile(path)
    file.write("one")
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def watched_fsync(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def watched_rename(*args: object, **kwargs: object) -> None:
        done.append("rename")
        rename(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "rename", watched_rename)
    file.write("two")
    assert done == ["file", "rename", "folder"]
    done.clear()
    file.remove()
    assert done == ["folder"]


@pytest.mark.parametrize("failing", ["fsync", "rename", "fchmod"])
def test_a_write_that_fails_leaves_the_token_that_was_there(
    path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    file = TokenFile(path)
    file.write("one")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(TokenFileError, match="No space left on device"):
            file.write("two")
    assert file.read() == "one"
    assert sorted(os.listdir(path.parent)) == ["session-token", "session-token.lock"]


def test_threads_that_exchange_hand_on_every_token_once(path: Path) -> None:
    file, before = TokenFile(path), []
    threads = [
        threading.Thread(target=lambda token=f"t{number}": before.append(file.exchange(token)))
        for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = file.read()
    assert sorted(filter(None, [*before, left])) == sorted(f"t{number}" for number in range(12))
    assert before.count(None) == 1
