"""What happens on a disk that is really full, told by the store itself and by the whole agent.

`python -m tests.faults.full_disk STORY KIND` runs one story, in a mount namespace made for it, and prints
what it saw.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest

import trio

from agentd.keys import KeyRing
from agentd.sessions import SessionManager
from agentd.store import DB
from agentd_client import AgentdError, Client, StoreFullError
from tests.e2e.daemon import scratch_home, serving
from tests.faults.small_disk import CANNOT_MOUNT, MIB, CannotMountError, SmallDisk, small_disk

TASKS = 64
THREADS = 8
SCOPES = [f"{number:064}" for number in range(10)]
GIVE_UP_SECONDS = 60.0  # far beyond what a slow machine needs


def say(**figures: object) -> None:
    print(" ".join(f"{name}={value}" for name, value in figures.items()), flush=True)


async def create_until_full(manager: SessionManager) -> list[str]:
    tokens: list[str] = []
    refused = 0

    async def create() -> None:
        nonlocal refused
        try:
            tokens.append(await manager.create_token())
        except StoreFullError:
            refused += 1

    while not refused:
        async with trio.open_nursery() as nursery:
            for _ in range(TASKS):
                nursery.start_soon(create)
    return tokens


async def verify(manager: SessionManager, tokens: list[str], expected: bool) -> None:
    assert [await manager.verify_token(token) for token in tokens] == [expected] * len(tokens)


async def store_story(disk: SmallDisk) -> None:
    """Full, and nothing is lost; ended sessions make room; a disk with room makes more."""
    draw = random.Random(1)
    key_ring = await KeyRing.create_key_ring(keys_path=disk.path / "keys")
    db = DB(disk.path / "store", key_ring, map_bytes=4 * MIB)
    await db.start()
    async with (
        key_ring,
        db,
        await SessionManager.create_session_manager(db=db, key_ring=key_ring) as manager,
    ):
        disk.fill()
        size_bytes = db.size_bytes
        tokens = await create_until_full(manager)
        say(map_mib=size_bytes // MIB, created_until_full=len(tokens), disk_free=disk.free_bytes)
        assert (db.failed, db.size_bytes) == (None, size_bytes)
        await verify(manager, tokens, expected=True)

        kept, ended = tokens[:-1500], tokens[-1500:]
        # Anywhere in the tree, one after the other and then all at once.
        scattered = draw.sample(kept, 1000)
        kept = sorted(set(kept) - set(scattered))
        for token in scattered[:300]:
            assert await manager.revoke_token(token)
        for some in (scattered[300:], ended):
            async with trio.open_nursery() as nursery:
                for token in some:
                    nursery.start_soon(manager.revoke_token, token)
        await verify(manager, scattered + ended, expected=False)
        await verify(manager, kept, expected=True)
        more = await create_until_full(manager)
        say(revoked=len(scattered + ended), created_in_their_room=len(more))
        # Not in that of the scattered ones: where a page is a little emptier it stays a page. And LMDB puts
        # seventeen entries of the audit log on a page, or ten where the page ends with another record.
        assert len(more) > len(ended) * 0.7

        for _ in range(3):
            await manager.reset_key()
        await verify(manager, kept + more, expected=False)
        swept = await manager.sweep()
        assert swept == len(kept + more)
        after = await create_until_full(manager)
        say(resets=3, swept=swept, created_after_the_sweep=len(after))
        assert len(after) > len(tokens) * 0.66
        await manager.reset_key()
        await manager.stop()
        await db.stop()
        await db.start()  # on the full disk
        await manager.start()
        await verify(manager, after, expected=False)
        await manager.sweep()
        full = await create_until_full(manager)

        disk.make_room()
        again = [await manager.create_token() for _ in range(100)]
        assert db.size_bytes > size_bytes
        await verify(manager, full + again, expected=True)
        say(created_with_room_again=len(again), map_mib=db.size_bytes // MIB, failed=db.failed)


class Creator(threading.Thread):
    """Creates sessions until one is refused, large ones first, so that it is soon."""

    def __init__(self, agent: Client) -> None:
        super().__init__()
        self.agent = agent
        self.tokens: list[str] = []
        self.refusal: AgentdError | None = None

    def run(self) -> None:
        for scopes in (SCOPES, None):
            try:
                while True:
                    self.tokens.append(self.agent.create_token(scopes=scopes).token)
            except AgentdError as error:
                self.refusal = error


def create_through(agent: Client) -> list[str]:
    creators = [Creator(agent) for _ in range(THREADS)]
    for creator in creators:
        creator.start()
    for creator in creators:
        creator.join()
        assert isinstance(creator.refusal, StoreFullError), creator.refusal
    together = zip_longest(*(creator.tokens for creator in creators))
    return [token for tokens in together for token in tokens if token]


def create_once_swept(agent: Client) -> str:
    """Being refused is what has the room of ended sessions swept; it is not there at once."""
    last = time.monotonic() + GIVE_UP_SECONDS
    while True:
        try:
            return agent.create_token(scopes=SCOPES).token
        except StoreFullError:
            assert time.monotonic() < last


def agent_story(disk: SmallDisk) -> None:
    """The same through the socket, and with the commands that a person would use."""
    with scratch_home() as home, serving(home, "--state", str(disk.path / "agentd")) as daemon:
        assert home.agentctl("login").returncode == 0
        disk.fill()
        with daemon.client() as agent:
            tokens = create_through(agent)
            say(created_until_full=len(tokens), store_mib=agent.get_status().store_bytes / MIB)
            refused = home.agentctl("--token-file", str(home.path / "other"), "login")
            assert refused.returncode == 74, refused
            assert "Free some disk space" in refused.stderr
            assert not (home.path / "other").exists()
            assert all(agent.verify_token(token) for token in tokens)
            assert home.agentctl("logout").returncode == 0
            assert not home.token_file.exists()
            with ThreadPoolExecutor(THREADS) as threads:
                assert all(threads.map(agent.revoke_token, tokens[:300]))
            more = create_through(agent)
            say(revoked=300, created_in_their_room=len(more))
            # The audit log is still on its way to its bound, and takes its part of the room.
            assert len(more) > 100
            assert home.agentctl("reset-key", "--yes").returncode == 0
            agent.reset_key()
            assert not any(agent.verify_token(token) for token in tokens + more)
            swept = [create_once_swept(agent) for _ in range(100)]
            full = agent.get_status()
            say(resets=2, created_in_their_room=len(swept), store_mib=full.store_bytes / MIB)
            disk.make_room()
            assert home.agentctl("login").returncode == 0
            again = create_through(agent)
            grown = agent.get_status()
            say(created_with_room_again=len(again), store_mib=grown.store_bytes / MIB)
            assert grown.store_bytes > full.store_bytes
            assert all(agent.verify_token(token) for token in swept + again)
            assert home.agentctl("verify").returncode == 0
        assert daemon.stop() == 0
        log = daemon.log.read_text()
        assert "Traceback" not in log, log
        assert log.count("cannot grow") <= 3, log


def main(story: str, kind: str) -> int:
    logging.basicConfig(stream=sys.stdout)
    os.umask(0o077)
    try:
        if story == "store":
            with small_disk(kind, 20 * MIB) as disk:
                trio.run(store_story, disk)
        else:
            # The first map of 16 MiB does not fit, so the store begins with a smaller one.
            with small_disk(kind, 8 * MIB) as disk:
                agent_story(disk)
    except CannotMountError as error:
        print(error)
        return CANNOT_MOUNT
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
