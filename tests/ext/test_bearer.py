from __future__ import annotations

import json
import time

import pytest

from agentd_client import AgentLockedError, AgentUnreachableError, SessionInfo, Verdict
from agentd_client.ext.bearer import Admission, Credentials, Denied, Scopes, decide, unavailable

TOKEN = "v4.local.abc"


def denied_by(credentials: Credentials, *args, **kwargs) -> Denied:
    with pytest.raises(Denied) as raised:
        credentials.token(*args, **kwargs)
    return raised.value


def challenge(denied: Denied) -> str:
    return dict(denied.headers)["WWW-Authenticate"]


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER   {TOKEN} "])
def test_the_token_is_that_of_the_header(header):
    assert Credentials().token([header]) == TOKEN


@pytest.mark.parametrize("headers", [[], ["Basic dTpw"], ["Digest x"], [""], ["Bearertoken"]])
def test_without_credentials_the_challenge_names_no_error(headers):
    denied = denied_by(Credentials(realm="notes"), headers)
    assert (denied.status, denied.error) == (401, None)
    assert challenge(denied) == 'Bearer realm="notes"'


@pytest.mark.parametrize("headers", [["Bearer"], ["Bearer a b"], ["Bearer \xe9"], [f"Bearer {'x' * 8193}"]])
def test_what_cannot_be_a_token_is_a_malformed_request(headers):
    denied = denied_by(Credentials(), headers)
    assert (denied.status, denied.error) == (400, "invalid_request")
    assert 'error="invalid_request"' in challenge(denied)


def test_two_headers_or_two_places_are_a_malformed_request():
    assert denied_by(Credentials(), [f"Bearer {TOKEN}"] * 2).status == 400
    assert denied_by(Credentials(), ["Basic dTpw", f"Bearer {TOKEN}"]).status == 400
    everywhere = Credentials(query="token")
    assert denied_by(everywhere, [f"Bearer {TOKEN}"], query=f"token={TOKEN}").status == 400
    assert denied_by(everywhere, [], query=f"token={TOKEN}&token={TOKEN}").status == 400


def test_cookies_and_queries_count_only_where_the_server_says_so():
    asked = {"cookies": [f"a=b; session={TOKEN}"], "query": f"token={TOKEN}".encode()}
    assert denied_by(Credentials(), [], **asked).status == 401
    assert Credentials(cookie="session").token([], asked["cookies"]) == TOKEN
    assert Credentials(query="token").token([], query=asked["query"]) == TOKEN
    assert denied_by(Credentials(query="other"), [], **asked).status == 401
    # A browser sends its cookies with everything: the header that somebody chose to send comes first.
    assert (
        Credentials(cookie="session").token(["Bearer v4.local.chosen"], asked["cookies"]) == "v4.local.chosen"
    )


@pytest.mark.parametrize("cookies", [["session"], ["session="], ["a,b;;=", "\x00"], []])
def test_a_malformed_cookie_is_none(cookies):
    assert denied_by(Credentials(cookie="session"), [], cookies).error is None


def test_a_cookie_that_comes_twice_is_a_malformed_request():
    assert denied_by(Credentials(cookie="session"), [], [f"session=other; session={TOKEN}"]).status == 400
    assert Credentials(cookie="session").token([], [f'session=; session="{TOKEN}"; xsession=a']) == TOKEN


def test_no_cookie_takes_long_to_read():
    began = time.process_time()
    assert denied_by(Credentials(cookie="session"), [], ['session="' + "\\" * 60_000]).status == 400
    assert time.process_time() - began < 1.0, "http.cookies of Python 3.11.7 takes six seconds"


def test_a_query_of_a_thousand_fields_is_refused():
    assert denied_by(Credentials(query="token"), [], query="a=b&" * 1000).status == 400


@pytest.mark.parametrize(
    ("reason", "status", "error"),
    [
        ("MALFORMED", 401, "invalid_token"),
        ("EXPIRED", 401, "invalid_token"),
        ("REVOKED", 401, "invalid_token"),
        ("WRONG_AUDIENCE", 401, "invalid_token"),
        ("A_REASON_OF_A_NEWER_AGENT", 401, "invalid_token"),
        (None, 401, "invalid_token"),
        ("MISSING_SCOPE", 403, "insufficient_scope"),
    ],
)
def test_reasons_become_the_codes_of_rfc_6750(reason, status, error):
    with pytest.raises(Denied) as raised:
        decide(Verdict(False, reason, None, None), None, required=["b", "a"], explicit=False)
    assert (raised.value.status, raised.value.error) == (status, error)
    assert json.loads(raised.value.body)["error"] == error
    assert ('scope="a b"' in challenge(raised.value)) == (status == 403)


@pytest.mark.parametrize("sentence", ['a "quoted" \\ word', "caf\xe9\r\nSet-Cookie: a=b"])
def test_a_challenge_has_only_what_rfc_6750_allows(sentence):
    text = challenge(Denied(401, "invalid_token", sentence))
    inside = text.partition('error_description="')[2][:-1]
    assert len(inside) == len(sentence)
    assert all(" " <= char <= "~" and char not in '"\\' for char in inside)


def test_a_session_without_scopes_has_all_unless_they_must_be_named():
    unlimited = Verdict(True, None, None, None)
    admission = decide(unlimited, None, required=["read"], explicit=False)
    assert admission == Admission(Scopes.of(None), None, None)
    assert admission.scopes.is_unlimited
    assert "anything" in admission.scopes
    assert admission.scopes.covers(["a", "b"])
    assert list(admission.scopes) == []
    with pytest.raises(Denied) as raised:
        decide(unlimited, None, required=["read"], explicit=True)
    assert (raised.value.status, raised.value.error) == (403, "insufficient_scope")


def test_named_scopes_are_what_they_are():
    scopes = decide(Verdict(True, None, ["web"], ["read"]), None, required=[], explicit=True).scopes
    assert (list(scopes), scopes.is_unlimited) == (["read"], False)
    assert "write" not in scopes
    assert not scopes.covers(["read", "write"])
    assert scopes.covers([])
    assert not Scopes.of([]).is_unlimited


def test_an_admission_without_a_session_says_nothing_of_it():
    unknown = Admission(Scopes.of(None), None, None)
    assert (unknown.session_id, unknown.label, unknown.expires_at, unknown.opened_by) == (
        None,
        "",
        None,
        None,
    )
    known = unknown._replace(session=SessionInfo("id", "desk", 1.0, 2.0, None))
    assert (known.session_id, known.label, known.expires_at) == ("id", "desk", 2.0)


@pytest.mark.parametrize(
    ("error", "seconds"), [(AgentLockedError(), "10"), (AgentUnreachableError("/a/path"), "1")]
)
def test_an_agent_that_cannot_know_is_503_and_never_401(error, seconds):
    denied = unavailable(error)
    assert (denied.status, denied.reason, dict(denied.headers)["Retry-After"]) == (503, error.code, seconds)
    assert "WWW-Authenticate" not in dict(denied.headers)
    assert b"/a/path" not in denied.body
