"""What an agent promised in a history, counted by the plain words of each promise, without the model.

For a history that ends with an inspection of every token.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.histories.draw import History
from tests.histories.model import DONE, Judged, Operation


@dataclass
class Promises:
    """How many were looked at, and how many were broken."""

    looked_at: dict[str, int] = field(default_factory=dict)
    broken: dict[str, int] = field(default_factory=dict)

    def count(self, history: History) -> None:
        """Add those of one history."""
        at_last = _at_last(history)
        for session, tokens in _families(history).items():
            above = _above(history, session)
            is_good = any(at_last[token].reason in (None, "USED_UP") for token in tokens)
            if any(_ended(history, each) for each in above):
                self._add("acknowledged revokes undone", is_good)
            elif _reset_after(history, session, acknowledged=True):
                self._add("acknowledged resets undone", is_good)
            elif not (
                any(_asked_to_end(history, each) for each in above)
                or _reset_after(history, session, acknowledged=False)
            ):
                self._add("acknowledged sessions lost", not is_good)
                if len(tokens) > 1:
                    self._add("renewed sessions without a valid generation", not is_good)
            uses = history.operations[session].uses
            if uses is not None:
                self._add("sessions used too often", _times_used(history, tokens) > uses)

    def _add(self, what: str, is_broken: bool) -> None:
        self.looked_at[what] = self.looked_at.get(what, 0) + 1
        self.broken[what] = self.broken.get(what, 0) + is_broken


def _at_last(history: History) -> dict[int, Judged]:
    return {
        operation.subject: operation.answer
        for operation in history.operations
        if operation.kind == "inspect" and isinstance(operation.answer, Judged)
    }


def _families(history: History) -> dict[int, list[int]]:
    """The tokens of each session."""
    families: dict[int, list[int]] = {}
    for token in history.tokens:
        families.setdefault(_session_of(history, token), []).append(token)
    return families


def _session_of(history: History, token: int) -> int:
    operation = history.operations[token]
    return token if operation.kind == "create" else _session_of(history, operation.subject)


def _above(history: History, session: int) -> list[int]:
    """A session and those that it ends with."""
    parent = history.operations[session].subject
    return [session, *([] if parent is None else _above(history, _session_of(history, parent)))]


def _ending(history: History, session: int) -> list[Operation]:
    return [
        each
        for each in history.operations
        if (each.kind == "end" and each.subject == session)
        or (each.kind == "revoke" and _session_of(history, each.subject) == session)
    ]


def _ended(history: History, session: int) -> bool:
    return any(operation.answer is True for operation in _ending(history, session))


def _asked_to_end(history: History, session: int) -> bool:
    return bool(_ending(history, session))


def _reset_after(history: History, session: int, *, acknowledged: bool) -> bool:
    """Whether a reset without grace began after the session was opened and was acknowledged; else, whether
    any reset may have come after it."""
    created = history.operations[session]
    resets = [each for each in history.operations if each.kind == "reset"]
    if acknowledged:
        return any(
            each.answer == DONE and each.lasts is None and each.invoked > created.answered for each in resets
        )
    return any(each.answered > created.invoked for each in resets)


def _times_used(history: History, tokens: list[int]) -> int:
    return sum(
        operation.kind == "verify"
        and isinstance(operation.answer, Judged)
        and operation.answer.reason is None
        for operation in history.operations
        if operation.subject in tokens
    )
