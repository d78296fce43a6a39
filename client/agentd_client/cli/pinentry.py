"""A passphrase, or a yes or no, from pinentry, the dialogue of GnuPG, in the Assuan protocol.

The Assuan manual, "Server responses": lines that begin with OK, ERR, S, #, D or INQUIRE; data is
percent-encoded; a line has at most 1000 bytes. The commands are those of the pinentry manual, "Protocol".
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from shutil import which
from typing import TypeVar

import click

from ..passphrase_input import PassphraseSourceError, copy, wipe
from ..protocol.limits import MAX_PASSPHRASE_BYTES
from . import terminal
from .dialogues import Dialogues

T = TypeVar("T")

PROGRAM = "pinentry"
_NOT_ASSUAN = f"{PROGRAM} does not speak the Assuan protocol"

_MAX_LINE_BYTES = 1000
_ERROR_CODE = 0xFFFF
"""The bits of an error number that are its code; the rest is its source (libgpg-error)."""

_CANCELLED = frozenset({99, 198})
"""GPG_ERR_CANCELED, and GPG_ERR_FULLY_CANCELED if the dialogue was closed."""

_TIMEOUT, _NOT_CONFIRMED = 62, 114
"""GPG_ERR_TIMEOUT, and GPG_ERR_NOT_CONFIRMED for the button of SETNOTOK."""

MAX_TEXT_BYTES = _MAX_LINE_BYTES - len("SETDESC ")
"""Of a text, as `encoded` returns it."""


def ask(
    prompt: str, problem: str, *, seconds: int | None = None, dialogues: Dialogues | None = None
) -> bytearray:
    """The passphrase typed into the dialogue of the program `pinentry` in PATH.

    It closes after `seconds`, and when another thread ends `dialogues`.

    Raises:
        click.Abort: it was cancelled.
        PassphraseSourceError: there is no pinentry, or it cannot ask.
        DialoguesEndedError: `dialogues` were ended before.
    """

    def dialogue(conversation: _Conversation) -> bytearray:
        conversation.command(f"SETDESC {encoded(prompt.rstrip(': '))}")
        conversation.command("SETPROMPT Passphrase:")
        if problem:
            conversation.command(f"SETERROR {encoded(problem)}")
        code, reason = conversation.outcome("GETPIN")
        if code == 0:
            return conversation.secret()
        if code in _CANCELLED:
            raise click.Abort
        raise PassphraseSourceError(f"{PROGRAM} gave no passphrase: {reason}")

    return _hold(dialogue, seconds, dialogues)


def confirm(text: str, yes: str, no: str, later: str, *, seconds: int, dialogues: Dialogues) -> bool | None:
    """Ask a question with buttons of these names; None if it was closed, or after `seconds`.

    A dialogue that is closed is the same as the button for later, so that it is no answer. Frontends that
    have two buttons, such as GNOME's, leave out the one for no.

    Raises:
        PassphraseSourceError: there is no pinentry, or it cannot ask.
        DialoguesEndedError: `dialogues` were ended before.
    """

    def dialogue(conversation: _Conversation) -> bool | None:
        refusals = [
            conversation.command(f"{command} {encoded(shown)}")
            for command, shown in (("SETDESC", text), ("SETOK", yes), ("SETNOTOK", no), ("SETCANCEL", later))
        ]
        if any(refusals):  # a button for yes below a text that is not there
            raise PassphraseSourceError(f"{PROGRAM} cannot show it: {next(filter(None, refusals))}")
        code, reason = conversation.outcome("CONFIRM")
        if code == 0:
            return True
        if code == _NOT_CONFIRMED:
            return False
        if code in _CANCELLED or code == _TIMEOUT:
            return None
        raise PassphraseSourceError(f"{PROGRAM} gave no answer: {reason}")

    return _hold(dialogue, seconds, dialogues)


def _hold(dialogue: Callable[[_Conversation], T], seconds: int | None, dialogues: Dialogues | None) -> T:
    program = which(PROGRAM)
    if program is None:
        raise PassphraseSourceError(
            f"{PROGRAM} is not installed; leave out --pinentry to be asked on the terminal"
        )
    try:
        with (dialogues or Dialogues()).started([program], stdin=subprocess.PIPE) as child:
            return _begun(child, dialogue, seconds)
    except OSError as error:
        raise PassphraseSourceError(f"{program} cannot be started: {error.strerror}") from None


def _begun(child: subprocess.Popen[bytes], dialogue: Callable[[_Conversation], T], seconds: int | None) -> T:
    assert child.stdin is not None
    assert child.stdout is not None
    conversation = _Conversation(child.stdin.fileno(), child.stdout.fileno())
    try:
        conversation.answer()  # its greeting
        for option in _options():
            conversation.command(f"OPTION {option}")  # an error is ignored: no option is essential
        conversation.command("SETTITLE agentd")
        if seconds is not None:
            conversation.command(f"SETTIMEOUT {seconds}")
        return dialogue(conversation)
    except OSError as error:
        raise PassphraseSourceError(f"{PROGRAM} went away: {error.strerror}") from None
    finally:
        conversation.wipe()


def _options() -> list[str]:
    found = {
        "ttyname": _terminal_name(),
        "ttytype": os.environ.get("TERM"),
        "lc-ctype": next(filter(None, map(os.environ.get, ("LC_ALL", "LC_CTYPE", "LANG"))), None),
    }
    return [f"{name}={encoded(value)}" for name, value in found.items() if value]


def _terminal_name() -> str | None:
    for descriptor in (0, 2, 1):
        if os.isatty(descriptor):
            return os.ttyname(descriptor)
    return "/dev/tty" if terminal.is_there() else None


def encoded(text: str) -> str:
    """The text as it stands in a command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _byte(digits: memoryview) -> int:
    try:
        return int(bytes(digits), 16)
    except ValueError:
        raise PassphraseSourceError(_NOT_ASSUAN) from None


class _Conversation:
    """Commands and answers. The data of an answer is kept in buffers that are wiped."""

    def __init__(self, writing: int, reading: int) -> None:
        self._writing, self._reading = writing, reading
        self._line = bytearray(_MAX_LINE_BYTES + 1)
        self._data = bytearray(MAX_PASSPHRASE_BYTES)
        self._size = 0

    def command(self, line: str) -> str | None:
        """Send a command and read its answer, as `answer`."""
        os.write(self._writing, line.encode() + b"\n")
        return self.answer()

    def answer(self) -> str | None:
        """Read an answer: None for OK, else the error's number and text."""
        self._size = 0
        with memoryview(self._line) as room:
            while True:
                line = self._read_line(room)
                match bytes(line[:2]):
                    case b"OK":
                        return None
                    case b"ER":
                        return bytes(line[len("ERR ") :]).decode("utf-8", "replace")
                    case b"D ":
                        self._decode(line[2:])
                    case b"IN":  # an inquiry, to which there is no answer
                        os.write(self._writing, b"CAN\n")

    def outcome(self, line: str) -> tuple[int, str]:
        """Send a command; returns its error's code, 0 for OK, and text."""
        refusal = self.command(line)
        if refusal is None:
            return 0, ""
        number, _, reason = refusal.partition(" ")
        code = int(number) & _ERROR_CODE if number.isascii() and number.isdigit() else -1
        return code or -1, reason or number

    def secret(self) -> bytearray:
        """The data of the last answer."""
        with memoryview(self._data) as view:
            return copy(view[: self._size])

    def wipe(self) -> None:
        """Wipe the buffers."""
        wipe(self._line)
        wipe(self._data)

    def _read_line(self, room: memoryview) -> memoryview:
        # Byte by byte, so that no other buffer holds a line; there are only a dozen short ones.
        for size in range(len(room)):
            if not os.readv(self._reading, [room[size : size + 1]]):
                raise PassphraseSourceError(f"{PROGRAM} ended without an answer")
            if room[size] == ord("\n"):
                return room[:size]
        raise PassphraseSourceError(_NOT_ASSUAN)

    def _decode(self, encoded: memoryview) -> None:
        at = 0
        while at < len(encoded):
            byte, at = encoded[at], at + 1
            if byte == ord("%"):
                byte, at = _byte(encoded[at : at + 2]), at + 2
            if self._size == len(self._data):
                raise PassphraseSourceError(f"a passphrase has at most {len(self._data)} bytes")
            self._data[self._size] = byte
            self._size += 1
