"""The requests that the agent holds: all of them, or the one that a person means."""

from __future__ import annotations

import re

import click

from ..blocking import Client
from ..errors import NoSuchRequestError
from ..protocol.limits import MAX_PAGE_REQUESTS
from ..protocol.results import WAITING, RequestInfo

_ID = r"[0-9A-Za-z_-]{1,64}"

_MOST = 1000
"""Far more than an agent holds. One that always names another page must not keep this busy for ever."""


def request_id(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """The callback of an argument that is the beginning of a request's id, or absent.

    The error does not quote anything else: it may be a secret.
    """
    if value is None or re.fullmatch(_ID, value):
        return value
    raise click.UsageError("the argument must be the id of a request, or its first characters", context)


def all_requests(agent: Client) -> list[RequestInfo]:
    """Those that wait and those whose approval is remembered, each the oldest first."""
    found: list[RequestInfo] = []
    after: str | None = None
    while True:
        page = agent.list_requests(after=after, limit=MAX_PAGE_REQUESTS)
        found += page.requests
        after = page.next
        if after is None or len(found) >= _MOST:
            return sorted(found, key=lambda request: request.state != WAITING)


def meant(found: list[RequestInfo], prefix: str) -> RequestInfo:
    """The request whose id is this or begins like this.

    Raises:
        NoSuchRequestError: there is none.
        click.UsageError: there are several.
    """
    matching = [request for request in found if request.id.startswith(prefix)]
    for request in matching:
        if request.id == prefix:
            return request
    if not matching:
        raise NoSuchRequestError
    if len(matching) > 1:
        raise click.UsageError(
            f"{len(matching)} requests have ids that begin like this; give more of it",
            click.get_current_context(),
        )
    return matching[0]


def same(one: RequestInfo, other: RequestInfo) -> bool:
    """Whether one is what the other was, but for its times and how many of its calls wait."""
    return _unmoved(one) == _unmoved(other)


def _unmoved(request: RequestInfo) -> RequestInfo:
    return request._replace(calls=0, asked_at=0, until=0)
