"""Results on standard output, in one of three forms: for a person, for a pipe, as JSON.

A terminal gets aligned text with a little colour; a pipe gets ``key<TAB>value`` lines, which stay the same
from version to version; ``--json`` gets one object with the protocol's names.

The output of a command is collected and written at its end (`whole_output`). So a reader that stops after
the first line (`grep -q`, `head`) changes nothing: that is not a failure, and the exit code is the command's
own. Output that cannot be written for another reason is an `OutputError`.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

import click

from ..shown_text import printable as printable

if TYPE_CHECKING:
    from .options import Settings

Row = tuple[str, str]


class OutputError(OSError):
    """Standard output could not be written, because of a full disk for example."""


class _Block(io.TextIOWrapper):
    """Replaces standard output and collects what is written to it."""

    def __init__(self, stream: TextIO) -> None:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        super().__init__(io.BytesIO(), encoding, "backslashreplace", newline="", write_through=True)
        self._stream = stream
        self._is_read = True

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def write_out(self) -> bool:
        """Write what was collected; returns whether anybody still reads.

        Raises:
            OutputError: it cannot be written; it is not tried again.
        """
        self.seek(0)
        content = bytes(self.buffer.read())
        self.seek(0)
        self.truncate()
        if not content or not self._is_read:
            return self._is_read
        try:
            _write(self._stream, content, self.encoding)
        except BrokenPipeError:
            self._is_read = False
        except OSError as error:
            raise OutputError(error.errno, error.strerror, "standard output") from None
        return self._is_read


def _write(stream: TextIO, content: bytes, encoding: str) -> None:
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # another program's replacement, without a descriptor
        stream.write(content.decode(encoding))
        stream.flush()
        return
    # Bypasses Python's buffer: what cannot be written would stay there, be tried again when the interpreter
    # exits, and change the exit code to 120.
    view = memoryview(content)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:  # a program that shares the file made it non-blocking
            _wait_until_writable(descriptor)


def _wait_until_writable(descriptor: int) -> None:
    import select

    waiting = select.poll()
    waiting.register(descriptor, select.POLLOUT)
    waiting.poll()


@contextmanager
def whole_output() -> Iterator[None]:
    """Collect what is printed and write it at the end, and before an error is reported.

    Raises:
        OutputError: it cannot be written, and nothing else failed.
    """
    stream = sys.stdout
    if stream is None:  # closed by the shell: there is nothing to print to
        yield
        return
    block = _Block(stream)
    sys.stdout = block
    try:
        yield
    except BaseException:
        with suppress(OutputError):
            block.write_out()
        raise
    else:
        block.write_out()
    finally:
        sys.stdout = stream


def write_now() -> bool:
    """Write what was printed so far, if more may come much later; returns whether anybody still reads.

    Raises:
        OutputError: it cannot be written.
    """
    return sys.stdout.write_out() if isinstance(sys.stdout, _Block) else True


def settle_stderr() -> None:
    """Discard what cannot be written to standard error.

    The interpreter would try again when it exits, fail, and change the exit code to 120.
    """
    if sys.stderr is None:
        return
    try:
        sys.stderr.flush()
    except OSError:
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stderr.fileno())
            os.close(nowhere)


def can_show(text: str) -> bool:
    """Whether standard output's encoding has all these characters."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def is_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout is not None and sys.stdout.isatty()


def show(
    settings: Settings,
    document: Mapping[str, Any],
    *,
    human: Callable[[], Iterable[str]],
    plain: Iterable[str] | None = None,
) -> None:
    """Print a result; `plain` replaces the document's fields as the form for a pipe."""
    if settings.json:
        show_json(document)
        return
    lines = human() if is_terminal() else _fields(document) if plain is None else plain
    for line in lines:
        show_line(line)


def show_json(document: Mapping[str, Any]) -> None:
    """Print an object on one line."""
    import json

    show_line(json.dumps(document))


def show_line(line: str) -> None:
    """Print a line, with escapes for what the output's encoding does not have."""
    # Names the stream, because click itself takes ASCII for a mistake and writes UTF-8.
    click.echo(line, file=sys.stdout)


def colour(text: str, name: str) -> str:
    """The text in that colour, if standard output shows colours and NO_COLOR (no-color.org) is not set."""
    if not is_terminal() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return click.style(text, fg=name)


def aligned(rows: Iterable[Row]) -> Iterator[str]:
    """Headings and texts as two columns."""
    held = list(rows)
    width = max(len(heading) for heading, _ in held)
    for heading, text in held:
        yield f"{colour(heading.ljust(width), 'cyan')}  {text}"


def _fields(document: Mapping[str, Any], within: str = "") -> Iterator[str]:
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from _fields(value, f"{within}{key}.")
        else:
            yield f"{within}{key}\t{plain_text(value)}"


def plain_text(value: Any) -> str:
    """A value for a pipe: nothing for None, a list as JSON, never a tab or a newline."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        import json

        return json.dumps(value)
    return printable(str(value))


def tab_separated(*values: Any) -> str:
    """A line of values for a pipe, separated by tabs."""
    return "\t".join(plain_text(value) for value in values)
