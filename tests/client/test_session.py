from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from agentd_client import Session
from agentd_client.errors import (
    InvalidTokenError,
    SessionDestroyedError,
    SessionRunningError,
    TokenFileError,
)
from agentd_client.lifecycle import State


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session-token"


@pytest.fixture
def session(path: Path) -> Session:
    return Session.create_session(path)


def test_creating_starts(session: Session) -> None:
    assert session.state is State.RUNNING


def test_creating_touches_nothing_without_fresh_or_an_initial_token(tmp_path: Path) -> None:
    Session.create_session(tmp_path / "folder" / "token")
    assert os.listdir(tmp_path) == []
    os.mkfifo(tmp_path / "refused")
    Session.create_session(tmp_path / "refused")


def test_creating_keeps_the_token_that_is_there(path: Path, session: Session) -> None:
    session.write_token("before")
    assert Session.create_session(path).read_token() == "before"


def test_an_initial_token_replaces_the_one_that_is_there(path: Path, session: Session) -> None:
    session.write_token("before")
    assert Session.create_session(path, session_token="initial").read_token() == "initial"


def test_fresh_forgets_the_file(path: Path, session: Session) -> None:
    session.write_token("before")
    assert Session.create_session(path, fresh=True).read_token() is None
    assert os.listdir(path.parent) == []


def test_fresh_with_an_initial_token_keeps_that_token(path: Path, session: Session) -> None:
    session.write_token("before")
    assert Session.create_session(path, session_token="initial", fresh=True).read_token() == "initial"


def test_fresh_forgets_even_a_file_that_is_refused(path: Path) -> None:
    path.touch(0o644)
    path.chmod(0o644)
    with pytest.raises(TokenFileError):
        Session.create_session(path, session_token="initial")
    assert Session.create_session(path, session_token="initial", fresh=True).read_token() == "initial"
    path.chmod(0o644)
    assert Session.create_session(path, fresh=True).read_token() is None


@pytest.mark.parametrize("token", ["", "two tokens", 7])
def test_an_initial_token_that_is_none_is_refused_and_the_session_does_not_start(
    path: Path, token: Any
) -> None:
    session = Session(path)
    with pytest.raises(InvalidTokenError):
        session.start(token, fresh=True)
    assert session.state is State.STOPPED
    assert os.listdir(path.parent) == []


def test_the_path_is_the_one_that_all_programs_of_the_user_share(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTD_SESSION_TOKEN_PATH", str(path))
    assert Session.create_session().path == str(path)


def test_reading_and_writing_work_whether_it_is_running_or_not(session: Session) -> None:
    session.write_token("running")
    session.stop()
    assert session.read_token() == "running"
    session.write_token("stopped")
    assert session.exchange_token("again") == "stopped"
    session.start()
    assert session.read_token() == "again"


def test_reading_gives_none_where_there_is_no_file_or_it_is_empty(path: Path, session: Session) -> None:
    assert session.read_token() is None
    path.touch(0o600)
    assert session.read_token() is None


def test_reading_strips_the_white_space_around_a_token(path: Path, session: Session) -> None:
    path.touch(0o600)
    path.write_text("\n  token\t\n")
    assert session.read_token() == "token"


def test_starting_a_running_session_does_nothing(session: Session) -> None:
    session.write_token("before")
    session.start(session_token="ignored", fresh=True)
    assert session.read_token() == "before"
    assert session.state is State.RUNNING


def test_starting_again_takes_a_token_or_forgets_the_file(session: Session) -> None:
    session.stop()
    session.start("initial")
    assert session.read_token() == "initial"
    session.stop()
    session.start(fresh=True)
    assert session.read_token() is None


def test_stopping_keeps_the_file_and_stopping_again_does_nothing(session: Session) -> None:
    session.write_token("token")
    session.stop()
    session.stop()
    assert session.state is State.STOPPED
    assert session.read_token() == "token"


def test_destroying_a_running_session_is_refused(session: Session) -> None:
    session.write_token("token")
    with pytest.raises(SessionRunningError, match="stop it before"):
        session.destroy()
    assert session.read_token() == "token"
    assert session.state is State.RUNNING


def test_destroying_removes_the_token_file_and_destroying_again_does_nothing(
    path: Path, session: Session
) -> None:
    session.write_token("token")
    session.stop()
    session.destroy()
    assert session.state is State.DESTROYED
    assert os.listdir(path.parent) == []
    other = Session.create_session(path, session_token="another's")
    session.destroy()
    assert other.read_token() == "another's"


def test_stopping_a_destroyed_session_does_nothing(session: Session) -> None:
    session.stop()
    session.destroy()
    session.stop()
    assert session.state is State.DESTROYED


def test_starting_a_destroyed_session_is_refused(session: Session) -> None:
    session.stop()
    session.destroy()
    with pytest.raises(SessionDestroyedError, match="create a new one"):
        session.start()


def test_a_destroyed_session_reads_none_and_writes_nothing(path: Path, session: Session) -> None:
    session.stop()
    session.destroy()
    Session.create_session(path, session_token="another's")
    assert session.read_token() is None
    for write in (session.write_token, session.exchange_token):
        with pytest.raises(SessionDestroyedError):
            write("mine")
    assert path.read_text() == "another's\n"


def test_a_destroy_that_fails_leaves_the_session_stopped(path: Path, session: Session) -> None:
    session.stop()
    path.mkdir()
    with pytest.raises(TokenFileError):
        session.destroy()
    assert path.is_dir()
    assert session.state is State.STOPPED
    path.rmdir()
    session.destroy()
    with pytest.raises(SessionDestroyedError):
        session.start()


def test_leaving_a_session_stops_and_never_destroys_it(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Session.create_session(path, session_token="token") as session:
        assert session.state is State.RUNNING
        raise ZeroDivisionError
    assert session.state is State.STOPPED
    assert session.read_token() == "token"


def test_a_token_to_write_has_the_name_that_it_has_everywhere(tmp_path: Path) -> None:
    session = Session.create_session(session_token_path=tmp_path / "token", session_token="first")
    session.write_token(session_token="second")
    assert session.exchange_token(session_token="third") == "second"
    session.write_token("fourth")
    assert session.read_token() == "fourth"
