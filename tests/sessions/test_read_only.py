"""Methods that only read change nothing: those of the session manager, and those of the wire with all behind them.

A new method has to be classified: as read-only, with a way to call it here, or as one that changes something.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from types import SimpleNamespace

import msgpack
import pytest

from agentd.agent import Core
from agentd.approval import FREE_FOR_ALL, RequestDesk
from agentd.methods import agent_dispatch
from agentd.server import Traffic
from agentd.sessions import SessionManager
from agentd.status import read_status
from agentd_client.errors import AgentdError
from agentd_client.protocol.codec import Request
from tests.operations import CHANGING_METHODS, EVERY, READ_ONLY_METHODS
from tests.server.talk import FakeAgent, FakeCaller


def every_question(token, id):
    """Every way to ask about a session."""
    asker = ({}, {"audience": "a"}, {"scopes": ["b"]}, {"audience": "a", "scopes": ["b"]})
    return [{**what, **more} for what in ({"token": token}, {"id": id}) for more in asker]


def inspect(manager, token, id):
    return [manager.inspect(**question) for question in every_question(token, id)]


async def inspect_token(manager, token, id):
    async with manager._db.transaction() as tran:
        through = await manager.inspect_token(token, tran)
    return [await manager.inspect_token(token), through]


async def list_sessions(manager, token, id):
    conditions = ({}, {"state": "active"}, {"state": "expired"}, {"label": "*"}, {"pid": 1}, {"parent": id})
    pages = [(await manager.list_sessions(limit=2, **each)) for each in conditions]
    return pages + [await manager.list_sessions(after=page.next) for page in pages]


async def list_audit(manager, token, id):
    first = await manager.list_audit(limit=1)
    chosen = ({"after": first.next}, {"since": 0}, {"kind": "refused"}, {"session": id})
    return [first, *[await manager.list_audit(**each) for each in chosen]]


READ_ONLY_CALLS = {
    "inspect": inspect,
    "inspect_token": inspect_token,
    "list_sessions": list_sessions,
    "list_audit": list_audit,
    "session_count": lambda manager, token, id: manager.session_count,
    "key_id": lambda manager, token, id: manager.key_id,
    "expiry": lambda manager, token, id: manager.expiry,
    "checked_lifetime": lambda manager, token, id: manager.checked_lifetime(60),
    "state": lambda manager, token, id: manager.state,
    "observe": lambda manager, token, id: manager.observe(lambda event: None)(),
    "on_event": lambda manager, token, id: manager.on_event(lambda event: None)(),
}
CHANGING = {
    "create_session_manager", "start", "stop", "destroy", "run", "sweep", "setup_key", "reset_key",
    "create_token", "open_session", "renew_token", "revoke_token", "revoke_sessions",
    "verify_token", "verify_nowait", "verify_and_consume", "write_audit_entry", "report_request",
}  # fmt: skip

READ_ONLY_PARAMS = {
    "hello": [{}, {"client": "test", "protocol": 1}],
    "getStatus": [{}],
    "inspectToken": lambda token, id: every_question(token, id),
    "listSessions": lambda token, id: [{}, {"state": "expired"}, {"label": "*", "limit": 1}, {"parent": id}],
    "listAudit": [{}, {"since": 0, "limit": 1}, {"kind": "used", "session": "0"}],
    "listRequests": [{}, {"limit": 1}],
    "subscribe": [{}],
}


def test_every_method_is_classified():
    public = {name for name in dir(SessionManager) if not name.startswith("_")}
    assert public == set(READ_ONLY_CALLS) | CHANGING
    assert not set(READ_ONLY_CALLS) & CHANGING
    assert EVERY == READ_ONLY_METHODS | CHANGING_METHODS
    assert not READ_ONLY_METHODS & CHANGING_METHODS
    assert set(READ_ONLY_PARAMS) == READ_ONLY_METHODS


class Sessions:
    """Sessions of every kind, and everything that a method that only reads could change."""

    def __init__(self, db, manager, clock):
        self._db, self._manager, self._clock = db, manager, clock
        self.asked_about = [("nonsense", "unknown"), (None, "x"), (7, "0" * 64)]

    async def open(self):
        manager = self._manager
        under_earlier_key = await manager.open_session(600, "earlier")
        renewed_once = await manager.renew_token(under_earlier_key.token)
        await manager.reset_key(grace_seconds=6000)
        limited = await manager.open_session(60, "limited", max_uses=2)
        narrow = await manager.open_session(600, "narrow", audience=["a"], scopes=["b"])
        first = await manager.open_session(600, "renewed")
        unseen = await manager.renew_token(first.token)
        child = await manager.open_session(60, "child", parent=unseen.token)
        used = await manager.open_session(600, "used")
        assert await manager.verify_token(used.token)
        ended = await manager.open_session(600, "ended")
        await manager.revoke_token(ended.token)
        made = (under_earlier_key, renewed_once, limited, narrow, first, unseen, child, used, ended)
        self.asked_about += [(created.token, created.id) for created in made]

    async def everything(self):
        """What is stored, what is noted in memory, and the store's revision."""
        await self._db.delete("nothing")  # everything queued is done then
        verifier = self._manager._verifier
        return (
            sorted(self._db.iterate()),
            dict(verifier.uses.last_uses),
            dict(verifier.uses._first_uses),
            self._db.revision,
        )

    async def assert_that_nothing_changes(self, look):
        """While they are live, and when some have expired."""
        for seconds in (0, 100):
            self._clock.advance(seconds)
            *before, revision = await self.everything()
            for token, id in self.asked_about:
                await look(token, id)
            *after, revision_after = await self.everything()
            assert after == before
            assert revision_after == revision


@pytest.fixture
async def sessions(db, manager, clock):
    sessions = Sessions(db, manager, clock)
    await sessions.open()
    return sessions


@pytest.mark.parametrize("name", READ_ONLY_CALLS)
async def test_read_only_methods_of_the_manager_change_nothing(manager, sessions, name):
    async def look(token, id):
        found = READ_ONLY_CALLS[name](manager, token, id)
        if hasattr(found, "__await__"):
            await found

    await sessions.assert_that_nothing_changes(look)


@pytest.mark.parametrize("method", sorted(READ_ONLY_METHODS))
async def test_read_only_methods_over_the_wire_change_nothing(db, key_ring, manager, clock, sessions, method):
    traffic = Traffic()
    agent = SimpleNamespace(
        core=Core(key_ring, db, manager, RequestDesk(manager, FREE_FOR_ALL, clock)),
        commits=1,
        memory_locked=True,
        memory_secret=False,
        locked_at=None,
        lock_reason=None,
        passphrase_state=False,
        wrong_passphrases=0,
    )
    settings = SimpleNamespace(store_path=db.path, socket_path="/socket", opening="free")
    status = partial(read_status, agent, settings, traffic, clock, clock.read())
    logger = logging.getLogger("test")
    dispatch = agent_dispatch(FakeAgent(manager), status, version="1", logger=logger, traffic=traffic)
    answered = 0

    async def look(token, id):
        nonlocal answered
        asked = READ_ONLY_PARAMS[method]
        for params in asked if isinstance(asked, list) else asked(token, id):
            reply = dispatch.answer(Request(1, method, [params]), FakeCaller())
            if reply is None:
                reply = await dispatch.answer_async(Request(1, method, [params]), FakeCaller())
            _, _, error, _ = msgpack.unpackb(reply)
            answered += error is None

    await sessions.assert_that_nothing_changes(look)
    assert answered >= 2 * len(sessions.asked_about)


@pytest.mark.parametrize("name", ["verify_token", "renew_token", "create_token", "revoke_token"])
async def test_a_change_would_be_noticed(manager, sessions, name):
    async def do(token, id):
        with suppress(AgentdError):  # not all can be renewed
            await (manager.create_token() if name == "create_token" else getattr(manager, name)(token))

    with pytest.raises(AssertionError):
        await sessions.assert_that_nothing_changes(do)
