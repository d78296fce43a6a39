"""The public handle on the session key."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..keys import SecretKey


class SessionKey:
    """A handle on the key in locked memory: `len()` is 32, `bytes()` gives the caller a copy of its own.

    It raises `KeyUnavailableError` once the manager or its key ring has stopped, the key was reset (by any
    manager of the store), or the agent is locked. `id` is public: tokens carry it in their footer.

    Within a `with` it is a buffer, without a copy. The view that `with` gives is read-only, and using it
    raises ValueError after the end, or once the key is wiped. From Python 3.12 on `memoryview(key)` gives one
    too; before that a class written in Python cannot be a buffer itself::

        with key as view:
            digest = hashlib.blake2b(data, key=view)

    Anything made from a view (another view, a call in another thread) must not outlive the `with`: it would
    keep the key from being wiped.

    Args:
        key_id: public.
        secret: the key itself, which the owner of this handle uses without a further check.
        require_current: raises if the handle may no longer be used.
    """

    def __init__(self, key_id: str, secret: SecretKey, require_current: Callable[[SessionKey], None]) -> None:
        self.id = key_id
        self.secret = secret
        self._require_current = require_current
        self._held: list[memoryview] = []

    def __enter__(self) -> memoryview:
        self._require_current(self)
        view = self.secret.locked_copy()
        self._held.append(view)
        return view

    def __exit__(self, *exc: object) -> None:
        self.secret.release_copy(self._held.pop())

    def __buffer__(self, flags: int) -> memoryview:
        if not self._held:
            raise BufferError("a session key is a buffer within `with key:` only")
        self._require_current(self)
        return self.secret.locked_copy()

    def __release_buffer__(self, view: memoryview) -> None:
        self.secret.release_copy(view)

    def __len__(self) -> int:
        self._require_current(self)
        return len(self.secret)

    def __bytes__(self) -> bytes:
        self._require_current(self)
        return bytes(self.secret)

    def __repr__(self) -> str:
        return f"SessionKey(id={self.id!r})"
