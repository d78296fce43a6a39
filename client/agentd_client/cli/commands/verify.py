"""`agentctl verify`: whether a token is valid, answered by the exit code."""

from __future__ import annotations

import click

from ...protocol.methods import to_wire
from ..current_token import current_token, only_stdin, token_from_stdin
from ..exit_codes import DONE, NO
from ..options import AgentctlCommand, Settings
from ..output import show
from ..parameters import agent_uid_option, asked_audience, asked_scopes, names
from ..wording import verdict


@click.command("verify", cls=AgentctlCommand)
@click.argument("from_stdin", metavar="[-]", required=False, callback=only_stdin)
@asked_audience
@asked_scopes
@agent_uid_option
@click.pass_obj
def verify_command(
    settings: Settings,
    from_stdin: bool,
    audience: str | None,
    scopes: tuple[str, ...],
    agent_uid: int | None,
) -> int:
    """Exit 0 if a token is valid, 1 if it is not.

    It verifies the current token, or with `-` the token on standard input; never an argument. The current
    token is that in AGENTD_TOKEN, else in the descriptor AGENTD_TOKEN_FD, else in the token file, whose path
    AGENTD_SESSION_TOKEN_PATH sets. AGENTD_SOCKET sets the agent's socket.

    Verifying is a use of the session: it counts if uses are limited, and the session of the token file is
    renewed in the last third of its lifetime. `agentctl inspect` has no such effects.

    Any other exit code means that the answer is not known: without an agent it is 69, logged in or not. In a
    pipe it prints `valid`, or `invalid` and the code of the reason.

    With --socket PATH --agent-uid UID it asks at the verify socket of another user's agent. The token is
    only sent if that user listens there, and the answer does not name the session.

    Valid means: the session was opened over the agent's socket and has not ended. Any program that runs as
    the user and can reach the socket can open sessions, unless the agent's settings leave that to a person.
    """
    token: str | None = None
    if from_stdin:
        token = token_from_stdin()
    elif (found := current_token(settings)) is not None and not found.is_from_file:
        token = found.text
    with settings.connect(agent_uid) as agent:
        if token is not None:
            answer = agent.check_token(token, audience=audience, scopes=names(scopes))
        else:
            answer = agent.check_session(
                settings.session(), audience=audience, scopes=names(scopes), clock=settings.now
            )
    show(
        settings,
        to_wire(answer),
        human=lambda: [verdict(answer, settings.now())],
        plain=["valid" if answer.valid else f"invalid {answer.reason or ''}".rstrip()],
    )
    return DONE if answer.valid else NO
