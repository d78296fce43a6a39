"""Approvals that are remembered: the same request of the same program is granted again without asking."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agentd_client.protocol.results import REMEMBERED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentd_client.protocol.results import PeerIdentity, RequestInfo

    from ..sessions import Instant
    from .asker import Program
    from .request import Request
    from .terms import Terms

MAX_REMEMBERED = 32
"""The one that ends first makes room for another."""


class Remembered(NamedTuple):
    """One approval: the request that was approved, what of it was granted, by whom, and until when.

    until: seconds since 1970. until_boot: the same on the clock that nobody can set.
    """

    request: Request
    granted: Terms
    by: PeerIdentity
    until: float
    until_boot: float

    def is_over(self, now: Instant) -> bool:
        """Whether either clock has reached the end."""
        return now.wall >= self.until or now.boot >= self.until_boot

    def info(self) -> RequestInfo:
        """The approval as a person sees it: the request, with what was granted of it."""
        granted = self.granted
        return self.request.info()._replace(
            state=REMEMBERED,
            until=self.until,
            audience=granted.audience,
            scopes=granted.scopes,
            expiry=granted.seconds,
            max_uses=granted.uses,
            bound=granted.is_bound,
        )


class RememberedApprovals:
    """The approvals that are remembered, by the id of the request."""

    def __init__(self) -> None:
        self._by_id: dict[str, Remembered] = {}

    def __iter__(self) -> Iterator[Remembered]:
        return iter(self._by_id.values())

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._by_id

    def add(self, approval: Remembered) -> Remembered | None:
        """Remember an approval; returns the one that is forgotten for it, if any."""
        pushed_out = None
        if len(self._by_id) >= MAX_REMEMBERED:
            pushed_out = self._by_id.pop(min(self, key=lambda each: each.until_boot).request.id)
        self._by_id[approval.request.id] = approval
        return pushed_out

    def take(self, request_id: str) -> Remembered:
        """Forget one and return it; KeyError if there is none."""
        return self._by_id.pop(request_id)

    def take_ended(self, now: Instant) -> list[Remembered]:
        """Forget those that are over, and return them."""
        return [self.take(each.request.id) for each in tuple(self) if each.is_over(now)]

    def find(self, program: Program, terms: Terms, now: Instant) -> tuple[Remembered, Terms] | None:
        """An approval that covers this request, and what it grants; None if a person has to decide.

        It covers what was asked for then, and grants what was granted of it: whoever was given less is not
        given more, nor asked about again, the second time.
        """
        for approval in self:
            if approval.request.program.key != program.key or approval.is_over(now):
                continue
            if terms.excess(approval.request.ask.terms) is None:
                granted = terms.narrowed(approval.granted)
                if granted is not None:
                    return approval, granted
        return None
