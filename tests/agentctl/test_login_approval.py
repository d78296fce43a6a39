"""`agentctl login` where a session has to be approved."""

from __future__ import annotations

import pytest

from agentd_client.errors import NoPassphraseError, RequestDeniedError
from agentd_client.protocol.results import ASK, PASSPHRASE
from tests.agentctl.running import in_conversation, in_process, process
from tests.agentctl.test_request import HINT, person

SECRET = "correct hörse"
QUESTION = b"Passphrase of agentd, to log in: "


def test_under_ask_it_waits_for_approval_and_says_how(agent, token_file):
    agent.opening = ASK
    with person(agent):
        ended = in_process("login", "--label", "desk", "--expiry", "1h", "--scope", "read")
    assert (ended.code, ended.err) == (0, HINT)
    ((token, session),) = agent.sessions.items()
    assert token_file.read_text() == token + "\n"
    assert (session.label, session.scopes, session.bound_pid) == ("desk", ["read"], None)
    asked = next(params for method, params in agent.calls if method == "requestToken")
    assert (asked["reason"], asked["expiry"]) == ("agentctl login", 3600)


def test_a_login_that_is_denied_changes_nothing(agent, logged_in, token_file):
    agent.opening = ASK
    with person(agent, RequestDeniedError()):
        ended = in_process("login")
    assert ended.code == 77
    assert token_file.read_text() == logged_in + "\n"
    assert list(agent.sessions) == [logged_in]


def test_a_token_file_that_is_refused_ends_the_granted_session(agent, token_file):
    agent.opening = ASK
    token_file.symlink_to("elsewhere")
    with person(agent):
        assert in_process("login").code == 77
    assert agent.sessions == {}


def test_a_longer_life_cannot_be_asked_for(agent):
    agent.opening = ASK
    ended = in_process("login", "--max-lifetime", "7d")
    assert ended.code == 64
    assert "leave out --max-lifetime" in ended.err
    assert agent.methods == ["createToken"]


@pytest.fixture
def under_passphrase(agent):
    agent.opening, agent.passphrase = PASSPHRASE, SECRET.encode()
    return agent


def test_under_passphrase_it_is_asked_for_there_and_then(under_passphrase, token_file):
    ended = in_conversation("login", answers=[(QUESTION, b"wrong\n"), (QUESTION, SECRET.encode() + b"\n")])
    assert ended.code == 0
    assert SECRET not in ended.shown
    assert token_file.read_text().strip() in under_passphrase.sessions
    assert "waiting for approval" not in ended.shown


def test_it_comes_from_where_unlock_takes_it(under_passphrase, folder, token_file):
    path = folder / "passphrase"
    path.touch(mode=0o600)
    path.write_text(SECRET)
    assert in_process("login", "--passphrase-file", str(path)).code == 0
    assert token_file.exists()
    assert in_process("login", "hunter2").code == 64
    assert "hunter2" not in in_process("login", "hunter2").err


def test_a_wrong_one_withdraws_the_request(under_passphrase, folder, token_file):
    path = folder / "passphrase"
    path.touch(mode=0o600)
    path.write_text("wrong")
    assert in_process("login", "--passphrase-file", str(path)).code == 77
    assert under_passphrase.requests == {}
    assert under_passphrase.methods[-1] == "withdrawRequest"
    assert not token_file.exists()


def test_without_anything_to_ask_with_nobody_is_asked(under_passphrase):
    ended = process("login", start_new_session=True)
    assert ended.returncode == 64
    assert "there is no terminal to ask on" in ended.stderr
    assert "requestToken" not in under_passphrase.methods


def test_without_a_passphrase_nobody_is_asked_for_one(agent):
    agent.opening, agent.passphrase = PASSPHRASE, None
    for command in ("login", "approve"):
        ended = in_process(command)
        assert ended.code == 77
        assert "agentctl passwd" in ended.err
    assert "requestToken" not in agent.methods


def test_a_passphrase_that_proves_nothing_is_asked_for_once(under_passphrase):
    why = "the key file had no passphrase when the agent started"
    under_passphrase.refuse("decideRequest", NoPassphraseError(why))
    ended = in_conversation("login", answers=[(QUESTION, SECRET.encode() + b"\n")])
    assert ended.code == 77
    assert ended.shown.count(QUESTION.decode()) == 1
    assert why in ended.shown


def test_a_session_that_needs_no_approval_is_opened_with_one_call(agent):
    assert in_process("login").code == 0
    assert agent.methods == ["createToken"]
