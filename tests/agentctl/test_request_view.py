"""Requests in words: all that a person needs, and nothing that an asker could pass off as ours."""

import os

import pytest

from agentd_client.cli import request_view
from agentd_client.cli.table import width_of
from agentd_client.protocol.results import (
    ASK_SOCKET,
    OWNERS_SOCKET,
    REMEMBERED,
    WAITING,
    PeerIdentity,
    RequestInfo,
)

NOW = 1_900_000_000.0
OTHER_UID = 4_000_000_000  # no user database has it


def request(**fields):
    known = {
        "id": "k7m2qd",
        "state": WAITING,
        "asked_at": NOW - 20,
        "until": NOW + 280,
        "asker": PeerIdentity(os.getuid(), 4712, "/usr/bin/git", "nightly.service"),
        "sandbox": [],
        "socket": OWNERS_SOCKET,
        "program": "/usr/bin/git of nightly.service",
        "label": "nightly",
        "reason": "release 2.4",
        "audience": ["registry"],
        "scopes": ["deploy", "read"],
        "expiry": 600,
        "max_uses": 3,
        "bound": True,
    }
    return RequestInfo(**(known | fields))


def shown(**fields):
    return dict(request_view.lines(request(**fields), NOW))


def test_it_says_who_asks_for_what_why_and_until_when():
    found = shown()
    assert found["request"] == "k7m2qd"
    assert f"uid {os.getuid()}" in found["user"]
    assert found["program"] == "/usr/bin/git"
    assert found["process"] == "4712"
    assert found["unit"] == "nightly.service"
    assert found["sandbox"] == "none that the agent can see"
    assert found["scopes"] == "deploy, read"
    assert found["audience"] == "registry"
    assert found["lasts"] == "10 min"
    assert found["uses"] == "3"
    assert found["ends"] == "with process 4712, if that is earlier"
    assert found["says"] == '"release 2.4"'
    assert found["labels it"] == '"nightly"'
    assert found["remember"] == 'would cover "/usr/bin/git of nightly.service"'
    assert found["until"].endswith("in 4 min 40 s; no answer is a no")
    assert "over" not in found


def test_a_program_that_the_agent_cannot_see_for_itself_is_marked():
    within = shown(sandbox=["own user namespace", "no new privileges"])
    assert within["program"] == '"/usr/bin/git", as its sandbox has it'
    assert within["sandbox"] == "own user namespace, no new privileges"
    asker = PeerIdentity(os.getuid(), 4712, "[git, of root]")
    assert shown(asker=asker)["program"] == 'calls itself "git, of root"'
    assert request_view.summary(request(asker=asker), NOW).startswith('k7m2qd: "git, of root" (4712) asks')


def test_no_limits_stand_out():
    found = shown(scopes=None, audience=None, expiry=None, max_uses=None, bound=False)
    assert found["scopes"] == "EVERYTHING (no limit)"
    assert found["audience"] == "anyone"
    assert found["lasts"] == "WITHOUT END"
    assert found["uses"] == "unlimited"
    assert "ends" not in found
    assert "EVERYTHING" in request_view.summary(request(scopes=None), NOW)


def test_another_user_and_the_ask_socket_stand_out():
    asker = PeerIdentity(OTHER_UID, 4712)
    found = shown(asker=asker, socket=ASK_SOCKET, sandbox=[], reason="", label="")
    assert found["user"] == f"uid {OTHER_UID}, ANOTHER USER"
    assert found["program"] == "unknown"
    assert found["over"] == "the ask socket, which others can reach"
    assert found["sandbox"] == "none that the agent can see"
    assert found["says"] == "nothing"
    assert "unit" not in found
    assert "labels it" not in found
    assert str(OTHER_UID) in request_view.summary(request(asker=asker), NOW)


def test_a_remembered_approval_says_what_it_covers_and_until_when():
    found = shown(state=REMEMBERED, until=NOW + 3000)
    assert found["approved"] == 'for "/usr/bin/git of nightly.service", without asking again'
    assert found["until"].endswith("in 50 min, or the next lock")
    assert "remember" not in found


def test_the_summary_is_one_line():
    assert request_view.summary(request(), NOW) == "k7m2qd: git (4712) asks for deploy, read, 10 min"


HOSTILE = (
    'ok" \nscopes  none\r\x1b[2J\u202etxt\u2028next\x00"',
    "“ok” \N{FULLWIDTH QUOTATION MARK}and more″",
    "x" * 5000,
    "a" + "\u0301" * 5000,
    "ok" + " " * 150 + "user   root",
    "ok〞" + "\N{HANGUL FILLER}\N{BRAILLE PATTERN BLANK}" * 75 + "user root",
    "\x1b" * 5000,
)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("field", ["reason", "label", "id", "program", "sandbox", "exe", "unit"])
def test_an_askers_words_are_one_bounded_line_in_quotes(field, text):
    if field in ("exe", "unit"):
        fields = {"asker": PeerIdentity(os.getuid(), 4712)._replace(**{field: text})}
    else:
        fields = {field: [text] if field == "sandbox" else text}
    asked = request(**fields)
    for heading, line in request_view.lines(asked, NOW):
        assert heading.isascii()
        assert line.isprintable()
        assert len(line) < 400
        if heading in ("says", "labels it"):
            assert line.count('"') == 2
            assert line[0] == line[-1] == '"'
            assert not set("“”″〞\N{FULLWIDTH QUOTATION MARK}\N{HANGUL FILLER}") & set(line)
            assert "  " not in line
            assert "\u0301" * 4 not in line
    title = request_view.summary(asked, NOW)
    assert title.isprintable()
    assert len(title) < 200


@pytest.mark.parametrize("name", ['git"; user root', "git, user root", "ls\nuser  root"])
def test_a_program_of_an_odd_name_stands_in_quotes(name):
    found = shown(asker=PeerIdentity(os.getuid(), 4712, f"/tmp/{name}"))["program"]
    assert found[0] == found[-1] == '"'
    assert found.count('"') == 2


@pytest.mark.parametrize("width", [20, 40, 80])
@pytest.mark.parametrize("reason", [*HOSTILE, "漢字" * 90])
def test_no_words_of_an_asker_begin_a_line(reason, width):
    rows = request_view.lines(request(reason=reason, label=reason), NOW)
    headings = {heading for heading, _ in rows}
    margin = max(map(len, headings)) + 2
    for line in request_view.block(rows, width):
        assert line[:margin].strip() in headings | {""}
        assert width_of(line) <= max(width, margin + 20)


def test_all_scopes_are_shown():
    many = [f"{'s' * 62}{place:02}" for place in range(16)]
    assert shown(scopes=many)["scopes"].split(", ") == many
    assert len(request_view.summary(request(scopes=many), NOW)) < 200
