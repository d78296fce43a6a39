"""Where sessions are opened by approval: no program holds one that nobody granted and no parent covers.

The test is the ancestor of every program here, and the programs are siblings: one asks and holds what it was granted,
one decides, as a person on another terminal would, and one tries everything.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from agentd_client import Client
from tests.e2e.daemon import Home, serving
from tests.e2e.locked import PASSPHRASE, protect
from tests.e2e.program import Answer, Program

STEPS = 250
"""Of a random history."""

OWN_PASSPHRASE = "one that the program has chosen"


class World:
    """An agent, and the programs around it.

    granted: the ids of the sessions that the person has granted. dead: tokens that were never made, or have ended.
    """

    def __init__(self, home: Home, owner: Client, programs: ExitStack, passphrase: str | None) -> None:
        self.owner = owner
        self.passphrase = passphrase
        self._home, self._programs = home, programs
        self.person, self.holder, self.attacker = (self.program() for _ in range(3))
        self.granted: set[str] = set()
        self.dead = ["", "v4.local.AAAA", "a" * 300]

    def program(self) -> Program:
        return self._programs.enter_context(Program(self._home.socket))

    def grant(self, program: Program, **asked: Any) -> dict[str, Any]:
        """What a program is granted that asks for a session."""
        request_id = program.call("requestToken", wait=0, **asked).result["id"]
        granted = self.decide(request_id)
        assert granted.code is None
        return program.call("requestToken", id=request_id, wait=0).result

    def end_sessions(self) -> None:
        """Add the tokens of a revoked and of an expired session to the dead ones."""
        ended = [self.grant(self.holder, expiry=seconds)["token"] for seconds in (600, 1)]
        self.holder.call("revokeToken", token=ended[0])
        while self.owner.verify_token(ended[1]):
            pass
        self.dead += ended

    def decide(self, request_id: str, **granting: Any) -> Answer:
        if self.passphrase is not None:
            granting["passphrase"] = self.passphrase
        decision = self.person.call("decideRequest", id=request_id, decision="approve", **granting)
        if decision.code is None:
            self.granted.add(decision.result["sessionId"])
        return decision

    def uncovered(self) -> list[str]:
        """Sessions that nobody granted, and that have no such parent either."""
        sessions, after = {}, None
        while True:
            page = self.owner.list_sessions(after=after)
            sessions.update({session.id: session.parent for session in page.sessions})
            if (after := page.next) is None:
                break

        def is_covered(session_id: str | None) -> bool:
            return session_id in self.granted or (
                session_id is not None and is_covered(sessions.get(session_id))
            )

        return [session_id for session_id in sessions if not is_covered(session_id)]


@pytest.fixture(params=["ask", "passphrase", "ask, and the key file has a passphrase"])
def world(request, home) -> Iterator[World]:
    opening, _, is_protected = request.param.partition(",")
    config = home.path / "config" / "agentd" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'opening = "{opening}"\n')
    passphrase = None
    if is_protected or opening == "passphrase":
        protect(home)
        passphrase = PASSPHRASE if opening == "passphrase" else None
    with ExitStack() as stack:
        daemon = stack.enter_context(serving(home))
        owner = stack.enter_context(daemon.client())
        owner.unlock(PASSPHRASE)  # does nothing if it is not locked
        world = World(home, owner, stack, passphrase)
        yield world


# --- every method by itself ---

Attempts = Callable[[World], list[dict[str, Any]]]

NOTHING: list[dict[str, Any]] = [{}]
ATTEMPTS: dict[str, Attempts] = {
    "hello": lambda world: NOTHING,
    "getStatus": lambda world: NOTHING,
    "subscribe": lambda world: NOTHING,
    "createToken": lambda world: [
        {},
        {"expiry": 1},
        {"expiry": 0},
        {"expiry": "never", "maxLifetime": "never"},
        {"scopes": [], "audience": []},
        {"scopes": ["read"], "audience": ["web"], "maxUses": 1, "label": "mine"},
        {"bound": True},
        {"parent": None},
        *({"parent": token} for token in world.dead),
    ],
    "requestToken": lambda world: [
        {"wait": 0, "expiry": 61},
        {"wait": 0, "scopes": ["read"], "bound": True, "reason": "please"},
        *({"parent": token} for token in world.dead),
        *({"id": request.id, "wait": 0} for request in world.owner.list_requests().requests),
        {"id": "", "wait": 0},
    ],
    "decideRequest": lambda world: [
        {"id": request.id, "decision": decision, **more}
        for request in world.owner.list_requests().requests
        if request.asker.pid == world.attacker.process.pid
        for decision, more in (
            ("approve", {}),
            ("approve", {"remember": 60}),
            ("approve", {"scopes": ["read"], "expiry": 1, "maxUses": 1}),
            ("approve", {"passphrase": OWN_PASSPHRASE}),
            ("grant", {}),
        )
    ],
    "withdrawRequest": lambda world: [{"id": each.id} for each in world.owner.list_requests().requests],
    "listRequests": lambda world: NOTHING,
    "verifyToken": lambda world: [{"token": token} for token in world.dead],
    "inspectToken": lambda world: [
        *({"token": token} for token in world.dead),
        *({"id": session.id} for session in world.owner.list_sessions().sessions),
    ],
    "renewToken": lambda world: [
        *({"token": token} for token in world.dead),
        *({"token": session.id} for session in world.owner.list_sessions().sessions),
    ],
    "listSessions": lambda world: NOTHING,
    "listAudit": lambda world: NOTHING,
    "revokeToken": lambda world: [{"token": token} for token in world.dead],
    "revokeSessions": lambda world: [{"state": "expired"}, {"label": "no such label"}],
    "resetKey": lambda world: [{"graceSeconds": 60}],
    "lock": lambda world: NOTHING,
    "unlock": lambda world: [{"passphrase": OWN_PASSPHRASE}],
    "changePassphrase": lambda world: [
        {"new": OWN_PASSPHRASE},
        {"old": "wrong", "new": OWN_PASSPHRASE},
    ],
}
"""With what a program calls each method that holds nothing, after those above it."""


def tokens_in(answer: Answer) -> list[str]:
    found = answer.result if isinstance(answer.result, dict) else {}
    return [found["token"]] if found.get("token") else []


def test_no_method_by_itself_opens_a_session(world):
    methods = world.attacker.call("hello").result["capabilities"]
    assert set(methods) == set(ATTEMPTS), "consider what a program can get by it"
    world.end_sessions()
    world.holder.call("requestToken", wait=0, expiry=62)
    for name, attempts in ATTEMPTS.items():
        for generation, params in itertools.product((0, 1), attempts(world)):
            if generation == 0 or not {"passphrase", "old"} & set(params):  # wrong ones make everybody wait
                answer = world.attacker.call(
                    name, generation=generation, connection=name == "subscribe", **params
                )
                assert tokens_in(answer) == [], f"{name}: {list(params)}"
                if world.owner.get_status().locked:
                    world.owner.unlock(PASSPHRASE)
        assert world.uncovered() == [], name


# --- methods together ---


def test_it_cannot_decide_about_its_own_request_in_whichever_way_it_connects(world):
    refused = "OWN_REQUEST" if world.passphrase is None else "PASSPHRASE"
    for asking, deciding in itertools.product((0, 1), repeat=2):
        asked = world.attacker.call("requestToken", generation=asking, wait=0, expiry=60 + asking).result
        for connection in (0, 1):
            for more in ({}, {"remember": 60}, {"scopes": ["read"], "expiry": 1}):
                answer = world.attacker.call(
                    "decideRequest",
                    generation=deciding,
                    connection=connection,
                    id=asked["id"],
                    decision="approve",
                    **more,
                )
                assert answer == (refused, None)
    assert world.uncovered() == []
    assert world.decide(asked["id"]).code is None, "the person can"


def test_a_passphrase_of_its_own_choice_is_no_proof(world):
    if world.owner.get_status().protected:
        return  # it cannot change that one
    attacker = world.attacker
    assert attacker.call("changePassphrase", new=OWN_PASSPHRASE).code is None
    for _ in range(2):
        asked = attacker.call("requestToken", wait=0, expiry=60).result
        answer = attacker.call("decideRequest", id=asked["id"], decision="approve", passphrase=OWN_PASSPHRASE)
        assert answer == ("NO_PASSPHRASE", None)
        assert attacker.call("lock").code is None
        assert attacker.call("unlock", passphrase=OWN_PASSPHRASE).code is None
    assert world.uncovered() == []


def test_of_anothers_requests_it_gets_nothing(world):
    request_id = world.holder.call("requestToken", wait=0, expiry=60).result["id"]
    for generation in (0, 1):
        for name, more in (("requestToken", {"wait": 0}), ("withdrawRequest", {})):
            assert (
                world.attacker.call(name, generation=generation, id=request_id, **more).code
                == "NO_SUCH_REQUEST"
            )
    decided = world.decide(request_id)
    assert world.attacker.call("requestToken", id=request_id, wait=0).code == "NO_SUCH_REQUEST"
    assert (
        world.holder.call("requestToken", id=request_id, wait=0).result["sessionId"]
        == decided.result["sessionId"]
    )


def test_what_was_remembered_for_another_program_is_not_granted_to_it(world):
    asked = {"expiry": 60, "scopes": ["read"], "wait": 0}
    request_id = world.holder.call("requestToken", **asked).result["id"]
    assert world.decide(request_id, remember=3600).code is None
    for generation in (0, 1):
        assert world.attacker.call("requestToken", generation=generation, **asked).result["token"] is None
    assert world.uncovered() == []
    again = world.holder.call("requestToken", **asked | {"expiry": 30}).result
    assert again["token"]
    assert world.uncovered() == [again["sessionId"]], "this one is covered by what was remembered"


def test_with_a_token_that_was_granted_it_gets_children_within_that_session_and_no_more(world):
    granted = world.grant(world.holder, expiry=60, scopes=["read"], audience=["web"])
    end = granted["expiresAt"]
    wide = {"expiry": "never", "parent": granted["token"]}
    opened = [
        world.attacker.call("createToken", maxLifetime="never", **wide).result,
        world.attacker.call("requestToken", **wide).result,
        world.attacker.call("createToken", generation=1, **wide).result,
    ]
    for child in opened:
        assert child["expiresAt"] == end
        renewed = world.attacker.call("renewToken", token=child["token"]).result
        assert renewed["expiresAt"] == end
        found = world.owner.inspect_token(renewed["token"]).session
        assert (found.scopes, found.audience) == (["read"], ["web"])
    for wider in ({"scopes": ["read", "admin"]}, {"audience": ["mail"]}):
        for method in ("createToken", "requestToken"):
            assert world.attacker.call(method, **wide | wider).code == "NOT_WITHIN_PARENT"
    assert world.uncovered() == []
    world.holder.call("revokeToken", token=granted["token"])
    for child in opened:
        assert not world.owner.verify_token(child["token"], audience="web")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_no_mixture_of_methods_opens_a_session_that_nobody_granted(world, seed):
    """Each call takes what the earlier ones answered; tokens of the holder's session are among it."""
    draw = random.Random(seed)
    names = sorted(
        set(ATTEMPTS) - {"changePassphrase", "unlock", "resetKey"}
    )  # these have tests of their own
    world.end_sessions()
    known = list(world.dead)
    for step in range(STEPS):
        if step % 50 == 0:
            known.append(world.grant(world.program(), expiry=600, scopes=["read"])["token"])
        name = draw.choice(names)
        params = draw.choice(ATTEMPTS[name](world) or NOTHING)
        if "passphrase" in params:
            continue
        if "token" in params or "parent" in params:
            params |= {next(each for each in ("token", "parent") if each in params): draw.choice(known)}
        answer = world.attacker.call(
            name, generation=draw.randrange(3), connection=draw.randrange(1, 4), **params
        )
        known += tokens_in(answer)
        if world.owner.get_status().locked:
            world.owner.unlock(PASSPHRASE)
        assert world.uncovered() == [], f"step {step}: {name}"
    assert len(known) > len(world.dead) + STEPS // 50, "children of what was granted"
