"""Labels from outside: the first so many values keep their names."""

from o11y.telemetry.bounded import LONGEST, OVERFLOW, Bounded


def test_values_beyond_the_limit_are_one() -> None:
    bounded = Bounded(2)
    assert [bounded(each) for each in "abcabdc"] == [
        "a",
        "b",
        OVERFLOW,
        "a",
        "b",
        OVERFLOW,
        "_other",
    ]


def test_what_nobody_has_accepted_takes_no_place() -> None:
    bounded = Bounded(2)
    assert [bounded(each, accepted=False) for each in "abc"] == [OVERFLOW] * 3
    assert [bounded(each) for each in "xy"] == ["x", "y"]
    assert bounded("x", accepted=False) == "x"


def test_a_value_has_a_limit_and_one_above_it_takes_no_place() -> None:
    bounded = Bounded(1)
    assert bounded("a" * (LONGEST + 1)) == OVERFLOW
    assert bounded("a" * LONGEST) == "a" * LONGEST


def test_the_name_of_the_rest_may_be_a_value() -> None:
    bounded = Bounded(1)
    assert [bounded(OVERFLOW), bounded("a"), bounded(OVERFLOW)] == [OVERFLOW] * 3
