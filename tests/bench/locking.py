"""`python -m tests.bench.locking`: what guessing and changing passphrases cost those who do neither.

How long the right passphrase waits while one process has given a hundred wrong ones; and how long 16 clients wait
for a verification while the passphrase is being changed, beside the same with nothing going on.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from agentd_client import Client
from tests.bench import load
from tests.e2e.daemon import scratch_home, serving
from tests.e2e.locked import PASSPHRASE, protect

WRONG = 100
CLIENTS = 16
CHANGES = 10
GUESSING = """
import sys, concurrent.futures as futures
from agentd_client import AgentdError, Client
def guess(number):
    with Client.connect(sys.argv[1], timeout=120) as agent:
        try:
            agent.unlock(f"wrong {number}")
        except AgentdError as error:
            print(error.code, flush=True)
with futures.ThreadPoolExecutor(int(sys.argv[2])) as pool:
    list(pool.map(guess, range(int(sys.argv[2]))))
"""


def seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def waits_of_the_right_one() -> tuple[float, float]:
    """Seconds to unlock with nobody else there, and among the wrong ones."""
    with scratch_home() as home:
        protect(home)
        with serving(home) as daemon, daemon.client() as agent:
            agent.change_passphrase(PASSPHRASE, PASSPHRASE)  # at the usual cost, not a test's
            alone = seconds(lambda: agent.unlock(PASSPHRASE))
            agent.lock()
            command = [sys.executable, "-c", GUESSING, str(home.socket), str(WRONG)]
            guesser = subprocess.Popen(command, env=home.environ, stdout=subprocess.PIPE)
            assert guesser.stdout is not None
            guesser.stdout.readline()
            among = seconds(lambda: agent.unlock(PASSPHRASE))
            guesser.kill()
            guesser.communicate()
    return alone, among


def verify_until(path: str, sent: bytes, stop: threading.Event) -> list[float]:
    found: list[float] = []
    while not stop.is_set():
        found += load.one_client(path, [sent] * 50)
    return found


def verifying(path: str, token: str, meanwhile: Callable[[], object]) -> list[float]:
    """Seconds of every verification of all clients while something else happens."""
    stop = threading.Event()
    sent = load.request(1, "verifyToken", {"token": token})
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(verify_until, path, sent, stop) for _ in range(CLIENTS)]
        try:
            meanwhile()
        finally:
            stop.set()
        return sorted(one for client in clients for one in client.result())


def told(name: str, found: list[float]) -> None:
    middle, last = (found[int(len(found) * part)] * 1e6 for part in (0.5, 0.99))
    print(f"{name:<34} p50 {middle:>8,.0f} µs  p99 {last:>8,.0f} µs  ({len(found):,} calls)", flush=True)


def main() -> None:
    alone, among = waits_of_the_right_one()
    print(f"the right passphrase, alone            {alone:.2f} s")
    print(f"the right one among {WRONG} wrong ones    {among:.2f} s", flush=True)
    with scratch_home() as home:
        protect(home)
        with serving(home) as daemon, daemon.client() as agent:
            agent.unlock(PASSPHRASE)
            agent.change_passphrase(PASSPHRASE, PASSPHRASE)
            token = agent.create_token().token
            path = str(home.socket)

            def change(client: Client = agent) -> None:
                for _ in range(CHANGES):
                    client.change_passphrase(PASSPHRASE, PASSPHRASE)

            took = seconds(change)
            told(f"{CLIENTS} clients, calm", verifying(path, token, lambda: time.sleep(took)))
            told(f"{CLIENTS} clients, passphrase changes", verifying(path, token, change))


if __name__ == "__main__":
    main()
