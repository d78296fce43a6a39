"""Ask the agent for its status again and again; one JSON list of the outcomes and the seconds that each took.

Run by the user, with the Python of the installation: ask.py TIMES THREADS TIMEOUT.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from agentd_client import AgentdError, Client


def ask(timeout: float) -> tuple[str, str, float]:
    began = time.monotonic()
    try:
        with Client.connect(timeout=timeout) as agent:
            outcome, said = "answered", agent.get_status().version
    except AgentdError as error:
        outcome, said = type(error).__name__, error.sentence
    return outcome, said, round(time.monotonic() - began, 3)


if __name__ == "__main__":
    times, threads, timeout = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    with ThreadPoolExecutor(threads) as pool:
        print(json.dumps(list(pool.map(ask, [timeout] * times))))
