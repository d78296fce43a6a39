"""Desktop notifications, on a real bus with a stand-in for the desktop: what is shown, and which answers count."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys

import pytest

from agentd_client.errors import AgentLockedError, NoSuchRequestError, ParentNotValidError
from agentd_client.prompt.notifications import AT_ONCE
from agentd_client.protocol.results import (
    APPROVED,
    DENIED,
    LOCKED,
    REMEMBERED,
    REQUEST_EXPIRED,
    WITHDRAWN,
    Event,
)
from tests.other_user import NOBODY, needs_root
from tests.prompt.desktop import until

LISTENS = """
import os, socket, sys
uid = int(sys.argv[2])  # taken here: another user cannot be expected to reach this Python
os.setresuid(uid, uid, uid)
listener = socket.socket(socket.AF_UNIX)
listener.bind("\\0" + sys.argv[1])
listener.listen()
print("listening", flush=True)
connection, _ = listener.accept()
print(len(connection.recv(1000)))
"""

BUTTONS = ["approve", "Approve", "deny", "Deny"]


@pytest.fixture
def shown(requests, notifying, started):
    """The notification of the request k7m2qd."""
    started()
    requests.ask()
    return notifying.wait_for(1)[0]


def undecided(requests, notifying) -> bool:
    """Whether nothing was decided, once a further request has been asked about and answered."""
    requests.ask("x9x9x9")
    until(lambda: any("x9x9x9" in shown.body for shown in notifying.shown()))
    (further,) = (shown for shown in notifying.shown() if "x9x9x9" in shown.body)
    notifying.press(further.id, "deny")
    return requests.decision()[0] == "x9x9x9"


# --- what is shown ------------------------------------------------------------------------------------


def test_it_says_who_asks_for_what_why_and_until_when_below_words_of_ours(shown):
    assert shown.title == "A program asks for a session"
    who, what, why, until_when = shown.body.split("\n")
    assert who.startswith("request: k7m2qd; user: ")
    assert "; program: /usr/bin/git; process: 4712; " in who
    assert what == "scopes: deploy; audience: anyone; lasts: 10 min; uses: unlimited"
    assert why == 'says: "push the release"'
    assert re.search(r"until: \d\d:\d\d:\d\d, in \d min( \d+ s)?; no answer is a no$", until_when)
    assert shown.actions == BUTTONS
    assert shown.hints == {"urgency": ("y", 2)}
    assert 200_000 < shown.milliseconds <= 300_000


@pytest.mark.parametrize(
    ("capabilities", "seen"),
    [(["body", "actions", "body-markup"], "&lt;b&gt; &amp;x"), (["body", "actions"], "<b> &x")],
)
def test_markup_is_escaped_where_the_desktop_reads_markup(requests, screen, started, capabilities, seen):
    screen.start_server(*capabilities)
    started()
    requests.ask(reason="<b> &x")
    (shown,) = screen.wait_for(1)
    assert f'says: "{seen}"' in shown.body


def test_an_approval_that_is_remembered_is_not_asked_about(requests, notifying, started):
    requests.ask("remembered", state=REMEMBERED)
    started()
    assert undecided(requests, notifying)
    assert len(notifying.shown()) == 1


@pytest.mark.parametrize("capabilities", [["body", "body-markup"], ["actions"]])
def test_a_desktop_without_buttons_or_texts_is_told_where_to_decide(requests, screen, started, capabilities):
    screen.start_server(*capabilities)
    prompt = started()
    requests.ask("aaaaaa")
    requests.ask("bbbbbb")
    shown = screen.wait_for(2)
    assert [one.actions for one in shown] == [[], []]
    assert shown[0].body.endswith("\nTo decide: agentctl approve aaaaaa")
    assert prompt.said().count("have no buttons") == 1
    screen.press(1, "approve")
    screen.press(2, "deny")
    requests.end("aaaaaa")
    until(lambda: 1 in screen.closed())
    assert requests.decided.empty()


def test_what_does_not_fit_cannot_be_approved_there(requests, notifying, started):
    started()
    requests.ask(scopes=[f"a-scope-with-number-{number}" for number in range(40)])
    (shown,) = notifying.wait_for(1)
    assert shown.actions == ["deny", "Deny"]
    assert "a-scope" not in shown.body
    assert shown.body.endswith("\nTo decide: agentctl approve k7m2qd")
    notifying.press(shown.id, "approve")
    notifying.press(shown.id, "deny")
    assert requests.decision() == ("k7m2qd", "deny", None)


def test_reasons_go_before_scopes_where_not_all_fits(requests, notifying, started):
    started()
    requests.ask(scopes=[f"scope-{number:02}" for number in range(30)], reason="because " * 20)
    (shown,) = notifying.wait_for(1)
    assert shown.actions == BUTTONS
    assert "scope-29" in shown.body
    assert "because" not in shown.body


def test_a_few_are_shown_at_a_time(requests, notifying, started):
    started()
    for number in range(AT_ONCE + 2):
        requests.ask(f"request-{number}")
    assert len(notifying.wait_for(AT_ONCE)) == AT_ONCE
    first = notifying.shown()[0]
    notifying.press(first.id, "deny")
    assert requests.decision()[1] == "deny"
    assert len(notifying.wait_for(AT_ONCE + 1)) == AT_ONCE + 1


# --- which answers count ------------------------------------------------------------------------------


@pytest.mark.parametrize(("decision", "done"), [("approve", "approved"), ("deny", "denied")])
def test_a_button_decides(requests, notifying, started, decision, done):
    prompt = started()
    requests.ask()
    notifying.press(notifying.wait_for(1)[0].id, decision)
    assert requests.decision() == ("k7m2qd", decision, None)
    prompt.wait_until_said(f"request k7m2qd was {done} here")


def test_a_request_that_waits_already_is_asked_about(requests, notifying, started):
    requests.ask()
    started()
    notifying.press(notifying.wait_for(1)[0].id, "approve")
    assert requests.decision() == ("k7m2qd", "approve", None)


def test_closing_is_no_answer_and_it_is_not_shown_again(requests, notifying, shown):
    notifying.dismiss(shown.id)
    notifying.press(shown.id, "approve")
    assert undecided(requests, notifying)
    assert len(notifying.shown()) == 2
    assert list(requests.waiting) == ["k7m2qd"]


@pytest.mark.parametrize("action", ["default", "", "Approve", "approve ", "settings"])
def test_an_action_that_is_no_button_of_ours_is_no_answer(requests, notifying, shown, action):
    notifying.press(shown.id, action)
    notifying.press(shown.id + 1, "approve")
    assert undecided(requests, notifying)
    notifying.press(shown.id, "deny")
    assert requests.decision() == ("k7m2qd", "deny", None)


def test_signals_of_others_on_the_bus_are_no_answers(requests, notifying, shown):
    for number in range(5):
        notifying.forge("ActionInvoked", "us", number, "approve")
        notifying.forge("NotificationClosed", "uu", number, 2)
    new_owner = ("org.freedesktop.Notifications", ":1.1", ":1.2")
    notifying.forge("NameOwnerChanged", "sss", *new_owner, interface="org.freedesktop.DBus")
    notifying.forge("ActionInvoked", "s", "approve")
    notifying.forge("ActionInvoked", "us", shown.id, "approve" * 20_000)
    assert undecided(requests, notifying)
    assert len(notifying.shown()) == 2
    notifying.press(shown.id, "approve")
    assert requests.decision() == ("k7m2qd", "approve", None)


def test_an_answer_after_somebody_elses_is_silent(requests, notifying, started, agent):
    prompt = started()
    requests.ask()
    agent.refuse("decideRequest", NoSuchRequestError("no such request"))
    notifying.press(notifying.wait_for(1)[0].id, "approve")
    until(lambda: "decideRequest" in agent.methods)
    prompt.stop()
    assert prompt.said() == "agentctl: asking about requests for sessions\n"


def test_an_answer_that_has_no_effect_is_reported(requests, notifying, started, agent):
    prompt = started()
    requests.ask()
    agent.refuse("decideRequest", ParentNotValidError("its parent has ended"))
    notifying.press(notifying.wait_for(1)[0].id, "approve")
    text = "the answer to request k7m2qd had no effect: its parent has ended"
    assert notifying.wait_for(2)[1][1:4] == ("agentd", text, [])
    assert text in prompt.said()
    assert list(requests.waiting) == ["k7m2qd"]


# --- how a question ends ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [APPROVED, DENIED, REQUEST_EXPIRED, WITHDRAWN])
def test_it_closes_with_its_request(requests, notifying, shown, kind):
    requests.end("k7m2qd", kind)
    until(lambda: notifying.closed() == [shown.id])
    notifying.press(shown.id, "approve")
    assert undecided(requests, notifying)


def test_it_closes_when_the_agent_is_locked_and_goes_on_listening(agent, requests, notifying, shown):
    listing = agent.script["listRequests"]
    agent.refuse("listRequests", AgentLockedError("locked"))
    agent.tell(Event(LOCKED, 0.0, None, "", "asked", None))
    until(lambda: notifying.closed() == [shown.id])
    del requests.waiting["k7m2qd"]
    agent.script["listRequests"] = listing
    assert undecided(requests, notifying)
    assert agent.methods.count("subscribe") == 1


def test_events_that_were_missed_do_not_matter(agent, requests, notifying, shown):
    del requests.waiting["k7m2qd"]
    agent.tell(Event("created", 0.0, None, "", None, None, missed=7))
    until(lambda: notifying.closed() == [shown.id])


def test_it_ends_at_once_with_a_signal_and_leaves_nothing_on_the_screen(requests, notifying, started):
    prompt = started()
    requests.ask()
    (shown,) = notifying.wait_for(1)
    assert prompt.stop(signal.SIGINT) == 0
    assert notifying.closed() == [shown.id]
    assert list(requests.waiting) == ["k7m2qd"]


def test_one_that_appears_after_its_request_has_ended_is_closed(agent, requests, notifying, shown):
    notifying.press(shown.id, "deny")
    assert requests.decision()[0] == "k7m2qd"
    with notifying.server_stopped():
        requests.ask("late")
        asked = agent.methods.count("listRequests")
        until(lambda: agent.methods.count("listRequests") > asked)
        requests.end("late")
        until(lambda: agent.methods.count("listRequests") > asked + 1)
    until(lambda: notifying.closed() == [2])
    assert "late" in notifying.shown()[1].body


# --- what goes away and comes back --------------------------------------------------------------------


def test_it_waits_for_an_agent(folder, notifying, started):
    from tests.agentctl.fake_agent import FakeAgent
    from tests.prompt.conftest import Requests

    prompt = started()
    prompt.wait_until_said("waiting for the agent")
    with FakeAgent(folder / "agent.sock") as agent:
        Requests(agent).ask()
        assert notifying.wait_for(1)
        agent.hang_up()
        until(lambda: notifying.closed() == [1])
        assert notifying.wait_for(2)
    until(lambda: notifying.closed() == [1, 2])
    assert prompt.stop() == 0


def test_a_notification_server_that_restarts_shows_it_again(requests, screen, started):
    screen.start_server()
    started()
    requests.ask()
    assert screen.wait_for(1)
    screen.end_server()
    screen.start_server()
    assert "k7m2qd" in screen.wait_for(1)[0].body
    screen.press(1, "approve")
    assert requests.decision() == ("k7m2qd", "approve", None)


def test_a_bus_that_restarts_is_connected_to_again(requests, screen, started):
    screen.start_server()
    prompt = started()
    requests.ask()
    assert screen.wait_for(1)
    screen.bus.end_bus()
    prompt.wait_until_said("while the session bus cannot be used")
    screen.end_server()
    screen.bus.start_bus()
    screen.start_server()
    screen.press(screen.wait_for(1)[0].id, "deny")
    assert requests.decision() == ("k7m2qd", "deny", None)


def test_a_desktop_that_has_no_notification_server_yet_is_waited_for(requests, screen, started):
    prompt = started()
    requests.ask()
    prompt.wait_until_said("a notification could not be shown: nobody is there")
    screen.start_server()
    screen.press(screen.wait_for(1)[0].id, "approve")
    assert requests.decision() == ("k7m2qd", "approve", None)


def test_a_notification_server_that_hangs_delays_no_end(requests, notifying, shown, started):
    with notifying.server_stopped():
        assert started().stop() in (0, -signal.SIGTERM)
        prompt = started()
        prompt.wait_until_said("asking about requests")
        assert prompt.stop() == 0
    with pytest.raises(queue.Empty):
        requests.decided.get_nowait()


def test_without_a_session_bus_it_says_what_to_do(agent, started):
    prompt = started()
    prompt.wait_until_said("there is no session bus for notifications")
    assert prompt.ended() == 78
    prompt = started(DBUS_SESSION_BUS_ADDRESS="tcp:host=127.0.0.1,port=1")
    prompt.wait_until_said("DBUS_SESSION_BUS_ADDRESS names no Unix socket")


@needs_root
def test_a_bus_of_another_user_is_not_spoken_to(agent, started):
    name = f"agentd-test-{os.getpid()}"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", LISTENS, name, str(NOBODY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as impostor:
        assert impostor.stdout.readline() == b"listening\n"
        prompt = started(DBUS_SESSION_BUS_ADDRESS=f"unix:abstract={name}")
        prompt.wait_until_said(f"the session bus cannot be used: it belongs to uid {NOBODY}")
        prompt.stop()
        assert impostor.communicate()[0] == b"0\n", "and was told nothing"


def test_without_an_address_the_bus_of_the_user_manager_is_used(
    folder, requests, screen, started, monkeypatch
):
    screen.start_server()
    (folder.parent / "bus").symlink_to(screen.address.partition("=")[2])
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS")
    started()
    requests.ask()
    assert screen.wait_for(1)
