"""The header record: which format a store has, and whose it is.

It is the first thing sealed into a new store and the first thing opened at every start, so a store that
was sealed with another root key is refused before anything could be generated over it.
"""

from __future__ import annotations

from pathlib import Path

from agentd_client.errors import StoreDamagedError, StoreError, StoreKeyMismatchError

from .keypath import HEADER
from .sealing import Sealer

FORMAT_VERSION = 1
"""Raised by a change that an older agentd would misread."""

_PREFIX = "agentd store"


def sealed_header(sealer: Sealer, agent_id: str) -> bytes:
    """The header of a new store, sealed."""
    return sealer.seal(HEADER, f"{_PREFIX} {FORMAT_VERSION}\n{agent_id}".encode())


def check_header(path: Path, sealed: bytes | None, sealer: Sealer, agent_id: str) -> None:
    """Whether this store is one that this agent can use.

    Raises:
        StoreDamagedError: there is no header.
        StoreKeyMismatchError: it was sealed with another root key.
        StoreError: it is of another format version.
    """
    if sealed is None:
        raise StoreDamagedError(
            f"{path} holds a data file without a header; restore it, or begin anew with `agentd init --fresh`"
        )
    mismatch = StoreKeyMismatchError(
        f"{path} was sealed with another root key; put back the key file that it was made with, "
        "or begin anew with `agentd init --fresh`"
    )
    try:
        header = sealer.open(HEADER, sealed)
    except StoreDamagedError:
        raise mismatch from None
    described, _, owner = header.decode(errors="replace").partition("\n")
    if described != f"{_PREFIX} {FORMAT_VERSION}":
        raise StoreError(f"{path} is of a format unknown to this agentd ({described!r}); update agentd")
    if owner != agent_id:
        raise mismatch
