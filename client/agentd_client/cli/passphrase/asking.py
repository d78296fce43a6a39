"""From where a passphrase is asked for, how often, and what becomes of it afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import ClassVar, Protocol, TypeVar

import click

from ...errors import PassphraseError
from ...handed_over import wipe
from ...protocol.calls import sendable_passphrase, settable_passphrase
from .askpass import ASKPASS_VARIABLE, Askpass
from .pinentry import Pinentry
from .reading import FromDescriptor, FromFile
from .terminal import Terminal

T = TypeVar("T")

UNLOCK_SECONDS = 60.0
"""How long the agent may take. Argon2id takes about half a second and a change three times that, the attempts
of others come first, and after wrong ones the agent waits up to 30 s."""


class Asker(Protocol):
    """Where a passphrase comes from.

    tries: how often it may be asked, where the first answer was wrong. is_typed: a person types, so that a
    new passphrase is asked for twice.
    """

    tries: ClassVar[int]
    is_typed: ClassVar[bool]

    def ask(self, prompt: str, problem: str = "") -> bytearray:
        """The passphrase, which the caller wipes; `problem` is what was wrong with the one before."""
        ...


def asker(descriptor: int | None, path: str | None, askpass: str | None, pinentry: bool) -> Asker:
    """What the options say; without one the terminal, and without that the program of AGENTD_ASKPASS.

    Raises:
        click.UsageError: there is nothing to ask.
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
        "there is no terminal to ask on: hand the passphrase over by descriptor or file, or name a program "
        f"that asks, with --askpass or {ASKPASS_VARIABLE}",
        click.get_current_context(),
    )


def with_passphrase(asked: Asker, prompt: str, use: Callable[[bytearray], T]) -> T:
    """Ask, and use what was answered; ask again where it was wrong and there are tries left.

    Raises:
        PassphraseError: it was wrong, and the tries are used up.
    """
    problem = ""
    for left in reversed(range(asked.tries)):
        passphrase = asked.ask(prompt, problem)
        waits = ""
        try:
            sendable_passphrase(passphrase)
            waits = "; the agent makes you wait a little before the next try"
            return use(passphrase)
        except PassphraseError as error:
            if not left:
                raise
            problem = error.sentence + waits
        finally:
            wipe(passphrase)
    raise AssertionError("an asker has at least one try")


def new_passphrase(asked: Asker) -> bytearray:
    """Ask for a new passphrase, twice where it is typed; the caller wipes it.

    Raises:
        PassphraseError: it cannot be one, or the two are not the same, and the tries are used up.
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
        return "" if again == passphrase else "those two were not the same; nothing was changed"
    finally:
        wipe(again)
