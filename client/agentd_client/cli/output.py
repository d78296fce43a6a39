"""Results on standard output, in one of three forms: for a person, for a pipe, as JSON.

A terminal gets aligned words with a little colour; a pipe gets ``key<TAB>value`` lines that stay the same
from version to version; ``--json`` gets one object with the protocol's names.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from .options import Settings

Row = tuple[str, str]


def printable(text: str) -> str:
    """The text with whatever could steer a terminal or break a line written as an escape."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


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
    """Print a result; `plain` is for a pipe where it is to be something else than the document's fields.

    Raises:
        OSError: it cannot be written; names standard output as its file.
    """
    if settings.json:
        show_json(document)
        return
    lines = human() if is_terminal() else _fields(document) if plain is None else plain
    for line in lines:
        show_line(line)


def show_json(document: Mapping[str, Any]) -> None:
    """Print one object on a line of its own and flush it; raises as `show`."""
    import json

    show_line(json.dumps(document))


def show_line(line: str) -> None:
    """Print a line and flush it; what the output's encoding cannot say is an escape. Raises as `show`."""
    try:
        try:
            # With the stream named, because click on its own takes ASCII for a mistake and writes UTF-8.
            click.echo(line, file=sys.stdout)
        except UnicodeEncodeError as error:
            escaped = line.encode(error.encoding, "backslashreplace").decode(error.encoding)
            click.echo(escaped, file=sys.stdout)
    except OSError as error:
        error.filename = "standard output"
        raise


def colour(text: str, name: str) -> str:
    """The text in that colour, where standard output shows colours and NO_COLOR (no-color.org) is not set."""
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
    """A value as a pipe gets it: nothing for None, a list in the form of JSON, never a tab or a new line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        import json

        return json.dumps(value)
    return printable(str(value))


def tab_separated(values: Iterable[Any]) -> str:
    """One line of a table for a pipe: whole values, a tab between them."""
    return "\t".join(plain_text(value) for value in values)
