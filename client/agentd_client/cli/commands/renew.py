"""`agentctl renew`: extend the session, and store its new token in the token file."""

from __future__ import annotations

import click

from ...errors import TokenFileBusyError
from ...token_file import TokenFile
from ..current_token import require_token
from ..options import AgentctlCommand, Settings
from ..output import printable, show
from ..wording import ends


@click.command("renew", cls=AgentctlCommand)
@click.pass_obj
def renew_command(settings: Settings) -> None:
    """Extend the session, with a new token.

    The session's lifetime starts again, and the new token replaces the old one in the token file. The old
    one stays valid until the new one was used, and for some seconds more. Programs, and `agentctl verify`,
    renew a session automatically when they use it in the last third of its lifetime; this command does it
    now. No session is renewed beyond its hard maximum (`agentctl inspect`).

    A token in AGENTD_TOKEN or AGENTD_TOKEN_FD cannot be replaced there, and is not renewed.
    """
    found = require_token(settings)
    if not found.is_from_file:
        raise click.UsageError(
            f"the token is in {found.origin}, where it cannot be replaced; name a file with --token-file",
            click.get_current_context(),
        )
    claim = TokenFile(settings.token_path).claim()
    with settings.connect() as agent:
        try:
            if not claim.take(found.text):
                raise TokenFileBusyError(
                    f"another process is replacing the token in {settings.token_path}, or has just done so; "
                    "check (`agentctl inspect`) before you renew again"
                )
            created = agent.renew_token(found.text)
            claim.replace(created.token)
        finally:
            claim.release()
    place = f"the new token is in {settings.token_path}"
    show(
        settings,
        {"id": created.id, "expiresAt": created.expires_at, "tokenFile": settings.token_path},
        human=lambda: [
            f"renewed: session {printable(created.id)}, {ends(created.expires_at, settings.now())}",
            printable(place),
        ],
    )
