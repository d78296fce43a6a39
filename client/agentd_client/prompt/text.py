"""What a place shows of a request: the words of `request_view`, as far as it has room for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from ..cli import request_view
from ..protocol.limits import MAX_REQUEST_SECONDS
from ..protocol.results import RequestInfo

TITLE = "A program asks for a session"

_SEPARATOR = "; "


class Text(NamedTuple):
    """A text about a request.

    can_be_approved: it says in full who asks for what.
    """

    body: str
    can_be_approved: bool


def about(request: RequestInfo, now: float, *, room: int, size: Callable[[str], int] = len) -> Text:
    """A paragraph each for who asks, for what, why and until when; the last ones only if there is room.

    room: for the text, as `size` measures it. What a place cuts off by itself could be a scope.
    """
    who, what, *rest = (
        _SEPARATOR.join(f"{heading}: {text}" for heading, text in rows)
        for rows in request_view.groups(request, now)
    )
    body = f"{who}\n{what}"
    if size(body) > room:
        return Text(f"request: {request.id}\nWho asks for what does not fit here.", False)
    for paragraph in rest:
        if size(f"{body}\n{paragraph}") <= room:
            body = f"{body}\n{paragraph}"
    return Text(body, True)


def seconds_left(request: RequestInfo) -> float:
    """How long the request still waits; a second at least, since the clock may have been set."""
    return min(max(request.until - time.time(), 1.0), MAX_REQUEST_SECONDS)
