from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd_client import errors
from agentd_client.errors import AgentdError, ProtocolError, RequestError
from agentd_client.protocol import limits, methods, results
from agentd_client.protocol.codec import Decoder, Encoder
from agentd_client.protocol.methods import camel, error_from_wire, error_to_wire, from_wire, to_wire
from agentd_client.protocol.results import (
    AuditEntry,
    AuditPage,
    CachedVerification,
    Counters,
    CreatedToken,
    Decision,
    Event,
    GrantedToken,
    Hello,
    KeyReset,
    LockState,
    PeerIdentity,
    Protection,
    RequestedToken,
    RequestInfo,
    RequestPage,
    Revocation,
    Revocations,
    SessionInfo,
    SessionPage,
    Status,
    Subscribed,
    Verdict,
    Verification,
    Withdrawal,
)

COUNTERS = Counters(1, 2, 3, 4, 5, 6, 7)
EXAMPLES = [
    Hello("agentd 1", 1, ["hello"]),
    Status("1", "a", 2, 3.5, 4.5, 5, "k", "/s", "/d", 6, True, COUNTERS, memory_secret=False),
    Status(
        "1",
        None,
        2,
        3.5,
        4.5,
        None,
        None,
        "/s",
        "/d",
        None,
        True,
        COUNTERS,
        True,
        5.5,
        "idle",
        True,
        3,
        True,
    ),
    COUNTERS,
    CreatedToken("t", "i", None),
    CreatedToken("t", "i", 5.5),
    PeerIdentity(0, 1),
    PeerIdentity(0, 1, "/bin/x", "x.service"),
    SessionInfo("i", "l", 1, None, None),
    SESSION := SessionInfo(
        "i", "l", 1.5, 2.5, PeerIdentity(1, 2), "expired", 3.5, 4.5, 5.5, ["a"], ["s", "t"], 0, "p", 2, 7
    ),
    SessionPage([], None),
    SessionPage([SESSION], "n"),
    Verification(False, "MALFORMED", None),
    Verification(True, None, SESSION),
    CachedVerification(True, None, SESSION),
    Verdict(False, "EXPIRED", None, None),
    Verdict(True, None, ["a"], ["s", "t"]),
    GrantedToken("t", "i", None, ["a"], ["s"], 3),
    RequestedToken("r", 1.5),
    RequestedToken("r", 1.5, "t", "i", 2.5, ["a"], ["s"], 3),
    WAITING := RequestInfo(
        *("r", "waiting", 1.5, 2.5, PeerIdentity(1, 2), ["own PID namespace"], "ask", "the program /bin/x"),
        *("l", "why", ["a"], ["s", "t"], 600, 3, True, 2),
    ),
    RequestInfo(
        "r", "remembered", 1, 2, PeerIdentity(1, 2), [], "owner", "p", "", "", None, None, None, None, False
    ),
    RequestPage([], None),
    RequestPage([WAITING], "1"),
    Decision("r"),
    Decision("r", "i", 1.5, 2.5),
    Withdrawal(True),
    Revocation(True),
    Revocations(3),
    KeyReset("k"),
    LockState(True),
    Protection(False),
    Subscribed(True),
    Event("keyReset", 1.5, None, "", None, None),
    Event("refused", 1, "i", "l", "SUPERSEDED", 7, 3),
    Event("approved", 1, "i", "l", None, 7, 0, "r"),
    AuditEntry(1, 1, "created", None, "", None, None, None, None, 1),
    ENTRY := AuditEntry(1.5, 2.5, "refused", "i", "l", "EXPIRED", 0, 7, "/bin/x", 3),
    AuditEntry(
        *(1, 1, "approved", "i", "l", None, 0, 7, "/bin/x", 1, "x.service", "r", PeerIdentity(1, 2)),
    ),
    AuditPage([], None),
    AuditPage([ENTRY], "n"),
]


# `from_wire` takes a field that is missing for one that is nil.
MAY_BE_NIL = {
    *("audience", "bound_pid", "exe", "expires_at", "last_used_at", "max_expires_at", "next", "opened_by"),
    *("parent", "peer_exe", "peer_pid", "peer_uid", "reason", "scopes", "session", "session_id", "unit"),
    *("uses_left", "agent_id", "key_id", "lock_reason", "locked_at", "sessions", "store_bytes"),
    *("memory_secret", "expiry", "max_uses"),
}


def over_the_wire(value: object) -> object:
    (response,) = Decoder().receive(Encoder().result(1, value))
    return response.result


def test_every_result_has_an_example_here():
    kinds = {
        value for value in vars(results).values() if isinstance(value, type) and hasattr(value, "_fields")
    }
    assert kinds == {type(example) for example in EXAMPLES}


@pytest.mark.parametrize("result", EXAMPLES, ids=lambda result: type(result).__name__)
def test_every_result_comes_back_as_it_went(result):
    assert from_wire(type(result), over_the_wire(to_wire(result))) == result


@pytest.mark.parametrize("result", EXAMPLES, ids=lambda result: type(result).__name__)
def test_a_missing_field_is_named_unless_it_may_be_nil_or_was_added_later(result):
    for field, value in zip(result._fields, result, strict=True):
        sent = to_wire(result)
        del sent[camel(field)]
        if field in result._field_defaults:
            assert from_wire(type(result), sent) == result._replace(**{field: result._field_defaults[field]})
        elif value is None:
            assert from_wire(type(result), sent) == result
        elif field not in MAY_BE_NIL:
            with pytest.raises(ProtocolError, match=camel(field)):
                from_wire(type(result), sent)


@pytest.mark.parametrize("result", EXAMPLES, ids=lambda result: type(result).__name__)
def test_a_field_of_another_type_is_refused_and_a_boolean_is_no_number(result):
    for field, value in zip(result._fields, result, strict=True):
        wrong = 1 if isinstance(value, bool) else True
        with pytest.raises(ProtocolError, match=camel(field)):
            from_wire(type(result), to_wire(result) | {camel(field): wrong})


def test_nested_results_become_nested_maps():
    found = to_wire(Verification(True, None, SessionInfo("i", "l", 1.5, 2.5, PeerIdentity(3, 4))))
    assert found == {
        "valid": True,
        "reason": None,
        "session": {
            "id": "i",
            "label": "l",
            "createdAt": 1.5,
            "expiresAt": 2.5,
            "openedBy": {"uid": 3, "pid": 4, "exe": None, "unit": None},
            "state": "active",
            "renewedAt": 0.0,
            "maxExpiresAt": None,
            "lastUsedAt": None,
            "audience": None,
            "scopes": None,
            "usesLeft": None,
            "parent": None,
            "generation": 0,
            "boundPid": None,
        },
    }


def test_pages_become_arrays_of_maps_and_come_back():
    opened = SESSION._replace(opened_by=PeerIdentity(1, 2, "/bin/x", None))
    sessions = SessionPage([opened, SessionInfo("j", "", 1, None, None)], "j")
    entries = AuditPage([ENTRY, ENTRY._replace(session_id=None)], None)
    assert methods.LIST_SESSIONS.read(over_the_wire(to_wire(sessions))) == sessions
    assert methods.LIST_AUDIT.read(over_the_wire(to_wire(entries))) == entries
    assert to_wire(sessions)["sessions"][0]["openedBy"]["exe"] == "/bin/x"


@pytest.mark.parametrize(
    ("method", "sent"),
    [
        (methods.GET_STATUS, to_wire(EXAMPLES[1]) | {"sessions": []}),
        (methods.LIST_SESSIONS, {"sessions": 3, "next": None}),
        (methods.LIST_SESSIONS, {"sessions": None, "next": None}),
        (methods.RESET_KEY, {"keyId": None}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_name_that_two_results_share_has_in_each_the_type_of_that_result(method, sent):
    with pytest.raises(ProtocolError, match="no usable field '(sessions|keyId)'"):
        method.read(sent)


LONGEST = {"label": "\U0001f600" * limits.MAX_LABEL_CHARACTERS, "id": "x" * 36, "time": 4e9 + 0.123}


def names(count: int, characters: int) -> list[str]:
    return [f"{n:>0{characters}}" for n in range(count)]


def test_the_longest_page_of_sessions_fits_into_one_message():
    shown = "x" * limits.MAX_SHOWN_CHARACTERS
    largest, at, text = 2**32 - 1, LONGEST["time"], LONGEST["id"]
    session = SessionInfo(
        id=text,
        label=LONGEST["label"],
        created_at=at,
        expires_at=at,
        opened_by=PeerIdentity(largest, largest, shown, shown),
        state="expired",
        renewed_at=at,
        max_expires_at=at,
        last_used_at=at,
        audience=names(limits.MAX_AUDIENCES, limits.MAX_AUDIENCE_CHARACTERS),
        scopes=names(limits.MAX_SCOPES, limits.MAX_SCOPE_CHARACTERS),
        uses_left=limits.MAX_USES,
        parent=text,
        generation=largest,
        bound_pid=largest,
    )
    page = SessionPage([session] * limits.MAX_PAGE_SESSIONS, text)
    assert methods.LIST_SESSIONS.read(over_the_wire(to_wire(page))) == page


def test_the_longest_page_of_the_audit_log_fits_into_one_message():
    largest, at, text = 2**32 - 1, LONGEST["time"], LONGEST["id"]
    shown = "x" * limits.MAX_SHOWN_CHARACTERS
    entry = AuditEntry(
        at, at, "refused", text, LONGEST["label"], "WRONG_AUDIENCE", largest, largest, shown, largest
    )
    page = AuditPage([entry] * limits.MAX_PAGE_AUDIT, text * 4)
    assert methods.LIST_AUDIT.read(over_the_wire(to_wire(page))) == page


def test_an_event_comes_back_as_it_went():
    event = Event("refused", 1.5, "i", "a label", "SUPERSEDED", 7, 3)
    (received,) = Decoder().receive(Encoder().notification("event", to_wire(event)))
    assert received.method == "event"
    assert methods.read_event(received.params) == event


@pytest.mark.parametrize("params", [[], [None], [[]], [{}], ["created"], [{"kind": "created"}]])
def test_what_is_no_event_is_refused(params):
    with pytest.raises(ProtocolError):
        methods.read_event(params)


def test_fields_that_a_newer_agent_added_are_passed_over():
    assert from_wire(Revocation, {"revoked": True, "children": 3}) == Revocation(True)


@pytest.mark.parametrize("answer", [None, 1, [], "text"])
def test_an_answer_that_is_no_map_is_refused(answer):
    with pytest.raises(ProtocolError, match="not a map"):
        from_wire(Revocation, answer)


@pytest.mark.parametrize("kind", errors.ERRORS.values(), ids=lambda kind: kind.__name__)
def test_every_error_comes_back_as_its_class_with_its_sentence(kind):
    found = error_from_wire(over_the_wire(error_to_wire(kind("what: happened"))))
    assert type(found) is kind
    assert found.sentence == "what: happened"


def test_an_error_has_the_form_that_foreign_clients_show():
    assert error_to_wire(errors.UnknownMethodError("no method 'x'")) == [1, "UNKNOWN_METHOD: no method 'x'"]


@pytest.mark.parametrize("received", [[9999, "NEWER: words"], [1, "OTHER_CODE: words"], [1, "no code"]])
def test_an_error_that_is_not_known_here_is_a_refusal_that_shows_its_text(received):
    found = error_from_wire(received)
    assert type(found) is RequestError
    assert found.sentence == received[1]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_an_error_of_whatever_form_becomes_an_error(received):
    assert isinstance(error_from_wire(received), AgentdError)


def test_python_names_are_spelled_in_camel_case():
    assert [camel(name) for name in ("id", "created_at", "store_bytes")] == ["id", "createdAt", "storeBytes"]
