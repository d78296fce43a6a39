"""The methods that lock and unlock the agent and change its passphrase; they work while it is locked."""

from __future__ import annotations

from agentd_client.protocol import methods
from agentd_client.protocol.results import LockState, Protection

from .dispatch import Caller, Dispatch
from .interface import Locking
from .parameters import Params, ParamsWithSecrets, PassphraseBytes


class UnlockParams(ParamsWithSecrets, frozen=True):
    """The passphrase, as the person typed it."""

    passphrase: PassphraseBytes


class ChangePassphraseParams(ParamsWithSecrets, frozen=True):
    """The present one and the next one; nil where there is none, or is to be none."""

    old: PassphraseBytes | None = None
    new: PassphraseBytes | None = None


class LockingMethods:
    """Their handlers."""

    def __init__(self, agent: Locking) -> None:
        self._agent = agent

    async def lock(self, params: Params, caller: Caller) -> LockState:
        """Wipe the keys."""
        await self._agent.lock(by=caller.described())
        return LockState(True)

    async def unlock(self, params: UnlockParams, caller: Caller) -> LockState:
        """Bring them back."""
        by, process = caller.described(), caller.peer.process
        await self._agent.unlock(params.passphrase.bytes, by, process, caller.hang_up_scope())
        return LockState(False)

    async def change_passphrase(self, params: ChangePassphraseParams, caller: Caller) -> Protection:
        """Lock the key file with another passphrase, or with none."""
        by = caller.described()
        old, new = (None if each is None else each.bytes for each in (params.old, params.new))
        waiting = caller.hang_up_scope()
        return Protection(await self._agent.change_passphrase(old, new, by, caller.peer.process, waiting))


def register_locking(dispatch: Dispatch, agent: Locking) -> None:
    """Add these methods to a table."""
    handlers = LockingMethods(agent)
    dispatch.register_async(methods.LOCK, Params, handlers.lock)
    dispatch.register_async(methods.UNLOCK, UnlockParams, handlers.unlock)
    dispatch.register_async(methods.CHANGE_PASSPHRASE, ChangePassphraseParams, handlers.change_passphrase)
