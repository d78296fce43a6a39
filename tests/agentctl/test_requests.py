"""`agentctl requests`: what waits, and what is remembered."""

from __future__ import annotations

import json

import pytest

from agentd_client.cli.table import width_of
from agentd_client.protocol.results import ASK_SOCKET, REMEMBERED, PeerIdentity
from tests.agentctl.fake_agent import NOW
from tests.agentctl.running import in_process

OTHER_UID = 4_000_000_000


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")


def test_a_person_gets_a_table_of_what_waits_and_what_is_remembered(agent):
    agent.ask("q9z3aa", state=REMEMBERED, until=NOW + 3000, reason="")
    agent.ask("k7m2qd")
    ended = in_process("requests", terminal=True)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "ID      STATE       BY        SCOPES        LASTS   ENDS       SAYS\n"
        'k7m2qd  waiting     4712 git  deploy, read  10 min  in 4 min   "release 2.4"\n'
        "q9z3aa  remembered  4712 git  deploy, read  10 min  in 50 min  nothing\n"
        "`agentctl approve ID` shows a request in full, and asks\n"
    )


def test_there_may_be_none(agent):
    assert in_process("requests", terminal=True) == (0, "no requests\n", "")
    assert in_process("requests") == (0, "", "")
    assert json.loads(in_process("requests", "--json").out) == {"requests": []}


def test_a_pipe_gets_a_line_for_each(agent):
    agent.ask(
        "k7m2qd",
        asker=PeerIdentity(OTHER_UID, 12),
        socket=ASK_SOCKET,
        scopes=None,
        reason="a\tb\nc",
        bound=True,
    )
    assert in_process("requests").out == (
        f"k7m2qd\twaiting\t{NOW - 20}\t{NOW + 280}\t{OTHER_UID}\t12\t\t\task\t\t\t600\t\ttrue\tnightly\ta\\tb\\nc\n"
    )


def test_json_has_all_fields(agent):
    agent.ask("k7m2qd", sandbox=["bubblewrap"])
    (told,) = json.loads(in_process("requests", "--json").out)["requests"]
    assert (told["id"], told["asker"]["pid"], told["sandbox"]) == ("k7m2qd", 4712, ["bubblewrap"])


def test_all_pages_are_read(agent):
    ids = [f"id{number:02}" for number in range(40)]
    for request_id in ids:
        agent.ask(request_id)
    assert [line.split("\t")[0] for line in in_process("requests").out.splitlines()] == ids


@pytest.mark.parametrize("columns", ["40", "80"])
def test_what_a_program_says_stays_in_its_column(agent, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    agent.ask("k7m2qd", reason='ok" \x1b[2J\nq9z3aa  remembered  root' + " " * 60 + "x")
    _, line, _ = in_process("requests", terminal=True).out.splitlines()
    assert line.startswith("k7m2qd")
    assert width_of(line) <= int(columns)
    assert line.isprintable()


def test_of_another_user_the_name_is_shown(agent):
    agent.ask("k7m2qd", asker=PeerIdentity(OTHER_UID, 12, "/usr/bin/git"))
    assert f" {OTHER_UID} " in in_process("requests", terminal=True).out
