from __future__ import annotations

import fcntl
import json

from agentd_client.errors import StoreError, TokenNotValidError
from tests.agentctl.fake_agent import NOW
from tests.agentctl.running import in_process


def test_renew_puts_the_new_token_into_the_file(agent, token_file):
    token = agent.open(expiry=3600, at=NOW - 1800)
    token_file.write_text(token)
    token_file.chmod(0o600)
    ended = in_process("renew", terminal=True)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"renewed: session session-1, ends in 1 h\nthe new token is in {token_file}\n"
    assert token_file.read_text() == f"{token}.1\n"
    assert token_file.stat().st_mode & 0o777 == 0o600
    assert in_process("verify").code == 0


def test_renew_tells_a_pipe_and_json_when_it_ends_and_never_the_token(agent, logged_in, token_file):
    plain = in_process("renew").out
    assert plain == f"id\tsession-1\nexpiresAt\t{NOW + 28_800}\ntokenFile\t{token_file}\n"
    told = in_process("renew", "--json").out
    assert json.loads(told) == {"id": "session-1", "expiresAt": NOW + 28_800, "tokenFile": str(token_file)}
    assert "v4.local" not in plain + told


def test_a_renewal_that_the_agent_refuses_leaves_the_file_as_it_is(agent, logged_in, token_file):
    for error, code in ((TokenNotValidError("it has ended"), 77), (StoreError("on fire"), 74)):
        agent.refuse("renewToken", error)
        ended = in_process("renew")
        assert (ended.code, ended.out) == (code, "")
        assert token_file.read_text() == logged_in + "\n"
    assert "agentctl inspect" not in ended.err
    agent.refuse("renewToken", TokenNotValidError())
    assert "`agentctl inspect` says why" in in_process("renew").err


def test_while_another_process_replaces_the_token_nothing_is_renewed(agent, logged_in, token_file, folder):
    with open(folder / "session-token.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = in_process("renew")
    assert ended.code == 75
    assert "another process is replacing the token" in ended.err
    assert agent.calls == []
    assert token_file.read_text() == logged_in + "\n"


def test_a_token_that_was_handed_over_is_not_renewed(agent, logged_in, monkeypatch):
    monkeypatch.setenv("AGENTD_TOKEN", agent.open())
    ended = in_process("renew")
    assert ended.code == 64
    assert "the token is in AGENTD_TOKEN" in ended.err
    assert "v4.local" not in ended.err
    assert agent.calls == []


def test_where_nobody_is_logged_in_there_is_nothing_to_renew(agent):
    assert in_process("renew").code == 1
    assert agent.calls == []
