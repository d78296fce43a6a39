from __future__ import annotations

from tests.faults import hostile

SECONDS = 1.0


def test_whoever_means_well_is_served_beside_twenty_hostile_peers_and_a_lock_gets_through():
    """Not how fast: `python -m tests.faults.hostile` measures that, on a machine that does nothing else."""
    assert len(hostile.ATTACKS) >= 20
    outcome = hostile.run(list(hostile.ATTACKS), SECONDS)
    assert {name: figures.failures for name, figures in outcome.calls.items() if figures.failures} == {}
    assert all(figures.seconds for figures in outcome.calls.values())
    assert outcome.lock_failure is None
    assert outcome.is_alive
