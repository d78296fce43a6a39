"""However a request ends, its asker is told by a code of its own, at once, and nothing is left behind."""

from __future__ import annotations

import signal
from contextlib import ExitStack

import pytest

from agentd.sessions import Instant
from agentd.testing import MovableClock, TestAgent
from agentd_client.protocol.limits import MAX_REQUEST_SECONDS
from tests.e2e.daemon import START_SECONDS, serving
from tests.e2e.locked import PASSPHRASE, protect
from tests.e2e.program import Program

ASKERS = 8
SOCKETS = ("owner", "ask")


@pytest.fixture
def programs():
    """Starts programs, which are siblings."""
    with ExitStack() as stack:
        yield lambda path: stack.enter_context(Program(path))


@pytest.fixture
def configure(home):
    def configure(text: str = "") -> None:
        (home.runtime / "ask").mkdir(mode=0o700)
        config = home.path / "config" / "agentd" / "config.toml"
        config.parent.mkdir(parents=True)
        config.write_text(f'ask_socket_path = "{home.runtime}/ask/ask.sock"\n{text}')

    return configure


@pytest.fixture
def waiting(home, programs):
    """Starts programs that wait for a person, half of them at the ask socket; returns them once all do."""

    def start(owner, count=ASKERS):
        paths = {"owner": home.socket, "ask": home.runtime / "ask" / "ask.sock"}
        askers = [programs(paths[SOCKETS[number % 2]]) for number in range(count)]
        for asker in askers:
            asker.ask("requestToken", expiry=600)
        while owner.get_status().requests < count:
            pass
        return askers

    return start


def shown(owner):
    return owner.list_requests().requests


# --- what is refused, and is shown to nobody ---


def test_what_nobody_can_grant_is_shown_to_nobody(home, configure, programs):
    configure('grantable_scopes = ["read"]\n')
    with serving(home) as daemon, daemon.client() as owner:
        for path in (home.socket, home.runtime / "ask" / "ask.sock"):
            asker = programs(path)
            for scopes in (["admin"], ["read", "admin"], [], None):
                assert asker.call("requestToken", scopes=scopes, wait=0).code == "NOT_GRANTABLE"
            assert asker.call("requestToken", scopes=["read"], wait=0).code is None, "it has not asked before"
        assert [request.scopes for request in shown(owner)] == [["read"], ["read"]]
        while len(entries := owner.list_audit().entries) < 2:  # they are written in the background
            pass
        assert [entry.kind for entry in entries] == ["requested", "requested"]


# --- decisions that cannot be carried out ---


@pytest.mark.parametrize(
    "wider",
    [
        {"scopes": ["read", "admin"]},
        {"expiry": 601},
        {"expiry": "never"},
        {"maxUses": 6},
    ],
    ids=str,
)
def test_a_decision_that_widens_is_refused_and_the_request_still_waits(home, daemon, programs, wider):
    asker, person = programs(home.socket), programs(home.socket)
    asked = {"scopes": ["read"], "expiry": 600, "maxUses": 5}
    request_id = asker.call("requestToken", wait=0, **asked).result["id"]
    assert (
        person.call("decideRequest", id=request_id, decision="approve", **wider).code == "NOT_WITHIN_REQUEST"
    )
    with daemon.client() as owner:
        assert [request.id for request in shown(owner)] == [request_id]
        assert owner.list_sessions().sessions == []
    assert person.call("decideRequest", id=request_id, decision="approve").code is None
    assert asker.call("requestToken", id=request_id).result["maxUses"] == 5


def test_a_decision_after_the_asker_has_died_opens_nothing(home, daemon, programs):
    asker, person = programs(home.socket), programs(home.socket)
    request_id = asker.call("requestToken", wait=0, expiry=600).result["id"]
    asker.end()
    # Whether or not the agent has noticed by now.
    assert person.call("decideRequest", id=request_id, decision="approve").code in (
        "NO_SUCH_REQUEST",
        "OWN_REQUEST",
    )
    with daemon.client() as owner:
        while shown(owner):
            pass
        for decision in ("approve", "deny"):
            assert person.call("decideRequest", id=request_id, decision=decision).code == "NO_SUCH_REQUEST"
        assert owner.list_sessions().sessions == []


# --- the agent's own end ---


def test_a_lock_does_not_wait_for_a_person_and_whoever_does_is_told(home, configure, programs, waiting):
    configure()
    protect(home)
    with serving(home) as daemon, daemon.client() as owner:
        owner.unlock(PASSPHRASE)
        remembered, person = programs(home.socket), programs(home.socket)
        asked = {"expiry": 60, "wait": 0}
        request_id = remembered.call("requestToken", **asked).result["id"]
        assert person.call("decideRequest", id=request_id, decision="approve", remember=3600).code is None
        askers = waiting(owner)
        owner.lock()
        assert [asker.answer().code for asker in askers] == ["LOCKED"] * ASKERS
        assert person.call("listRequests").code == "LOCKED"
        assert remembered.call("requestToken", **asked).code == "LOCKED"
        assert owner.get_status().requests == 0
        owner.unlock(PASSPHRASE)
        assert shown(owner) == []
        assert owner.list_sessions().sessions == [], "nobody had collected it"
        assert remembered.call("requestToken", **asked).result["token"] is None, "a person is asked again"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_does_not_wait_for_a_person_and_whoever_does_is_told(home, configure, waiting, number):
    configure(f"drain_seconds = {2 * START_SECONDS:.0f}\n")
    with serving(home) as daemon:
        with daemon.client() as owner:
            askers = waiting(owner)
        assert daemon.signal(number) == 0, "within START_SECONDS"
        assert [asker.answer().code for asker in askers] == ["STOPPING"] * ASKERS
    with serving(home) as daemon, daemon.client() as owner:
        assert shown(owner) == []
        assert owner.list_sessions().sessions == []


# --- clocks ---


class SettableClock(MovableClock):
    """A clock that can also be set, which moves the time of day alone."""

    set_by = 0.0

    def read(self) -> Instant:
        now = super().read()
        return now._replace(wall=now.wall + self.set_by)


@pytest.fixture
def agent():
    agent = TestAgent()
    agent.clock = SettableClock()
    with agent:
        yield agent


def test_time_that_passes_ends_a_request_also_where_the_machine_was_suspended(agent, programs):
    asker = programs(agent.ask_socket_path)
    asker.ask("requestToken", expiry=60)
    while not shown(agent.client):
        pass
    agent.advance(MAX_REQUEST_SECONDS)
    assert asker.answer().code == "REQUEST_EXPIRED"
    assert shown(agent.client) == []


def test_a_clock_that_is_set_forward_ends_a_request_and_one_set_back_extends_none(agent, programs):
    asker, person = programs(agent.ask_socket_path), programs(agent.socket_path)
    asker.ask("requestToken", expiry=60)
    while not shown(agent.client):
        pass
    agent.clock.set_by = 10_000.0
    assert asker.answer().code == "REQUEST_EXPIRED"
    asker.ask("requestToken", expiry=60)
    while not shown(agent.client):
        pass
    (request,) = shown(agent.client)
    agent.clock.set_by = -10_000.0
    assert [each.id for each in shown(agent.client)] == [request.id]
    agent.advance(MAX_REQUEST_SECONDS)
    assert asker.answer().code == "REQUEST_EXPIRED"
    assert person.call("decideRequest", id=request.id, decision="approve").code == "NO_SUCH_REQUEST"


@pytest.mark.parametrize("set_by", [0.0, -10_000.0])
def test_nor_does_it_extend_what_was_remembered(agent, programs, set_by):
    asker, person = programs(agent.ask_socket_path), programs(agent.socket_path)
    request_id = asker.call("requestToken", expiry=60, wait=0).result["id"]
    assert person.call("decideRequest", id=request_id, decision="approve", remember=600).code is None
    assert asker.call("requestToken", expiry=30, wait=0).result["token"]
    agent.clock.set_by = set_by
    agent.advance(600)
    assert asker.call("requestToken", expiry=30, wait=0).result["token"] is None
