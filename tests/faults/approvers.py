"""Two people decide about the same request at the same moment, over and over: one decision counts.

`python -m tests.faults.approvers [ROUNDS]` does it so often, and says who was first how often. The askers are other
users, because one may ask only so often; so it takes root.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

from agentd.approval.limits import MAX_NEW_OF_PROCESS
from agentd_client.protocol.results import SessionInfo
from tests.e2e.daemon import Home, scratch_home, serving
from tests.e2e.program import Answer, Program

ROUNDS = 200
FIRST_UID = 61_000
SCOPES = ("of-the-first", "of-the-second")
"""What each approver grants of what was asked for, so that a session shows by whom it was granted."""

DECISIONS = [*itertools.product(("approve", "deny"), repeat=2)]


class Round(NamedTuple):
    """What both decided, what they were answered, and what the asker was told."""

    decisions: tuple[str, str]
    answers: tuple[Answer, Answer]
    outcome: Answer

    @property
    def counted(self) -> list[int]:
        """Which decisions counted."""
        return [number for number in (0, 1) if self.answers[number].code is None]

    def faults(self) -> list[str]:
        """What is not as it should be, in words."""
        if len(self.counted) != 1:
            return [f"{len(self.counted)} decisions counted: {self}"]
        (first,) = self.counted
        found = []
        if self.answers[1 - first].code != "NO_SUCH_REQUEST":
            found.append(f"the second was answered {self.answers[1 - first].code}")
        if self.decisions[first] == "deny":
            if self.outcome.code != "DENIED":
                found.append(f"denied, and the asker was told {self.outcome.code}")
        elif self.outcome.code is not None:
            found.append(f"approved, and the asker was told {self.outcome.code}")
        elif (self.outcome.result["scopes"], self.outcome.result["sessionId"]) != (
            [SCOPES[first]],
            self.answers[first].result["sessionId"],
        ):
            found.append("the asker got another session than the one that was granted")
        return found


def askers(path: str) -> Iterator[Program]:
    """Programs of ever new users, each as often as it may ask."""
    for uid in itertools.count(FIRST_UID):
        with Program(path, uid=uid) as program:
            for _ in range(MAX_NEW_OF_PROCESS):
                yield program


def open_to_everybody(home: Home) -> str:
    """Have the agent of this home serve an ask socket for everybody; its path."""
    path = str(home.path / "ask.sock")
    home.path.chmod(0o755)
    config = home.path / "config" / "agentd" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'ask_socket_path = "{path}"\nask_socket_mode = "0666"\nopening = "ask"\n')
    return path


def rounds(home: Home, count: int, seed: int = 1) -> tuple[list[Round], list[SessionInfo]]:
    """Carry out so many rounds; what they were, and the sessions that there are afterwards."""
    draw = random.Random(seed)
    path = open_to_everybody(home)
    done = []
    with serving(home) as daemon, daemon.client() as owner, ExitStack() as stack:
        approvers = [stack.enter_context(Program(home.socket)) for _ in SCOPES]
        for number, asker in zip(range(count), askers(path), strict=False):
            # No two requests ask the same, because that is denied for a while after a denial.
            request_id = asker.call("requestToken", wait=0, scopes=SCOPES, expiry=3600 + number).result["id"]
            asker.ask("requestToken", id=request_id)
            decisions = DECISIONS[number % len(DECISIONS)]
            for which in draw.sample((0, 1), 2):
                more = {"scopes": [SCOPES[which]]} if decisions[which] == "approve" else {}
                approvers[which].ask("decideRequest", id=request_id, decision=decisions[which], **more)
            one, other = (approver.answer() for approver in approvers)
            done.append(Round(decisions, (one, other), asker.answer()))
        sessions: list[SessionInfo] = []
        after = None
        while True:
            page = owner.list_sessions(after=after)
            sessions += page.sessions
            if (after := page.next) is None:
                return done, sessions


def deaths(home: Home, count: int, seed: int = 1) -> Counter[str | None]:
    """Kill so many askers while the decision is made; how often it was answered how.

    Returns once no request and no session is left.
    """
    draw = random.Random(seed)
    path = open_to_everybody(home)
    answers = Counter[str | None]()
    with serving(home) as daemon, daemon.client() as owner, Program(home.socket) as approver:
        for number in range(count):
            with Program(path, uid=FIRST_UID + number) as asker:
                request_id = asker.call("requestToken", wait=0, bound=True).result["id"]
                asker.ask("requestToken", id=request_id)
                if is_killed_first := draw.random() < 0.5:
                    asker.process.kill()
                approver.ask("decideRequest", id=request_id, decision="approve")
                if not is_killed_first:
                    asker.process.kill()
                answers[approver.answer().code] += 1
        while owner.list_requests().requests or owner.list_sessions().sessions:
            pass
    return answers


def main(count: int) -> int:
    with scratch_home() as home:
        done, sessions = rounds(home, count)
    with scratch_home() as home:
        died = deaths(home, count)
    faults = [fault for each in done for fault in each.faults()]
    approved = sum(each.decisions[each.counted[0]] == "approve" for each in done if each.counted)
    first = Counter(tuple(each.counted) for each in done)
    print(f"{count} rounds: one decision counted in {sum(len(each.counted) == 1 for each in done)}")
    print(f"the first approver's {first[(0,)]} times, the second's {first[(1,)]} times")
    print(f"{approved} approvals, {len(sessions)} sessions; {len(faults)} faults")
    print(
        f"{count} askers killed at the same moment; the decisions were answered {dict(died)}; nothing is left"
    )
    for fault in faults:
        print(f"  {fault}")
    return 1 if faults or len(sessions) != approved else 0


if __name__ == "__main__":
    sys.exit(main(int((sys.argv[1:] or [str(ROUNDS)])[0])))
