"""What a session token says: claims in JSON, spelled as the PASETO specification's "Registered Claims".

The record in the store is the truth; `iat` and `exp` repeat it for the person who has only the token.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from .paseto import TokenError, decrypt, encrypt, footer_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

# The footer is read before anything is authenticated, so it gets a pattern and not a JSON parser.
_FOOTER = re.compile(rb'\{"kid":"([A-Za-z0-9_-]{22}(?:[A-Za-z0-9_-]{2})?)"\}')


class Claims(NamedTuple):
    """One token's claims; times in seconds since 1970, `exp` None for never."""

    iss: str
    sub: str
    jti: str
    iat: float
    exp: float | None
    gen: int


def _to_rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _from_rfc3339(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def footer_for(key_id: str) -> bytes:
    """The footer of a token made with the key of that id."""
    return b'{"kid":"%s"}' % key_id.encode("ascii")


def key_id_of(token: str) -> str:
    """The id of the key that a token claims to be made with; `TokenError` where there is none."""
    found = _FOOTER.fullmatch(footer_of(token))
    if found is None:
        raise TokenError("no key id in the footer")
    return found[1].decode("ascii")


def seal_token(key: Buffer, key_id: str, claims: Claims, *, implicit: bytes, nonce: bytes) -> str:
    """Make the token that carries these claims."""
    payload: dict[str, object] = {
        "iss": claims.iss,
        "sub": claims.sub,
        "jti": claims.jti,
        "iat": _to_rfc3339(claims.iat),
    }
    if claims.exp is not None:
        payload["exp"] = _to_rfc3339(claims.exp)
    payload["gen"] = claims.gen
    text = json.dumps(payload, separators=(",", ":")).encode()
    return encrypt(key, text, nonce=nonce, footer=footer_for(key_id), implicit=implicit)


def open_token(key: Buffer, token: str, *, implicit: bytes) -> Claims:
    """The claims of a genuine token; `TokenError` for anything else."""
    payload, _ = decrypt(key, token, implicit=implicit)
    try:
        found = json.loads(payload)
        exp = found.get("exp")
        return Claims(
            iss=found["iss"],
            sub=found["sub"],
            jti=found["jti"],
            iat=_from_rfc3339(found["iat"]),
            exp=None if exp is None else _from_rfc3339(exp),
            gen=found["gen"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TokenError("claims of an unknown form") from error
