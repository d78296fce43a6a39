"""The session key: the symmetric key that tokens are made with, and its id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentd_client.errors import KeyUnavailableError

if TYPE_CHECKING:
    from ..keys import SecretKey


class SessionKey:
    """A handle on the key in locked memory: `len()` is 32, `bytes()` gives the caller a copy of its own.

    It refuses with `KeyUnavailableError` once the manager has stopped, the key was reset, or the agent is
    locked. `id` is public: tokens carry it in their footer.
    """

    def __init__(self, key_id: str, secret: SecretKey) -> None:
        self.id = key_id
        self._secret = secret

    def __enter__(self) -> memoryview:
        return self._secret.__enter__()

    def __exit__(self, *exc: object) -> None:
        self._secret.__exit__(*exc)

    def __len__(self) -> int:
        if self._secret.is_wiped:
            raise KeyUnavailableError
        return len(self._secret)

    def __bytes__(self) -> bytes:
        return bytes(self._secret)

    def __repr__(self) -> str:
        return f"SessionKey(id={self.id!r})"

    def wipe(self) -> None:
        """Zero the key; every later use is refused."""
        self._secret.wipe()
