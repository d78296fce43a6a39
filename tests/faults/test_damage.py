from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.agentctl.running import without_coverage
from tests.faults.damage import Outcome, table

HOW_MANY = 500


@pytest.mark.timeout(600)
def test_of_500_damaged_stores_none_says_yes_wrongly_and_none_kills_the_agent() -> None:
    # In a process of its own: what it forks would have this one's alarm handler, and could go on as a second pytest.
    command = [sys.executable, "-m", "tests.faults.damage", str(HOW_MANY), "--json"]
    ended = subprocess.run(command, env=without_coverage(), stdout=subprocess.PIPE, check=True)
    outcomes = [Outcome(**each) for each in json.loads(ended.stdout)]
    print(table(outcomes))
    assert [outcome for outcome in outcomes if outcome.wrong] == []
    assert [outcome for outcome in outcomes if outcome.end not in ("served", "refused")] == []
    for outcome in outcomes:
        code, _, sentence = outcome.told.partition(": ")
        assert code in ("", "STORE_DAMAGED", "STORE_FAILED", "STORE_KEY_MISMATCH")
        remedies = ("agentd init --fresh", "move it away", "put back the key file")
        assert not sentence or any(remedy in sentence for remedy in remedies), outcome
    assert any(outcome.end == "served" and outcome.yes for outcome in outcomes)
