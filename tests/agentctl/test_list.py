from __future__ import annotations

import contextlib
import io
import json
import os

import pytest

from agentd_client.cli.commands.list import newest
from agentd_client.cli.run import run
from agentd_client.cli.table import width_of
from agentd_client.protocol.results import PeerIdentity, SessionInfo
from tests.agentctl.fake_agent import NOW
from tests.agentctl.running import in_process, process

DAY = 86_400
DESK, BUILD, TEST, LINT, NIGHTLY, ALONE = (f"0197{n}43e-2c40-7abc-8000-00000000000{n}" for n in range(6))


def session(id: str, label: str, age: float, **more: object) -> SessionInfo:
    opener = PeerIdentity(1000, 4712, "/usr/bin/make", "app.slice")
    return SessionInfo(id, label, NOW - age, NOW - age + 28_800, opener)._replace(**more)


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def family(agent):
    for found in (
        session(
            DESK, "desk", 3600, last_used_at=NOW - 120, opened_by=PeerIdentity(1000, 4712, "/usr/bin/bash")
        ),
        session(BUILD, "build", 600, parent=DESK, uses_left=3),
        session(TEST, "test", 300, parent=BUILD, expires_at=None),
        session(LINT, "lint", 200, parent=DESK, opened_by=PeerIdentity(1000, 4800)),
        session(NIGHTLY, "nightly", 90_000, expires_at=NOW - 4, state="expired", opened_by=None),
        session(ALONE, "alone", 500, parent="gone"),
    ):
        agent.hold(found)


def test_list_is_a_table_with_the_tree_newest_first_and_marks_a_child_alone(agent, family):
    ended = in_process("list", terminal=True)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "ID        LABEL       OPENED  ENDS     USED       LEFT  BY\n"
        "0197543e  ┄─ alone    14:58   in 7 h   never            4712 make\n"
        "0197043e  desk        14:06   in 7 h   2 min ago        4712 bash\n"
        "0197343e  ├─ lint     15:03   in 7 h   never            pid 4800\n"
        "0197143e  └─ build    14:56   in 7 h   never      3     4712 make\n"
        "0197243e     └─ test  15:01   never    never            4712 make\n"
        "0197443e  nightly     Jun 14  expired  never\n"
        "┄─ below a session that is not shown\n"
    )


def test_a_table_of_long_and_wide_labels_fits_into_80_columns(agent):
    agent.hold(session(DESK, "x" * 200, 60, uses_left=2_000_000_000, last_used_at=NOW - 3540))
    agent.hold(session(BUILD, "夜間バックアップ" * 20, 50, parent=DESK))
    agent.hold(
        session(TEST, "e\u0301" * 100, 40, opened_by=PeerIdentity(1000, 4_194_304, "/bin/" + "p" * 200))
    )
    lines = in_process("list", terminal=True).out.splitlines()
    assert len(lines) == 4
    assert [width_of(line) <= 80 for line in lines] == [True] * 4
    columns = {width_of(line[: line.index("15:0")]) for line in lines[1:]}
    assert len(columns) == 1, "what follows a wide label stands where it stands in the other lines"
    assert sum("…" in line for line in lines) == 3
    assert sum("  4194304" in line for line in lines) == 1, "of a process the number is never cut"


def test_wide_cuts_nothing_and_tells_more(agent):
    agent.hold(session(DESK, "x" * 200, 60, scopes=["read", "write"], audience=["ci"]))
    out = in_process("list", "--wide", terminal=True).out
    assert out.splitlines()[0].split() == [
        *("ID", "LABEL", "OPENED", "ENDS", "USED", "BY", "UNIT", "SCOPES", "AUDIENCE")
    ]
    for text in (DESK, "x" * 200, "app.slice", "read, write", "ci"):
        assert text in out


def test_ids_are_as_long_as_it_takes_to_tell_them_apart(agent):
    for end in ("0001", "0002", "1000"):
        agent.hold(session(f"0197043e-2c40-7abc-8000-{end}00000000", "", 1))
    agent.hold(session(BUILD, "", 2))
    shown = [line.split()[0] for line in in_process("list", terminal=True).out.splitlines()[1:]]
    assert sorted(shown) == [
        *(
            "0197043e-2c40-7abc-8000-0001",
            "0197043e-2c40-7abc-8000-0002",
            "0197043e-2c40-7abc-8000-1",
            "0197143e",
        )
    ]


def test_in_a_pipe_it_is_a_line_of_whole_fields_with_tabs(agent):
    label = "two\nlines\tand more " + "x" * 180
    agent.hold(session(BUILD, label, 0, parent=DESK, last_used_at=NOW, uses_left=3))
    agent.hold(session(NIGHTLY, "", DAY, expires_at=None, opened_by=None))
    first, second = in_process("list").out.splitlines()
    assert first.split("\t") == [
        *(BUILD, "two\\nlines\\tand more " + "x" * 180, "active", str(NOW), str(NOW + 28_800), str(NOW)),
        *("3", DESK, "1000", "4712", "/usr/bin/make", "app.slice"),
    ]
    assert second.split("\t") == [NIGHTLY, "", "active", str(NOW - DAY), *[""] * 8]


def test_json_is_one_object_with_all_there_is(agent, family):
    told = json.loads(in_process("list", "--json").out)
    assert list(told) == ["sessions"]
    assert [found["id"] for found in told["sessions"]] == [LINT, TEST, ALONE, BUILD, DESK, NIGHTLY]
    assert told["sessions"][3]["usesLeft"] == 3
    assert told["sessions"][3]["openedBy"] == {
        "uid": 1000,
        "pid": 4712,
        "exe": "/usr/bin/make",
        "unit": "app.slice",
    }


def test_no_sessions_are_no_lines_in_a_pipe_and_a_word_on_a_terminal(agent):
    assert in_process("list") == (0, "", "")
    assert in_process("list", terminal=True).out == "no sessions\n"
    assert json.loads(in_process("list", "--json").out) == {"sessions": []}


@pytest.mark.parametrize(
    ("limit", "asked"), [(5, [5]), (16, [16]), (20, [16, 4, 4]), (100, [16, 16, 16, 16, 16])]
)
def test_list_goes_on_over_pages_also_empty_ones_until_there_are_enough(agent, limit, asked):
    for number in range(40):
        agent.hold(session(f"0197043e-{number:04}", str(number), number))
    told = json.loads(in_process("list", "--limit", str(limit), "--json").out)["sessions"]
    assert [found["label"] for found in told] == [str(number) for number in range(min(limit, 40))]
    limits = [params["limit"] for _, params in agent.calls]
    assert (limits if limit < 100 else [16] * 5) == asked
    shown = in_process("list", "--limit", str(limit), terminal=True).out
    assert (f"the newest {limit}; --limit shows more\n" in shown) == (limit < 40)


def test_every_condition_is_handed_on_to_the_agent(agent):
    in_process("list", "--state", "active", "--label", "b*", "--pid", "7", "--parent", DESK)
    conditions = {"state": "active", "label": "b*", "pid": 7, "parent": DESK}
    assert agent.calls == [("listSessions", {**conditions, "limit": 16})]


def test_an_agent_that_sends_more_than_it_was_asked_for_is_cut_short():
    assert newest(lambda after, limit: ([1, 2, 3], "more"), limit=2, most=16) == [1, 2]


@pytest.mark.parametrize("args", [["--limit", "0"], ["--label", ""], ["--parent", ""], ["--pid", "-1"]])
def test_what_chooses_nothing_is_a_usage_error(agent, args):
    assert in_process("list", *args).code == 64
    assert agent.calls == []


def test_what_a_session_says_cannot_steer_the_terminal(agent):
    hostile = "\x1b]0;x\x07\u202e\x9b\n"
    opener = PeerIdentity(0, 1, f"/bin/{hostile}", hostile)
    agent.hold(SessionInfo(hostile, hostile, NOW, None, opener, state=hostile, scopes=[hostile]))
    agent.hold(SessionInfo("child", hostile, NOW, None, None, parent=hostile))
    for args in (["list"], ["list", "--wide"]):
        for terminal in (True, False):
            out = in_process(*args, terminal=terminal).out.replace("\n", "").replace("\t", "")
            assert out.isprintable()


def test_an_output_without_box_drawing_gets_ascii_and_escapes(agent, family):
    agent.hold(session("0197943e", "größer" * 30, 100))

    class AsciiTerminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    out = AsciiTerminal(io.BytesIO(), encoding="ascii")
    with contextlib.redirect_stdout(out):
        assert run(["list"], now=lambda: NOW) == 0
    shown = out.buffer.getvalue().decode("ascii")
    for text in (".- alone", "|- lint", "`- build", "   `- test", "gr\\xf6\\xdfer", "~"):
        assert text in shown


def test_a_pipe_of_another_encoding_is_no_fault(agent):
    agent.hold(session(DESK, "größer", 0))
    ended = process("list", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "gr\\xf6\\xdfer" in ended.stdout
