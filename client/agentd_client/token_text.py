"""What a caller hands in as a token, as plain text: one rule for the clients and for the token file."""

from __future__ import annotations

from .errors import InvalidTokenError
from .protocol.calls import is_sendable_token

TOKEN_PREFIX = "v4.local."  # noqa: S105 - what every token begins with, not one


def token_text(token: object) -> str | None:
    """The token as a plain `str`, or None for what cannot be a token and need not travel to be refused.

    Never raises, whatever is handed in.
    """
    text = token if type(token) is str else _plain(token)
    return text if is_sendable_token(text) else None


def stripped_token(token: object) -> str:
    """The token without the white space around it; `InvalidTokenError` for what cannot be one."""
    text = (_plain(token) or "").strip()
    if not is_sendable_token(text):
        raise InvalidTokenError
    return text


def _plain(token: object) -> str | None:
    # The type is asked, not the object: its `__class__`, `__len__` or `__str__` may be anything.
    if not issubclass(type(token), str):
        return None
    return str.__str__(token)
