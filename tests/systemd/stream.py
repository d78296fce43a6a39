"""A stream of calls over one shared `Client` from several threads, until standard input ends.

Run by the user, with the Python of the installation. Says "running" after the first calls, and in the end one
JSON object: how many calls of each kind succeeded, every failure, and how long the longest call took.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

from agentd_client import AgentdError, Client, OutcomeUnknownError

TIMEOUT_SECONDS = 60.0


class Stream:
    def __init__(self, agent: Client) -> None:
        self.agent = agent
        self.first = agent.create_token(label="before the stream").token
        self.created: list[str] = []
        self.succeeded: Counter[str] = Counter()
        self.failures: list[str] = []
        self.unknown = 0
        self.longest_seconds = 0.0
        self._ended = threading.Event()

    def verify(self) -> None:
        assert self.agent.verify_token(self.first)

    def status(self) -> None:
        assert self.agent.get_status().pid

    def create(self) -> None:
        try:
            self.created.append(self.agent.create_token(label="in the stream").token)
        except OutcomeUnknownError:
            self.unknown += 1

    def _repeat(self, call: Callable[[], None], running: threading.Barrier) -> None:
        is_first = True
        while is_first or not self._ended.is_set():
            began = time.monotonic()
            try:
                call()
                self.succeeded[call.__name__] += 1
            except (AgentdError, AssertionError) as error:
                self.failures.append(f"{call.__name__}: {type(error).__name__}: {error}")
            self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
            if is_first:
                running.wait()
                is_first = False

    def run(self) -> None:
        calls = [self.verify, self.verify, self.verify, self.status, self.create, self.create]
        running = threading.Barrier(len(calls) + 1)
        threads = [threading.Thread(target=self._repeat, args=(call, running)) for call in calls]
        for thread in threads:
            thread.start()
        running.wait()
        print("running", flush=True)
        sys.stdin.read()
        self._ended.set()
        for thread in threads:
            thread.join()
        lost = sum(not self.agent.verify_token(token) for token in [self.first, *self.created])
        print(
            json.dumps(
                {
                    "succeeded": self.succeeded,
                    "failures": self.failures,
                    "unknown": self.unknown,
                    "lost": lost,
                    "sessions": self.agent.get_status().sessions,
                    "longest_seconds": round(self.longest_seconds, 3),
                }
            )
        )


if __name__ == "__main__":
    with Client.connect(timeout=TIMEOUT_SECONDS) as agent:
        Stream(agent).run()
