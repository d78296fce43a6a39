"""Asks with pinentry or an askpass program: for a yes or no, and for the passphrase of the key file.

A dialogue blocks a thread of its own. When the task that waits for it is cancelled, its program is killed,
which also ends the thread.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from shutil import which
from typing import TypeVar

from anyio import to_thread

from ..cli import pinentry
from ..cli.dialogues import Dialogues
from ..cli.passphrase import ASKPASS_VARIABLE, TYPED_TRIES, Asker, ask_program, confirm_with_program
from ..errors import ConfigError
from ..protocol.results import APPROVE, DENY, RequestInfo
from .text import TITLE, about, seconds_left

T = TypeVar("T")

SSH_ASKPASS_VARIABLE = "SSH_ASKPASS"

ROOM = 900
"""Bytes of a text, as pinentry takes it; with the title it is a line of at most 1000."""

Confirm = Callable[[str, int, Dialogues], bool | None]
"""Asks a question for so many seconds; None is no answer."""

PassphraseSource = Callable[[int, Dialogues], Asker]
"""What asks for a passphrase for so many seconds."""


class CannotAskError(Exception):
    """A request was not shown; says why."""


class DialoguePlace:
    """A place that asks one question at a time, with a program."""

    at_once = 1

    def __init__(self, confirm: Confirm) -> None:
        self._confirm = confirm

    async def run(self) -> None:
        """Nothing is to be done between the questions."""

    async def ask(self, request: RequestInfo, decisions: Sequence[str]) -> str | None:
        """The decision; None if the dialogue was closed, or its time is over.

        Raises:
            CannotAskError: the request is too long for a dialogue.
            PassphraseSourceError: the program cannot ask.
        """
        text = about(
            request, time.time(), room=ROOM, size=lambda shown: len(pinentry.encoded(shown).encode())
        )
        if not text.can_be_approved or APPROVE not in decisions:
            raise CannotAskError("it is too long for a dialogue")
        question = f"{TITLE}.\n\n{text.body}"
        answer = await in_thread(partial(self._confirm, question, math.ceil(seconds_left(request))))
        return None if answer is None else APPROVE if answer else DENY

    async def tell(self, text: str) -> None:
        """Nothing: it is in the log, and a dialogue would wait for an answer."""


def pinentry_place() -> DialoguePlace:
    """The place `pinentry`; raises ConfigError if it is not installed."""
    if which(pinentry.PROGRAM) is None:
        raise ConfigError(f"{pinentry.PROGRAM} is not installed")

    def confirm(question: str, seconds: int, dialogues: Dialogues) -> bool | None:
        return pinentry.confirm(question, "Approve", "Deny", "Not now", seconds=seconds, dialogues=dialogues)

    return DialoguePlace(confirm)


def askpass_place() -> DialoguePlace:
    """The place `askpass`; raises ConfigError if no variable names the program."""
    program = askpass_program()
    if program is None:
        raise ConfigError(f"no askpass program: set {ASKPASS_VARIABLE} or {SSH_ASKPASS_VARIABLE}")

    def confirm(question: str, seconds: int, dialogues: Dialogues) -> bool | None:
        return confirm_with_program(program, question, dialogues=dialogues)

    return DialoguePlace(confirm)


def askpass_program() -> str | None:
    """The program that asks, if a variable names one."""
    return os.environ.get(ASKPASS_VARIABLE) or os.environ.get(SSH_ASKPASS_VARIABLE) or None


def pinentry_source(seconds: int, dialogues: Dialogues) -> Asker:
    """Passphrases from pinentry."""
    asked = partial(pinentry.ask, seconds=seconds, dialogues=dialogues)
    return Asker(asked, TYPED_TRIES, is_typed=True)


def askpass_source(seconds: int, dialogues: Dialogues) -> Asker:
    """Passphrases from the askpass program."""
    program = askpass_program()
    assert program is not None
    return Asker(partial(ask_program, program, dialogues=dialogues), is_typed=True)


def any_source() -> PassphraseSource | None:
    """Pinentry if it is installed, else the askpass program if there is one."""
    if which(pinentry.PROGRAM) is not None:
        return pinentry_source
    return None if askpass_program() is None else askpass_source


async def in_thread(function: Callable[[Dialogues], T]) -> T:
    """Call a function that asks with dialogues; they are ended if the task is cancelled."""
    dialogues = Dialogues()
    try:
        return await to_thread.run_sync(function, dialogues, abandon_on_cancel=True)
    finally:
        dialogues.end()
