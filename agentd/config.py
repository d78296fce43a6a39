"""The settings: flags before environment, environment before the file, the file before the defaults.

The file is TOML; a setting that is unknown or of the wrong form stops the agent and is named.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from agentd_client import paths
from agentd_client.durations import parse_duration
from agentd_client.errors import ConfigError

DEFAULT_SESSION_SECONDS = 8 * 3600
"""A working day: how long a session lasts where its opener does not say."""

DEFAULT_DRAIN_SECONDS = 5.0
"""For requests in flight when the agent is told to stop; systemd waits far longer before it kills."""

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
        parse_duration(settings.session_expiry)
    except (msgspec.ValidationError, ValueError) as error:
        raise ConfigError(f"{config_path or paths.config_path()}: {error}") from None
    if settings.drain_seconds < 0:
        raise ConfigError("drain_seconds is negative")
    return settings


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
