from __future__ import annotations

import pytest

from tests.bench.__main__ import line, plot
from tests.bench.figures import RATE, Figure, alone, compare


def counting(*values: float):
    left = iter(values)
    return lambda: next(left)


def test_the_ratio_is_taken_round_by_round_and_the_first_of_each_does_not_count():
    row = compare("name", "µs", counting(99, 2, 8, 3), "beside", counting(99, 1, 2, 1), 3)
    assert row.ours == Figure(3, 2, 8)
    assert row.theirs == Figure(1, 1, 2)
    assert row.ratio == Figure(3, 2, 4)


@pytest.mark.parametrize(
    ("unit", "ratio", "is_reached"),
    [("ms", 1.2, True), ("ms", 1.21, False), (RATE, 1.2, True), (RATE, 1.19, False)],
)
def test_of_a_rate_an_aim_is_the_least_and_of_all_else_the_most(unit, ratio, is_reached):
    row = compare("name", unit, lambda: ratio, "beside", lambda: 1, 1, aim=1.2)
    assert row.is_reached is is_reached
    assert line(row).endswith("1.2)" if is_reached else "1.2: missed)")


def test_a_figure_with_nothing_beside_it_is_held_against_its_aim_itself():
    assert alone("name", "MiB", lambda: 39, 1, aim=40).is_reached
    assert not alone("name", "MiB", lambda: 41, 1, aim=40).is_reached
    assert line(alone("name", "MiB", lambda: 41, 1)).endswith("MiB")


def test_the_plot_has_a_bar_for_every_row_with_a_yardstick():
    rows = [compare("held", "µs", lambda: 2, "beside", lambda: 1, 1), alone("not held", "µs", lambda: 1, 1)]
    assert plot(rows).count("<rect") == 1
    assert ">2.00 of beside<" in plot(rows)
