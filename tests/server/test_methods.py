from __future__ import annotations

import os

import msgpack
import pytest

from agentd.approval import Policy
from agentd.methods import agent_dispatch
from agentd.process_identity import identify
from agentd.server import Peer
from agentd_client import errors
from agentd_client.protocol import limits, methods
from agentd_client.protocol.codec import Request
from agentd_client.protocol.methods import error_from_wire, from_wire, to_wire
from agentd_client.protocol.results import (
    CreatedToken,
    Hello,
    KeyReset,
    PeerIdentity,
    Revocation,
    Revocations,
    Subscribed,
    Verification,
)
from tests.server.talk import (
    ENTRIES,
    FULL,
    LOGGER,
    SESSIONS,
    STATUS,
    VALID,
    FakeAgent,
    FakeCaller,
    dispatch_of,
)

CHEAP = PeerIdentity(1000, 42)
ASK = Policy("ask")


@pytest.fixture
def caller() -> FakeCaller:
    return FakeCaller()


@pytest.fixture
def ask(sessions, caller):
    dispatch = dispatch_of(sessions)

    async def ask(name: str, *params: object, **named: object) -> object:
        """The result; raises the refusal as the error that it is."""
        request = Request(1, name, [*params] if params else [named])
        reply = dispatch.answer(request, caller)
        if reply is None:
            reply = await dispatch.answer_async(request, caller)
        _, _, error, result = msgpack.unpackb(reply)
        if error is not None:
            assert result is None
            raise error_from_wire(error)
        return result

    return ask


ALL = {value.name for value in vars(methods).values() if isinstance(value, methods.Method)}


async def test_hello_tells_the_agents_version_the_protocols_and_every_method(ask):
    found = from_wire(Hello, await ask("hello", client="test 1", protocol=1))
    assert (found.server, found.protocol) == ("agentd 1.2", 1)
    assert set(found.capabilities) == ALL


@pytest.mark.parametrize("protocol", [0, 2, -1, 2**63, None])
async def test_hello_tells_its_own_protocol_to_whoever_speaks_another(ask, protocol):
    assert (await ask("hello", protocol=protocol))["protocol"] == 1


@pytest.mark.parametrize("params", [{"client": 1}, {"protocol": "1"}, {"protocol": True}, {"version": 1}])
async def test_hello_refuses_parameters_of_another_type_or_name(ask, params):
    with pytest.raises(errors.InvalidParamsError, match=next(iter(params))):
        await ask("hello", **params)


async def test_get_status_tells_the_status(ask):
    assert methods.GET_STATUS.read(await ask("getStatus")) == STATUS


METHODS_WITHOUT_PARAMETERS = ["getStatus", "subscribe"]


@pytest.mark.parametrize("method", METHODS_WITHOUT_PARAMETERS)
async def test_a_method_without_parameters_refuses_any(ask, caller, method):
    with pytest.raises(errors.InvalidParamsError, match="no parameter 'force'"):
        await ask(method, force=True)
    assert caller.sources == []


@pytest.mark.parametrize("method", sorted(ALL - set(METHODS_WITHOUT_PARAMETERS)))
async def test_an_unknown_parameter_is_refused_by_name_and_nothing_is_done(ask, sessions, method):
    for name in ("force", "max_uses", "grace_seconds", "Token"):
        with pytest.raises(errors.InvalidParamsError, match=f"{method}: no parameter '{name}'"):
            await ask(method, **{name: 5})
    assert sessions.asked == []


# --- verifyToken and inspectToken ---


@pytest.mark.parametrize("method", ["verifyToken", "inspectToken"])
async def test_a_valid_token_is_described(ask, method):
    assert await ask(method, token="good") == to_wire(VALID)


@pytest.mark.parametrize("method", ["verifyToken", "inspectToken"])
@pytest.mark.parametrize(
    "token", ["bad", "", 1, True, 1.5, b"bad", b"good\xff", b" good", ["good"], {"token": "good"}]
)
async def test_a_token_of_whatever_type_is_answered_not_refused(ask, method, token):
    assert from_wire(Verification, await ask(method, token=token)) == (False, "MALFORMED", None)


async def test_a_token_as_bytes_is_the_token_that_they_spell_in_every_method(ask, sessions):
    for method in ("verifyToken", "inspectToken"):
        assert await ask(method, token=b"good") == to_wire(VALID)
    await ask("verifyToken", token=b"counted")
    await ask("renewToken", token=b"good")
    await ask("revokeToken", token=b"good")
    await ask("createToken", parent=b"good")
    assert sessions.asked[0][:2] == ("count", "counted")
    assert sessions.asked[1:3] == [("renew", "good", FULL), ("revoke", "good", None, FULL)]
    assert sessions.asked[3][8] == "good"


async def test_nil_is_a_malformed_token_where_a_token_is_all_that_can_be_asked_about(ask):
    assert from_wire(Verification, await ask("verifyToken", token=None)) == (False, "MALFORMED", None)


async def test_a_missing_token_is_refused_by_name(ask):
    with pytest.raises(errors.InvalidParamsError, match="token"):
        await ask("verifyToken")


@pytest.mark.parametrize("audience", ["editor", ["editor"], 5])
@pytest.mark.parametrize("scopes", [["read", "write"], "read", []])
async def test_what_the_asker_needs_is_handed_on_as_it_came(ask, sessions, audience, scopes):
    await ask("verifyToken", token="good", audience=audience, scopes=scopes)
    await ask("inspectToken", token="good", audience=audience, scopes=scopes)
    assert sessions.asked == [
        ("verify", "good", audience, scopes, CHEAP),
        ("inspect", "good", None, audience, scopes),
    ]


async def test_a_verification_that_takes_a_write_is_counted_and_then_answered(ask, sessions):
    assert await ask("verifyToken", token="counted", audience="editor", scopes=["read"]) == to_wire(VALID)
    assert sessions.asked[1:] == [("count", "counted", "editor", ["read"], CHEAP)]


async def test_a_verification_is_for_the_same_peer_object_each_time(ask, sessions, caller):
    for token in ("good", "counted"):
        await ask("verifyToken", token=token, audience="editor")
    assert all(asked[-1] is caller.identity for asked in sessions.asked)


async def test_inspect_token_takes_an_id_in_place_of_a_token(ask, sessions):
    assert await ask("inspectToken", id="id") == to_wire(VALID)
    assert await ask("inspectToken", id="id", token=None, scopes=["read"]) == to_wire(VALID)
    assert sessions.asked == [("inspect", None, "id", None, None), ("inspect", None, "id", None, ["read"])]


# --- createToken and renewToken ---

NOTHING_MORE = (None, None, None, None, None, False)


async def test_create_token_hands_on_what_it_was_given_and_the_peer(ask, sessions):
    created = from_wire(CreatedToken, await ask("createToken", expiry=60, label="label"))
    assert created == ("token of label", "id", None)
    assert sessions.asked == [("open", 60, "label", FULL, *NOTHING_MORE)]


async def test_create_token_hands_on_what_narrows_the_session(ask, sessions):
    await ask(
        "createToken",
        audience=["a"],
        scopes=["read"],
        maxUses=5,
        maxLifetime=3600,
        parent="token",
        bound=True,
    )
    assert sessions.asked == [("open", None, None, FULL, ["a"], ["read"], 5, 3600, "token", True)]


async def test_create_token_hands_on_which_process_connected(ask, sessions, caller):
    await ask("createToken", bound=True)
    assert sessions.processes == [caller.peer.process]


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["expiry", "label"],
        ["audience", "scopes"],
        ["maxUses", "maxLifetime", "parent", "bound"],
    ],
)
async def test_create_token_takes_nil_as_absent(ask, sessions, names):
    await ask("createToken", **dict.fromkeys(names))
    assert sessions.asked == [("open", None, None, FULL, *NOTHING_MORE)]


@pytest.mark.parametrize("value", ["never", -1, 1.5, True, "text", b"bytes", [1], {"a": 1}, ["x"] * 50])
async def test_create_token_leaves_it_to_the_sessions_to_refuse_values(ask, sessions, value):
    await ask(
        "createToken",
        expiry=value,
        label=value if isinstance(value, str) else 5,
        audience=value,
        scopes=value,
        maxUses=value,
        maxLifetime=value,
    )
    assert sessions.asked[0][1] == value
    assert sessions.asked[0][4:8] == (value, value, value, value)


@pytest.mark.parametrize(
    "params",
    [{"parent": 1}, {"parent": 1.5}, {"parent": ["good"]}, {"bound": 1}, {"bound": "yes"}],
)
async def test_create_token_refuses_a_parent_or_a_binding_of_another_type_by_name(ask, sessions, params):
    with pytest.raises(errors.InvalidParamsError, match=next(iter(params))):
        await ask("createToken", **params)
    assert sessions.asked == []


async def test_renew_token_answers_a_new_token(ask, sessions):
    assert from_wire(CreatedToken, await ask("renewToken", token="good")) == ("good, renewed", "id", 5.5)
    assert sessions.asked == [("renew", "good", FULL)]


@pytest.mark.parametrize("params", [{}, {"token": None}, {"token": 1}, {"token": ["good"]}])
async def test_renew_token_refuses_what_is_neither_text_nor_bytes_by_name(ask, sessions, params):
    with pytest.raises(errors.InvalidParamsError, match="token"):
        await ask("renewToken", **params)
    assert sessions.asked == []


# --- revokeToken, revokeSessions, resetKey ---


async def test_revoke_token_takes_a_token_or_an_id(ask, sessions):
    assert from_wire(Revocation, await ask("revokeToken", token="good")) == (True,)
    await ask("revokeToken", id="some", token=None)
    assert sessions.asked == [("revoke", "good", None, FULL), ("revoke", None, "some", FULL)]


@pytest.mark.parametrize("method", ["revokeToken", "inspectToken"])
@pytest.mark.parametrize(
    "params", [{}, {"token": None}, {"token": None, "id": None}, {"token": "a", "id": "b"}]
)
async def test_a_token_and_an_id_together_are_refused_and_so_is_neither(ask, sessions, method, params):
    with pytest.raises(errors.InvalidParamsError, match=f"{method} takes either token or id"):
        await ask(method, **params)
    assert sessions.asked == []


@pytest.mark.parametrize("params", [{"token": 1}, {"token": ["good"]}, {"id": 1}, {"id": b"id"}])
async def test_revoke_token_refuses_what_is_of_another_type_by_name(ask, sessions, params):
    with pytest.raises(errors.InvalidParamsError, match=next(iter(params))):
        await ask("revokeToken", **params)
    assert sessions.asked == []


@pytest.mark.parametrize("value", [1, b"id", ["id"], True])
async def test_inspect_token_refuses_an_id_that_is_no_text_by_name(ask, sessions, value):
    with pytest.raises(errors.InvalidParamsError, match="id"):
        await ask("inspectToken", id=value)
    assert sessions.asked == []


CONDITIONS = {"state": "expired", "label": "nightly*", "pid": 7, "parent": "an id"}


@pytest.mark.parametrize("name", CONDITIONS)
async def test_revoke_sessions_hands_on_each_condition(ask, sessions, name):
    given = {name: CONDITIONS[name]}
    assert from_wire(Revocations, await ask("revokeSessions", **given)) == (3,)
    assert sessions.asked == [("revoke some", *(given.get(each) for each in CONDITIONS), FULL)]


async def test_revoke_sessions_takes_all_conditions_together(ask, sessions):
    await ask("revokeSessions", **CONDITIONS)
    assert sessions.asked == [("revoke some", *CONDITIONS.values(), FULL)]


@pytest.mark.parametrize("given", [{}, dict.fromkeys(CONDITIONS)])
async def test_revoke_sessions_without_a_condition_is_refused(ask, sessions, given):
    with pytest.raises(errors.InvalidParamsError, match="at least one of state, label, pid and parent"):
        await ask("revokeSessions", **given)
    assert sessions.asked == []


WRONG_CONDITIONS = [
    {"state": 1},
    {"state": ""},
    {"state": "Active"},
    {"state": "revoked"},
    {"state": ["active"]},
    {"label": 1},
    {"label": b"nightly"},
    {"label": "?" * (limits.MAX_LABEL_CHARACTERS + 1)},
    {"pid": "7"},
    {"pid": 7.0},
    {"pid": True},
    {"parent": 1},
    {"parent": ["an id"]},
]


@pytest.mark.parametrize("method", ["listSessions", "revokeSessions"])
@pytest.mark.parametrize("params", WRONG_CONDITIONS, ids=str)
async def test_a_condition_of_another_form_is_refused_by_name(ask, sessions, method, params):
    with pytest.raises(errors.InvalidParamsError, match=f"{method}: .*{next(iter(params))}"):
        await ask(method, **params)
    assert sessions.asked == []


@pytest.mark.parametrize("method", ["listSessions", "revokeSessions"])
async def test_the_refusal_of_a_state_does_not_quote_it(ask, method):
    with pytest.raises(errors.InvalidParamsError) as refused:
        await ask(method, state="v4.local.s3cret")
    assert refused.value.sentence == f"{method}: state is 'active' or 'expired'"


async def test_reset_key_answers_the_new_keys_id(ask, sessions):
    assert from_wire(KeyReset, await ask("resetKey", [])) == ("key",)
    assert sessions.asked == [("reset", None, FULL)]


@pytest.mark.parametrize("value", [0, 60, -1, 1.5, "1h", True, [1]])
async def test_reset_key_leaves_it_to_the_sessions_to_refuse_a_grace(ask, sessions, value):
    await ask("resetKey", graceSeconds=value)
    assert sessions.asked == [("reset", value, FULL)]


# --- listSessions and listAudit ---


async def test_list_sessions_answers_a_page(ask, sessions):
    assert methods.LIST_SESSIONS.read(await ask("listSessions")) == SESSIONS
    await ask("listSessions", **CONDITIONS, after="an id", limit=5)
    assert sessions.asked == [("list", *[None] * 6), ("list", *CONDITIONS.values(), "an id", 5)]


async def test_list_audit_answers_a_page(ask, sessions):
    assert methods.LIST_AUDIT.read(await ask("listAudit")) == ENTRIES
    await ask("listAudit", since=1.5, after="here", limit=5, kind="used", session="an id")
    await ask("listAudit", since=1)
    assert sessions.asked == [
        ("audit", None, None, None, None, None),
        ("audit", 1.5, "here", "used", "an id", 5),
        ("audit", 1, None, None, None, None),
    ]


PAGES = [("listSessions", limits.MAX_PAGE_SESSIONS), ("listAudit", limits.MAX_PAGE_AUDIT)]


@pytest.mark.parametrize(("method", "most"), PAGES)
async def test_a_page_has_from_one_to_its_most(ask, sessions, method, most):
    for limit in (1, most):
        await ask(method, limit=limit)
    assert [asked[-1] for asked in sessions.asked] == [1, most]


@pytest.mark.parametrize(("method", "most"), PAGES)
@pytest.mark.parametrize("wrong", [0, -1, "more", "5", 5.0, True, [5]])
async def test_another_number_of_items_is_refused_by_name(ask, sessions, method, most, wrong):
    with pytest.raises(errors.InvalidParamsError, match="limit"):
        await ask(method, limit=most + 1 if wrong == "more" else wrong)
    assert sessions.asked == []


@pytest.mark.parametrize(
    "params", [{"since": "now"}, {"since": True}, {"since": b""}, {"after": 5}, {"kind": 1}, {"session": 1}]
)
async def test_list_audit_refuses_a_place_of_another_type_by_name(ask, sessions, params):
    with pytest.raises(errors.InvalidParamsError, match=next(iter(params))):
        await ask("listAudit", **params)
    assert sessions.asked == []


@pytest.mark.parametrize("value", [5, b"id", ["id"]])
async def test_list_sessions_refuses_a_place_of_another_type_by_name(ask, sessions, value):
    with pytest.raises(errors.InvalidParamsError, match="after"):
        await ask("listSessions", after=value)
    assert sessions.asked == []


# --- requests for sessions ---


@pytest.fixture
def asking(sessions):
    """Asks an agent that opens sessions only by approval."""

    async def ask(method, policy=ASK, **params):
        table = agent_dispatch(FakeAgent(sessions), lambda: STATUS, version="1", logger=LOGGER, policy=policy)
        caller = FakeCaller()
        caller.peer = Peer(os.geteuid(), os.getegid(), identify(os.getpid()))
        request = Request(1, method, [params])
        reply = table.answer(request, caller) or await table.answer_async(request, caller)
        return msgpack.unpackb(reply)[2:]

    return ask


@pytest.mark.parametrize("opening", ["ask", "passphrase"])
async def test_without_a_decision_or_a_parent_no_session_is_opened(asking, sessions, opening):
    error, result = await asking("createToken", Policy(opening), scopes=["read"])
    assert result is None
    assert error[0] == 1
    assert error[1].startswith("APPROVAL_REQUIRED: ")
    assert "agentctl request" in error[1]
    assert sessions.asked == []


async def test_a_child_needs_no_decision(asking, sessions):
    error, result = await asking("createToken", parent="v4.local.AAAA")
    assert error is None
    assert result["token"]


async def test_request_token_hands_on_what_is_asked_and_who_asks(asking, sessions):
    error, result = await asking(
        "requestToken",
        expiry=60,
        label="l",
        audience=["a"],
        scopes=["s"],
        maxUses=2,
        reason="r",
        bound=True,
        wait=5,
    )
    assert error is None
    assert result["token"] == "token"
    (_, asker, *asked) = sessions.asked[0]
    assert (asker.identity.pid, asker.socket) == (os.getpid(), "owner")
    assert asked == [60, "l", ["a"], ["s"], 2, "r", None, True, 5]


async def test_request_token_takes_an_id_or_what_is_asked_for(asking, sessions):
    assert (await asking("requestToken", id="request", wait=0))[1]["token"] is None
    error, _ = await asking("requestToken", id="request", scopes=["s"])
    assert error[1].startswith("INVALID_PARAMS: ")
    assert [asked[0] for asked in sessions.asked] == ["collect"]


@pytest.mark.parametrize(
    "more", [{"scopes": ["s"]}, {"expiry": 1}, {"maxUses": 1}, {"remember": 1}, {"passphrase": b"right"}]
)
async def test_a_denial_takes_nothing_but_the_id(asking, sessions, more):
    error, _ = await asking("decideRequest", id="request", decision="deny", **more)
    assert error[1].startswith("INVALID_PARAMS: ")
    assert (await asking("decideRequest", id="request", decision="deny"))[0] is None
    assert [asked[0] for asked in sessions.asked] == ["deny"]


async def test_a_decision_is_one_of_two_words_and_another_is_not_repeated(asking, sessions):
    error, _ = await asking("decideRequest", id="request", decision="perhaps")
    assert error == [1, "INVALID_PARAMS: decideRequest: decision is 'approve' or 'deny'"]


async def test_an_approval_proves_presence_only_with_the_right_passphrase(asking, sessions):
    error, _ = await asking("decideRequest", id="request", decision="approve", passphrase=b"wrong")
    assert error[1].startswith("PASSPHRASE: ")
    assert sessions.asked == []
    await asking("decideRequest", id="request", decision="approve")
    assert sessions.asked[0][-2:] == (False, True), "not proven, and there is a passphrase"


# --- subscribe ---


async def test_subscribe_subscribes_the_caller_to_the_sessions_events(ask, sessions, caller):
    assert from_wire(Subscribed, await ask("subscribe")) == (True,)
    assert caller.sources == [sessions.on_event]


# --- while the agent is locked ---


class LockedAgent(FakeAgent):
    @property
    def manager(self):
        raise errors.AgentLockedError

    @manager.setter
    def manager(self, manager):
        pass

    @property
    def desk(self):
        raise errors.AgentLockedError

    @desk.setter
    def desk(self, desk):
        pass


ASKING_A_SESSION = {
    "createToken": {}, "verifyToken": {"token": "good"}, "inspectToken": {"token": "good"},
    "renewToken": {"token": "good"}, "revokeToken": {"token": "good"}, "revokeSessions": {"state": "active"},
    "listSessions": {}, "resetKey": {}, "listAudit": {},
    "requestToken": {}, "withdrawRequest": {"id": "id"}, "listRequests": {},
    "decideRequest": {"id": "id", "decision": "approve", "passphrase": "right"},
}  # fmt: skip


@pytest.mark.parametrize("method", ASKING_A_SESSION)
async def test_a_locked_agent_refuses_whatever_takes_its_keys(sessions, caller, method):
    dispatch = agent_dispatch(LockedAgent(sessions), lambda: STATUS, version="1", logger=LOGGER)
    request = Request(1, method, [ASKING_A_SESSION[method]])
    reply = dispatch.answer(request, caller) or await dispatch.answer_async(request, caller)
    assert msgpack.unpackb(reply)[2:] == [[0, f"LOCKED: {errors.AgentLockedError().sentence}"], None]


async def test_a_locked_agent_still_does_everything_else(sessions, caller):
    dispatch = agent_dispatch(LockedAgent(sessions), lambda: STATUS, version="1", logger=LOGGER)
    others = {"unlock": {"passphrase": b"right"}, "changePassphrase": {"old": b"right", "new": b"new"}}
    for method in ALL - ASKING_A_SESSION.keys():
        request = Request(1, method, [others.get(method, {})])
        reply = dispatch.answer(request, caller) or await dispatch.answer_async(request, caller)
        assert msgpack.unpackb(reply)[2] is None, method


@pytest.mark.parametrize("kind", [errors.SessionManagerNotRunningError, errors.KeyRingNotRunningError])
async def test_a_request_that_waits_when_the_agent_locks_is_refused_as_locked(ask, sessions, kind):
    async def renew_token(token, *, by=None):
        raise kind

    sessions.renew_token = renew_token
    with pytest.raises(errors.AgentLockedError):
        await ask("renewToken", token="good")
