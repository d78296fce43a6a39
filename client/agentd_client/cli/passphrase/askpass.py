"""A passphrase from a program that asks for it: called as ssh(1) calls that of SSH_ASKPASS."""

from __future__ import annotations

import subprocess
from typing import ClassVar

from ...handed_over import PassphraseSourceError, may_be_shown, read_passphrase, wipe
from ...paths import without_tokens

ASKPASS_VARIABLE = "AGENTD_ASKPASS"
"""The program's path, which is no secret."""


class Askpass:
    """A program that is given the question as its argument, and prints the answer. It is asked once."""

    tries: ClassVar[int] = 1
    is_typed: ClassVar[bool] = True

    def __init__(self, program: str) -> None:
        self._program = program

    def ask(self, prompt: str, problem: str = "") -> bytearray:
        """What it prints.

        Raises:
            PassphraseSourceError: it cannot be started, ends with another status than 0, or prints nothing.
        """
        try:
            child = subprocess.Popen(  # noqa: S603 - the user named it
                [self._program, prompt], stdout=subprocess.PIPE, bufsize=0, env=without_tokens()
            )
        except OSError as error:
            program = self._program if may_be_shown(self._program) else "the program that is to ask"
            raise PassphraseSourceError(f"{program} cannot be started: {error.strerror}") from None
        with child:
            assert child.stdout is not None
            try:
                found = read_passphrase(f"what {self._program} prints", child.stdout.fileno())
            except PassphraseSourceError:
                child.stdout.close()  # it may have more to say, and ends when nobody listens
                self._check(child.wait())
                raise
        try:
            self._check(child.returncode)
        except BaseException:
            wipe(found)
            raise
        return found

    def _check(self, status: int) -> None:
        if status > 0:
            raise PassphraseSourceError(f"{self._program} gave no passphrase (exit code {status})")
