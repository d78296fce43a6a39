"""The claim on a token file: held over something else, by whatever threads, and let go by release."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agentd_client.errors import InvalidTokenError, TokenFileBusyError, TokenFileError
from agentd_client.token_file import TokenFile
from agentd_client.token_file.folder import TokenFolder
from tests.client.scripted import PATIENCE_SECONDS


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    found = TokenFile(tmp_path / "token")
    found.write("one")
    return found


def _in_thread(act: Callable[[], object]) -> None:
    thread = threading.Thread(target=act)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


def _is_locked(file: TokenFile) -> bool:
    descriptor = os.open(f"{file.path}.lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def test_a_claim_replaces_a_token_by_its_successor_whatever_thread_does_each_step(file: TokenFile) -> None:
    claim = file.claim()
    taken: list[bool] = []
    _in_thread(lambda: taken.append(claim.take("one")))
    assert taken == [True]
    assert _is_locked(file)
    _in_thread(lambda: claim.replace("two"))
    assert file.read() == "two"
    assert _is_locked(file)
    claim.release()
    assert not _is_locked(file)
    claim.release()
    file.write("three")


def test_of_two_claims_one_is_taken_and_the_other_does_not_wait(file: TokenFile) -> None:
    first, second = file.claim(), file.claim()
    assert first.take("one")
    assert not second.take("one")
    second.release()
    assert _is_locked(file), "the second let go of nothing that it did not have"
    first.release()
    third = file.claim()
    assert third.take("one")
    third.release()


@pytest.mark.parametrize("there", ["two", None])
def test_a_claim_on_a_token_that_was_replaced_or_removed_is_not_taken(
    file: TokenFile, there: str | None
) -> None:
    if there is None:
        file.remove()
    else:
        file.write(there)
    claim = file.claim()
    assert not claim.take("one")
    claim.release()
    assert not _is_locked(file)
    assert file.read() == there


def test_a_writer_waits_for_a_claim_and_its_token_is_the_last(file: TokenFile) -> None:
    claim = file.claim()
    assert claim.take("one")
    writing = threading.Thread(target=file.write, args=("three",))
    writing.start()
    claim.replace("two")
    assert file.read() == "two"
    claim.release()
    writing.join(PATIENCE_SECONDS)
    assert file.read() == "three"


def test_a_claim_writes_nothing_that_is_no_token(file: TokenFile) -> None:
    claim = file.claim()
    assert claim.take("one")
    with pytest.raises(InvalidTokenError):
        claim.replace("t w o")
    claim.release()
    assert file.read() == "one"


def test_a_claim_that_was_released_or_not_taken_replaces_nothing(file: TokenFile) -> None:
    untaken = file.claim()
    with pytest.raises(TokenFileBusyError, match="is not held"):
        untaken.replace("two")
    claim = file.claim()
    claim.release()
    with pytest.raises(TokenFileBusyError, match="was released"):
        claim.take("one")
    assert not _is_locked(file)
    with pytest.raises(TokenFileBusyError, match="was released"):
        claim.replace("two")
    assert file.read() == "one"


def test_a_claim_released_while_a_thread_is_at_work_is_let_go_when_that_is_done(
    file: TokenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, renaming, go_on = file.claim(), threading.Event(), threading.Event()
    assert claim.take("one")
    rename = TokenFolder.rename

    def slowly(folder: TokenFolder, old: str, new: str) -> None:
        renaming.set()
        assert go_on.wait(PATIENCE_SECONDS)
        rename(folder, old, new)

    monkeypatch.setattr(TokenFolder, "rename", slowly)
    thread = threading.Thread(target=claim.replace, args=("two",))
    thread.start()
    assert renaming.wait(PATIENCE_SECONDS)
    claim.release()
    assert _is_locked(file), "a lock that was let go now would let two write at once"
    go_on.set()
    thread.join(PATIENCE_SECONDS)
    assert not _is_locked(file)
    assert file.read() == "two"


def test_what_the_system_refuses_is_a_token_file_error_and_the_lock_is_let_go(
    file: TokenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    claim = file.claim()
    assert claim.take("one")
    monkeypatch.setattr(TokenFolder, "rename", refuses)
    with pytest.raises(TokenFileError, match="cannot write token file .*Read-only"):
        claim.replace("two")
    claim.release()
    assert not _is_locked(file)
    assert sorted(os.listdir(os.path.dirname(file.path))) == ["token", "token.lock"]
    monkeypatch.setattr(TokenFolder, "opened", refuses)
    with pytest.raises(TokenFileError, match="cannot write token file .*Read-only"):
        file.claim().take("one")
