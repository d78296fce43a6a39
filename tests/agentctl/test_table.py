from __future__ import annotations

import pytest

from agentd_client.cli.table import Column, cut, table, width_of


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
