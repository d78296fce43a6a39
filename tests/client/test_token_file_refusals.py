"""What is refused, in reading and in writing."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from agentd_client.errors import TokenFileBusyError, TokenFileError
from agentd_client.token_file import MAX_FILE_BYTES, TokenFile
from agentd_client.token_file import folder as token_folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session-token"


def private(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def a_symlink(path: Path) -> None:
    path.symlink_to(private(path.parent / "real", b"secret"))


def a_dangling_symlink(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def a_fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)


def a_directory(path: Path) -> None:
    path.mkdir(0o700)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.fspath(path))


def a_hard_link(path: Path) -> None:
    os.link(private(path.parent / "real", b"secret"), path)


def open_to_the_group(path: Path) -> None:
    private(path, b"secret").chmod(0o640)


def open_to_others(path: Path) -> None:
    private(path, b"secret").chmod(0o602)


def too_large(path: Path) -> None:
    private(path, b"t" * (MAX_FILE_BYTES + 1))


def foreign(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a file of another user")
    os.chown(private(path, b"secret"), 65534, -1)


REFUSED = {
    a_symlink: "symbolic link.*name the file",
    a_dangling_symlink: "symbolic link.*name the file",
    a_fifo: "not a regular file.*AGENTD_SESSION_TOKEN_PATH",
    a_directory: "not a regular file.*AGENTD_SESSION_TOKEN_PATH",
    a_socket: "No such device.*AGENTD_SESSION_TOKEN_PATH",
    a_hard_link: "2 names.*run `rm ",
    open_to_the_group: "mode 0640.*run `chmod 600 ",
    open_to_others: "mode 0602.*run `chmod 600 ",
    too_large: "larger than 16384 bytes.*AGENTD_SESSION_TOKEN_PATH",
    foreign: "belongs to uid 65534.*AGENTD_SESSION_TOKEN_PATH",
}


@pytest.mark.parametrize(("make", "reason"), REFUSED.items())
def test_a_refused_file_is_neither_read_nor_written_and_the_error_says_why(
    path: Path, make: Callable[[Path], None], reason: str
) -> None:
    make(path)
    before = path.lstat()
    file = TokenFile(path)
    for act in (file.read, lambda: file.write("one"), lambda: file.exchange("one")):
        with pytest.raises(TokenFileError, match=reason) as caught:
            act()
        assert str(path) in str(caught.value)
        assert "secret" not in str(caught.value)
    assert path.lstat().st_ino == before.st_ino
    assert sorted(set(os.listdir(path.parent)) - {"real"}) == ["session-token", "session-token.lock"]


@pytest.mark.parametrize("make", [made for made in REFUSED if made is not a_directory])
def test_a_refused_file_can_be_removed_or_written_anew_by_its_name(
    path: Path, make: Callable[[Path], None]
) -> None:
    make(path)
    TokenFile(path).write("one", anew=True)
    assert TokenFile(path).read() == "one"
    path.unlink()
    real = path.parent / "real"
    real.unlink(missing_ok=True)
    make(path)
    assert TokenFile(path).remove() is True
    assert not path.is_symlink()
    assert not path.exists()
    if make in (a_symlink, a_hard_link):
        assert real.read_bytes() == b"secret", "the name goes, not what it leads to"


def test_a_directory_is_never_replaced_or_removed(path: Path) -> None:
    path.mkdir()
    with pytest.raises(TokenFileError, match="Is a directory"):
        TokenFile(path).write("one", anew=True)
    with pytest.raises(TokenFileError, match="Is a directory"):
        TokenFile(path).remove()
    assert path.is_dir()
    assert not (path.parent / ".session-token.new").exists()


@pytest.mark.parametrize("bits", [0o020, 0o002])
def test_a_folder_that_others_may_write_to_is_refused_unless_it_is_sticky(tmp_path: Path, bits: int) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o755 | bits)
    with pytest.raises(TokenFileError, match=f"folder {folder} is refused: others may.*run `chmod go-w "):
        TokenFile(folder / "token").write("one")
    assert os.listdir(folder) == []
    folder.chmod(0o1755 | bits)
    TokenFile(folder / "token").write("one")
    assert TokenFile(folder / "token").read() == "one"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder of another user")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(0o700)
    os.chown(folder, 65534, -1)
    with pytest.raises(TokenFileError, match="belongs to uid 65534.*choose a path in a folder of your own"):
        TokenFile(folder / "token").write("one")


def test_what_the_system_refuses_is_said_with_the_path_and_its_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file = TokenFile(tmp_path / "file" / "token")
    for act in (file.read, lambda: file.write("one")):
        with pytest.raises(TokenFileError, match=f"token file {file.path}: Not a directory.*fix this"):
            act()
    with pytest.raises(TokenFileError, match="File name too long"):
        TokenFile(tmp_path / ("t" * 252)).write("one")


@pytest.mark.parametrize("impossible", ["", "/", "a\0b"])
def test_a_path_that_can_be_no_files_is_refused(
    impossible: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    with pytest.raises(TokenFileError, match="cannot be the path"):
        TokenFile(impossible)


def test_no_descriptor_is_left_open(
    path: Path, monkeypatch: pytest.MonkeyPatch, open_descriptors: Callable[[], set[str]]
) -> None:
    file = TokenFile(path)
    before = open_descriptors()
    file.write("one")
    file.read()
    file.exchange("two")
    file.remove()
    for make in (a_directory, a_fifo, a_symlink):
        make(path)
        for act in (file.read, lambda: file.write("one")):
            with pytest.raises(TokenFileError):
                act()
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    # A lock that is refused, and one that is not got at the first try.
    lock = path.parent / "session-token.lock"
    lock.unlink()
    os.mkfifo(lock)
    with pytest.raises(TokenFileError):
        file.write("one")
    lock.unlink()
    held = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)
    monkeypatch.setattr(token_folder, "LOCK_SECONDS", 0)
    with pytest.raises(TokenFileBusyError):
        file.write("one")
    os.close(held)
    assert open_descriptors() == before
