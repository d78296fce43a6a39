"""Making tokens: the claims that prove a record, sealed with the key that the record stands under."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentd_client.protocol.results import CreatedToken

from ..crypto import random_bytes
from ..tokens import Claims, seal_token
from ..tokens.paseto import NONCE_BYTES

if TYPE_CHECKING:
    from .records import SessionRecord
    from .session_key import SessionKey


class Minter:
    """Makes the tokens of one agent and user; `implicit` is bound into each: no other agent opens it."""

    def __init__(self, agent_id: str, subject: str) -> None:
        self._agent_id = agent_id
        self._subject = subject
        self.implicit = b"agentd:" + agent_id.encode()

    def mint(self, key: SessionKey, record: SessionRecord) -> CreatedToken:
        """A token of the record's present generation; no two are alike."""
        claims = Claims(
            iss=self._agent_id,
            sub=self._subject,
            jti=record.session_id,
            iat=record.made if record.renewed is None else record.renewed,
            exp=record.expires,
            gen=record.generation,
        )
        nonce = random_bytes(NONCE_BYTES)
        with key.secret as secret:
            token = seal_token(secret, key.id, claims, implicit=self.implicit, nonce=nonce)
        return CreatedToken(token, record.session_id, record.expires)
