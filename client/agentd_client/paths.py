"""Where things live: the one place that reads the environment for paths. The daemon uses it too.

Rules: XDG Base Directory Specification (an empty or relative value counts as unset), and with no
XDG_RUNTIME_DIR (a bare container, cron, root) /run/user/UID where that folder is the user's own, else
the state folder; so client and daemon find the same place without a word to each other.
"""

from __future__ import annotations

import os
import stat
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
    home = environ.get("HOME") or os.path.expanduser("~")
    return os.path.join(home, *default)


def state_dir(environ: Mapping[str, str] = os.environ) -> str:
    """Keys and store: ``$XDG_STATE_HOME/agentd``."""
    return os.path.join(_folder(environ, "XDG_STATE_HOME", ".local", "state"), "agentd")


def config_path(environ: Mapping[str, str] = os.environ) -> str:
    """The settings file: ``$XDG_CONFIG_HOME/agentd/config.toml``."""
    return os.path.join(_folder(environ, "XDG_CONFIG_HOME", ".config"), "agentd", "config.toml")


def runtime_dir(environ: Mapping[str, str] = os.environ) -> str:
    """The folder of the socket and the token file; gone after the last logout where systemd keeps it."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.path.isabs(runtime):
        return os.path.join(runtime, "agentd")
    uid = os.geteuid()
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
    """The variable that hands a token over; None where the token file (`session_token_path`) counts.

    This is the one order of precedence: ``AGENTD_TOKEN``, then ``AGENTD_TOKEN_FD``, then the token file.
    """
    for variable in (TOKEN_VARIABLE, TOKEN_FD_VARIABLE):
        if environ.get(variable, "").strip():
            return variable
    return None


def without_tokens(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for another program: without the variables that name a token or hold one."""
    return {name: value for name, value in environ.items() if name not in TOKEN_VARIABLES}


def environment_token(environ: Mapping[str, str] = os.environ) -> str | None:
    """The token handed over in ``AGENTD_TOKEN`` or by the descriptor in ``AGENTD_TOKEN_FD``, if any.

    Raises:
        TokenFileError: the descriptor cannot be read or holds no token.
    """
    variable = token_variable(environ)
    if variable is None:
        return None
    given = environ[variable].strip()
    if variable == TOKEN_VARIABLE:
        return given
    from .token_descriptor import read_token  # needed by few, and it needs this module

    return read_token(given)


def socket_is_set(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether ``AGENTD_SOCKET`` says where the socket is."""
    return bool(environ.get(SOCKET_VARIABLE))
