"""Why a token is not valid: stable codes, and the sentence that goes with each."""

from __future__ import annotations

MALFORMED = "MALFORMED"
KEY_RESET = "KEY_RESET"
EXPIRED = "EXPIRED"
REVOKED = "REVOKED"

SENTENCES = {
    MALFORMED: "this is not a token that this agent made",
    KEY_RESET: "the token was made with a session key that this agent no longer has",
    EXPIRED: "the session has expired",
    REVOKED: "the session was ended",
}


def sentence(reason: str) -> str:
    """The reason in words; one that a newer agent gives is shown as it is."""
    return SENTENCES.get(reason, reason)
