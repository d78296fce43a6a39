"""How connections are shared out among processes and users; see `tests/server/test_admission.py` for the sockets."""

from __future__ import annotations

import itertools

import pytest

from agentd.process_identity import Process
from agentd.server.admission import Admission, OpenConnections
from agentd.server.peer import Peer

OWNER, ALICE, BOB = 0, 1001, 1002
LIMIT = 8
OWNERS = Admission(OWNER, LIMIT, LIMIT, 64)
OTHERS = Admission(None, LIMIT, LIMIT // 2, 1)
HOG, OTHER, NEW = 1, 2, 3


class Standing:
    """A connection as the rule sees it."""

    turns = itertools.count()

    def __init__(self, peer: Peer, *, is_idle: bool = True) -> None:
        self.peer = peer
        self.is_idle = is_idle
        self.is_abandoned = False
        self.last_active = next(self.turns)


def peer(pid: int, uid: int = OWNER) -> Peer:
    return Peer(uid, 100, Process(pid, 1, "boot"))


class FakeListener:
    """The rule, carried out as the server does."""

    def __init__(self, admission: Admission = OWNERS) -> None:
        self.admission = admission
        self.present = OpenConnections()
        self.cut: list[Standing] = []

    def connect(self, pid: int, uid: int = OWNER, *, is_idle: bool = True) -> Standing | None:
        room = self.admission.decide(peer(pid, uid), self.present)
        if not room.is_admitted:
            return None
        if room.evicted is not None:
            self.present.leave(room.evicted)
        if room.abandoned is not None:
            room.abandoned.is_abandoned = True
            self.cut.append(room.abandoned)
        connection = Standing(peer(pid, uid), is_idle=is_idle)
        self.present.add(connection)
        return connection

    def fill(self, times: int, pid: int, uid: int = OWNER, *, is_idle: bool = True) -> list[Standing]:
        found = [self.connect(pid, uid, is_idle=is_idle) for _ in range(times)]
        assert None not in found
        return found

    def end_leaving(self) -> None:
        for connection in list(self.present):
            if not self.stays(connection):
                self.present.remove(connection)

    def stays(self, connection: Standing) -> bool:
        return connection not in self.present.leaving and connection in set(self.present)

    def shares(self) -> dict[tuple[int, int], int]:
        return {(uid, process.pid): len(own) for (uid, process), own in self.present.of_processes.items()}


@pytest.fixture
def listener() -> FakeListener:
    return FakeListener()


@pytest.mark.parametrize("is_idle", [True, False])
def test_a_process_with_none_gets_one_from_the_process_that_has_most_whatever_that_does(listener, is_idle):
    hog = listener.fill(LIMIT - 1, HOG, is_idle=is_idle)
    other = listener.fill(1, OTHER)
    assert listener.connect(NEW) is not None
    assert not listener.stays(hog[0]), "though the other one is idle, and the hog may not be"
    assert all(map(listener.stays, [*hog[1:], *other]))


def test_a_process_that_has_all_makes_room_out_of_its_own_idle_ones_and_has_no_more(listener):
    idle, *working = [*listener.fill(1, HOG), *listener.fill(LIMIT - 1, HOG, is_idle=False)]
    assert listener.connect(HOG, is_idle=False) is not None
    assert not listener.stays(idle)
    assert listener.connect(HOG) is None, "none of its own is idle, and it closes nobody else's"
    assert all(map(listener.stays, working))


def test_whoever_connects_without_end_ends_with_an_even_share(listener):
    for _ in range(LIMIT):
        for pid in (HOG, OTHER, NEW, 4):
            listener.connect(pid, is_idle=False)
            listener.end_leaving()
    assert listener.shares() == {(OWNER, pid): 2 for pid in (HOG, OTHER, NEW, 4)}
    for _ in range(100):
        assert listener.connect(HOG) is None
    assert listener.shares() == {(OWNER, pid): 2 for pid in (HOG, OTHER, NEW, 4)}


def test_a_process_takes_none_from_another_that_has_one_more(listener):
    listener.fill(LIMIT // 2, HOG)
    listener.fill(LIMIT // 2, OTHER)
    for _ in range(10):
        listener.connect(HOG)
        assert listener.shares() == {(OWNER, HOG): LIMIT // 2, (OWNER, OTHER): LIMIT // 2}
        listener.end_leaving()


@pytest.mark.parametrize("is_idle", [True, False])
def test_as_many_processes_as_there_are_connections_do_not_keep_the_next_one_out(listener, is_idle):
    held = [listener.fill(1, pid, is_idle=is_idle)[0] for pid in range(100, 100 + LIMIT)]
    for pid in range(200, 200 + LIMIT):
        assert listener.connect(pid, is_idle=False) is not None
        listener.end_leaving()
    assert not any(map(listener.stays, held))


def test_an_idle_one_goes_before_one_that_works_among_processes_with_as_many(listener):
    working = [listener.fill(1, pid, is_idle=False)[0] for pid in range(100, 99 + LIMIT)]
    (idle,) = listener.fill(1, 200)
    assert listener.connect(NEW) is not None
    assert not listener.stays(idle)
    assert all(map(listener.stays, working))


def test_those_that_do_not_leave_are_cut_off_the_oldest_first_and_a_newcomer_still_gets_in(listener):
    hog = listener.fill(LIMIT, HOG, is_idle=False)
    for pid in range(200, 204):
        assert listener.connect(pid) is not None
    assert listener.cut == hog[:2], "two of eight may take their time"
    for connection in listener.cut:
        listener.present.remove(connection)
    assert listener.connect(300) is not None


def test_there_are_never_more_than_half_over_the_limit(listener):
    for pid in range(100, 200):
        listener.connect(pid, is_idle=False)
    assert len(listener.present) == LIMIT * 3 // 2


def test_a_process_whose_pid_passed_on_shares_nothing_with_the_next_one(listener):
    listener.fill(LIMIT, HOG)
    later = Peer(OWNER, 100, Process(HOG, 2, "boot"))
    room = listener.admission.decide(later, listener.present)
    assert room.evicted is not None
    assert room.evicted.peer.process != later.process


# --- the verify socket ---


def test_one_user_has_its_share_and_no_more():
    listener = FakeListener(OTHERS)
    listener.fill(LIMIT // 2, HOG, ALICE, is_idle=False)
    assert listener.connect(HOG, ALICE) is None
    assert listener.connect(OTHER, ALICE) is not None, "another process of hers"
    assert listener.present.of_users == {ALICE: LIMIT // 2}
    assert listener.connect(NEW, BOB) is not None


def test_however_many_users_one_is_the_next_one_gets_in_and_is_answered():
    """As root of a user namespace one user has 65,536 uids, each with a share."""
    listener = FakeListener(OTHERS)
    for uid in range(100_000, 100_000 + 10 * LIMIT):
        listener.connect(HOG, uid, is_idle=False)
        listener.end_leaving()
    of_bob = listener.connect(NEW, BOB, is_idle=False)
    assert of_bob is not None
    listener.end_leaving()
    for uid in range(200_000, 200_000 + LIMIT - 1):
        listener.connect(HOG, uid, is_idle=False)
        listener.end_leaving()
    assert listener.stays(of_bob), "those that came before go first"


def test_users_that_a_user_namespace_shows_as_one_are_still_told_apart_by_process():
    listener = FakeListener(OTHERS)
    unmapped = 65534
    listener.fill(LIMIT // 2, HOG, unmapped, is_idle=False)
    assert listener.connect(NEW, unmapped) is not None
    assert listener.shares() == {(unmapped, HOG): LIMIT // 2 - 1, (unmapped, NEW): 1}


# --- counting ---


def test_what_has_ended_is_not_counted_any_more(listener):
    connections = listener.fill(LIMIT, HOG)
    listener.present.leave(connections[0])
    listener.present.leave(connections[0])
    assert (len(listener.present), listener.present.staying, len(listener.present.leaving)) == (
        LIMIT,
        LIMIT - 1,
        1,
    )
    assert set(listener.present) == set(connections)
    for connection in connections:
        listener.present.remove(connection)
        listener.present.remove(connection)
    assert (len(listener.present), listener.shares(), listener.present.of_users) == (0, {}, {})
