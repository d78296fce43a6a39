"""`agentctl top`, driven by keys, with a scripted agent: what is shown, decided, and asked of the agent."""

from __future__ import annotations

from typing import Any

import pytest
from textual.events import Key

from agentd_client.errors import NoSuchRequestError, PassphraseError
from agentd_client.protocol.results import Event, PeerIdentity, SessionInfo, SessionPage, Verification
from agentd_client.tui.dialogues import Question
from tests.agentctl.fake_agent import NOW, FakeAgent
from tests.agentctl.top.piloting import BUILD, DEPLOY, KEPT, Requests, Top, with_top


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """A question may be answered as soon as it is there."""
    monkeypatch.setattr(Question, "MOMENT_SECONDS", 0)


SIZES = [(120, 40), (80, 24), (40, 12)]
LOOKING = {"listSessions", "listRequests", "listAudit", "getStatus", "inspectToken", "subscribe", "hello"}


def event(kind: str, session_id: str | None = None, **more: object) -> Event:
    return Event(kind, NOW, session_id, "", None, None)._replace(**more)


@pytest.mark.parametrize("size", SIZES)
def test_requests_are_on_top_and_sessions_below_them(agent, size):
    agent.open(label="desk")
    Requests(agent, DEPLOY)

    async def use(top: Top) -> None:
        await top.sees("4711 git", "> desk")
        lines = top.text.splitlines()
        assert lines[1].split()[0] == "ASKS"
        assert lines[3].split()[0] == "SESSION"
        assert lines[-1].endswith("? help  q quit")
        assert all(len(line) <= size[0] for line in lines)

    with_top(use, size=size)


def test_looking_asks_for_nothing_that_changes_anything(agent, logged_in):
    Requests(agent, DEPLOY)

    async def use(top: Top) -> None:
        await top.sees("desk", "4711 git")
        for key in ("tab", "down", "up", "pagedown", "home", "end", "i", "escape", "question_mark", "escape"):
            await top.press(key)
        await top.press("a", "n", "d", "n", "n", "escape", "r", "n", "L", "escape")
        agent.tell(event("created", "session-1"), event("refused"), event("renewed", "session-1"))
        await top.until(lambda: ("inspectToken", {"id": "session-1"}) in agent.calls)

    with_top(use)
    assert set(agent.methods) <= LOOKING
    assert all(params.keys() == {"id"} for method, params in agent.calls if method == "inspectToken")


def test_children_stand_below_their_parents(agent):
    parent = agent.open(label="parent")
    agent._create_token({"label": "child", "parent": parent}, NOW - 1)

    async def use(top: Top) -> None:
        await top.sees("> parent", "└─ child")

    with_top(use)


def test_what_an_asker_says_is_no_markup_and_steers_nothing(agent):
    agent.hold(session_with_label := agent.sessions[agent.open(label="x")]._replace(id="m", label="[b]y[/b]"))
    Requests(agent, DEPLOY._replace(reason='[bold red]ok[/] "\x1b[2J\u202eevil'))

    async def use(top: Top) -> None:
        await top.sees(session_with_label.label, '"[bold red]ok[/]')
        await top.press("a")
        await top.sees("says", "[bold red]ok[/] '\\x1b[2J\\u202eevil")
        assert top.text.isprintable() or all(line.isprintable() for line in top.text.splitlines())

    with_top(use, size=(120, 40))


# --- deciding ---


def test_a_request_is_approved_after_it_was_shown(agent):
    requests = Requests(agent, DEPLOY)

    async def use(top: Top) -> None:
        await top.sees("4711 git")
        await top.press("a")
        await top.sees("Approve this request?", "deploy, read", '"release 1.2"', "10 min")
        assert requests.decided == []
        await top.press("y")
        await top.sees("approved: session 0197043e-new, ends in 10 min")
        await top.until(lambda: "4711 git" not in top.text)

    with_top(use)
    assert requests.decided == [{"id": "k7m2qd", "decision": "approve"}]


def test_what_is_typed_ahead_agrees_to_nothing(agent, monkeypatch):
    monkeypatch.setattr(Question, "MOMENT_SECONDS", 3600)
    requests = Requests(agent, DEPLOY)

    async def use(top: Top) -> None:
        await top.sees("4711 git")
        await top.press("a", "y", "y", "y")
        await top.sees("Approve this request?")
        await top.press("y")
        top.app.screen.MOMENT_SECONDS = 0
        await top.press("y")
        await top.sees("approved")

    with_top(use)
    assert len(requests.decided) == 1


def test_keys_come_to_the_fields_in_their_order_however_fast(agent):
    requests = Requests(agent, DEPLOY)

    async def use(top: Top) -> None:
        await top.sees("4711 git")
        await top.press("n")
        await top.sees("[x] deploy")
        for key in ("space", "tab", "tab", "5", "m", "tab", "2", "enter"):  # without waiting for the first
            top.app.post_message(Key(key, key if len(key) == 1 else None))
        await top.sees("scopes read", "for 5 min", "2 uses")
        await top.press("y")
        await top.sees("approved")

    with_top(use)
    assert requests.decided[0]["maxUses"] == 2


@pytest.mark.parametrize("key", ["n", "escape", "q"])
def test_it_is_not_if_the_person_goes_back(agent, key):
    requests = Requests(agent, DEPLOY)

    async def use(top: Top) -> None:
        await top.sees("4711 git")
        await top.press("a", key)
        await top.until(lambda: "Approve" not in top.text)
        assert "4711 git" in top.text

    with_top(use)
    assert requests.decided == []


def test_on_a_small_terminal_yes_counts_only_once_all_was_on_the_screen(agent):
    requests = Requests(agent, DEPLOY)

    async def use(top: Top) -> None:
        await top.sees("4711 git")
        await top.press("a")
        await top.sees("more lines: press Down")
        seen = top.text
        while "answer is a no" not in seen:
            await top.press("y")
            assert requests.decided == []
            seen += top.text
        assert all(f"\n{word} " in seen for word in ("user", "scopes", "lasts", "uses", "says", "until"))
        await top.press("y")
        await top.sees("approved")

    with_top(use, size=(40, 12))
    assert len(requests.decided) == 1


def test_a_request_is_denied(agent):
    requests = Requests(agent, DEPLOY, BUILD)

    async def use(top: Top) -> None:
        await top.sees("EVERYTHING")
        await top.press("shift+tab", "down", "d")
        await top.sees("Deny this request?", "p9x1aa")
        await top.press("y")
        await top.sees("denied")

    with_top(use)
    assert requests.decided == [{"id": "p9x1aa", "decision": "deny"}]


def test_a_remembered_approval_can_only_be_forgotten(agent):
    requests = Requests(agent, KEPT)

    async def use(top: Top) -> None:
        await top.sees("remembered")
        await top.press("a")
        await top.sees("it is approved already")
        await top.press("n")
        await top.sees("it is approved already")
        await top.press("d")
        await top.sees("Forget this approval?")
        await top.press("y")
        await top.sees("forgotten")

    with_top(use)
    assert requests.decided == [{"id": "z2z2z2", "decision": "deny"}]


def test_less_is_granted_than_was_asked_for(agent):
    requests = Requests(agent, DEPLOY)

    async def use(top: Top) -> None:
        await top.sees("4711 git")
        await top.press("n")
        await top.sees("[x] deploy", "[x] read")
        await top.press("space", "tab", "tab", "5", "m", "tab", "9", "enter")
        await top.sees("uses: a number from 1 to 3")
        await top.press("backspace", "1", "tab", "1", "h", "enter")
        await top.sees("Approve LESS", "scopes read", "for 5 min", "1 use", "without asking for 1 h")
        await top.press("y")
        await top.sees("approved")

    with_top(use)
    assert requests.decided == [
        {
            "id": "k7m2qd",
            "decision": "approve",
            "scopes": ["read"],
            "expiry": 300,
            "maxUses": 1,
            "remember": 3600,
        }
    ]


@pytest.mark.parametrize("size", SIZES)
def test_who_asks_for_everything_can_be_given_some_scopes(agent, size):
    requests = Requests(agent, BUILD)

    async def use(top: Top) -> None:
        await top.sees("4711 git")
        await top.press("n")
        await top.sees("Grant less", "scopes, with")
        await top.type("build read")
        await top.press("enter")
        await top.sees("Approve LESS")
        while not requests.decided:
            await top.press("y")
        await top.sees("approved")

    with_top(use, size=size)
    assert requests.decided == [{"id": "p9x1aa", "decision": "approve", "scopes": ["build", "read"]}]


def test_under_passphrase_approving_takes_it_and_shows_none_of_it(agent):
    requests = Requests(agent, DEPLOY)
    status = agent._getStatus({})._replace(opening="passphrase")
    agent.script["getStatus"] = lambda params: status
    given = []

    def answer(params):
        given.append(bytes(params["passphrase"]))
        if given[-1] != "größe".encode():
            raise PassphraseError("that is not the passphrase of the key file")
        requests.answer = None
        return requests._decide(params)

    requests.answer = answer

    async def use(top: Top) -> None:
        await top.sees("4711 git", "opening: passphrase")
        await top.press("a", "y")
        await top.sees("Passphrase of agentd", "unlocks nothing")
        await top.type("wrongx")
        await top.press("backspace")
        await top.sees("> *****_")
        assert "wrong" not in top.text
        await top.press("enter")
        await top.sees("that is not the passphrase", "> _")
        await top.type("q")
        await top.press("ctrl+u")
        await top.press("g", "r", "ö", "ß", "e")
        await top.press("enter")
        await top.sees("approved")

    with_top(use)
    assert given == [b"wrong", "größe".encode()]
    assert "passphrase" in requests.decided[-1]


def test_without_the_passphrase_nothing_is_approved(agent):
    requests = Requests(agent, DEPLOY)
    status = agent._getStatus({})._replace(opening="passphrase")
    agent.script["getStatus"] = lambda params: status

    async def use(top: Top) -> None:
        await top.sees("opening: passphrase", "4711 git")
        await top.press("a", "y")
        await top.sees("Passphrase of agentd")
        await top.press("escape")
        await top.sees("nothing was approved")

    with_top(use)
    assert requests.decided == []


def test_a_question_about_a_request_that_ends_closes(agent):
    requests = Requests(agent, DEPLOY, BUILD)

    async def use(top: Top) -> None:
        await top.sees("4711 git")
        await top.press("a")
        await top.sees("Approve this request?")
        requests.held = [BUILD]
        agent.tell(event("withdrawn", request_id="k7m2qd"))
        await top.sees("the request has ended")
        assert "Approve" not in top.text

    with_top(use)
    assert requests.decided == []


def test_a_new_request_does_not_move_the_one_that_is_decided_about(agent):
    requests = Requests(agent, DEPLOY)

    async def use(top: Top) -> None:
        await top.sees("> 4711 git")
        requests.held = [BUILD._replace(asked_at=NOW - 100), DEPLOY]
        agent.tell(event("requested", request_id="p9x1aa"))
        await top.sees("EVERYTHING")
        await top.press("a")
        await top.sees("k7m2qd")
        await top.press("y")
        await top.sees("approved")

    with_top(use)
    assert [params["id"] for params in requests.decided] == ["k7m2qd"]


def test_a_decision_that_comes_too_late_says_so(agent):
    requests = Requests(agent, DEPLOY)

    def answer(params):
        raise NoSuchRequestError

    requests.answer = answer

    async def use(top: Top) -> None:
        await top.sees("4711 git")
        await top.press("a", "y")
        await top.sees("Could not approve it", *NoSuchRequestError().sentence.split()[:3])
        await top.press("escape")
        await top.until(lambda: "Could not" not in top.text)

    with_top(use)


@pytest.mark.parametrize("key", ["a", "n", "d"])
def test_without_requests_there_is_nothing_to_decide(agent, key):
    async def use(top: Top) -> None:
        await top.press(key)
        await top.until(lambda: "request" in top.text.splitlines()[-1])

    with_top(use)


# --- sessions ---


def test_revoking_says_how_many_end_with_it(agent):
    parent = agent.open(label="parent")
    for label in ("one", "two"):
        agent._create_token({"label": label, "parent": parent}, NOW - 1)

    async def use(top: Top) -> None:
        await top.sees("> parent", "one", "two")
        await top.press("r")
        await top.sees('label "parent"', "the 2 sessions below it: 3 in all")
        assert "revokeToken" not in agent.methods
        await top.press("y")
        await top.sees("revoked")
        await top.until(lambda: "parent" not in top.text)

    with_top(use)
    assert ("revokeToken", {"id": "session-1"}) in agent.calls


def test_the_session_of_the_token_file_is_renewed_and_no_other(agent, logged_in, token_file):
    agent.open(label="other")

    async def use(top: Top) -> None:
        await top.sees("other")
        await top.press("R")
        await top.sees("renewed your own session session-1, ends in 8 h")

    with_top(use)
    assert [params for method, params in agent.calls if method == "renewToken"] == [{"token": logged_in}]
    assert token_file.read_text().strip() == f"{logged_in}.1"


def test_without_a_token_file_there_is_nothing_to_renew(agent):
    async def use(top: Top) -> None:
        await top.press("R")
        await top.sees("Could not renew your own session", "agentctl login")

    with_top(use)


def test_a_token_in_the_environment_is_not_renewed(agent, logged_in, monkeypatch):
    monkeypatch.setenv("AGENTD_TOKEN", logged_in)

    async def use(top: Top) -> None:
        await top.press("R")
        await top.sees("where it cannot be")

    with_top(use)
    assert "renewToken" not in agent.methods


def test_a_session_is_inspected(agent):
    agent.open(label="desk")

    async def use(top: Top) -> None:
        await top.sees("> desk")
        await top.press("enter")
        await top.sees("session-1", "audience  anyone", "ends in 8 h")

    with_top(use)


def test_the_filter_is_typed_and_taken_away(agent):
    agent.open(label="nightly build")
    agent.open(label="desk")

    async def use(top: Top) -> None:
        await top.sees("nightly", "desk")
        await top.press("slash")
        await top.type("BUILD")
        await top.until(lambda: "> desk" not in top.text and "desk" not in top.text)
        await top.press("enter")
        await top.sees("filter: BUILD", "nightly", "q quit")
        await top.press("escape")
        await top.sees("desk", "nightly")

    with_top(use)


def test_letters_that_are_typed_into_the_filter_do_nothing_else(agent):
    agent.open(label="desk")
    requests = Requests(agent, DEPLOY)

    async def use(top: Top) -> None:
        await top.sees("desk")
        await top.press("slash")
        await top.type("adnrRLq")
        await top.sees("filter: adnrRLq")

    with_top(use)
    assert set(agent.methods) <= LOOKING
    assert requests.decided == []


def test_events_show_what_they_did(agent):
    agent.open(label="desk")

    async def use(top: Top) -> None:
        await top.sees("> desk")
        agent.open(label="new one")
        agent.tell(event("created", "session-2", label="new one"), event("refused", reason="MALFORMED"))
        await top.until(lambda: top.text.count("new one") == 2)
        await top.sees("MALFORMED")
        agent._revokeToken({"id": "session-1"})
        agent.tell(event("revoked", "session-1"))
        await top.until(lambda: "desk" not in top.text)

    with_top(use)


def test_ten_thousand_sessions_are_read_page_by_page(agent):
    first = SessionInfo("id-0", "job 0", NOW, NOW + 3600, PeerIdentity(0, 4712))
    held = [
        first._replace(id=f"id-{number}", label=f"job {number}", created_at=NOW - number)
        for number in range(10_000)
    ]

    def page(params: dict[str, Any]) -> SessionPage:
        begin = int(params.get("after") or 0)
        return SessionPage(held[begin : begin + 16], str(begin + 16) if begin + 16 < len(held) else None)

    def inspected(params: dict[str, Any]) -> Verification:
        return Verification(True, None, held[int(params["id"].removeprefix("id-"))])

    agent.script |= {"listSessions": page, "inspectToken": inspected}
    most = []

    async def use(top: Top) -> None:
        await top.sees("job 1 ")
        most.append(len(top.app.model.sessions))
        await top.sees("1-13 of 10,000", "agentd  10,000 sessions")
        await top.press("end")
        await top.sees("> job 9999")

    with_top(use)
    assert most[0] < 10_000, "the first are shown before the last are read"


# --- the agent ---


def test_a_locked_agent_says_so_and_goes_on_when_it_is_unlocked(agent):
    agent.passphrase, agent.locked = b"x", True

    async def use(top: Top) -> None:
        await top.sees("LOCKED; `agentctl unlock`")
        agent.open(label="desk")
        agent.locked = False
        agent.tell(event("unlocked"))
        await top.sees("> desk")
        agent.locked = True
        agent.tell(event("locked", reason="suspend"))
        await top.sees("LOCKED", "the machine")

    with_top(use)
    assert "unlock" not in agent.methods


def test_the_agent_is_locked_on_demand(agent):
    agent.passphrase = b"x"

    async def use(top: Top) -> None:
        await top.sees("0 sessions")
        await top.press("L")
        await top.sees("Lock the agent?")
        await top.press("y")
        await top.sees("locked")

    with_top(use)
    assert "lock" in agent.methods


def test_an_agent_that_cannot_be_locked_says_why(agent):
    async def use(top: Top) -> None:
        await top.press("L", "y")
        await top.sees("Could not lock it", "passphrase")

    with_top(use)


def test_an_agent_that_goes_away_and_comes_back(folder):
    path = folder / "agent.sock"

    async def use(top: Top) -> None:
        await top.sees("NOT CONNECTED")
        with FakeAgent(path) as agent:
            Requests(agent)
            agent.open(label="desk")
            await top.sees("> desk", "1 session")
            agent.tell(event("stopping"))
        await top.sees("NOT CONNECTED: the agent has stopped", "> desk")
        with FakeAgent(path) as agent:
            Requests(agent)
            agent.open(label="another")
            await top.sees("> another", "1 session")
            assert "desk" not in top.text
            agent.hang_up()
            await top.sees("NOT CONNECTED: the connection")
            await top.sees("1 session")

    with_top(use)


def test_an_agent_that_knows_no_requests_is_shown_too(agent):
    from agentd_client.errors import UnknownMethodError

    agent.open(label="desk")
    agent.refuse("listRequests", UnknownMethodError("no method 'listRequests'"))

    async def use(top: Top) -> None:
        await top.sees("> desk")
        await top.until(lambda: agent.methods.count("getStatus") > 1)

    with_top(use)
    assert agent.methods.count("listRequests") == 1


# --- the terminal ---


def test_every_size_is_survived_and_the_cursor_stays_on_the_screen(agent):
    for number in range(40):
        agent.open(label=f"job {number}", at=NOW - number)
    Requests(agent, DEPLOY, BUILD, KEPT)

    async def use(top: Top) -> None:
        await top.sees("> job 0")
        await top.press("end")
        for size in ((120, 40), (40, 12), (20, 5), (5, 3), (1, 1), (200, 60), (40, 12)):
            await top.resize(*size)
            await top.press("a", "escape", "n", "escape", "question_mark", "escape", "i", "escape")
        await top.sees("> job 39")

    with_top(use)


def test_a_fault_ends_it_and_shows_no_variables(agent, monkeypatch, capsys):
    from agentd_client.tui.model import Model

    def fault(self, event):
        secret = "hunter" + "2"  # noqa: F841 - Textual would print it
        raise RuntimeError("a fault")

    monkeypatch.setattr(Model, "take_event", fault)

    async def use(top: Top) -> None:
        await top.until(lambda: agent.subscribed.is_set())
        agent.tell(event("created", "x"))
        await top.until(lambda: top.app.failure is not None)

    with pytest.raises(BaseException, match="a fault|Worker"):
        with_top(use)
    out, err = capsys.readouterr()
    assert "hunter2" not in out + err
