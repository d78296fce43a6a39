from __future__ import annotations

import json

from agentd_client.protocol.results import PeerIdentity, SessionInfo, Verification
from tests.agentctl.fake_agent import NOW
from tests.agentctl.running import in_process

FULL = SessionInfo(
    id="0197743e-2c40-7abc-8000-000000000001",
    label="nightly",
    created_at=NOW - 7200,
    expires_at=NOW + 3600,
    opened_by=PeerIdentity(1000, 4712, "/usr/bin/make", "nightly.service"),
    renewed_at=NOW - 600,
    max_expires_at=NOW + 86_400,
    last_used_at=NOW - 60,
    audience=["ci", "deploy"],
    scopes=["read"],
    uses_left=5,
    parent="0197743e-2c40-7abc-8000-000000000000",
    generation=3,
    bound_pid=4713,
)


def test_inspect_shows_a_person_the_record(agent, logged_in, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    token = agent.open(label="build", expiry=7200, at=NOW - 3600)
    ended = in_process("inspect", "-", stdin=token.encode(), terminal=True)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "valid     yes\n"
        "session   session-2\n"
        "label     build\n"
        "opened    2025-06-15 14:06, 1 h ago\n"
        "by        process 4712 of user 1000\n"
        "end       2025-06-15 16:06, ends in 1 h\n"
        "renewed   never\n"
        "used      not yet\n"
        "uses      unlimited\n"
        "scopes    all\n"
        "audience  anyone\n"
    )


def test_inspect_exits_0_and_says_why_where_the_token_is_not_valid(agent, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    token = agent.open(expiry=60, at=NOW - 3600)
    ended = in_process("inspect", "-", stdin=token.encode(), terminal=True)
    assert ended.code == 0
    assert ended.out.startswith(
        "valid     no\nwhy       the session has expired (EXPIRED)\nsession   session-1\n"
    )
    assert "\nend       2025-06-15 14:07, ended 59 min ago\n" in ended.out


def test_inspect_tells_a_pipe_and_json_the_reason_in_words_too(agent, token_file):
    token_file.write_text("v4.local.unknown")
    token_file.chmod(0o600)
    why = "this is not a token that this agent made"
    assert in_process("inspect").out == (f"valid\tfalse\nreason\tMALFORMED\nsession\t\nexplanation\t{why}\n")
    told = json.loads(in_process("inspect", "--json").out)
    assert told == {"valid": False, "reason": "MALFORMED", "session": None, "explanation": why}


def test_inspect_of_an_unknown_token_shows_no_record(agent, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert in_process("inspect", "-", stdin=b"unknown", terminal=True).out == (
        "valid  no\nwhy    this is not a token that this agent made (MALFORMED)\n"
    )


def test_a_valid_token_has_no_explanation(agent, logged_in):
    assert json.loads(in_process("inspect", "--json").out)["explanation"] is None


def test_inspect_copes_with_a_record_that_says_little(agent, logged_in, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    agent.script["inspectToken"] = lambda params: Verification(
        True, None, SessionInfo("session-1", "", 1e18, None, None)
    )
    assert in_process("inspect", terminal=True).out == (
        "valid     yes\n"
        "session   session-1\n"
        "label     \n"
        "opened    1e+18 s after 1970, 0 s ago\n"
        "end       never ends by itself\n"
        "renewed   never\n"
        "used      not yet\n"
        "uses      unlimited\n"
        "scopes    all\n"
        "audience  anyone\n"
    )


def test_what_an_agent_says_cannot_steer_the_terminal(agent, logged_in, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    hostile = SessionInfo("\x1b]0;x\x07", "two\nlines\u202e\x9b", NOW, None, None)
    agent.script["inspectToken"] = agent.script["verifyToken"] = lambda params: Verification(
        True, None, hostile
    )
    for args in (["inspect"], ["verify"], ["status"]):
        for terminal in (True, False):
            out = in_process(*args, terminal=terminal).out.replace("\n", "").replace("\t", "")
            assert out.isprintable(), args
    assert "label     two\\nlines\\u202e\\x9b\n" in in_process("inspect", terminal=True).out


def test_inspect_shows_all_there_is_to_a_session(agent, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    agent.hold(FULL)
    ended = in_process("inspect", FULL.id, "--audience", "ci", "--scope", "read", terminal=True)
    assert ended.out == (
        "valid     yes\n"
        "session   0197743e-2c40-7abc-8000-000000000001\n"
        "label     nightly\n"
        "opened    2025-06-15 13:06, 2 h ago\n"
        "by        process 4712 of user 1000\n"
        "program   /usr/bin/make\n"
        "unit      nightly.service\n"
        "end       2025-06-15 16:06, ends in 1 h\n"
        "at most   2025-06-16 15:06, which renewing cannot exceed\n"
        "bound     ends with process 4713\n"
        "parent    0197743e-2c40-7abc-8000-000000000000; ends with it\n"
        "renewed   2025-06-15 14:56, 10 min ago; 3 times\n"
        "used      2025-06-15 15:05, 1 min ago\n"
        "uses      5 left\n"
        "scopes    read\n"
        "audience  ci, deploy\n"
    )
    assert all(len(line) <= 80 for line in ended.out.splitlines())
    assert agent.calls == [("inspectToken", {"id": FULL.id, "audience": "ci", "scopes": ["read"]})]


def test_inspect_in_a_pipe_tells_no_restriction_from_nothing_allowed(agent):
    agent.hold(FULL._replace(scopes=[], audience=None))
    lines = in_process("inspect", FULL.id).out.splitlines()
    assert "session.scopes\t[]" in lines
    assert "session.audience\t" in lines
    assert "session.usesLeft\t5" in lines


def test_inspect_of_an_id_asks_for_no_token_and_needs_none(agent):
    told = json.loads(in_process("inspect", "session-9", "--json").out)
    assert (told["valid"], told["reason"]) == (False, "REVOKED")
    assert told["explanation"] == "no session has this id: it has ended, or never existed"
    assert agent.calls == [("inspectToken", {"id": "session-9"})]
    shown = in_process("inspect", "session-9", terminal=True).out
    assert "no session has this id: it has ended, or never existed (REVOKED)" in shown


def test_inspect_says_which_of_what_was_asked_for_is_missing(agent, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    token = agent.hold(FULL)
    for asked, why in (([], "WRONG_AUDIENCE"), (["--audience", "ci", "--scope", "write"], "MISSING_SCOPE")):
        ended = in_process("inspect", "-", *asked, stdin=token.encode(), terminal=True)
        assert ended.code == 0
        assert f"({why})\n" in ended.out
