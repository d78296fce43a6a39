"""The askers that ask nobody: a file and a file descriptor."""

from __future__ import annotations

from typing import ClassVar

from ...handed_over import passphrase_of_descriptor, passphrase_of_file


class FromFile:
    """A regular file that nobody but this user can open."""

    tries: ClassVar[int] = 1
    is_typed: ClassVar[bool] = False

    def __init__(self, path: str) -> None:
        self._path = path

    def ask(self, prompt: str, problem: str = "") -> bytearray:
        """What it holds; raises PassphraseSourceError, with the remedy."""
        return passphrase_of_file(self._path)


class FromDescriptor:
    """An open descriptor, which is read to its end."""

    tries: ClassVar[int] = 1
    is_typed: ClassVar[bool] = False

    def __init__(self, number: int) -> None:
        self._number = number

    def ask(self, prompt: str, problem: str = "") -> bytearray:
        """What comes from it; waits for its end. Raises PassphraseSourceError."""
        return passphrase_of_descriptor(self._number)
