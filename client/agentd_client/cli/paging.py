"""The newest sessions or audit entries, which the agent tells a page at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

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
