"""The settings: flags before environment, environment before the file, the file before the defaults.

The file is TOML; a setting that is unknown or of the wrong form stops the agent and is named.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from agentd_client import paths
from agentd_client.durations import parse_duration
from agentd_client.errors import ConfigError
from agentd_client.protocol.limits import MAX_EXPIRY_SECONDS

DEFAULT_SESSION_SECONDS = 8 * 3600
"""A working day: how long a session lasts where its opener does not say."""

DEFAULT_DRAIN_SECONDS = 5.0
"""For requests in flight when the agent is told to stop; systemd waits far longer before it kills."""

MAX_DRAIN_SECONDS = 3600.0
"""Longer is a slip of units: nobody waits an hour for an agent to stop."""

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json"]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set, by the names that the file uses."""

    socket_path: str = ""
    state_path: str = ""
    session_expiry: str | int = DEFAULT_SESSION_SECONDS
    drain_seconds: float = DEFAULT_DRAIN_SECONDS
    log_level: LogLevel = "info"
    log_format: LogFormat = "auto"

    @property
    def keys_path(self) -> Path:
        """The folder of the key file."""
        return Path(self.state_path) / "keys"

    @property
    def store_path(self) -> Path:
        """The folder of the store."""
        return Path(self.state_path) / "store"

    @property
    def expiry(self) -> int | str:
        """`session_expiry` as the session manager takes it: whole seconds or `NEVER`."""
        return parse_duration(self.session_expiry)


def load(
    config_path: str | None = None,
    *,
    socket_path: str | None = None,
    state_path: str | None = None,
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
        "log_level": log_level,
        "log_format": log_format,
    }
    given = found | {name: value for name, value in flags.items() if value is not None}
    # The client finds the agent by the environment: there it is stronger than the daemon's own file.
    if socket_path is None and (paths.socket_is_set() or not given.get("socket_path")):
        given["socket_path"] = paths.socket_path()
    given["state_path"] = given.get("state_path") or paths.state_dir()
    try:
        settings = msgspec.convert(given, Settings)
        _check(settings)
        for name in ("socket_path", "state_path"):
            _check_path(found.get(name), name)
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigError(f"{config_path or paths.config_path()}: {error}") from None
    return msgspec.structs.replace(
        settings,
        socket_path=os.path.abspath(settings.socket_path),
        state_path=os.path.abspath(settings.state_path),
    )


def _check_path(in_file: object, name: str) -> None:
    # Relative to what? A flag means the caller's folder; a file has none.
    if in_file and not os.path.isabs(str(in_file)):
        raise ValueError(f"{name} is not an absolute path: {in_file!r}")


def _check(settings: Settings) -> None:
    expiry = settings.expiry
    if isinstance(expiry, int) and expiry > MAX_EXPIRY_SECONDS:
        raise ValueError(f"session_expiry is over 100 years: {settings.session_expiry!r}")
    if not 0 <= settings.drain_seconds <= MAX_DRAIN_SECONDS:  # which a NaN is not either
        raise ValueError(f"drain_seconds is a number of seconds from 0 to {MAX_DRAIN_SECONDS:g}")


def _read(config_path: str | None) -> dict[str, object]:
    path = Path(config_path or paths.config_path())
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        if config_path is None:
            return {}
        raise ConfigError(f"{path} does not exist") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
