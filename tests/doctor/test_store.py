"""The check of the store."""

from __future__ import annotations

import pytest

from agentd.doctor.installation import StoreFacts
from agentd.doctor.store import check_store, judge_room, judge_store
from agentd.store import OfflineCheck, Seals
from agentd.store.data_file import Meta
from agentd_client.errors import AgentLockedError, PassphraseError, StoreDamagedError, StoreKeyMismatchError
from tests.doctor.judging import judged, with_facts

WHOLE = OfflineCheck(Meta(4096, 9, 5), problems=[], seals=Seals(7, 7, 0, []))
DAMAGED = StoreDamagedError("it is cut short; restore it")
MISMATCH = StoreKeyMismatchError("it was sealed with another key; put it back")


def test_a_whole_store():
    fine = dict.fromkeys(("store.file", "store.structure", "store.key", "store.seals"), "ok")
    assert judged(judge_store("/s", StoreFacts(WHOLE))) == fine
    sampled = WHOLE._replace(seals=Seals(100, 1000, 0, []))
    assert judged(judge_store("/s", StoreFacts(sampled))) == fine
    too_large = WHOLE._replace(problems=None)
    assert judged(judge_store("/s", StoreFacts(too_large))) == fine | {"store.structure": "note"}


@pytest.mark.parametrize(
    ("free_bytes", "has_store", "has_file_left", "severity"),
    [
        (1 << 30, False, True, "ok"),
        ((1 << 20) - 1, False, True, "error"),
        (1 << 20, False, True, "warning"),
        (1 << 30, False, False, "error"),
        (0, True, True, "warning"),
    ],
)
def test_the_room_that_a_store_needs(free_bytes, has_store, has_file_left, severity):
    found = judge_room("/s", free_bytes, has_store=has_store, has_file_left=has_file_left)
    assert judged([found]) == {"store.room": severity}


def test_room_is_judged_with_and_without_a_store(tmp_path):
    for facts in (StoreFacts(), StoreFacts(WHOLE), StoreFacts(failure="/s: Permission denied")):
        assert "store.room" in judged(check_store(with_facts(tmp_path, store=facts)))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (StoreFacts(), {"store.file": "note"}),
        (StoreFacts(failure="/s: Permission denied"), {"store.file": "error"}),
        (StoreFacts(OfflineCheck(error=DAMAGED)), {"store.file": "error"}),
        (StoreFacts(OfflineCheck(overtaken=True)), {"store.structure": "note"}),
        (StoreFacts(WHOLE._replace(problems=["page 3 is …", "page 4 is …"], seals=None)), {"store.file": "ok", "store.structure": "error"}),
        (StoreFacts(WHOLE._replace(key_error=MISMATCH, seals=None)), {"store.file": "ok", "store.structure": "ok", "store.key": "error"}),
        (StoreFacts(WHOLE._replace(key_error=DAMAGED, seals=None)), {"store.file": "ok", "store.structure": "ok", "store.key": "error"}),
        (StoreFacts(WHOLE._replace(seals=None), sealed=PassphraseError("that is not the passphrase")), {"store.file": "ok", "store.structure": "ok", "store.seals": "warning"}),
        (StoreFacts(WHOLE._replace(seals=None), sealed=AgentLockedError("it is locked; unlock it")), {"store.file": "ok", "store.structure": "ok", "store.seals": "note"}),
        (StoreFacts(WHOLE._replace(seals=Seals(7, 7, 4, ["a", "b", "c"]))), {"store.file": "ok", "store.structure": "ok", "store.key": "ok", "store.seals": "error"}),
    ],
)  # fmt: skip
def test_a_store_that_is_not_whole(facts, expected):
    assert judged(judge_store("/s", facts)) == expected


def test_a_sample_is_called_one_and_broken_seals_are_named():
    def said(seals: Seals) -> str:
        return list(judge_store("/s", StoreFacts(WHOLE._replace(seals=seals))))[-1].says

    assert said(Seals(100, 1000, 0, [])) == "100 of 1000 values, drawn at random, are genuine"
    assert said(Seals(9, 9, 4, ["a", "b", "c"])).endswith("by this agent: a, b, c, …")
