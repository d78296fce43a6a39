"""Whether an agent and this client have different versions, and what to do about it.

Between an update and the next restart the two differ, and the older one may not have what the newer one asks
for or sends. A client imports this only when a call has failed.
"""

from __future__ import annotations

from .protocol.limits import PROTOCOL_VERSION
from .protocol.results import Hello

_AGENT = "agentd "


def difference(hello: Hello, own: str) -> str | None:
    """What differs and what to do, in words; None if the versions are the same, or it is not agentd.

    Args:
        hello: the agent's answer.
        own: this client's version.
    """
    if not hello.server.startswith(_AGENT):
        return None
    return difference_from(hello.server.removeprefix(_AGENT), own, hello.protocol)


def difference_from(agent: str, own: str, protocol: int = PROTOCOL_VERSION) -> str | None:
    """As `difference`, for the agent's version alone."""
    if agent == own and protocol == PROTOCOL_VERSION:
        return None
    if protocol != PROTOCOL_VERSION:
        both = f"the agent speaks protocol {protocol} and this client protocol {PROTOCOL_VERSION}"
        is_newer = protocol > PROTOCOL_VERSION
    else:
        both = f"the agent is agentd {agent} and this client is {own}"
        is_newer = _numbers(agent) > _numbers(own)
    remedy = "update this client and restart what uses it" if is_newer else "restart the agent"
    return f"{both}: {remedy}"


def _numbers(version: str) -> list[int]:
    # "0.10.0" is newer than "0.9.1"; a part that is not a number, as in development versions, counts as
    # older.
    return [int(part) if part.isascii() and part.isdecimal() else -1 for part in version[:64].split(".")]
