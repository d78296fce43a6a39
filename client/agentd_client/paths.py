"""Default paths, and the environment variables that override them, for client and agent.

The rules are those of the XDG Base Directory Specification (an empty or relative value counts as unset).
Without XDG_RUNTIME_DIR it is /run/user/UID if that folder belongs to the user, else the state folder, so that
client and daemon find the same place. Every function raises `EnvironmentVariableError` for a path that
belongs to another user (`sudo` and `su` pass on variables that were meant for somebody else) or depends on
the current folder.
"""

from __future__ import annotations

import os
import stat

from .errors import EnvironmentVariableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SOCKET_VARIABLE = "AGENTD_SOCKET"
TOKEN_PATH_VARIABLE = "AGENTD_SESSION_TOKEN_PATH"  # noqa: S105 - a variable's name
TOKEN_VARIABLE = "AGENTD_TOKEN"  # noqa: S105 - a variable's name
TOKEN_FD_VARIABLE = "AGENTD_TOKEN_FD"  # noqa: S105 - a variable's name
TOKEN_VARIABLES = (TOKEN_VARIABLE, TOKEN_FD_VARIABLE, TOKEN_PATH_VARIABLE)

_USER_RUNTIME = "/run/user/{uid}"


def _folder(environ: Mapping[str, str], variable: str, *default: str) -> str:
    value = environ.get(variable, "")
    if value and os.path.isabs(value):
        return value
    return os.path.join(_home(environ, variable), *default)


def _home(environ: Mapping[str, str], variable: str) -> str:
    """The user's own home; the error names `variable`, which could be set instead, unless it is empty."""
    home, origin = environ.get("HOME"), "HOME is"
    if home is None:
        home, origin = _home_of_user(), "HOME is not set, and this user's home is"
    if home is None:
        reason = f"HOME is not set, and uid {os.geteuid()} is not in the password database"
    elif not home:
        reason = "HOME is empty"
    elif not os.path.isabs(home):
        reason = f"{origin} {home!r}, which is not an absolute path"
    else:
        owner = _owner(home)
        if owner == os.geteuid():
            return home
        reason = f"{origin} {home}, which {_whose(owner)}"
    raise EnvironmentVariableError(
        f"{reason}; set HOME to a folder of your own (`sudo -H`, `su -`)" + (variable and f", or {variable}")
    )


def _home_of_user() -> str | None:
    import pwd  # rarely needed

    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return None


def _owner(path: str) -> int | None:
    try:
        return os.stat(path).st_uid
    except OSError:
        return None


def _whose(owner: int | None) -> str:
    if owner is None:
        return "does not exist"
    return f"belongs to uid {owner}, and you are uid {os.geteuid()}"


def home(environ: Mapping[str, str] = os.environ) -> str:
    """The user's home, for what no XDG variable moves."""
    return _home(environ, "")


def data_home(environ: Mapping[str, str] = os.environ) -> str:
    """``$XDG_DATA_HOME``, for what other programs look for there."""
    return _folder(environ, "XDG_DATA_HOME", ".local", "share")


def state_dir(environ: Mapping[str, str] = os.environ) -> str:
    """Keys and store: ``$XDG_STATE_HOME/agentd``."""
    return os.path.join(_folder(environ, "XDG_STATE_HOME", ".local", "state"), "agentd")


def config_path(environ: Mapping[str, str] = os.environ) -> str:
    """The settings file: ``$XDG_CONFIG_HOME/agentd/config.toml``."""
    return os.path.join(_folder(environ, "XDG_CONFIG_HOME", ".config"), "agentd", "config.toml")


def runtime_dir(environ: Mapping[str, str] = os.environ) -> str:
    """The folder of the socket and the token file; systemd removes it after the last logout."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    uid = os.geteuid()
    if runtime and os.path.isabs(runtime):
        owner = _owner(runtime)
        if owner not in (uid, None):  # if it does not exist yet, its maker will own it
            raise EnvironmentVariableError(
                f"XDG_RUNTIME_DIR is {runtime}, which {_whose(owner)}; unset it, or set it to your own "
                f"({_USER_RUNTIME.format(uid=uid)})"
            )
        return os.path.join(runtime, "agentd")
    candidate = _USER_RUNTIME.format(uid=uid)
    try:
        found = os.lstat(candidate)
    except OSError:
        pass  # no such folder: the usual case in a container
    else:
        if stat.S_ISDIR(found.st_mode) and found.st_uid == uid:
            return os.path.join(candidate, "agentd")
    return os.path.join(state_dir(environ), "run")


def socket_path(environ: Mapping[str, str] = os.environ) -> str:
    """The agent's socket: ``AGENTD_SOCKET``, else ``agent.sock`` in the runtime folder."""
    return environ.get(SOCKET_VARIABLE) or os.path.join(runtime_dir(environ), "agent.sock")


def session_token_path(environ: Mapping[str, str] = os.environ) -> str:
    """The token file: ``AGENTD_SESSION_TOKEN_PATH``, else ``session-token`` in the runtime folder."""
    return environ.get(TOKEN_PATH_VARIABLE) or os.path.join(runtime_dir(environ), "session-token")


def token_variable(environ: Mapping[str, str] = os.environ) -> str | None:
    """The variable that hands a token over; None if the token file (`session_token_path`) applies.

    The order of precedence is: ``AGENTD_TOKEN``, then ``AGENTD_TOKEN_FD``, then the token file.
    """
    for variable in (TOKEN_VARIABLE, TOKEN_FD_VARIABLE):
        if environ.get(variable, "").strip():
            return variable
    return None


def without_tokens(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for another program, without the variables that name or hold a token."""
    return {name: value for name, value in environ.items() if name not in TOKEN_VARIABLES}


def socket_is_set(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether ``AGENTD_SOCKET`` says where the socket is."""
    return bool(environ.get(SOCKET_VARIABLE))
