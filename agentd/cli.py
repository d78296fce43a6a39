"""The command `agentd`: serve, init, doctor and service. It ends with an exit code, not a traceback."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import NamedTuple, TypeVar

import click

from agentd_client import paths
from agentd_client.cli import interrupts
from agentd_client.cli.completion_script import SHELLS, completion_script
from agentd_client.cli.output import printable, settle_stderr, show_line, whole_output
from agentd_client.cli.usage import HelpfulGroup, usage_sentence
from agentd_client.errors import AgentdError, ConfigError

from . import __version__, logs, systemd
from .config import LOG_FORMATS, LOG_LEVELS, Settings, load
from .exit_codes import DOCTOR_MEANINGS, MEANINGS, STOPPED, exit_code

T = TypeVar("T")
R = TypeVar("R", None, int)

COMPLETE_VARIABLE = "_AGENTD_COMPLETE"

_EXIT_CODES = "\b\nExit codes:\n" + "\n".join(f"  {code:<3} {meaning}" for code, meaning in MEANINGS.items())


class _Given(NamedTuple):
    """The options before the subcommand, and the sockets that a service manager passed."""

    passed: systemd.Passed
    config_path: str | None
    log_level: str | None
    log_format: str | None

    def settings(self, **flags: str | None) -> Settings:
        return load(self.config_path, log_level=self.log_level, log_format=self.log_format, **flags)


@click.group(
    cls=HelpfulGroup,
    epilog=_EXIT_CODES,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="agentd", message="%(prog)s %(version)s")
@click.option("--config", "config_path", metavar="FILE", help="The settings file, in place of the usual one.")
@click.option("--log-level", type=click.Choice(LOG_LEVELS), help="How much to say on standard error.")
@click.option("--log-format", type=click.Choice(LOG_FORMATS), help="Readable or journal lines, or JSON.")
@click.option("--debug", is_flag=True, help="Show a traceback where something fails.")
@click.pass_context
def agentd(
    context: click.Context,
    config_path: str | None,
    log_level: str | None,
    log_format: str | None,
    debug: bool,
) -> None:
    """The session agent: it knows which callers belong to a session that you opened."""
    if log_format is not None:  # an error in the settings is logged in that form too
        logs.configure("info", log_format)
    context.obj = _Given(context.obj, config_path, log_level, log_format)


def _with_paths(command: Callable[..., R]) -> Callable[..., R]:
    command = click.option("--state", "state_path", metavar="FOLDER", help="Where keys and store live.")(
        command
    )
    command = click.option("--socket", "socket_path", metavar="PATH", help="The agent's socket.")(command)
    return click.pass_obj(command)


def _with_passphrase(command: Callable[..., R]) -> Callable[..., R]:
    command = click.option(
        "--passphrase-fd",
        "passphrase_descriptor",
        metavar="N",
        type=click.IntRange(min=0),
        help="Read the passphrase from this file descriptor.",
    )(command)
    return click.option(
        "--passphrase-file", metavar="FILE", help="Read the passphrase from this private file (mode 0600)."
    )(command)


@agentd.command()
@_with_paths
@_with_passphrase
def serve(given: _Given, passphrase_descriptor: int | None, **flags: str | None) -> None:
    """Serve in the foreground until SIGTERM, SIGINT or SIGHUP.

    The first start makes a key file and a store, and says where. If the key file has a passphrase, the agent
    starts locked, unless it gets the passphrase from one of these options, from `passphrase_file` in the
    settings, or from the systemd credential agentd.passphrase. SIGUSR1 locks it.
    """
    settings = given.settings(**flags)
    from . import main, process  # trio, lmdb and libsodium, which `agentd --help` does not need

    if systemd.watchdog_seconds() is not None:
        process.explain_aborts()
    _run(main.serve, settings, given.passed, passphrase_descriptor)


@agentd.command()
@_with_paths
@_with_passphrase
@click.option("--fresh", is_flag=True, help="Delete every session and the old keys.")
@click.option("--passphrase", "wants_passphrase", is_flag=True, help="Ask for a passphrase for the key file.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def init(
    given: _Given,
    passphrase_descriptor: int | None,
    fresh: bool,
    wants_passphrase: bool,
    yes: bool,
    **flags: str | None,
) -> None:
    """Make the key file and the store, without serving.

    What exists stays. A passphrase protects a new key file; `agentctl passwd` sets, changes or removes one
    later.
    """
    settings = given.settings(**flags)
    if fresh and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("--fresh deletes every session; confirm with --yes.")
        from agentd_client.cli.terminal import confirmed

        if not confirmed(f"Delete every session and the keys in {settings.state_path}?"):
            raise click.Abort
    from . import main

    agent_id = _run(main.init, settings, fresh, wants_passphrase, passphrase_descriptor)
    click.echo(f"agent\t{agent_id}\nkeys\t{settings.keys_path}\nstore\t{settings.store_path}")


_DOCTOR_EXIT_CODES = "\b\nExit codes, beside those of `agentd --help`:\n" + "\n".join(
    f"  {code:<3} {meaning}" for code, meaning in DOCTOR_MEANINGS.items()
)


@agentd.command(epilog=_DOCTOR_EXIT_CODES)
@_with_paths
@_with_passphrase
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def doctor(
    given: _Given,
    passphrase_file: str | None,
    passphrase_descriptor: int | None,
    as_json: bool,
    **flags: str | None,
) -> int:
    """Find problems on this system, and say what to do about them.

    Checks folders, files and their modes, the socket and the agent behind it, settings, keys, store, token
    file, memory, clock and systemd's units. It changes nothing, locks nothing and starts nothing, so it can
    run while the agent serves.

    Each finding has a stable name, one of four severities (ok, note, warning, error), a sentence and what to
    do. Every value of the store is opened, or 100,000 at random if there are more. If the key file has a
    passphrase, that needs --passphrase-file or --passphrase-fd.
    """
    if passphrase_file is not None and passphrase_descriptor is not None:
        raise click.UsageError("give --passphrase-file or --passphrase-fd, not both")
    config_path, failure = given.config_path or paths.config_path(), None
    try:
        settings = given.settings(**flags)
    except ConfigError as error:
        failure = error.sentence
        settings = load(os.devnull, **flags)
    from .doctor import command

    _collect_garbage()
    return command.carry_out(
        settings,
        config_path=config_path,
        config_failure=failure,
        passphrase_file=passphrase_file,
        passphrase_descriptor=passphrase_descriptor,
        json=as_json,
    )


@agentd.group(cls=HelpfulGroup, no_args_is_help=False)
def service() -> None:
    """Have systemd start the agent."""


@service.command("install")
@click.option("--uninstall", is_flag=True, help="Undo it. Keys, store and settings stay.")
@click.option("--purge", is_flag=True, help="With --uninstall: remove keys, store and settings as well.")
@click.pass_obj
def service_install(given: _Given, uninstall: bool, purge: bool) -> None:
    """Install units, completions and manual pages for this user.

    systemd then listens on the agent's socket and starts the agent with the first connection. Nothing outside
    the user's own folders is changed. After an upgrade of agentd, or a change of `state_path`, run it again.
    """
    if given.config_path is not None:
        raise click.UsageError("The service reads the usual settings file: leave out --config.")
    if purge and not uninstall:
        raise click.UsageError("--purge removes every session: give it together with --uninstall.")
    from . import service as of_user

    if uninstall:
        of_user.uninstall(_completions(), _say, purge=purge)
    else:
        of_user.install(_completions(), _say)


def _say(what: str, about: object) -> None:
    show_line(printable(f"{what:11} {about}"))


def _completions() -> dict[tuple[str, str], str]:
    from agentd_client.cli import group

    commands = (("agentd", agentd, COMPLETE_VARIABLE), (group.NAME, group.root, group.COMPLETE_VARIABLE))
    return {
        (name, shell): completion_script(command, name, variable, shell)
        for name, command, variable in commands
        for shell in SHELLS
    }


@agentd.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script of a shell; `agentd service install` installs it."""
    show_line(_completions()["agentd", shell].rstrip("\n"))


def _run(entry: Callable[..., Awaitable[T]], settings: Settings, *more: object) -> T:
    import trio

    from . import process

    process.harden()
    logger = logs.configure(settings.log_level, settings.log_format)
    logs.take_over()
    _collect_garbage()
    with interrupts.Raised():
        return trio.run(entry, settings, logger, *more)


def _collect_garbage() -> None:
    """Turn the garbage collector on, now that everything is imported; it skips what exists already."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the command; ends in `SystemExit`."""
    code = _carry_out(sys.argv[1:] if arguments is None else arguments)
    settle_stderr()
    interrupts.end_by_signal()
    sys.exit(code)


def _carry_out(arguments: list[str]) -> int:
    passed = systemd.Passed()
    try:
        passed = systemd.passed_sockets()
        # Not click's own `main`, which exits with 1 if a reader of the output goes away.
        with whole_output():
            code = _invoke(arguments, passed)
    except (Exception, KeyboardInterrupt) as caught:
        error = innermost(caught)
        if isinstance(error, KeyboardInterrupt):
            interrupts.note()
        trace = ""
        if "--debug" in arguments and not isinstance(error, click.ClickException):
            import traceback

            trace = "".join(traceback.format_exception(caught)).rstrip()
        sentence = error_sentence(error)
        logs.log_fatal(sentence, trace)
        _answer_waiting(passed, sentence)
        return exit_code(error)
    finally:
        logs.finish()
    return code if isinstance(code, int) else STOPPED


def _invoke(arguments: list[str], passed: systemd.Passed) -> object:
    if instruction := os.environ.get(COMPLETE_VARIABLE):
        from click.shell_completion import shell_complete

        return shell_complete(agentd, {"obj": passed}, "agentd", COMPLETE_VARIABLE, instruction)
    try:
        with agentd.make_context("agentd", list(arguments), obj=passed) as context:
            return agentd.invoke(context)
    except click.exceptions.Exit as done:  # after --help and --version
        return done.exit_code


def _answer_waiting(passed: systemd.Passed, sentence: str) -> None:
    waiting = [listener for listener in passed if listener is not None]
    if any(listener.fileno() == -1 for listener in waiting) or not waiting:  # closed once the agent was ready
        return
    # The first error is the one to report; a client that gets no answer here has its own deadline.
    with suppress(Exception), ExitStack() as held:
        for listener in waiting:
            held.enter_context(listener)
        import trio

        from .server import report_startup_failure

        others = [listener for listener in (passed.verify, passed.ask) if listener is not None]
        trio.run(partial(report_startup_failure, passed.owners, others, sentence, logger=logs.LOGGER))


def innermost(error: BaseException) -> BaseException:
    """The error itself, without the groups that trio's nurseries wrap it in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def error_sentence(error: BaseException) -> str:
    """What went wrong and what to do, in one sentence for people."""
    match error:
        case AgentdError():
            return error.sentence
        case click.ClickException():
            sentence = usage_sentence(error)
            if not isinstance(error, click.UsageError):
                return sentence
            command = error.ctx.command_path if error.ctx is not None else "agentd"
            end = "" if sentence.endswith((".", "?")) else "."
            return f"{sentence}{end} See `{command} --help`."
        case click.Abort() | KeyboardInterrupt():
            return "interrupted"
        case OSError():
            return f"{error.filename or 'the system'}: {error.strerror or type(error).__name__}"
    return f"a bug in agentd ({type(error).__name__}); --debug shows where"
