from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentd_client import paths
from agentd_client.errors import InvalidTokenError, TokenFileError
from agentd_client.token_file.descriptor import (
    LOWEST_DESCRIPTOR,
    environment_token,
    read_token,
    sealed_descriptor,
    withhold_tokens,
)
from tests.other_user import as_user, needs_root

TOKEN = "v4.local.handed-over"


@pytest.fixture
def descriptor() -> Iterator[int]:
    made = sealed_descriptor(TOKEN)
    yield made
    os.close(made)


def test_the_token_can_be_read_any_number_of_times_and_by_those_who_read_a_file(descriptor: int) -> None:
    assert [read_token(str(descriptor)) for _ in range(3)] == [TOKEN] * 3
    assert os.read(descriptor, 100) == TOKEN.encode() + b"\n", "the offset, which all share, was never moved"
    assert read_token(str(descriptor)) == TOKEN


def test_it_is_inherited_private_and_out_of_the_way(descriptor: int) -> None:
    assert os.get_inheritable(descriptor)
    assert descriptor >= LOWEST_DESCRIPTOR
    assert os.fstat(descriptor).st_mode & 0o777 == 0o600


def test_nobody_can_change_it(descriptor: int) -> None:
    for change in (
        lambda: os.pwrite(descriptor, b"x", 0),
        lambda: os.ftruncate(descriptor, 0),
        lambda: os.ftruncate(descriptor, 4096),
    ):
        with pytest.raises(PermissionError) as refused:
            change()
        assert refused.value.errno == errno.EPERM


def test_only_a_token_is_handed_over(open_descriptors: Callable[[], set[str]]) -> None:
    before = open_descriptors()
    with pytest.raises(InvalidTokenError):
        sealed_descriptor("two words")
    assert open_descriptors() == before


@pytest.mark.parametrize("number", ["-1", "x", "1 2", "1.0", "٣", "9" * 10, "0x3", "+3"])
def test_what_is_no_number_of_a_descriptor_is_refused(number: str) -> None:
    with pytest.raises(TokenFileError, match="AGENTD_TOKEN_FD is not the number"):
        read_token(number)


def test_a_descriptor_that_is_not_open_here_is_refused_with_the_likely_cause(descriptor: int) -> None:
    other = os.dup(descriptor)
    os.close(other)
    with pytest.raises(TokenFileError, match=rf"AGENTD_TOKEN_FD is {other}, .*may have closed it"):
        read_token(str(other))


def test_a_pipe_is_refused_because_only_one_could_read_it() -> None:
    ours, theirs = os.pipe()
    os.write(theirs, TOKEN.encode())
    with pytest.raises(TokenFileError, match="read more than once"):
        read_token(str(ours))
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "one token"), (b"two words", "one token"), (b"\xff\n", "one token"), (b"x" * 20_000, "more than")],
)
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with open(tmp_path / "file", "rb") as file, pytest.raises(TokenFileError, match=reason) as refused:
        read_token(str(file.fileno()))
    assert "words" not in str(refused.value)


def _reopened(descriptor: int, flags: int) -> int:
    return os.open(f"/proc/self/fd/{descriptor}", flags)


def test_whatever_number_a_token_has_it_is_withheld_from_what_this_process_becomes(
    descriptor: int, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(f"  {TOKEN}\n")
    (tmp_path / "notes").write_text(f"{TOKEN} and more\n")
    opened = [
        descriptor,
        os.dup(descriptor),
        _reopened(descriptor, os.O_PATH),
        _reopened(descriptor, os.O_WRONLY),
        os.open(tmp_path / "token", os.O_RDONLY),
    ]
    others = [os.open(tmp_path / "notes", os.O_RDONLY), os.open("/dev/null", os.O_RDWR), *os.pipe()]
    for each in opened + others:
        os.set_inheritable(each, True)
    assert withhold_tokens() == []
    assert [os.get_inheritable(each) for each in opened] == [False] * len(opened)
    assert [os.get_inheritable(each) for each in others] == [True] * len(others)
    assert read_token(str(descriptor)) == TOKEN, "it stays open here"
    for each in (*opened[1:], *others):
        os.close(each)


def test_without_proc_a_token_is_found_by_what_it_is(descriptor: int, monkeypatch) -> None:
    def nothing(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(os, "listdir", nothing)
    monkeypatch.setattr(os, "readlink", nothing)
    withhold_tokens()
    assert not os.get_inheritable(descriptor)


@needs_root
def test_a_token_of_another_user_is_withheld_as_well(descriptor: int) -> None:
    def inherited() -> bool:
        withhold_tokens()
        return os.get_inheritable(descriptor)

    assert as_user(inherited) is False


def test_the_token_itself_is_stronger_than_the_descriptor_and_both_than_the_file(descriptor: int) -> None:
    both = {paths.TOKEN_VARIABLE: "v4.local.itself", paths.TOKEN_FD_VARIABLE: f" {descriptor}\n"}
    assert (paths.token_variable(both), environment_token(both)) == ("AGENTD_TOKEN", "v4.local.itself")
    both[paths.TOKEN_VARIABLE] = " "
    assert (paths.token_variable(both), environment_token(both)) == ("AGENTD_TOKEN_FD", TOKEN)
    both[paths.TOKEN_FD_VARIABLE] = ""
    both[paths.TOKEN_PATH_VARIABLE] = "/somewhere"
    assert (paths.token_variable(both), environment_token(both)) == (None, None)
