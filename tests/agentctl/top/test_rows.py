"""The lines: they fit, whatever they say, and what an agent or an asker says cannot steer the terminal."""

from __future__ import annotations

import pytest

from agentd_client.cli.commands.list import Branches
from agentd_client.cli.table import width_of
from agentd_client.protocol.results import Event, PeerIdentity, RequestInfo, SessionInfo, Status
from agentd_client.tui.bands import activity_lines, hints, title
from agentd_client.tui.model import Happening, Model
from agentd_client.tui.rows import (
    HAPPENINGS,
    REQUESTS,
    SESSIONS,
    happening_line,
    request_line,
    session_line,
    tree,
)
from tests.agentctl.fake_agent import NOW

HOSTILE = "\x1b]0;x\x07\u202e\n[bold red]夜間\u0301" * 30
SIGNS = Branches("+", "`", "|", "_", "?")
WIDTHS = [1, 3, 10, 38, 40, 78, 80, 118, 300]

PLAIN = SessionInfo("0197043e-2c40-7abc-8000-000000000000", "desk", NOW, NOW + 3600, PeerIdentity(0, 4712))
REQUEST = RequestInfo(
    *("k7m2qd", "waiting", NOW, NOW + 300, PeerIdentity(1000, 4711, "/usr/bin/git"), [], "owner", "git"),
    *("push", "release 1.2", None, ["deploy"], 600, None, False),
)


def line_of(what: str, width: int, text: str) -> str:
    if what == "session":
        session = PLAIN._replace(
            id=text, label=text, scopes=[text], opened_by=PeerIdentity(0, 1, text, text), uses_left=2**31
        )
        return session_line(text and "+", session, NOW, width).text
    if what == "request":
        request = REQUEST._replace(
            id=text, label=text, reason=text, scopes=[text], asker=PeerIdentity(0, 2**31, text, text)
        )
        return request_line(request, NOW, width).text
    happening = Happening(NOW, text, text, text, text, 1, text, request=what == "request event")
    return happening_line(happening, width).text


@pytest.mark.parametrize("width", [each for each in WIDTHS if each >= 38])
@pytest.mark.parametrize("what", ["session", "request", "event", "request event"])
def test_a_line_fits_and_is_printable_whatever_it_says(what, width):
    line = line_of(what, width, HOSTILE)
    assert line.isprintable()
    assert width_of(line) <= width


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("what", ["session", "request", "event"])
def test_no_width_is_too_small(what, width):
    assert line_of(what, width, "x").isprintable()


@pytest.mark.parametrize("table", [SESSIONS, REQUESTS, HAPPENINGS])
def test_columns_have_their_headings_above_them_at_every_width(table):
    for width in range(38, 200):
        assert width_of(table.heading(width)) <= width
        texts = [column.heading for column in table.columns]
        assert table.row(texts, width) == table.heading(width)


def test_a_narrow_terminal_shows_what_it_is_and_when_it_ends():
    assert session_line("", PLAIN._replace(scopes=["read"]), NOW, 38).text.split() == ["desk", "in", "1", "h"]
    shown = session_line("", PLAIN._replace(scopes=["read"], uses_left=3), NOW, 118).text.split()
    assert shown == ["desk", "read", "in", "1", "h", "never", "3", "pid", "4712", "0197043e-2c40"]


@pytest.mark.parametrize(
    ("session", "style"),
    [
        (PLAIN, ""),
        (PLAIN._replace(expires_at=NOW + 59), "yellow"),
        (PLAIN._replace(expires_at=NOW - 1), "dim"),
        (PLAIN._replace(state="expired"), "dim"),
        (PLAIN._replace(expires_at=None), ""),
    ],
)
def test_a_session_that_ends_soon_or_has_expired_looks_so(session, style):
    assert session_line("", session, NOW, 80).style == style


def test_a_session_without_a_label_has_its_id_in_the_tree():
    assert session_line("+", PLAIN._replace(label=""), NOW, 38).text.startswith("+0197043e-2c40")


def test_words_of_an_asker_are_in_quotes():
    assert '"release 1.2"' in request_line(REQUEST, NOW, 118).text
    happening = Happening(NOW, "requested", "k7m2qd", "push", None, 4711, request=True)
    assert '"push"' in happening_line(happening, 118).text
    assert '"' not in happening_line(happening._replace(request=False), 118).text


def test_the_filter_looks_at_label_scopes_id_program_and_unit_in_any_case():
    opener = PeerIdentity(0, 1, "/usr/bin/Make", "build.service")
    a, b, c = (
        PLAIN._replace(id="a1", label="Nightly", scopes=["deploy"], opened_by=opener),
        PLAIN._replace(id="b2", parent="a1", label="x"),
        PLAIN._replace(id="c3", label="x", opened_by=None),
    )

    def found(wanted: str) -> list[tuple[str, str]]:
        return [(sign, session.id) for sign, session in tree([a, b, c], SIGNS, wanted)]

    assert found("") == [("", "a1"), ("`", "b2"), ("", "c3")]
    for wanted in ("nightly", "DEPLOY", "A1", "make", "build."):
        assert found(wanted) == [("", "a1")], wanted
    assert found("b2") == [("?", "b2")], "its parent is not shown"
    assert found("nowhere") == []


# --- the lines around the lists ---


def model(**more: object) -> Model:
    made = Model()
    values = ("0.1.0", "a", 1, 5.0, 1.0, 12, "k", "/s", "/d", 0, True)
    from agentd_client.protocol.results import Counters

    made.take_status(Status(*values, Counters(0, 0, 0, 0, 0, 0, 0))._replace(**more), 0.0, 0)
    return made


@pytest.mark.parametrize("width", WIDTHS)
def test_the_title_fits_and_ends_with_the_time(width):
    for each in (model(), model(locked=True), model(opening="passphrase")):
        text = title(each, NOW, "x" * 200, width).text
        if width >= 20:
            assert width_of(text) <= width
            assert text.endswith("15:06:40")


def test_the_title_says_what_matters_most():
    assert "0 of 12 sessions" in title(model(), NOW, "", 80).text
    assert "LOCKED; `agentctl unlock`" in title(model(locked=True), NOW, "", 80).text
    assert "opening: ask" in title(model(opening="ask"), NOW, "", 80).text
    gone = model()
    gone.lose("nobody there\x1b[2J")
    assert "NOT CONNECTED: nobody there\\x1b[2J" in title(gone, NOW, "", 80).text


def test_hints_end_with_help_and_quit_at_every_width():
    keys = [("a", "approve"), ("d", "deny"), ("?", "help"), ("q", "quit")]
    assert hints(keys, 80).text == "a approve  d deny  ? help  q quit"
    assert hints(keys, 33).text == "a approve  d deny  ? help  q quit"
    assert hints(keys, 32).text == "a approve  ? help  q quit"
    assert hints(keys, 5).text == "? help  q quit"


def test_a_plot_says_what_it_plots_and_fits():
    busy = model()
    busy.take_event(Event("refused", NOW, None, "", "MALFORMED", 1))
    busy.activity.sample(2.0, 1000, 10)
    for width in range(40, 200):
        first, second = activity_lines(busy, width, "_#")
        assert width_of(first.text) <= width
        assert first.text.startswith("others' requests 495/s")
        assert second.text.startswith("refused tokens 0.5/s")
    assert activity_lines(busy, 80, "_#")[0].text.endswith("#  most 495/s in 2 s")
