"""A passphrase in locked memory, wiped as soon as the work with it is done."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Self

from agentd_client.errors import PassphraseError
from agentd_client.protocol import passphrases as rules
from agentd_client.protocol.limits import MAX_PASSPHRASE_BYTES

from ..crypto import wipe
from .memory import SecretMemory

PassphraseText = str | bytes | bytearray


class Passphrase:
    """A copy of a passphrase; its creator wipes it, or leaves it as a context manager.

    Text is encoded as UTF-8. A line ending and a byte order mark are not part of it
    (`agentd_client.protocol.passphrases`); nothing else is stripped or normalised. The argument stays the
    caller's, who can wipe a `bytearray` at once; `str` and `bytes` cannot be wiped.

    Raises PassphraseError unless it has 1 to 1024 bytes, none of them NUL: nobody types a NUL, so one is a
    bug in the program that passed it, and better found now than when unlocking fails.
    """

    def __init__(self, given: PassphraseText) -> None:
        self._buffer = SecretMemory().allocate(MAX_PASSPHRASE_BYTES)
        self._size = 0
        try:
            if isinstance(given, str):
                # One character at a time, so that no second copy of the whole is left in memory.
                for character in given:
                    self._add(character.encode())
            else:
                self._add(given)
            if not self._size:
                raise PassphraseError(rules.EMPTY)
        except UnicodeEncodeError:
            self.wipe()
            raise PassphraseError("a passphrase that is text has to be Unicode") from None
        except BaseException:
            self.wipe()
            raise

    def _add(self, piece: bytes | bytearray) -> None:
        if self._size + len(piece) > MAX_PASSPHRASE_BYTES:
            raise PassphraseError(rules.TOO_LONG)
        if 0 in piece:
            raise PassphraseError(rules.HAS_NUL)
        self._buffer[self._size : self._size + len(piece)] = piece
        self._size += len(piece)

    @property
    def view(self) -> memoryview:
        """The passphrase; empty once wiped."""
        start, stop = rules.bounds(self._given)
        return self._given[start:stop]

    @property
    def meanings(self) -> list[memoryview]:
        """What to try on a key file: the passphrase and, if they differ, the bytes exactly as given."""
        return rules.meanings(self._given)

    def require_settable(self) -> None:
        """Raise PassphraseError for a passphrase that cannot be intended."""
        problem = rules.problem(self._given)
        if problem is not None:
            raise PassphraseError(problem)

    def wipe(self) -> None:
        """Zero it. What is left is an empty passphrase, which opens nothing."""
        if self._buffer:
            wipe(self._buffer)
        self._buffer, self._size = memoryview(b""), 0  # a wiped passphrase keeps no page mapped

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.wipe()

    @classmethod
    def check_new(cls, given: PassphraseText) -> None:
        """Raise PassphraseError unless `given` can be set as a passphrase."""
        with cls(given) as passphrase:
            passphrase.require_settable()

    @classmethod
    def copy_of(cls, given: PassphraseText | None) -> Self | nullcontext[None]:
        """A copy for the duration of a `with`; None for None."""
        return nullcontext() if given is None else cls(given)

    @property
    def _given(self) -> memoryview:
        return self._buffer[: self._size]
