from __future__ import annotations

import os
import threading

import pytest

from agentd.passphrase import passphrase_from_credential, passphrase_from_descriptor
from agentd_client import passphrase_input
from agentd_client.errors import PassphraseError
from agentd_client.passphrase_input import PassphraseSourceError, passphrase_of_file
from agentd_client.protocol.limits import MAX_PASSPHRASE_BYTES

SECRET = b"correct horse"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "agentd.passphrase"
    path.write_bytes(SECRET)
    path.chmod(0o600)
    return path


def from_file(path):
    return passphrase_of_file(path)


def from_credential(path):
    return passphrase_from_credential({"CREDENTIALS_DIRECTORY": str(path.parent)})


def from_descriptor(path):
    return passphrase_from_descriptor(os.open(path, os.O_RDONLY))


every_way = pytest.mark.parametrize("read", [from_file, from_credential, from_descriptor])


@every_way
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (SECRET, SECRET),
        (SECRET + b"\n", SECRET),
        (SECRET + b"\n\n", SECRET + b"\n"),
        (SECRET + b"\r\n", SECRET + b"\r"),
        (b" " + SECRET + b" \n", b" " + SECRET + b" "),
        ("pässword".encode() + b"\xff", "pässword".encode() + b"\xff"),
        (b"x" * MAX_PASSPHRASE_BYTES, b"x" * MAX_PASSPHRASE_BYTES),
        (b"x" * MAX_PASSPHRASE_BYTES + b"\n", b"x" * MAX_PASSPHRASE_BYTES),
        (b"x" * MAX_PASSPHRASE_BYTES + b"\r\n", b"x" * MAX_PASSPHRASE_BYTES),
        (b"\xef\xbb\xbf" + b"x" * MAX_PASSPHRASE_BYTES + b"\r\n", b"x" * MAX_PASSPHRASE_BYTES),
    ],
)
def test_a_passphrase_is_all_there_is_but_one_newline_at_its_end(path, read, content, expected):
    path.write_bytes(content)
    passphrase = read(path)
    assert type(passphrase) is bytearray
    assert passphrase == expected


@every_way
@pytest.mark.parametrize("content", [b"", b"\n"])
def test_an_empty_one_is_refused(path, read, content):
    path.write_bytes(content)
    with pytest.raises(PassphraseError, match="an empty passphrase") as refused:
        read(path)
    assert str(path) in str(refused.value) or "file descriptor" in str(refused.value)


@every_way
@pytest.mark.parametrize(
    "more", [b"x", b"xy", b"x\n", b"\nx", b"x" * 100_000, b"\n" * 100, b"\n" * 100 + b"x"]
)
def test_one_that_is_too_long_is_refused_and_not_shown(path, read, more):
    path.write_bytes(b"z" * MAX_PASSPHRASE_BYTES + more)
    with pytest.raises(PassphraseError, match="at most 1024 bytes") as refused:
        read(path)
    assert "zz" not in str(refused.value)


@every_way
def test_one_with_a_nul_byte_is_refused_and_its_source_named(path, read):
    path.write_text("correct horse", encoding="utf-16")
    with pytest.raises(
        PassphraseError, match="(agentd.passphrase|descriptor [0-9]+): a passphrase holds no NUL byte"
    ):
        read(path)


@every_way
@pytest.mark.parametrize("content", [SECRET, b"", b"s" * 2000, b"s\0"])
def test_what_it_was_read_into_is_wiped(path, read, content, monkeypatch):
    path.write_bytes(content)
    rooms = []
    wipe = passphrase_input.wipe

    def wiped(room):
        wipe(room)
        rooms.append(bytes(room))

    monkeypatch.setattr(passphrase_input, "wipe", wiped)
    if content == SECRET:
        read(path)
    else:
        with pytest.raises(PassphraseError):
            read(path)
    assert rooms == [bytes(MAX_PASSPHRASE_BYTES + 6)]


@every_way
def test_no_descriptor_stays_open(path, read, open_descriptors):
    before = open_descriptors()
    read(path)
    path.write_bytes(b"")
    with pytest.raises(PassphraseError):
        read(path)
    assert open_descriptors() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o602, 0o610])
def test_a_file_that_others_have_rights_to_is_refused(path, mode):
    path.chmod(mode)
    with pytest.raises(
        PassphraseSourceError, match=f"passphrase file {path} is refused: .*mode {mode:04o}.*chmod 600"
    ):
        passphrase_of_file(path)


def test_a_file_of_another_user_is_refused(path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(PassphraseSourceError, match=f"passphrase file {path} is refused: it belongs to uid"):
        passphrase_of_file(path)


def test_what_is_no_file_is_refused(path, tmp_path):
    link, fifo = tmp_path / "link", tmp_path / "fifo"
    link.symlink_to(path)
    os.mkfifo(fifo, 0o600)
    with pytest.raises(PassphraseSourceError, match="symbolic link"):
        passphrase_of_file(link)
    for one in (fifo, tmp_path):
        with pytest.raises(PassphraseSourceError, match="not a regular file"):
            passphrase_of_file(one)
    with pytest.raises(PassphraseSourceError, match="missing cannot be read: No such file"):
        passphrase_of_file(tmp_path / "missing")


def test_without_a_credential_there_is_none(tmp_path):
    assert passphrase_from_credential({}) is None
    assert passphrase_from_credential({"CREDENTIALS_DIRECTORY": ""}) is None
    assert passphrase_from_credential({"CREDENTIALS_DIRECTORY": str(tmp_path)}) is None


def test_the_mode_of_a_credential_is_the_managers_business(path):
    path.chmod(0o440)
    assert from_credential(path) == SECRET


def test_a_credential_that_is_no_file_is_refused(path):
    path.unlink()
    path.mkdir()
    with pytest.raises(
        PassphraseSourceError, match=f"credential {path} is refused: it is not a regular file"
    ):
        from_credential(path)
    path.rmdir()
    path.symlink_to("/dev/null")
    with pytest.raises(PassphraseSourceError, match=f"credential {path} cannot be read"):
        from_credential(path)


def test_a_descriptor_is_read_to_its_end_in_however_many_pieces():
    readable, writable = os.pipe()

    def write():
        for byte in SECRET + b"\n":
            os.write(writable, bytes([byte]))
        os.close(writable)

    writer = threading.Thread(target=write)
    writer.start()
    assert passphrase_from_descriptor(readable) == SECRET
    writer.join()
    with pytest.raises(OSError):
        os.fstat(readable)


def test_standard_input_stays_open(path):
    saved = os.dup(0)
    try:
        with path.open() as content:
            os.dup2(content.fileno(), 0)
        assert passphrase_from_descriptor(0) == SECRET
        os.fstat(0)
    finally:
        os.dup2(saved, 0)
        os.close(saved)


def test_a_descriptor_that_cannot_be_read_is_refused(path):
    with pytest.raises(PassphraseSourceError, match="file descriptor -1 cannot be read"):
        passphrase_from_descriptor(-1)
    with pytest.raises(
        PassphraseSourceError, match="file descriptor 9999 cannot be read: Bad file descriptor"
    ):
        passphrase_from_descriptor(9999)
    writable = os.open(path, os.O_WRONLY)
    with pytest.raises(PassphraseSourceError, match=f"file descriptor {writable} cannot be read"):
        passphrase_from_descriptor(writable)
    folder = os.open(path.parent, os.O_RDONLY)
    with pytest.raises(PassphraseSourceError, match="Is a directory"):
        passphrase_from_descriptor(folder)
