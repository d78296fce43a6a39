from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from tests.bench.figures import (
    RATE,
    AbsentError,
    Figure,
    Row,
    Sample,
    alone,
    by_itself,
    compare,
    missing,
    processor_of,
)
from tests.bench.report import (
    BEGIN,
    END,
    before_and_after,
    document,
    line,
    losses,
    markdown,
    plot,
    rows_of,
    write_between,
)


def counting(*values: float):
    left = iter(values)
    return lambda: Sample(next(left))


def steady(value: float, processor: float | None = None):
    return lambda: Sample(value, processor)


def absent():
    raise AbsentError("redis-server is not installed")


def test_the_ratio_is_taken_round_by_round_and_the_first_of_each_does_not_count():
    row = compare("name", "µs", counting(99, 2, 8, 3), "beside", counting(99, 1, 2, 1), 3)
    assert row.ours == Figure(3, 2, 8)
    assert row.theirs == Figure(1, 1, 2)
    assert row.ratio == Figure(3, 2, 4)


def test_processor_times_are_kept_where_they_were_taken():
    row = compare("name", "µs", steady(9, 4), "beside", steady(3), 3)
    assert row.processor == Figure(4, 4, 4)
    assert row.their_processor is None
    assert processor_of(row, "processor time", "µs", aim=3).ours == row.processor
    assert not processor_of(row, "processor time", "µs", aim=3).is_reached


@pytest.mark.parametrize(
    ("unit", "ratio", "is_reached"),
    [("ms", 1.2, True), ("ms", 1.21, False), (RATE, 1.2, True), (RATE, 1.19, False)],
)
def test_of_a_rate_an_aim_is_the_least_and_of_all_else_the_most(unit, ratio, is_reached):
    row = compare("name", unit, steady(ratio), "beside", steady(1), 1, aim=1.2)
    assert row.is_reached is is_reached
    assert line(row).endswith("1.2)" if is_reached else "1.2, missed)")


def test_a_figure_with_nothing_beside_it_is_held_against_its_aim_itself():
    assert alone("name", "MiB", [Sample(39)], aim=40).is_reached
    assert not alone("name", "MiB", [Sample(41)], aim=40).is_reached
    assert line(alone("name", "MiB", [Sample(41)])).endswith("MiB")
    rate = compare("name", RATE, steady(9000, 3), "beside", steady(1000), 1, aim=10)
    assert not rate.is_reached
    assert by_itself(rate, "rate", aim=8000).is_reached


def test_what_is_absent_is_named_and_misses_no_aim():
    row = compare("name", "µs", steady(2, 1), "Redis GET", absent, 3, aim=1)
    assert row.ours == Figure(2, 2, 2)
    assert row.is_reached
    assert "redis-server is not installed" in line(row)
    assert "redis-server is not installed" in markdown([row])
    assert "reason" in line(missing("name", "MiB", "reason"))


ROWS = [
    compare("held", "µs", steady(2, 1), "a < b", steady(1, 0.5), 1, aim=1.5),
    compare("not there", "µs", steady(2), "beside", absent, 1),
    alone("not held", "µs", [Sample(1)]),
]


def test_the_plot_has_a_bar_for_every_row_with_a_yardstick():
    drawn = plot(ROWS)
    ElementTree.fromstring(drawn)
    assert drawn.count("<rect") == 1
    assert ">2.00 of a &lt; b<" in drawn


def test_rows_survive_json():
    assert rows_of(json.loads(json.dumps(document({}, 1, ROWS)))) == ROWS


def test_the_table_has_every_row_with_its_processor_time_and_aim():
    head, _, *lines = markdown(ROWS).splitlines()
    assert len(lines) == len(ROWS)
    assert all(line.count("|") == head.count("|") for line in lines)
    assert lines[0] == "| held | 2 µs [1 µs] | a < b | 1 µs [0.50 µs] | 2 (2 to 2) | ≤ 1.5, missed |"


def test_before_and_after_are_told_apart_by_name_and_yardstick():
    before = [compare("held", "µs", steady(8), "a < b", steady(2), 1), ROWS[2]._replace(beside="another")]
    _, _, held, _, other = before_and_after(before, ROWS).splitlines()
    assert held == "| held | a < b | 8 µs | 2 µs | 4 | 2 | ≤ 1.5, missed |"
    assert other == "| not held | | | 1 µs | | | |"


def test_a_table_is_written_between_its_marks_only(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for text in ("new\n", "newer\n"):
        write_between(page, text)
        assert page.read_text() == f"before\n{BEGIN}\n{text}{END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="no <!-- bench"):
        write_between(page, "new\n")
    assert page.read_text() == "no marks"


def test_a_row_without_figures_can_be_shown_everywhere():
    rows = [missing("name", "MiB", "reason"), Row("count", "", Figure(140, 133, 145), aim=150)]
    assert plot(rows)
    assert "| count | 140 |" in markdown(rows)
    assert before_and_after(rows, rows)


def test_losses_are_told_of_what_people_would_use_instead_the_worst_first():
    rows = [
        compare("slower", "µs", steady(3), "redis-py GET", steady(2), 1),
        compare("faster", "µs", steady(1), "redis-py GET", steady(2), 1),
        compare("fewer", RATE, steady(1), "Redis GET", steady(4), 1, aim=0.3),
        compare("a yardstick", "µs", steady(3), "bare trio + msgpack echo", steady(1), 1, aim=3),
        compare("nothing there", "µs", steady(3), "Redis SET", absent, 1, aim=1),
    ]
    told = losses(rows)
    assert told.index("* fewer / Redis GET: 0.25") < told.index("* slower / redis-py GET: 1.50")
    assert "faster" not in told
    assert "yardstick" not in told
    assert told.endswith("missed:\n\n* fewer / Redis GET: 0.25 (≥ 0.3, missed)\n")
    assert losses([]).count("* no") == 2
