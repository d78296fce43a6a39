"""The check of the store."""

from __future__ import annotations

import pytest

from agentd.doctor.installation import StoreFacts
from agentd.doctor.store import Store
from agentd.store import OfflineCheck, Seals
from agentd.store.data_file import Meta
from agentd_client.errors import StoreDamagedError, StoreKeyMismatchError
from tests.doctor.judging import judged

WHOLE = OfflineCheck(Meta(4096, 9, 5), problems=[], seals=Seals(7, 7, 0, []))
DAMAGED = StoreDamagedError("it is cut short; restore it")
MISMATCH = StoreKeyMismatchError("it was sealed with another key; put it back")


def judged_store(
    examined: OfflineCheck | None, failure: str | None = None, sealed: str | None = None
) -> dict[str, str]:
    return judged(Store("/s", StoreFacts(examined, failure, sealed), 1 << 30))


def test_a_whole_store():
    fine = {
        "store.file": "ok",
        "store.structure": "ok",
        "store.key": "ok",
        "store.seals": "ok",
        "store.room": "ok",
    }
    assert judged_store(WHOLE) == fine
    assert judged_store(WHOLE._replace(seals=Seals(100, 1000, 0, []))) == fine
    assert judged_store(WHOLE._replace(problems=None)) == fine | {"store.structure": "note"}


@pytest.mark.parametrize(
    ("facts", "free_bytes", "has_file_left", "severity"),
    [
        (StoreFacts(), 1 << 30, True, "ok"),
        (StoreFacts(), (1 << 20) - 1, True, "error"),
        (StoreFacts(), 1 << 20, True, "warning"),
        (StoreFacts(), 1 << 30, False, "error"),
        (StoreFacts(WHOLE), 0, True, "warning"),
        (StoreFacts(failure="/s: Permission denied"), 0, True, "warning"),
    ],
)
def test_the_room_that_a_store_needs(facts, free_bytes, has_file_left, severity):
    assert judged(Store("/s", facts, free_bytes, has_file_left))["store.room"] == severity


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
        (StoreFacts(WHOLE._replace(seals=None), sealed="that is not the passphrase", is_passphrase_refused=True), {"store.file": "ok", "store.structure": "ok", "store.seals": "warning"}),
        (StoreFacts(WHOLE._replace(seals=None), sealed="it is locked; unlock it"), {"store.file": "ok", "store.structure": "ok", "store.seals": "note"}),
        (StoreFacts(WHOLE._replace(seals=Seals(7, 7, 4, ["a", "b", "c"]))), {"store.file": "ok", "store.structure": "ok", "store.key": "ok", "store.seals": "error"}),
    ],
)  # fmt: skip
def test_a_store_that_is_not_whole(facts, expected):
    assert judged(Store("/s", facts, None)) == expected


def test_a_sample_is_called_one_and_broken_seals_are_named():
    facts = Store("/s", StoreFacts(WHOLE._replace(seals=Seals(100, 1000, 0, []))), None)
    assert [finding.says for finding in facts.judge()][
        -1
    ] == "100 of 1000 values, drawn at random, are genuine"
    facts = Store("/s", StoreFacts(WHOLE._replace(seals=Seals(9, 9, 4, ["a", "b", "c"]))), None)
    assert [finding.says for finding in facts.judge()][-1].endswith("by this agent: a, b, c, …")
