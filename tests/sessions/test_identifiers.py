from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.sessions import SystemClock, clock, records


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**48 - 1))
def test_session_ids_are_uuids_of_version_7(random: bytes, milliseconds: int):
    found = uuid.UUID(records.session_id(random, milliseconds / 1000))
    assert (found.version, found.variant) == (7, uuid.RFC_4122)
    assert abs((found.int >> 80) - milliseconds) <= 1


def test_session_ids_sort_by_time():
    ids = [records.session_id(bytes([255 - at] * 16), at) for at in range(100)]
    assert ids == sorted(ids)


def test_session_ids_sort_by_time_within_a_millisecond_too():
    ids = [records.session_id(bytes([255 - at] * 16), 1_800_000_000 + at * 1e-6) for at in range(200)]
    assert ids == sorted(ids)
    assert len({id[:13] for id in ids}) == 1


def test_an_agent_knows_the_ids_of_its_own_keys_and_those_of_other_agents():
    own = records.key_id(bytes(12), "one")
    assert len(own) == 24
    assert own.startswith("A" * 16)
    assert not records.is_of_another_agent(own, "one")
    assert records.is_of_another_agent(own, "two")
    assert not records.is_of_another_agent("A" * 22, "two"), "made before ids had a mark: it cannot be known"


@pytest.mark.parametrize("length", [0, 1, 22, 23, 24, 25, 64])
def test_whatever_an_id_looks_like_it_can_be_judged(length):
    for character in "A-_z9":
        records.is_of_another_agent(character * length, "one")


def test_the_system_clock_reads_both_clocks(monkeypatch, tmp_path):
    first, second = SystemClock().read(), SystemClock().read()
    assert first.wall > 1_700_000_000
    assert second.boot >= first.boot > 0
    assert uuid.UUID(first.boot_id)
    monkeypatch.setattr(clock, "_BOOT_ID", tmp_path / "absent")
    assert SystemClock().read().boot_id == ""
