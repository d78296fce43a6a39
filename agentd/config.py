"""The settings: flags before environment, environment before the file, the file before the defaults.

The file is TOML; a setting that is unknown or of the wrong form stops the agent and is named.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast, get_args

import msgspec

from agentd_client import paths
from agentd_client.durations import parse_duration
from agentd_client.errors import ConfigError
from agentd_client.private import folders_fault
from agentd_client.protocol.limits import MAX_EXPIRY_SECONDS
from agentd_client.protocol.methods import NEVER

DEFAULT_SESSION_SECONDS = 8 * 3600
"""A working day: how long a session lasts where its opener does not say."""

DEFAULT_MAX_LIFETIME_SECONDS = 30 * 24 * 3600
"""How far from its opening a session can be renewed where its opener does not say: a month of use, then a new
login."""

DEFAULT_DRAIN_SECONDS = 5.0
"""For requests in flight when the agent is told to stop; systemd waits far longer before it kills."""

MAX_DRAIN_SECONDS = 3600.0
"""Longer is a slip of units: nobody waits an hour for an agent to stop."""

MAX_FILE_BYTES = 1024 * 1024
"""Of settings; a file that has more is another one, or a device without an end."""

_FLAGS = {
    "socket_path": "--socket",
    "state_path": "--state",
    "passphrase_file": "--passphrase-file",
    "log_level": "--log-level",
    "log_format": "--log-format",
}

_PATHS = ("socket_path", "state_path", "passphrase_file", "verify_socket_path")

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json"]
SocketMode = Literal["0600", "0660", "0666"]
"""Of the verify socket: for the owner, for a group too, or for all. Connecting takes the right to write;
nothing on a socket takes the right to execute."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set, by the names that the file uses."""

    socket_path: str = ""
    state_path: str = ""
    session_expiry: str | int = DEFAULT_SESSION_SECONDS
    session_max_lifetime: str | int | None = None
    revoke_on_reuse: bool = False
    passphrase_file: str = ""
    start_locked: bool = False
    lock_after_idle: str | int = NEVER
    lock_on_suspend: bool = True
    lock_on_screen_lock: bool = True
    lock_on_signal: bool = True
    drain_seconds: float = DEFAULT_DRAIN_SECONDS
    log_level: LogLevel = "info"
    log_format: LogFormat = "auto"
    verify_socket_path: str = ""
    verify_socket_group: str = ""
    verify_socket_mode: SocketMode | Literal[""] = ""

    @property
    def verify_mode(self) -> int:
        """`verify_socket_mode` as a number; a group that was given may connect where nothing else is said."""
        return int(self.verify_socket_mode or ("0660" if self.verify_socket_group else "0600"), 8)

    @property
    def keys_path(self) -> Path:
        """The folder of the key file."""
        return Path(self.state_path) / "keys"

    @property
    def store_path(self) -> Path:
        """The folder of the store."""
        return Path(self.state_path) / "store"

    @property
    def lock_mark_path(self) -> Path:
        """Where it is kept that the agent was locked on purpose."""
        return Path(self.state_path) / "locked"

    @property
    def idle_seconds(self) -> int | None:
        """`lock_after_idle` in seconds; None for never."""
        seconds = parse_duration(self.lock_after_idle)
        return seconds if isinstance(seconds, int) else None

    @property
    def expiry(self) -> int | str:
        """`session_expiry` as the session manager takes it: whole seconds or `NEVER`."""
        return parse_duration(self.session_expiry)

    @property
    def max_lifetime(self) -> int | str:
        """How far sessions can be renewed whose opener does not say: whole seconds or `NEVER`."""
        limit = self.lifetime_limit
        return DEFAULT_MAX_LIFETIME_SECONDS if limit is None else limit

    @property
    def lifetime_limit(self) -> int | str | None:
        """`session_max_lifetime`, beyond which no session goes; None where it is not set."""
        return None if self.session_max_lifetime is None else parse_duration(self.session_max_lifetime)


def load(
    config_path: str | None = None,
    *,
    socket_path: str | None = None,
    state_path: str | None = None,
    passphrase_file: str | None = None,
    log_level: str | None = None,
    log_format: str | None = None,
) -> Settings:
    """Read the settings; the arguments are the flags, None where a flag was not given.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown or of the wrong form.
    """
    found = _read(config_path)
    flags = {
        "socket_path": socket_path,
        "state_path": state_path,
        "passphrase_file": passphrase_file,
        "log_level": log_level,
        "log_format": log_format,
    }
    flags_given = {name: value for name, value in flags.items() if value is not None}
    with _named(config_path or paths.config_path()):
        for name, value in found.items():
            _check(name, value)
            _check_absolute(name, value)
    for name, value in flags_given.items():
        with _named(_FLAGS[name]):
            _check(name, value)
    given = found | flags_given
    # The client finds the agent by the environment: there it is stronger than the daemon's own file.
    if socket_path is None and (paths.socket_is_set() or "socket_path" not in found):
        given["socket_path"] = paths.socket_path()
    given.setdefault("state_path", paths.state_dir())
    settings = msgspec.convert(given, Settings)
    settings = msgspec.structs.replace(
        settings,
        socket_path=os.path.abspath(settings.socket_path),
        state_path=os.path.abspath(settings.state_path),
    )
    with _named(config_path or paths.config_path()):
        _check_verify_socket(settings)
        if "session_expiry" in given:
            _check_lifetimes(settings)
    return settings


@contextmanager
def _named(origin: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{origin}: {error}") from None


def _check(name: str, value: object) -> None:
    """Raise ValueError, which says what may be written, for a setting of the wrong form."""
    match name:
        case _ if name in _PATHS:
            _check_path(name, value)
        case "session_expiry" | "session_max_lifetime" | "lock_after_idle":
            _check_duration(name, value)
        case (
            "revoke_on_reuse" | "start_locked" | "lock_on_suspend" | "lock_on_screen_lock" | "lock_on_signal"
        ):
            _check_switch(name, value)
        case "drain_seconds":
            _check_drain(value)
        case "log_level":
            _check_choice(name, value, get_args(LogLevel))
        case "log_format":
            _check_choice(name, value, get_args(LogFormat))
        case "verify_socket_group":
            _check_group(value)
        case "verify_socket_mode":
            _check_choice(name, value, get_args(SocketMode))
        case _:
            known = ", ".join(Settings.__struct_fields__)
            raise ValueError(f"there is no setting {name!r}; the settings are {known}")


def _check_path(name: str, value: object) -> None:
    if value == "":  # an unset shell variable; the default place would be another one than was meant
        raise ValueError(f"{name} is empty; write a path, or leave it out for the default")
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{name} is not a path")


def _check_absolute(name: str, value: object) -> None:
    # Relative to what? A flag means the caller's folder; a file has none.
    if name in _PATHS and not os.path.isabs(str(value)):
        raise ValueError(f"{name} is not an absolute path")


def _check_duration(name: str, value: object) -> None:
    try:
        duration = parse_duration(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if isinstance(duration, int) and duration > MAX_EXPIRY_SECONDS:
        raise ValueError(f"{name} is over 100 years: {value!r}")
    if duration == 0:  # every session over at once, an agent that is always locked: nobody means that
        raise ValueError(f"{name} is 0; write {NEVER!r} for without end")


def _check_lifetimes(settings: Settings) -> None:
    expiry, limit = settings.expiry, settings.lifetime_limit
    if isinstance(limit, int) and (expiry == NEVER or int(expiry) > limit):
        raise ValueError(
            f"session_expiry {settings.session_expiry!r} lies beyond session_max_lifetime "
            f"{settings.session_max_lifetime!r}; make it shorter, or leave it out"
        )


def _check_switch(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} is true or false, without quotes, not {value!r}")


def _check_drain(value: object) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= cast("float", value) <= MAX_DRAIN_SECONDS:  # which a NaN is not either
        raise ValueError(f"drain_seconds is a number of seconds from 0 to {MAX_DRAIN_SECONDS:g}")


def _check_group(value: object) -> None:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"verify_socket_group is the name of a group, not {value!r}")


def _check_verify_socket(settings: Settings) -> None:
    path = settings.verify_socket_path
    for name, value in (
        ("verify_socket_group", settings.verify_socket_group),
        ("verify_socket_mode", settings.verify_socket_mode),
    ):
        if value and not path:
            raise ValueError(f"{name} is of no use without verify_socket_path")
    if settings.verify_socket_group and settings.verify_mode == 0o600:
        raise ValueError("verify_socket_mode 0600 keeps verify_socket_group out; leave one of them out")
    if path and os.path.realpath(path) == os.path.realpath(settings.socket_path):
        raise ValueError("verify_socket_path is the socket's own path; it takes another one")


def _text(path: Path, content: bytes) -> str:
    """The file's text, whatever editor wrote it; ConfigError where that cannot be told."""
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} has more than {MAX_FILE_BYTES} bytes; that is no settings file")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(f"{path} is UTF-16 and has to be UTF-8; save it in that encoding")
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, byte = before.count(b"\n") + 1, error.object[error.start]
        raise ConfigError(
            f"{path} is not UTF-8: line {line} holds the byte 0x{byte:02x}, as Latin-1 or Windows-1252 "
            "would; save it as UTF-8"
        ) from None
    if "\r" in text and "\n" not in text:
        raise ConfigError(f"{path} ends its lines with CR alone; save it with LF or CR LF")
    return text.replace("\r\n", "\n")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is one of {', '.join(choices)}, not {value!r}")


def _read(config_path: str | None) -> dict[str, object]:
    if config_path == "":
        raise ConfigError("--config is empty; write a path, or leave it out for the default")
    path = Path(config_path or paths.config_path())
    try:
        # Where there is no file too: whoever could remove it decides.
        fault = folders_fault(path)
        if fault is not None:
            raise ConfigError(f"the settings: {fault}")
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        import tomllib  # most users have no such file

        return tomllib.loads(_text(path, content))
    except FileNotFoundError:
        _refuse_dangling(path)
        if config_path is None:
            return {}
        raise ConfigError(f"{path} does not exist") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError, or a number too long to read
        raise ConfigError(f"{path} is not TOML: {error}") from None


def _refuse_dangling(path: Path) -> None:
    # Whoever put a link there meant settings: the defaults are others.
    for link in (path, *path.parents):
        if link.is_symlink() and not link.exists():
            raise ConfigError(
                f"{link} is a symbolic link to {os.readlink(link)}, which is not there; restore that, or "
                "remove the link"
            )
