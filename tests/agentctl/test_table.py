from __future__ import annotations

import re

import pytest

from agentd_client.cli.table import Column, cut, table, width_of
from agentd_client.protocol.results import AuditEntry, PeerIdentity, SessionInfo
from tests.agentctl.fake_agent import NOW
from tests.agentctl.running import in_process


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.mark.parametrize(
    ("text", "width"),
    [("", 0), ("abc", 3), ("größe", 5), ("夜間", 4), ("e\u0301", 1), ("ｱ", 1), ("\uff21", 2)],
)
def test_the_width_is_what_a_terminal_gives_it(text, width):
    assert width_of(text) == width


@pytest.mark.parametrize(
    ("text", "room", "kept"),
    [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("夜間夜", 5, "夜間…"), ("夜間夜", 4, "夜…"), ("abcd", 1, "…")],
)
def test_a_text_is_cut_where_its_columns_end_and_never_within_a_character(text, room, kept):
    assert cut(text, room) == kept
    assert width_of(cut(text, room)) <= room


def test_the_widest_column_that_can_give_way_does():
    columns = [Column("A"), Column("B", 3), Column("C", 3)]
    lines = list(table(columns, [("aaaa", "b" * 20, "c" * 6)], 24))
    assert lines == ["A     B           C", "aaaa  bbbbbbbbb…  cccccc"]


def test_a_table_for_which_there_is_no_room_is_longer_rather_than_unreadable():
    (_, line) = table([Column("A"), Column("B", 3)], [("a" * 10, "b" * 10)], 5)
    assert line == "a" * 10 + "  bb…"


def test_a_column_that_no_row_fills_is_left_out_and_no_line_ends_in_blanks():
    assert list(table([Column("A"), Column("B"), Column("C")], [("a", "", ""), ("aa", "", "c")], None)) == [
        "A   C",
        "a",
        "aa  c",
    ]


@pytest.mark.parametrize("width", range(40, 120, 7))
def test_the_tables_of_the_commands_fit_a_narrow_terminal(agent, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    opener = PeerIdentity(1000, 4_194_304, "/usr/bin/a-program-with-a-long-name")
    for number in range(3):
        agent.hold(
            SessionInfo(
                f"01a21f5{number}-436f-7c61-9e2c-000000000000", "a long label " * 5, NOW - 90, NOW + 90_000, opener,
                uses_left=12_345, last_used_at=NOW - 80_000,
            )
        )  # fmt: skip
        agent.audit.append(
            AuditEntry(NOW, NOW + 60, "refused", f"01a21f5{number}-436f-7c61-9e2c-000000000000", "label " * 9, "SUPERSEDED",
                       1000, 4_194_304, opener.exe, 12)
        )  # fmt: skip
    for command in ("list", "audit"):
        ended = in_process(command, terminal=True)
        assert ended.code == 0
        lines = [re.sub(r"\x1b\[\d+m", "", line) for line in ended.out.splitlines()]
        assert len(lines) >= 4
        assert max(map(width_of, lines)) <= width
    assert "LABEL" in lines[0] or width < 80


def test_columns_are_left_out_from_the_highest_rank_on():
    columns = [Column("ID"), Column("A", 2, rank=1), Column("B", rank=2)]
    rows = [["0123456789", "aaaa", "bbbb"]]

    def shown(width):
        return list(table(columns, rows, width))[-1]

    assert shown(22) == "0123456789  aaaa  bbbb"
    assert shown(20) == "0123456789  a…  bbbb"
    assert shown(19) == "0123456789  aaaa"
    assert shown(5) == "0123456789"
