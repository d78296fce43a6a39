"""`agentctl` itself, and the table of its commands, which are imported when they are called."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from .. import __version__, paths
from .exit_codes import MEANINGS, USAGE
from .options import shared_options
from .usage import HelpfulGroup

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

NAME = "agentctl"
COMPLETE_VARIABLE = "_AGENTCTL_COMPLETE"


class Entry(NamedTuple):
    """A command's module in `commands/` and its first line of help, so that help imports no command.

    The module's function is named after the command: `reset_key_command` for `reset-key`.
    """

    module: str
    summary: str


COMMANDS = {
    "login": Entry("login", "Open a session and keep its token in the token file."),
    "logout": Entry("login", "End the session of the token file and remove the file."),
    "status": Entry("status", "Show the agent and whether you are logged in."),
    "token": Entry("token", "Print the current session token."),
    "verify": Entry("verify", "Exit 0 if a token is valid, 1 if it is not."),
    "inspect": Entry("inspect", "Show all that the agent knows about a token or session."),
    "renew": Entry("login", "Extend the session, with a new token."),
    "exec": Entry("exec", "Run a command with a session of its own."),
    "request": Entry("request", "Ask a person for a session, for a command or to pass on."),
    "requests": Entry("requests", "Show what waits for approval, and what is remembered."),
    "approve": Entry("approve", "Show a request for a session, and approve or deny it."),
    "deny": Entry("approve", "Deny a request for a session, or forget an approval."),
    "prompt": Entry("prompt", "Ask at the desktop about requests until SIGTERM or Ctrl-C."),
    "http": Entry("http", "Check tokens over HTTP until SIGTERM or Ctrl-C."),
    "list": Entry("list", "Show the sessions, newest first."),
    "top": Entry("top", "Show sessions, requests and events live, and decide."),
    "watch": Entry("watch", "Show events as they happen."),
    "audit": Entry("list", "Show the audit log."),
    "revoke": Entry("revoke", "End a session, or many; the token file stays."),
    "reset-key": Entry("revoke", "Replace the session key, which ends every session."),
    "lock": Entry("lock", "Lock the agent, which wipes its keys."),
    "unlock": Entry("lock", "Unlock the agent with its passphrase."),
    "passwd": Entry("lock", "Set, change or remove the agent's passphrase."),
    "completion": Entry("completion", "Print the shell's completion script."),
}

HELP = """Open, see and end sessions of agentd, the local session agent.

A session shows that a caller belongs to something that the user opened and has not ended. Any program that
runs as the user and can reach the agent's socket can open sessions, unless the agent's settings leave that
to a person (`opening`); a token protects against programs that cannot.
"""

ENVIRONMENT = (
    (paths.SOCKET_VARIABLE, "the agent's socket"),
    (paths.TOKEN_VARIABLE, "a token; takes precedence over the next two, but not over --token-file"),
    (paths.TOKEN_FD_VARIABLE, "an open file descriptor that holds a token; takes precedence over the file"),
    (paths.TOKEN_PATH_VARIABLE, "the token file"),
    ("AGENTD_ASKPASS", "the program that asks for a passphrase if there is no terminal"),
    ("NO_COLOR", "if set, no colours"),
)


class AgentctlGroup(HelpfulGroup):
    """A group that knows its commands by name and imports them when they are called."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.params.extend(shared_options())

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of that name; None if there is none."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module = import_module(f"{__package__}.commands.{entry.module}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands."""
        _table(formatter, "Commands", [(name, entry.summary) for name, entry in COMMANDS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the environment variables and the exit codes."""
        _table(formatter, "Environment", ENVIRONMENT)
        _table(formatter, "Exit codes", [(str(code), meaning) for code, meaning in MEANINGS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a command, or an option of the group."""
        from click.shell_completion import CompletionItem

        names = [
            CompletionItem(name, help=entry.summary)
            for name, entry in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)


def _table(formatter: click.HelpFormatter, title: str, rows: Sequence[tuple[str, str]]) -> None:
    with formatter.section(title):
        formatter.write_dl(rows)


@click.group(
    NAME,
    cls=AgentctlGroup,
    help=HELP,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name=NAME, message="%(prog)s %(version)s")
@click.pass_context
def root(context: click.Context) -> int:
    """Show the help, as an error, if no command is named."""
    if context.invoked_subcommand is None:
        with suppress(OSError):  # nobody reads it; there is still the exit code
            click.echo(context.get_help(), err=True)
        return USAGE
    return 0
