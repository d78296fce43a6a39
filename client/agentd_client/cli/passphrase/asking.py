"""Where a passphrase is asked for, how often, and that it is wiped afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import ClassVar, Protocol, TypeVar

import click

from ...errors import PassphraseError
from ...passphrase_input import (
    PassphraseSourceError,
    may_be_shown,
    passphrase_of_descriptor,
    passphrase_of_file,
    read_passphrase,
    wipe,
)
from ...paths import without_tokens
from ...protocol.passphrases import sendable_passphrase, settable_passphrase
from ..terminal import Terminal
from .pinentry import Pinentry

T = TypeVar("T")

ASKPASS_VARIABLE = "AGENTD_ASKPASS"
"""The program's path, which is no secret."""

UNLOCK_SECONDS = 60.0
"""How long the agent may take. Argon2id takes about half a second, a change three times that; other attempts
may come first, and after wrong ones the agent waits up to 30 s."""


class Asker(Protocol):
    """A source of passphrases.

    tries: how often it may be asked if the answer is wrong.
    is_typed: a person types, so a new passphrase is asked for twice.
    """

    tries: ClassVar[int]
    is_typed: ClassVar[bool]

    def ask(self, prompt: str, problem: str = "") -> bytearray:
        """The passphrase, which the caller wipes; `problem` says what was wrong with the previous one."""
        ...


class FromFile:
    """A regular file that only this user can open."""

    tries: ClassVar[int] = 1
    is_typed: ClassVar[bool] = False

    def __init__(self, path: str) -> None:
        self._path = path

    def ask(self, prompt: str, problem: str = "") -> bytearray:
        """The passphrase in it; raises PassphraseSourceError, with the remedy."""
        return passphrase_of_file(self._path)


class FromDescriptor:
    """An open descriptor, which is read to its end."""

    tries: ClassVar[int] = 1
    is_typed: ClassVar[bool] = False

    def __init__(self, number: int) -> None:
        self._number = number

    def ask(self, prompt: str, problem: str = "") -> bytearray:
        """The passphrase from it; blocks until its end. Raises PassphraseSourceError."""
        return passphrase_of_descriptor(self._number)


class Askpass:
    """A program that is called with the question, as ssh(1) calls SSH_ASKPASS, and prints the answer."""

    tries: ClassVar[int] = 1
    is_typed: ClassVar[bool] = True

    def __init__(self, program: str) -> None:
        self._program = program

    def ask(self, prompt: str, problem: str = "") -> bytearray:
        """The passphrase that it prints.

        Raises:
            PassphraseSourceError: it cannot be started, fails, or prints nothing.
        """
        try:
            child = subprocess.Popen(  # noqa: S603 - the user named it
                [self._program, prompt], stdout=subprocess.PIPE, bufsize=0, env=without_tokens()
            )
        except OSError as error:
            program = self._program if may_be_shown(self._program) else "the askpass program"
            raise PassphraseSourceError(f"{program} cannot be started: {error.strerror}") from None
        with child:
            assert child.stdout is not None
            try:
                found = read_passphrase(f"the output of {self._program}", child.stdout.fileno())
            except PassphraseSourceError:
                child.stdout.close()  # so that it ends if it would print more
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


def asker(descriptor: int | None, path: str | None, askpass: str | None, pinentry: bool) -> Asker:
    """The source that the options name; else the terminal, else the program of AGENTD_ASKPASS.

    Raises:
        click.UsageError: there is none.
    """
    if descriptor is not None:
        return FromDescriptor(descriptor)
    if path is not None:
        return FromFile(path)
    if askpass is not None:
        return Askpass(askpass)
    if pinentry:
        return Pinentry()
    if Terminal.is_there():
        return Terminal()
    program = os.environ.get(ASKPASS_VARIABLE)
    if program:
        return Askpass(program)
    raise click.UsageError(
        "there is no terminal to ask on: pass the passphrase by descriptor or file, or name a program that "
        f"asks with --askpass or {ASKPASS_VARIABLE}",
        click.get_current_context(),
    )


def with_passphrase(asked: Asker, prompt: str, use: Callable[[bytearray], T]) -> T:
    """Ask for a passphrase and use it; ask again if it was wrong and there are tries left.

    Raises:
        PassphraseError: it was wrong, and no tries are left.
    """
    problem = ""
    for left in reversed(range(asked.tries)):
        passphrase = asked.ask(prompt, problem)
        waits = ""
        try:
            sendable_passphrase(passphrase)
            waits = "; the agent waits a little before the next try"
            return use(passphrase)
        except PassphraseError as error:
            if not left:
                raise
            problem = error.sentence + waits
        finally:
            wipe(passphrase)
    raise AssertionError("every source has at least one try")


def new_passphrase(asked: Asker) -> bytearray:
    """Ask for a new passphrase, twice if it is typed; the caller wipes it.

    Raises:
        PassphraseError: it cannot be set, or the two differ, and no tries are left.
    """
    problem = ""
    for _ in range(asked.tries):
        passphrase = asked.ask("New passphrase of agentd: ", problem)
        try:
            problem = _problem_with(passphrase, asked)
        except BaseException:
            wipe(passphrase)
            raise
        if not problem:
            return passphrase
        wipe(passphrase)
    raise PassphraseError(problem)


def _problem_with(passphrase: bytearray, asked: Asker) -> str:
    try:
        settable_passphrase(passphrase)
    except PassphraseError as error:
        return error.sentence
    if not asked.is_typed:
        return ""
    again = asked.ask("The new passphrase again: ")
    try:
        return "" if again == passphrase else "the two passphrases differ; nothing was changed"
    finally:
        wipe(again)
