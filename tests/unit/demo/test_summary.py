"""The arithmetic of a run, and how its failures are told."""

import pytest

from deploy.demo.calls import Call, Outcome, Reading
from deploy.demo.figures import dollars, seconds
from deploy.demo.summary import (
    LISTED_FAILURES,
    ScenarioResult,
    failures,
    percentile,
    slowest,
    total,
)

CALL = Call("/chat", lambda _: Reading([]))


def outcome(took: float = 1.0, *failed: str, cost: float | None = 0.0, out: int = 0) -> Outcome:
    return Outcome(CALL, took, list(failed), "abc", tokens_in=5, tokens_out=out, cost_usd=cost)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, 0.0),
        ([7], 0.95, 7),
        ([3, 1, 2], 0.5, 2),
        ([1, 2, 3, 4], 0.5, 2),
        (range(1, 101), 0.95, 95),
        (range(1, 21), 0.95, 19),
        ([1, 2], 1.0, 2),
    ],
)
def test_percentile(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


def test_a_tally_adds_up() -> None:
    chat = ScenarioResult(
        "chat", [outcome(1, out=30, cost=0.5), outcome(3, "slow", out=10)], seconds=4
    )
    search = ScenarioResult("search", [outcome(2)], seconds=1)

    both = total([chat, search])

    assert (chat.tokens_in, chat.tokens_out, chat.tokens_per_second) == (10, 40, 10)
    assert (chat.cost_usd, len(chat.failed)) == (0.5, 1)
    assert (both.percentile(0.5), both.seconds, both.tokens_per_second) == (2, 5, 8)
    assert ScenarioResult("none").tokens_per_second == 0


def test_a_sum_with_an_unknown_price_is_unknown() -> None:
    assert ScenarioResult("chat", [outcome(cost=1), outcome(cost=None)]).cost_usd is None


def test_each_failed_call_is_a_sentence_with_its_trace() -> None:
    lost = Outcome(CALL, 1.0, ["no answer came (refused)"])
    told = list(
        failures([ScenarioResult("chat", [outcome(1, "a is wrong", "b too"), outcome(), lost])])
    )
    assert told == [
        "chat: POST /chat: a is wrong; b too (make trace ID=abc)",
        "chat: POST /chat: no answer came (refused) (no trace id)",
    ]


def test_the_slowest_call_is_told_with_its_trace() -> None:
    nameless = Outcome(CALL, 9.0, ["no answer came (refused)"])
    told = slowest(
        [
            ScenarioResult("a", [outcome(1), nameless]),
            ScenarioResult("b", [outcome(2), outcome(0.5)]),
        ]
    )
    assert told == "The slowest call: POST /chat, 2.00 s (make trace ID=abc)"
    assert slowest([ScenarioResult("a", [nameless])]) is None


def test_thousands_of_failures_are_counted_not_listed() -> None:
    told = list(failures([ScenarioResult("load", [outcome(1, "wrong")] * (LISTED_FAILURES + 5))]))
    assert len(told) == LISTED_FAILURES + 1
    assert told[-1] == "load: and 5 more calls"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 µs"),
        (0.00042, "420 µs"),
        (0.0098, "9.8 ms"),
        (0.00999, "10 ms"),
        (0.25, "250 ms"),
        (0.9996, "1.00 s"),
        (6.674, "6.67 s"),
        (99.999, "100 s"),
        (754, "754 s"),
    ],
)
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "unknown"), (0, "$0"), (0.0000489, "$0.000049"), (0.12, "$0.12"), (1.5, "$1.50")],
)
def test_dollars(value: float | None, text: str) -> None:
    assert dollars(value) == text
