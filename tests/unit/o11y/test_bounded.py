"""Labels from outside: the first so many values keep their names."""

from o11y.telemetry.bounded import OVERFLOW, Bounded


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


def test_the_name_of_the_rest_may_be_a_value() -> None:
    bounded = Bounded(1)
    assert [bounded(OVERFLOW), bounded("a"), bounded(OVERFLOW)] == [OVERFLOW] * 3
