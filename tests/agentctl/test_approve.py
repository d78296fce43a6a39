"""`agentctl approve` and `deny`: what is shown is what is decided, and nothing is approved unseen."""

from __future__ import annotations

import json
import subprocess

import pytest

from agentd_client.errors import NoSuchRequestError, OwnRequestError
from agentd_client.protocol.results import PASSPHRASE, REMEMBERED, RequestPage
from tests.agentctl.fake_agent import NOW
from tests.agentctl.running import COMMAND, in_conversation, in_process, process

QUESTION = b"Approve? [y]es, [n]o, [s]kip: "
SECRET = "correct hörse"


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def passphrase_file(agent, folder):
    agent.opening, agent.passphrase = PASSPHRASE, SECRET.encode()
    path = folder / "passphrase"
    path.touch(mode=0o600)
    path.write_text(SECRET + "\n")
    return str(path)


def decisions(agent):
    return [params for method, params in agent.calls if method == "decideRequest"]


def test_it_is_shown_on_the_terminal_and_approved_by_a_yes(agent):
    agent.ask("k7m2qd", bound=True)
    ended = in_conversation("approve", "k7m2qd", answers=[(QUESTION, b"y\n")])
    assert ended.code == 0
    shown, _, said = ended.shown.partition(QUESTION.decode())
    rows = dict(line.split(maxsplit=1) for line in shown.splitlines())
    assert rows["request"] == "k7m2qd"
    assert rows["program"] == "/usr/bin/git"
    assert rows["scopes"] == "deploy, read"
    assert rows["says"] == '"release 2.4"'
    assert rows["lasts"] == "10 min"
    assert "approved: k7m2qd: session session-1, " in said
    (session,) = agent.sessions.values()
    assert (session.scopes, session.label) == (["deploy", "read"], "nightly")
    assert decisions(agent) == [{"id": "k7m2qd", "decision": "approve"}]


@pytest.mark.parametrize(
    ("typed", "decision", "still_waits"),
    [
        (b"n\n", ["deny"], False),
        (b"No\n", ["deny"], False),
        (b"s\n", [], True),
        (b"\n", [], True),
        (b"\x04", [], True),
    ],
)
def test_anything_but_a_yes_approves_nothing(agent, typed, decision, still_waits):
    agent.ask("k7m2qd")
    ended = in_conversation("approve", "k7m2qd", answers=[(QUESTION, typed)])
    assert ended.code == (130 if typed == b"\x04" else 1)
    assert [params["decision"] for params in decisions(agent)] == decision
    assert ("k7m2qd" in agent.requests) == still_waits
    assert agent.sessions == {}


def test_an_answer_that_is_none_is_asked_for_again(agent):
    agent.ask("k7m2qd")
    ended = in_conversation("approve", answers=[(QUESTION, b"yea\n"), (QUESTION, b"yes\n")])
    assert ended.code == 0
    assert len(agent.sessions) == 1


def test_a_yes_that_was_typed_before_the_request_was_shown_is_no_answer(agent):
    agent.ask("k7m2qd")
    ended = in_conversation("approve", answers=[(QUESTION, b"n\n")], early=b"y\ny\n")
    assert ended.code == 1
    assert agent.sessions == {}


def test_without_an_id_all_are_shown_one_after_the_other(agent):
    for request_id in ("first", "second", "third"):
        agent.ask(request_id, label=request_id)
    ended = in_conversation("approve", answers=[(QUESTION, b"y\n"), (QUESTION, b"n\n"), (QUESTION, b"s\n")])
    assert ended.code == 1
    assert [session.label for session in agent.sessions.values()] == ["first"]
    assert list(agent.requests) == ["third"]
    assert "request third still waits" in ended.shown


def test_one_that_is_gone_is_named_and_the_next_is_shown(agent):
    agent.ask("first")
    agent.ask("second")
    agent.refuse("decideRequest", NoSuchRequestError("it is gone"))
    ended = in_conversation("approve", answers=[(QUESTION, b"y\n"), (QUESTION, b"s\n")])
    assert ended.code == 1
    assert "warning: it is gone" in ended.shown


def test_where_nothing_waits_it_says_so(agent):
    agent.ask("known", state=REMEMBERED)
    assert in_process("approve") == (1, "", "agentctl: no request is waiting\n")
    assert in_process("deny") == (1, "", "agentctl: no request is waiting\n")


def test_what_is_no_longer_what_was_shown_is_not_approved(agent):
    request = agent.ask("k7m2qd")
    listed = []

    def changing(params):
        listed.append(params)
        scopes = request.scopes if len(listed) == 1 else None
        return RequestPage([request._replace(scopes=scopes)], None)

    agent.script["listRequests"] = changing
    ended = in_process("approve", "k7m2qd", "--yes")
    assert ended.code == 65
    assert "request k7m2qd is not the one that was shown; nothing was approved" in ended.err
    assert decisions(agent) == []


def test_what_ended_while_it_was_shown_is_not_approved(agent):
    request = agent.ask("k7m2qd")
    listed = []

    def ending(params):
        listed.append(params)
        return RequestPage([request] if len(listed) == 1 else [], None)

    agent.script["listRequests"] = ending
    ended = in_process("approve", "k7m2qd", "--yes")
    assert ended.code == 65
    assert "request k7m2qd is gone" in ended.err
    assert decisions(agent) == []


def test_times_that_the_clock_moves_and_calls_that_join_change_nothing(agent):
    request = agent.ask("k7m2qd")
    moves = iter(range(10))

    def moving(params):
        move = next(moves)
        moved = request._replace(calls=move, until=request.until + move, asked_at=request.asked_at + move)
        return RequestPage([moved], None)

    agent.script["listRequests"] = moving
    assert in_process("approve", "k7m2qd", "--yes").code == 0


def test_yes_shows_the_request_too_and_asks_nothing(agent):
    agent.ask("k7m2qd")
    ended = in_process("approve", "k7m2qd", "--yes", terminal=True)
    assert ended.code == 0
    assert 'says       "release 2.4"\n' in ended.err
    assert ended.out == "approved: k7m2qd: session session-1, ends in 10 min\n"


def test_yes_needs_an_id(agent):
    agent.ask("k7m2qd")
    ended = in_process("approve", "--yes")
    assert ended.code == 64
    assert "--yes needs the id of a request" in ended.err
    assert agent.calls == []


def test_without_a_terminal_nothing_is_approved_without_yes(agent):
    agent.ask("k7m2qd")
    for args in ([], ["k7m2qd"]):
        ended = process("approve", *args, stdin="y\n", start_new_session=True)
        assert ended.returncode == 64
        assert "without a terminal to ask on" in ended.stderr
    assert list(agent.requests) == ["k7m2qd"]


def test_the_beginning_of_an_id_is_enough_if_it_is_the_only_one(agent):
    agent.ask("k7m2qd")
    agent.ask("k7zzzz")
    ended = in_process("approve", "k7", "--yes")
    assert ended.code == 64
    assert "2 requests have ids that begin like this" in ended.err
    assert in_process("approve", "k7m", "--yes").code == 0
    assert list(agent.requests) == ["k7zzzz"]


def test_an_id_that_another_begins_with_is_not_ambiguous(agent):
    agent.ask("k7m2qd")
    agent.ask("k7m")
    assert in_process("deny", "k7m").code == 0
    assert list(agent.requests) == ["k7m2qd"]


@pytest.mark.parametrize("name", ["approve", "deny"])
def test_an_unknown_id_is_an_error_and_what_is_none_is_not_repeated(agent, name):
    args = ["--yes"] if name == "approve" else []
    ended = in_process(name, "k7m2qd", *args)
    assert ended.code == 65
    assert "no request of that id is waiting" in ended.err
    for given in ("hunter 2", "", "hunter2/"):
        ended = in_process(name, given, *args)
        assert ended.code == 64
        assert "hunter" not in ended.err
    assert decisions(agent) == []


def test_less_can_be_granted_and_that_is_shown(agent):
    agent.ask("k7m2qd")
    limits = ["--scope", "read", "--ttl", "5m", "--uses", "1", "--remember", "1h"]
    ended = in_process("approve", "k7m2qd", "--yes", *limits, terminal=True)
    assert ended.code == 0
    assert "you grant  only scopes read, for 5 min, 1 use\n" in ended.err
    assert "you allow  the same for 1 h, without asking again\n" in ended.err
    assert decisions(agent) == [
        {
            "id": "k7m2qd",
            "decision": "approve",
            "scopes": ["read"],
            "expiry": 300,
            "maxUses": 1,
            "remember": 3600,
        }
    ]
    assert ended.out == (
        "approved: k7m2qd: session session-1, ends in 5 min\n"
        "the same is granted without asking for 1 h; `agentctl deny k7m2qd` ends that\n"
    )


def test_more_cannot(agent):
    agent.ask("k7m2qd")
    ended = in_process("approve", "k7m2qd", "--yes", "--scope", "admin")
    assert ended.code == 77
    assert "agentctl: leave out --scope, --ttl and --uses to grant all that is asked for" in ended.err
    assert "k7m2qd" in agent.requests


@pytest.mark.parametrize("more", [["--scope", "admin"], ["--ttl", "1h"], ["--uses", "9"]])
def test_nobody_is_shown_only_of_what_is_more(agent, more):
    agent.ask("k7m2qd", scopes=["read"], expiry=600, max_uses=5)
    ended = in_process("approve", "k7m2qd", "--yes", *more)
    assert ended.code == 77
    assert f"{more[0]}: more than request k7m2qd asks for" in ended.err
    assert "you grant" not in ended.out + ended.err
    assert "decideRequest" not in agent.methods


@pytest.mark.parametrize(
    "args", [["--ttl", "0"], ["--ttl", "never"], ["--uses", "0"], ["--remember", "25h"], ["--remember", "0"]]
)
def test_limits_that_make_no_sense_are_refused_first(agent, args):
    agent.ask("k7m2qd")
    assert in_process("approve", "k7m2qd", "--yes", *args).code == 64
    assert agent.calls == []


def test_limits_are_for_one_request(agent):
    agent.ask("first")
    agent.ask("second")
    ended = in_process("approve", "--scope", "read")
    assert ended.code == 64
    assert "several requests wait" in ended.err


def test_results_for_a_pipe_and_as_json(agent):
    agent.ask("k7m2qd")
    ended = in_process("approve", "k7m2qd", "--yes", "--json")
    told = json.loads(ended.out)
    assert told == {
        "id": "k7m2qd",
        "sessionId": "session-1",
        "expiresAt": NOW + 600,
        "rememberedUntil": None,
        "decision": "approve",
    }
    assert json.loads(ended.err)["request"]["id"] == "k7m2qd"
    agent.ask("q9z3aa")
    assert in_process("deny").out == (
        "id\tq9z3aa\nsessionId\t\nexpiresAt\t\nrememberedUntil\t\ndecision\tdeny\n"
    )


def test_under_passphrase_it_is_asked_for_after_the_yes(agent, passphrase_file):
    agent.ask("k7m2qd")
    asked = b"Passphrase of agentd, to approve k7m2qd: "
    answers = [(QUESTION, b"y\n"), (asked, b"wrong\n"), (asked, SECRET.encode() + b"\n")]
    ended = in_conversation("approve", answers=answers)
    assert ended.code == 0
    assert SECRET not in ended.shown
    assert len(agent.sessions) == 1


def test_denying_needs_no_passphrase(agent, passphrase_file):
    agent.ask("k7m2qd")
    assert in_conversation("approve", answers=[(QUESTION, b"n\n")]).code == 1
    agent.ask("q9z3aa")
    assert in_process("deny", "q9z3aa").code == 0
    assert agent.requests == {}


def test_the_passphrase_comes_from_where_unlock_takes_it(agent, passphrase_file):
    agent.ask("k7m2qd")
    ended = in_process("approve", "k7m2qd", "--yes", "--passphrase-file", passphrase_file)
    assert ended.code == 0
    assert decisions(agent)[0]["passphrase"] == SECRET.encode()
    agent.ask("q9z3aa")
    assert in_process("approve", "q9z3aa", "hunter2").code == 64
    assert "hunter2" not in in_process("approve", "q9z3aa", "hunter2").err


def test_with_a_wrong_passphrase_the_request_still_waits(agent, passphrase_file):
    agent.ask("k7m2qd")
    agent.passphrase = b"another"
    ended = in_process("approve", "k7m2qd", "--yes", "--passphrase-file", passphrase_file)
    assert ended.code == 77
    assert list(agent.requests) == ["k7m2qd"]


def test_a_request_of_its_own_cannot_be_approved(agent):
    agent.ask("k7m2qd")
    agent.refuse("decideRequest", OwnRequestError())
    ended = in_process("approve", "k7m2qd", "--yes")
    assert ended.code == 77
    assert "run `agentctl approve` on another terminal" in ended.err


def test_denying_says_what_was_denied(agent):
    agent.ask("k7m2qd")
    ended = in_process("deny", terminal=True)
    assert ended == (0, "denied: k7m2qd: git (4712) asks for deploy, read, 10 min\n", "")
    assert decisions(agent) == [{"id": "k7m2qd", "decision": "deny"}]


def test_denying_a_remembered_approval_forgets_it(agent):
    agent.ask("k7m2qd", state=REMEMBERED)
    assert in_process("approve", "k7m2qd", "--yes").code == 65
    ended = in_process("deny", "k7m2qd", terminal=True)
    assert ended == (0, "forgotten: k7m2qd: git (4712) may have deploy, read, 10 min\n", "")
    assert agent.requests == {}


def test_of_several_the_one_to_deny_has_to_be_named(agent):
    agent.ask("first")
    agent.ask("second")
    ended = in_process("deny")
    assert ended.code == 64
    assert "2 requests wait" in ended.err
    assert decisions(agent) == []


def test_a_result_that_cannot_be_written_does_not_hide_that_it_was_done(agent):
    agent.ask("k7m2qd")
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*COMMAND, "approve", "k7m2qd", "--yes"],
            stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert ended.returncode == 74
    assert "warning: request k7m2qd was approved nevertheless" in ended.stderr
    assert len(agent.sessions) == 1


def test_a_terminal_with_an_8_bit_character_set_gets_no_byte_that_it_could_take_for_a_control(agent):
    agent.ask(
        "k7m2qd", reason="\N{LATIN CAPITAL LETTER U WITH CIRCUMFLEX}2J"
    )  # C3 9B in UTF-8, and 9B is CSI
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = in_conversation("approve", answers=[(QUESTION, b"n\n")], **plain)
    assert 'says       "\\xdb2J"' in ended.shown


def test_no_words_of_an_asker_reach_the_left_edge_of_a_narrow_terminal(agent):
    forged = "x" * 70 + " program   /usr/bin/trusted"
    agent.ask("k7m2qd", reason=forged, label=forged)
    ended = in_conversation("approve", answers=[(QUESTION, b"n\n")])
    programs = [line for line in ended.shown.splitlines() if line.startswith("program")]
    assert programs == ["program    /usr/bin/git"]
