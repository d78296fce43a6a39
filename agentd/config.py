"""The settings: flags, then the environment, then the settings file, then the defaults.

The file is TOML. A setting that is unknown or has the wrong form stops the agent, and the error names it.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, get_args, get_origin

import msgspec

from agentd_client import paths
from agentd_client.durations import format_duration, parse_duration
from agentd_client.errors import ConfigError
from agentd_client.private import folders_fault
from agentd_client.protocol.limits import MAX_EXPIRY_SECONDS, MAX_SCOPE_CHARACTERS
from agentd_client.protocol.methods import NEVER

DEFAULT_SESSION_SECONDS = 8 * 3600
"""A working day: how long a session lasts if its creator does not say."""

DEFAULT_MAX_LIFETIME_SECONDS = 30 * 24 * 3600
"""How long a session can be renewed if its creator does not say: a month of use, then a new login."""

DEFAULT_DRAIN_SECONDS = 5.0
"""For requests in flight when the agent has to stop; systemd waits far longer before it kills."""

MAX_DRAIN_SECONDS = 3600.0
"""More is a mistake in the unit: nobody waits an hour for an agent to stop."""

MAX_FILE_BYTES = 1024 * 1024
"""Of the settings file; a larger one is the wrong file, or a device without an end."""

_FLAGS = {
    "socket_path": "--socket",
    "state_path": "--state",
    "passphrase_file": "--passphrase-file",
    "log_level": "--log-level",
    "log_format": "--log-format",
}

FilePath = NewType("FilePath", str)

Duration = int | str
"""Whole seconds or `NEVER`; the file may have a duration such as "8h"."""

Switch = Annotated[bool, msgspec.Meta(description="true or false, without quotes")]
DrainSeconds = Annotated[
    float, msgspec.Meta(ge=0, le=MAX_DRAIN_SECONDS, description=f"seconds from 0 to {MAX_DRAIN_SECONDS:g}")
]
GroupName = Annotated[str, msgspec.Meta(pattern=r"^[^\x00]+$", description="the name of a group")]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json"]
AuditUses = Literal["none", "first", "all"]
LOG_LEVELS, LOG_FORMATS = get_args(LogLevel), get_args(LogFormat)
SocketMode = Literal["0600", "0660", "0666"]
"""Of a socket for others: for the owner, for a group too, or for all. Connecting takes the right to write;
the right to execute means nothing on a socket."""

VERIFY_SOCKET, ASK_SOCKET = "verify_socket", "ask_socket"
"""The sockets for others; each has three settings, whose names begin with its own."""


class SharedSocket(NamedTuple):
    """What the settings say about a socket for others: where it is, if anywhere, and for whom."""

    name: str
    path: str
    group: str
    mode: str


Opening = Literal["free", "ask", "passphrase"]
ScopeNames = Annotated[
    list[Annotated[str, msgspec.Meta(pattern=rf"^[!#-[\]-~]{{1,{MAX_SCOPE_CHARACTERS}}}$")]],
    msgspec.Meta(min_length=1, description='a list of names of scopes, such as ["read", "deploy"]'),
]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting, under the name that it has in the file. The types say what may be written there."""

    socket_path: FilePath
    state_path: FilePath
    session_expiry: Duration = DEFAULT_SESSION_SECONDS
    session_max_lifetime: Duration | None = None
    revoke_on_reuse: Switch = False
    audit_uses: AuditUses = "none"
    passphrase_file: FilePath = FilePath("")
    start_locked: Switch = False
    lock_after_idle: Duration = NEVER
    lock_on_suspend: Switch = True
    lock_on_screen_lock: Switch = True
    lock_on_signal: Switch = True
    drain_seconds: DrainSeconds = DEFAULT_DRAIN_SECONDS
    log_level: LogLevel = "info"
    log_format: LogFormat = "auto"
    verify_socket_path: FilePath = FilePath("")
    verify_socket_group: GroupName = ""
    verify_socket_mode: SocketMode = "0600"
    ask_socket_path: FilePath = FilePath("")
    ask_socket_group: GroupName = ""
    ask_socket_mode: SocketMode = "0600"
    opening: Opening = "free"
    grantable_scopes: ScopeNames = []  # any

    @property
    def verify_socket(self) -> SharedSocket:
        """Where others can have tokens verified."""
        return SharedSocket(
            VERIFY_SOCKET, self.verify_socket_path, self.verify_socket_group, self.verify_socket_mode
        )

    @property
    def ask_socket(self) -> SharedSocket:
        """Where others can ask for sessions too."""
        return SharedSocket(ASK_SOCKET, self.ask_socket_path, self.ask_socket_group, self.ask_socket_mode)

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
        """The file that is there while the agent is locked on purpose."""
        return Path(self.state_path) / "locked"

    @property
    def idle_seconds(self) -> int | None:
        """`lock_after_idle` in seconds; None for never."""
        return self.lock_after_idle if isinstance(self.lock_after_idle, int) else None

    @property
    def default_max_lifetime(self) -> Duration:
        """How long a session can be renewed if its creator does not say."""
        limit = self.session_max_lifetime
        return DEFAULT_MAX_LIFETIME_SECONDS if limit is None else limit


_TYPES: dict[str, Any] = {field.name: field.type for field in msgspec.structs.fields(Settings)}


def load(config_path: str | None = None, **flags: str | None) -> Settings:
    """Read the settings; ConfigError if the file cannot be read, or a setting is unknown or malformed.

    Without `config_path` the file is the usual one, which need not exist. A flag that is None was not given.
    """
    file = config_path or paths.config_path()
    given: dict[str, Any] = {}
    in_file = _read(config_path)
    with _config_errors(file):
        for name, value in in_file.items():
            given[name] = _checked(name, value)
            # Relative to what? A flag means the caller's folder; a file has none.
            if _TYPES[name] is FilePath and not os.path.isabs(given[name]):
                raise ValueError(f"{name} is not an absolute path")
    for name, flag in flags.items():
        if flag is not None:
            with _config_errors(_FLAGS[name]):
                given[name] = _checked(name, flag)
    # Clients find the agent by the environment, so there it overrides the daemon's own file.
    if flags.get("socket_path") is None and (paths.socket_is_set() or "socket_path" not in given):
        given["socket_path"] = paths.socket_path()
    given.setdefault("state_path", paths.state_dir())
    for name in ("socket_path", "state_path"):
        given[name] = os.path.abspath(given[name])
    with _config_errors(file):
        _check_sockets(given)
        _check_lifetimes(given)
    return Settings(**given)


@contextmanager
def _config_errors(origin: str) -> Iterator[None]:
    """Turn a ValueError into a ConfigError that names the file or flag."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{origin}: {error}") from None


def _checked(name: str, value: object) -> object:
    """The value of a setting; ValueError, which says what may be written, if it has the wrong form."""
    kind = _TYPES.get(name)
    if kind is None:
        raise ValueError(f"there is no setting {name!r}; the settings are {', '.join(_TYPES)}")
    if kind is FilePath:
        return _path(name, value)
    if kind in (Duration, Duration | None):
        return _duration(name, value)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        form = (
            f"one of {', '.join(get_args(kind))}"
            if get_origin(kind) is Literal
            else kind.__metadata__[0].description
        )
        raise ValueError(f"{name} is {form}, not {value!r}") from None


def _path(name: str, value: object) -> str:
    # The value is not repeated in the error: it may be a passphrase in the place of its file's path.
    if value == "":  # an unset shell variable: the default was not meant
        raise ValueError(f"{name} is empty; write a path, or leave it out for the default")
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"{name} is not a path")
    return value


def _duration(name: str, value: object) -> Duration:
    try:
        duration = parse_duration(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if isinstance(duration, int) and duration > MAX_EXPIRY_SECONDS:
        raise ValueError(f"{name} is over 100 years: {value!r}")
    if duration == 0:  # sessions that end at once, an agent that is always locked: nobody means that
        raise ValueError(f"{name} is 0; write {NEVER!r} for no limit")
    return duration


def _check_lifetimes(given: dict[str, Any]) -> None:
    # The default for session_expiry is no contradiction: the session manager cuts it short.
    ttl, limit = given.get("session_expiry"), given.get("session_max_lifetime")
    if isinstance(limit, int) and ttl is not None and (ttl == NEVER or ttl > limit):
        raise ValueError(
            f"session_expiry ({NEVER if ttl == NEVER else format_duration(ttl)}) is longer than "
            f"session_max_lifetime ({format_duration(limit)}); shorten it, or leave it out"
        )


def _check_sockets(given: dict[str, Any]) -> None:
    taken = {os.path.realpath(given["socket_path"]): "of the agent's own socket"}
    for name in (VERIFY_SOCKET, ASK_SOCKET):
        path, group, mode = (f"{name}_{part}" for part in ("path", "group", "mode"))
        for setting in (group, mode):
            if setting in given and path not in given:
                raise ValueError(f"{setting} has no effect without {path}")
        if group in given and given.setdefault(mode, "0660") == "0600":
            raise ValueError(f"{mode} 0600 keeps {group} out; leave one of them out")
        if path in given:
            place = os.path.realpath(given[path])
            if place in taken:
                raise ValueError(f"{path} is the path {taken[place]}; choose another one")
            taken[place] = f"in {path}"


def _read(config_path: str | None) -> dict[str, Any]:
    if config_path == "":
        raise ConfigError("--config is empty; write a path, or leave it out for the default")
    path = Path(config_path or paths.config_path())
    try:
        # Even if there is no file: whoever owns a folder above it could put one there.
        fault = folders_fault(path)
        if fault is not None:
            raise ConfigError(f"the settings: {fault}")
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        import tomllib  # most users have no settings file

        return tomllib.loads(_decoded(path, content))
    except FileNotFoundError:
        _refuse_dangling(path)
        if config_path is None:
            return {}
        raise ConfigError(f"{path} does not exist") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # TOMLDecodeError, or a number that is too long
        raise ConfigError(f"{path} is not TOML: {error}") from None


def _refuse_dangling(path: Path) -> None:
    # A link means that there should be settings, so the defaults are not what the user wants.
    for link in (path, *path.parents):
        if link.is_symlink() and not link.exists():
            raise ConfigError(
                f"{link} is a symbolic link to {os.readlink(link)}, which does not exist; "
                "restore that file, or remove the link"
            )


def _decoded(path: Path, content: bytes) -> str:
    """The text of a file that any editor may have written; ConfigError if its encoding is unclear."""
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{path} has more than {MAX_FILE_BYTES} bytes; that is no settings file")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(f"{path} is UTF-16; save it as UTF-8")
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, byte = before.count(b"\n") + 1, error.object[error.start]
        raise ConfigError(
            f"{path} is not UTF-8: line {line} has the byte 0x{byte:02x}, as in Latin-1 or Windows-1252; "
            "save it as UTF-8"
        ) from None
    if "\r" in text and "\n" not in text:
        raise ConfigError(f"{path} ends its lines with CR alone; save it with LF or CR LF")
    return text.replace("\r\n", "\n")
