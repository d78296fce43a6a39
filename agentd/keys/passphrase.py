"""A passphrase in locked memory, from the moment it is handed over until the work with it is done."""

from __future__ import annotations

from typing import Self

from agentd_client import passphrase_rules
from agentd_client.errors import PassphraseError
from agentd_client.protocol.limits import MAX_PASSPHRASE_BYTES

from ..crypto import wipe
from .memory import SecretMemory

MAX_BYTES = MAX_PASSPHRASE_BYTES

PassphraseText = str | bytes | bytearray


class Passphrase:
    """A copy of a passphrase; whoever made it wipes it.

    Text stands for its UTF-8 bytes. A line's end and a byte order mark are not part of it
    (`agentd_client.passphrase_rules`); nothing else is stripped or normalised.
    What was handed over stays the caller's; a `bytearray` can be wiped by the caller at once, text and
    `bytes` cannot.

    Raises PassphraseError unless it has 1 to 1024 bytes, none of them NUL: nobody types one, and what a
    program hands over with a NUL in it is a slip that would be noticed too late.
    """

    def __init__(self, given: PassphraseText) -> None:
        # Text is encoded one character at a time, so that no second copy of the whole is left behind.
        self._room = SecretMemory().lend(MAX_BYTES)
        self._size = 0
        try:
            if isinstance(given, str):
                for character in given:
                    self._add(character.encode())
            else:
                self._add(given)
        except UnicodeEncodeError:
            self.wipe()
            raise PassphraseError("a passphrase that is text has to be Unicode") from None
        except BaseException:
            self.wipe()
            raise
        if not self._size:
            raise PassphraseError("an empty passphrase protects nothing; give one of 1 to 1024 bytes")

    def _add(self, piece: bytes | bytearray) -> None:
        if self._size + len(piece) > MAX_BYTES:
            raise PassphraseError(f"a passphrase has at most {MAX_BYTES} bytes")
        if 0 in piece:
            raise PassphraseError("a passphrase holds no NUL byte")
        self._room[self._size : self._size + len(piece)] = piece
        self._size += len(piece)

    @property
    def view(self) -> memoryview:
        """The bytes themselves; empty once wiped."""
        given = self._room[: self._size]
        start, stop = passphrase_rules.bounds(given)
        return given[start:stop]

    @property
    def meanings(self) -> list[memoryview]:
        """What may open a key file: the passphrase, and what was given as it stands, if that is another."""
        return passphrase_rules.meanings(self._room[: self._size])

    def require_settable(self) -> None:
        """Raise PassphraseError where no key file is to be locked with this, because it cannot be meant."""
        problem = passphrase_rules.problem(self._room[: self._size])
        if problem is not None:
            raise PassphraseError(problem)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def wipe(self) -> None:
        """Zero it; an empty passphrase is left, which opens nothing."""
        if self._room:
            wipe(self._room)
        self._room, self._size = memoryview(b""), 0  # whoever still holds this holds no page

    @classmethod
    def check_new(cls, given: PassphraseText) -> None:
        """As `require_settable`, of something that is kept no longer than that."""
        passphrase = cls(given)
        try:
            passphrase.require_settable()
        finally:
            passphrase.wipe()

    @classmethod
    def taken(cls, given: PassphraseText | None) -> Self | None:
        """A copy of what was given, or None where nothing was."""
        return None if given is None else cls(given)
