"""Why a token is not valid: stable codes, and a sentence for each."""

from __future__ import annotations

MALFORMED = "MALFORMED"
KEY_RESET = "KEY_RESET"
OTHER_AGENT = "OTHER_AGENT"
EXPIRED = "EXPIRED"
REVOKED = "REVOKED"
SUPERSEDED = "SUPERSEDED"
WRONG_AUDIENCE = "WRONG_AUDIENCE"
MISSING_SCOPE = "MISSING_SCOPE"
USED_UP = "USED_UP"

PROCESS_ENDED = "PROCESS_ENDED"
REUSED = "REUSED"
"""Why the agent ended a session by itself, in events and in the audit log."""

SENTENCES = {
    MALFORMED: "this is not a token that this agent made",
    KEY_RESET: "the token was made with a session key that this agent no longer has",
    OTHER_AGENT: "the token is another agent's, or of this one before its state was made again",
    EXPIRED: "the session has expired",
    REVOKED: "the session was ended",
    SUPERSEDED: "the session was renewed and this token's time is over; whoever uses it may have stolen it",
    WRONG_AUDIENCE: "the session is not meant for this audience",
    MISSING_SCOPE: "the session lacks a scope that is needed",
    USED_UP: "the session has been used as often as it may be",
}


ENDINGS = {
    PROCESS_ENDED: "the process that the session was bound to has ended",
    REUSED: "a token of the session that was superseded came back",
}


def sentence(reason: str) -> str:
    """The reason in words; an unknown code of a newer agent stays as it is."""
    return SENTENCES.get(reason) or ENDINGS.get(reason, reason)
