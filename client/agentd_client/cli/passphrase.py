"""Where `agentctl` takes a passphrase from: never an argument or an environment variable.

Others can read arguments and environments, which also stay in histories and are inherited. A passphrase is
read into a bytearray, which is wiped after sending; copies of what was sent stay in this process until it
ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from ..errors import NoPassphraseError, PassphraseError
from ..passphrase_input import (
    PassphraseSourceError,
    may_be_shown,
    passphrase_of_descriptor,
    passphrase_of_file,
    read_passphrase,
    wipe,
)
from ..protocol.passphrases import sendable_passphrase, settable_passphrase
from ..protocol.results import Status
from . import terminal

if TYPE_CHECKING:
    from .dialogues import Dialogues

T = TypeVar("T")

ASKPASS_VARIABLE = "AGENTD_ASKPASS"
"""The program's path, which is no secret."""

_MAX_CONFIRMATION_BYTES = 1024
"""Of what an askpass program prints for a yes, which is nothing or a word."""

UNLOCK_SECONDS = 60.0
"""How long the agent may take. Argon2id takes about half a second, a change three times that; other attempts
may come first, and after wrong ones the agent waits up to 30 s."""

TYPED_TRIES = 3


class Asker(NamedTuple):
    """A source of passphrases.

    ask: takes the question and what was wrong with the previous answer; the caller wipes what it returns.
    tries: how often it may be asked if the answer is wrong.
    is_typed: a person types, so a new passphrase is asked for twice.
    """

    ask: Callable[[str, str], bytearray]
    tries: int = 1
    is_typed: bool = False


def asker(options: Mapping[str, Any], prefix: str = "") -> Asker:
    """The source that the options name; else the terminal, else the program of AGENTD_ASKPASS.

    `prefix` is that of the options for a file and a descriptor.

    Raises:
        click.UsageError: there is none.
    """
    descriptor, path = options[f"{prefix}passphrase_fd"], options[f"{prefix}passphrase_file"]
    if descriptor is not None:
        return Asker(lambda *_: passphrase_of_descriptor(descriptor))
    if path is not None:
        return Asker(lambda *_: passphrase_of_file(path))
    if options["pinentry"]:
        from . import pinentry

        return Asker(pinentry.ask, TYPED_TRIES, is_typed=True)
    program = options["askpass"]
    if program is None:
        typed = terminal_asker()
        if typed is not None:
            return typed
        program = os.environ.get(ASKPASS_VARIABLE)
    if program:
        return Asker(partial(ask_program, program), is_typed=True)
    raise click.UsageError(
        "there is no terminal to ask on: pass the passphrase by descriptor or file, or name a program that "
        f"asks with --askpass or {ASKPASS_VARIABLE}",
        click.get_current_context(),
    )


def terminal_asker() -> Asker | None:
    """The terminal that this process was started from; None if there is none."""
    return Asker(terminal.ask, TYPED_TRIES, is_typed=True) if terminal.is_there() else None


def ask_program(program: str, prompt: str, problem: str, *, dialogues: Dialogues | None = None) -> bytearray:
    """Call a program with the question, as ssh(1) calls SSH_ASKPASS; the passphrase that it prints.

    Raises:
        PassphraseSourceError: it cannot be started, fails, or prints nothing.
        DialoguesEndedError: `dialogues` were ended before.
    """
    from .dialogues import Dialogues  # few runs call a program

    try:
        with (dialogues or Dialogues()).started([program, prompt]) as child:
            assert child.stdout is not None
            try:
                found = read_passphrase(f"the output of {program}", child.stdout.fileno())
            except PassphraseSourceError:
                child.stdout.close()  # so that it ends if it would print more
                _check_ended_well(program, child.wait())
                raise
    except OSError as error:
        raise _cannot_be_started(program, error) from None
    try:
        _check_ended_well(program, child.returncode)
    except BaseException:
        wipe(found)
        raise
    return found


def confirm_with_program(program: str, question: str, *, dialogues: Dialogues) -> bool | None:
    """Call a program with the question, as ssh-agent(1) does for a key that was added with `ssh-add -c`.

    It means yes if it exits with 0 and prints nothing or "yes", and no if it exits with 1. Everything else,
    such as the text that a program prints that knows no confirmations, is no answer: None.

    Raises:
        PassphraseSourceError: it cannot be started.
        DialoguesEndedError: `dialogues` were ended before.
    """
    try:
        with dialogues.started([program, question], environ={"SSH_ASKPASS_PROMPT": "confirm"}) as child:
            assert child.stdout is not None
            printed = b""
            while len(printed) < _MAX_CONFIRMATION_BYTES and (piece := child.stdout.read(1024)):
                printed += piece
            child.stdout.close()  # so that it ends if it would print more
            status = child.wait()
    except OSError as error:
        raise _cannot_be_started(program, error) from None
    if len(printed) >= _MAX_CONFIRMATION_BYTES:  # closing the pipe may have made the status
        return None
    if status == 0 and printed.strip().lower() in (b"", b"yes"):
        return True
    return False if status == 1 else None


def _cannot_be_started(program: str, error: OSError) -> PassphraseSourceError:
    name = program if may_be_shown(program) else "the askpass program"
    return PassphraseSourceError(f"{name} cannot be started: {error.strerror}")


def _check_ended_well(program: str, status: int) -> None:
    if status > 0:
        raise PassphraseSourceError(f"{program} gave no passphrase (exit code {status})")


def asker_for_approval(status: Status, sources: Mapping[str, Any]) -> Asker:
    """Where the passphrase for an approval comes from.

    Raises:
        NoPassphraseError: the key file has none.
        click.UsageError: as `asker`.
    """
    if not status.protected:
        raise NoPassphraseError(
            "this agent takes approvals only with a passphrase, and its key file has none; set one with "
            "`agentctl passwd`, and restart the agent"
        )
    return asker(sources)


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
            if not left or isinstance(error, NoPassphraseError):  # then no other would do
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
    again = asked.ask("The new passphrase again: ", "")
    try:
        return "" if again == passphrase else "the two passphrases differ; nothing was changed"
    finally:
        wipe(again)
