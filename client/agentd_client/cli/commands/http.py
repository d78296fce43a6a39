"""`agentctl http`: token checks over HTTP, for reverse proxies and resource servers."""

from __future__ import annotations

import logging
import socket

import click

from ...errors import ConfigError
from ...transport.pool import MAX_UID
from ..exit_codes import DONE
from ..options import AgentctlCommand, Settings
from ..parameters import asked_audience, asked_scopes, names
from ..report import remark


@click.command("http", cls=AgentctlCommand)
@click.option("--listen", required=True, metavar="unix:PATH|127.0.0.1:PORT|fd:N", help="Where to listen.")
@click.option(
    "--mode",
    type=click.Choice(["0600", "0660", "0666"]),
    default="0600",
    show_default=True,
    help="Who can connect to a Unix socket: you, its group too, or all users.",
)
@click.option(
    "--agent-uid",
    type=click.IntRange(0, MAX_UID),
    metavar="UID",
    help="The user whose agent is at --socket.  [default: you]",
)
@asked_audience
@asked_scopes
@click.option("--explicit-scopes", is_flag=True, help="Refuse sessions that name no scopes, which have all.")
@click.option("--cookie", metavar="NAME", help="A cookie that may hold the token, for /check.")
@click.option(
    "--allow-host", multiple=True, metavar="NAME", help="A name in Host and Origin, beside loopback."
)
@click.option("--cache", is_flag=True, help="Keep a yes while the agent's events say that it holds.")
@click.option("--access-log", is_flag=True, help="Log requests to standard error, without tokens.")
@click.pass_obj
def http_command(
    settings: Settings,
    listen: str,
    mode: str,
    agent_uid: int | None,
    audience: str | None,
    scopes: tuple[str, ...],
    explicit_scopes: bool,
    cookie: str | None,
    allow_host: tuple[str, ...],
    cache: bool,
    access_log: bool,
) -> int:
    """Check tokens over HTTP until SIGTERM or Ctrl-C.

    `/check` answers a reverse proxy (nginx auth_request, Caddy forward_auth, Traefik) with 204, 401,
    403 or 503 for the bearer token of the request, with `?scope=` and `?audience=` as needed. `/ext_authz/`
    is for Envoy. `/introspect` answers a resource server by RFC 7662. `/health` says if the agent answers.

    It listens on a Unix socket or on loopback only, holds no key, and asks the agent about each request, at
    its own socket or with --socket at its verify socket. Whoever can connect can have tokens checked.

    --scope and --audience apply to every request, beside what it asks for itself.
    """
    try:
        from ...ext.guard import Guard
        from ...http import LOOPBACK_HOSTS, Application
        from ...http_server import listening, serve
    except ImportError as error:
        raise ConfigError(f"{error.name} is missing: install agentd-client with the extra http") from None
    guard = Guard(
        scopes=names(scopes) or (),
        audience=audience,
        explicit_scopes=explicit_scopes,
        cookie=cookie,
        cache=cache,
        socket_path=settings.socket,
        agent_uid=agent_uid,
        timeout=settings.timeout,
    )
    with listening(listen, int(mode, 8)) as listener:
        # No browser connects to a Unix socket, and proxies pass on the host that they were asked for.
        hosts = None if listener.family == socket.AF_UNIX else {*LOOPBACK_HOSTS, *allow_host}
        remark(settings, f"checking tokens at {listen}")
        serve(Application(guard, hosts=hosts, access_log=_log() if access_log else None), listener)
    return DONE


def _log() -> logging.Logger:
    logger = logging.getLogger("agentd_client.http")
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler())
    return logger
