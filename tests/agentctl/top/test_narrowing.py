"""Only less than was asked for can be granted."""

from __future__ import annotations

import pytest

from agentd_client.protocol.results import PeerIdentity, RequestInfo
from agentd_client.tui.narrowing import Grant, NotLessError, grant_of

ASKED = RequestInfo(
    *("k7m2qd", "waiting", 0, 300, PeerIdentity(1000, 4711, "/usr/bin/git"), [], "owner", "git", "", ""),
    *(None, ["deploy", "read"], 600, 3, False),
)
UNLIMITED = ASKED._replace(scopes=None, expiry=None, max_uses=None)


@pytest.mark.parametrize(
    ("request_", "fields", "grant"),
    [
        (ASKED, (["deploy", "read"], "", "", ""), Grant()),
        (ASKED, (["deploy", "read"], "10m", "3", ""), Grant()),
        (ASKED, (["read"], "5m", " 1 ", "1h"), Grant(["read"], 300, 1, 3600)),
        (ASKED, ([], "", "", ""), Grant([])),
        (UNLIMITED, (None, "", "", ""), Grant()),
        (UNLIMITED, (["read"], "90", "7", ""), Grant(["read"], 90, 7)),
    ],
)
def test_what_the_fields_say_is_granted(request_, fields, grant):
    assert grant_of(request_, *fields) == grant


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ((["write"], "", "", ""), "scopes"),
        ((["read"] * 17, "", "", ""), "16"),
        ((["read"], "11m", "", ""), "10 min"),
        ((["read"], "never", "", ""), "lasts"),
        ((["read"], "0", "", ""), "lasts"),
        ((["read"], "soon", "", ""), "lasts"),
        ((["read"], "", "4", ""), "1 to 3"),
        ((["read"], "", "0", ""), "1 to 3"),
        ((["read"], "", "²", ""), "1 to 3"),
        ((["read"], "", "-1", ""), "1 to 3"),
        ((["read"], "", "", "25h"), "1 d"),
        ((["read"], "", "", "x"), "remember"),
    ],
)
def test_more_than_that_or_something_else_is_not(fields, why):
    with pytest.raises(NotLessError, match=why):
        grant_of(ASKED, *fields)


def test_what_differs_is_said():
    assert list(Grant().rows()) == []
    assert list(Grant(["read"], 300, 1, 3600).rows()) == [
        ("GRANT", "scopes read"),
        ("GRANT", "for 5 min"),
        ("GRANT", "1 use"),
        ("REMEMBER", "the same without asking for 1 h"),
    ]
    assert list(Grant([]).rows()) == [("GRANT", "scopes none")]
