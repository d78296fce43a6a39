"""What `list` and `audit` share: fetching page by page, sessions as a tree, and short ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from ..protocol.results import SessionInfo
from .output import can_show

T = TypeVar("T")


def newest(ask: Callable[..., tuple[list[T], str | None]], limit: int, most: int) -> list[T]:
    """The newest `limit`, or all if there are fewer.

    Args:
        ask: returns a page and where to continue; takes `after` and `limit`. A page may be empty and not the
            last.
        limit: how many are wanted.
        most: how many one page holds.
    """
    found: list[T] = []
    after: str | None = None
    while True:
        page, after = ask(after=after, limit=min(limit - len(found), most))
        found += page
        if after is None or len(found) >= limit:
            return found[:limit]


class Branches(NamedTuple):
    """What is drawn before a session; all of the same width."""

    child: str
    last_child: str
    past: str
    nothing: str
    orphan: str


_DRAWN = Branches("├─ ", "└─ ", "│  ", "   ", "┄─ ")
_ASCII = Branches("|- ", "`- ", "|  ", "   ", ".- ")


def branches() -> Branches:
    """Box drawing characters, or ASCII if standard output's encoding does not have them."""
    return _DRAWN if can_show("".join(_DRAWN)) else _ASCII


def as_tree(sessions: Sequence[SessionInfo], signs: Branches) -> Iterator[tuple[str, SessionInfo]]:
    """Each session once, with what is drawn before it; siblings keep their order.

    A child whose parent is not among them is marked as an orphan.
    """
    known = {session.id for session in sessions}
    below: dict[str | None, list[SessionInfo]] = {}
    for session in sessions:
        below.setdefault(session.parent if session.parent in known else None, []).append(session)
    # In reverse, because it is used as a stack.
    waiting = [
        (signs.orphan if session.parent else "", "", session) for session in reversed(below.pop(None, []))
    ]
    while waiting:
        sign, before, session = waiting.pop()
        yield before + sign, session
        if sign in (signs.child, signs.last_child):
            before += signs.nothing if sign == signs.last_child else signs.past
        for place, child in enumerate(reversed(below.pop(session.id, []))):
            waiting.append((signs.child if place else signs.last_child, before, child))
    # Sessions that name each other as parent are shown too, though no honest agent sends them.
    for rest in below.values():
        for session in rest:
            yield signs.orphan, session


def short_ids(ids: Sequence[str], least: int) -> dict[str, str]:
    """The shortest unique prefix of each id, of at least so many characters."""
    shortened = {}
    ordered = sorted(set(ids))
    for place, this in enumerate(ordered):
        neighbours = ordered[max(0, place - 1) : place] + ordered[place + 1 : place + 2]
        shared = max((_shared(this, other) for other in neighbours), default=0)
        shortened[this] = this[: max(least, shared + 1)]
    return shortened


def _shared(one: str, other: str) -> int:
    count = 0
    for first, second in zip(one, other, strict=False):
        if first != second:
            break
        count += 1
    return count
