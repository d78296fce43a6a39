from __future__ import annotations

import json
from datetime import datetime

import pytest

from agentd_client.cli.table import width_of
from agentd_client.protocol.results import AuditEntry, PeerIdentity
from tests.agentctl.fake_agent import NOW
from tests.agentctl.running import in_process

FIRST, SECOND = "0197043e-2c40-7abc-8000-000000000000", "0197143e-2c40-7abc-8000-000000000000"


def entry(kind: str, age: float, **more: object) -> AuditEntry:
    made = AuditEntry(NOW - age, NOW - age, kind, FIRST, "desk", None, 1000, 4712, "/usr/bin/agentctl", 1)
    return made._replace(**more)


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")


def test_the_log_reads_oldest_first_with_its_days_and_counts_refusals(agent):
    agent.audit = [
        entry("created", 90_000),
        entry("refused", 3000, until=NOW - 2000, reason="EXPIRED", peer_exe="/bin/make", times=12),
        entry("refused", 100, session_id=None, label="", reason="MALFORMED", peer_exe=None, peer_pid=9),
        entry("refused", 90, until=NOW - 85, reason="USED_UP", peer_exe=None, peer_pid=9, times=2),
        entry("revoked", 50, session_id=SECOND, label="build"),
    ]
    ended = in_process("audit", terminal=True)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "TIME      WHAT     SESSION   LABEL  WHY                       BY\n"
        "-- 2025-06-14 --\n"
        "14:06:40  created  0197043e  desk                             4712 agentctl\n"
        "-- 2025-06-15 --\n"
        "14:16:40  refused  0197043e  desk   EXPIRED x 12 until 14:33  4712 make\n"
        "15:05:00  refused                   MALFORMED                 pid 9\n"
        "15:05:10  refused  0197043e  desk   USED_UP x 2               pid 9\n"
        "15:05:50  revoked  0197143e  build                            4712 agentctl\n"
    )


def test_uses_are_shown_with_their_number(agent):
    agent.audit = [
        entry("used", 3000, until=NOW - 2950, peer_exe="/bin/make", times=12),
        entry("used", 100, peer_exe="[deploy]"),
        entry("used", 90, session_id=None, label="", peer_exe=None, peer_pid=None, times=3),
    ]
    assert in_process("audit", terminal=True).out == (
        "TIME      WHAT  SESSION   LABEL  WHY               BY\n"
        "-- 2025-06-15 --\n"
        "14:16:40  used  0197043e  desk   x 12 until 14:17  4712 make\n"
        "15:05:00  used  0197043e  desk                     4712 deploy\n"
        "15:05:10  used                   x 3\n"
    )


def test_locking_and_passphrases_are_told_in_words(agent):
    about_none = {"session_id": None, "label": ""}
    by_itself = {"peer_uid": None, "peer_pid": None, "peer_exe": None}
    agent.audit = [
        entry("locked", 400, reason="suspend", **about_none, **by_itself),
        entry("locked", 350, reason="asked", **about_none),
        entry("passphraseRefused", 300, until=NOW - 200, times=5, **about_none),
        entry("unlocked", 100, **about_none),
        entry("passphraseChanged", 50, **about_none),
    ]
    assert in_process("audit", terminal=True).out == (
        "TIME      WHAT        WHY                        BY\n"
        "-- 2025-06-15 --\n"
        "15:00:00  locked      the machine was suspended\n"
        "15:00:50  locked      on request                 4712 agentctl\n"
        "15:01:40  passphrase  wrong x 5 until 15:03      4712 agentctl\n"
        "15:05:00  unlocked                               4712 agentctl\n"
        "15:05:50  passphrase  changed                    4712 agentctl\n"
    )
    first = in_process("audit").out.splitlines()[2].split("\t")
    assert first[2] == "passphraseRefused", "in a pipe the names of the wire"


def test_long_and_wide_texts_fit_into_80_columns(agent):
    agent.audit = [
        entry("refused", 60, label="夜間" * 50, reason="WRONG_AUDIENCE", times=1000),
        entry("stopping", 50, label="x" * 200, peer_exe="/bin/" + "p" * 200),
    ]
    lines = in_process("audit", terminal=True).out.splitlines()
    assert [width_of(line) <= 80 for line in lines] == [True] * 4


def test_in_a_pipe_it_is_a_line_of_whole_fields_with_tabs(agent):
    agent.audit = [entry("refused", 0, reason="EXPIRED", times=3, label="a\tb"), entry("keyReset", 0)]
    agent.audit[1] = agent.audit[1]._replace(session_id=None, peer_uid=None, peer_pid=None, peer_exe=None)
    first, second = in_process("audit").out.splitlines()
    assert first.split("\t") == [
        *(str(NOW), str(NOW), "refused", FIRST, "a\\tb", "EXPIRED", "1000", "4712", "/usr/bin/agentctl", "3"),
        *("", "", "", "", ""),
    ]
    assert second.split("\t")[3:] == ["", "desk", "", "", "", "", "1", "", "", "", "", ""]


def test_an_answer_to_a_request_says_who_had_asked(agent):
    asker = PeerIdentity(1001, 4700, "/usr/bin/git")
    agent.audit = [
        entry("requested", 50)._replace(session_id=None, request_id="k7m2qd"),
        entry("approved", 40)._replace(request_id="k7m2qd", asked_by=asker, peer_unit="app.scope"),
        entry("requestExpired", 30)._replace(session_id=None, request_id="q9z3aa"),
    ]
    rows = in_process("audit", terminal=True).out.splitlines()[2:]
    assert "request k7m2qd" in rows[0]
    assert "k7m2qd, asked by 4700 git" in rows[1]
    assert "unanswered" in rows[2]
    approved = in_process("audit").out.splitlines()[1].split("\t")
    assert approved[10:] == ["app.scope", "k7m2qd", "1001", "4700", "/usr/bin/git"]


def test_json_is_one_object_oldest_first(agent):
    agent.audit = [entry("created", 2), entry("revoked", 1)]
    told = json.loads(in_process("audit", "--json").out)
    assert list(told) == ["entries"]
    assert [found["kind"] for found in told["entries"]] == ["created", "revoked"]
    assert told["entries"][0] == {
        "at": NOW - 2,
        "until": NOW - 2,
        "kind": "created",
        "sessionId": FIRST,
        "label": "desk",
        "reason": None,
        "peerUid": 1000,
        "peerPid": 4712,
        "peerExe": "/usr/bin/agentctl",
        "times": 1,
        "peerUnit": None,
        "requestId": None,
        "askedBy": None,
    }


def test_the_newest_are_shown_over_as_many_pages_as_it_takes(agent):
    agent.audit = [entry("created", 100 - number, label=str(number)) for number in range(100)]
    told = json.loads(in_process("audit", "--json").out)["entries"]
    assert [found["label"] for found in told] == [str(number) for number in range(50, 100)]
    told = json.loads(in_process("audit", "--json", "--limit", "3").out)["entries"]
    assert [found["label"] for found in told] == ["97", "98", "99"]
    assert len(json.loads(in_process("audit", "--json", "--limit", "500").out)["entries"]) == 100


@pytest.mark.parametrize(
    ("written", "since"),
    [
        ("1h", NOW - 3600),
        ("90", NOW - 90),
        ("2025-06-15", datetime(2025, 6, 15).timestamp),
        ("2025-06-15T09:30", datetime(2025, 6, 15, 9, 30).timestamp),
        ("2025-06-15 09:30:00+02:00", datetime.fromisoformat("2025-06-15T07:30+00:00").timestamp),
    ],
)
def test_since_is_how_long_ago_or_a_date(agent, written, since):
    assert in_process("audit", "--since", written).code == 0
    assert agent.calls[0][1]["since"] == (since() if callable(since) else since)


@pytest.mark.parametrize("written", ["never", "yesterday", "", "2025-13-01", "0001-01-01"])
def test_since_of_another_form_is_a_usage_error_that_shows_the_forms(agent, written):
    ended = in_process("audit", "--since", written)
    assert ended.code == 64
    assert "2030-01-31" in ended.err
    assert agent.calls == []


def test_a_kind_and_a_session_are_chosen(agent):
    agent.audit = [
        entry("created", 40),
        entry("used", 30),
        entry("used", 20, session_id=SECOND),
        entry("locked", 10, session_id=None),
    ]
    for arguments, times in (
        (("--kind", "used"), [30, 20]),
        (("--session", SECOND[:8]), [20]),
        (("--session", FIRST, "--kind", "created"), [40]),
    ):
        told = json.loads(in_process("audit", "--json", *arguments).out)["entries"]
        assert [NOW - found["at"] for found in told] == times
    assert agent.calls[0][1] == {"kind": "used", "limit": 32}


@pytest.mark.parametrize("arguments", [("--kind", "loud"), ("--session", "v4.local.secret")])
def test_a_kind_or_session_of_another_form_is_a_usage_error(agent, arguments):
    ended = in_process("audit", *arguments)
    assert ended.code == 64
    assert "secret" not in ended.err
    assert agent.calls == []


def test_an_empty_log_is_no_line_in_a_pipe_and_a_word_on_a_terminal(agent):
    assert in_process("audit") == (0, "", "")
    assert in_process("audit", terminal=True).out == "no entries\n"


@pytest.mark.parametrize(
    ("written", "since"),
    [
        ("15:06:39", NOW - 1),
        ("15:06", NOW - 40),
        ("15:07", NOW + 20 - 86_400),  # the clock has not shown it today
        ("2025-06-15", NOW - (15 * 3600 + 6 * 60 + 40)),
        ("2025-06-15 15:06", NOW - 40),
        (str(NOW), NOW),
        (f"{NOW:.0f}", NOW),
        ("1795822077.3663423", 1795822077.3663423),
    ],
)
def test_since_takes_what_the_commands_print(agent, written, since):
    assert in_process("audit", "--since", written).code == 0
    assert agent.calls[0][1]["since"] == since


def test_since_takes_the_time_of_an_entry_as_each_form_prints_it(agent):
    agent.audit.append(AuditEntry(NOW + 0.3663423, NOW + 1, "created", "id", "", None, None, None, None, 1))
    plain = in_process("audit").out.split("\t")[0]
    entry = json.loads(in_process("audit", "--json").out)["entries"][0]
    for written in (plain, str(entry["at"])):
        in_process("audit", "--since", written)
        assert agent.calls[-1][1]["since"] == NOW + 0.3663423
