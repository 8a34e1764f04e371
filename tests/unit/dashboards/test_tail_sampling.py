"""What the Collector's tail sampling keeps when spans come late, in a simulation of it."""

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import yaml

from tests.support.processes import ROOT
from tests.unit.dashboards.tail_sampling import (
    Batch,
    Span,
    TailSampling,
    in_environment,
    seconds,
    wants,
)

CONFIGURATION = yaml.safe_load((ROOT / "deploy/otel-collector/config.yaml").read_text())
SETTINGS: dict[str, Any] = CONFIGURATION["processors"]["tail_sampling"]
TEN = {"TAIL_SAMPLING_PERCENTAGE": "10"}
_random = random.Random(17)
IDS = [_random.getrandbits(128) for _ in range(200)]
ONE = next(
    trace_id
    for trace_id in IDS
    if not wants(
        {"type": "probabilistic", "probabilistic": {"sampling_percentage": 10}}, trace_id, []
    )
)
"""Not one of the tenth that is kept whatever it is."""

ON_THE_WAY = 1.0
"""Seconds a span waits in its service for others."""

Make = Callable[[int], Iterator[Batch]]


def sampled(
    *batches: Batch, environment: Mapping[str, str] = TEN, **changed: object
) -> TailSampling:
    sampling = TailSampling(in_environment(SETTINGS, environment) | changed)
    sampling.run(batches)
    return sampling


def numbered(make: Make) -> list[Batch]:
    return [batch for trace_id in IDS for batch in make(trace_id)]


def a_pipeline_call(
    trace_id: int, took: float = 58.0, tracestate: str = "", **root: Any
) -> Iterator[Batch]:
    """The embedding of the query and the search end at once, everything else at the end."""
    embedded = Span("embeddings m", 0, 0.1, tracestate=tracestate)
    server = Span("POST /full-pipeline", 0, took, is_root=True, **root)
    yield Batch(trace_id, 0.1 + ON_THE_WAY, [embedded])
    yield Batch(trace_id, 0.2 + ON_THE_WAY, [Span("retrieval", 0.1, 0.2)])
    yield Batch(trace_id, took + ON_THE_WAY, [Span("chat m", took - 1, took), server])


WHOLE = ["embeddings m", "retrieval", "chat m", "POST /full-pipeline"]


def late_error(trace_id: int) -> Iterator[Batch]:
    return a_pipeline_call(trace_id, failed=True)


def slow(trace_id: int) -> Iterator[Batch]:
    return a_pipeline_call(trace_id)


def late_and_expensive(trace_id: int) -> Iterator[Batch]:
    return a_pipeline_call(trace_id, attributes={"o11y.cost.usd": 0.02})


late = pytest.mark.parametrize(
    ("make", "policy"),
    [(late_error, "errors"), (slow, "slow"), (late_and_expensive, "expensive")],
)


def only(policy: str) -> list[Mapping[str, Any]]:
    """This policy, and the tenth of all."""
    every = in_environment(SETTINGS, TEN)["policies"]
    return [each for each in every if each["name"] in (policy, "share")]


@late
def test_a_trace_that_turns_out_to_be_wanted_is_kept_with_all_its_spans(
    make: Make, policy: str
) -> None:
    assert sampled(*numbered(make), policies=only(policy)).kept == dict.fromkeys(IDS, WHOLE)


@late
def test_the_simulation_can_tell_settings_that_lose_them(make: Make, policy: str) -> None:
    """Judged ten seconds after the first span, as a whole, only the tenth of all is kept."""
    kept = sampled(
        *numbered(make),
        policies=only(policy),
        sampling_strategy="trace-complete",
        decision_wait="10s",
        decision_wait_after_root_received="0s",
    ).kept
    assert 0 < len(kept) < len(IDS) / 5


@late
def test_a_wait_shorter_than_a_request_may_take_loses_them_too(make: Make, policy: str) -> None:
    kept = sampled(*numbered(make), policies=only(policy), decision_wait="10s").kept
    assert 0 < len(kept) < len(IDS) / 5


def test_the_wait_is_longer_than_requests_may_take_however_long_that_is() -> None:
    for limit in ("", "20", "60", "90.5", "300"):
        environment = {"REQUEST_TIMEOUT_SECONDS": limit} if limit else {}
        wait = seconds(in_environment(SETTINGS, environment)["decision_wait"])
        longest = float(limit or 60)
        assert wait == longest + 15
        call = a_pipeline_call(ONE, took=longest, failed=True)
        assert sampled(*call, environment=TEN | environment).kept == {ONE: WHOLE}


def test_a_stream_is_kept_or_not_when_it_ends_however_long_it_takes() -> None:
    spans = [Span("chat m", 0, 599), Span("POST /chat", 0, 600, is_root=True)]
    batches = (Batch(ONE, 600 + ON_THE_WAY, [span]) for span in spans)
    assert sampled(*batches).kept == {ONE: ["chat m", "POST /chat"]}


def test_attempts_that_are_expensive_together_are_kept() -> None:
    def call(trace_id: int) -> Iterator[Batch]:
        cost = {"o11y.llm.attempt.cost.usd": 0.006}
        attempts = [Span("POST /chat/completions", n, n + 1, attributes=cost) for n in (0, 1)]
        together = Span("chat m", 0, 2, attributes={"o11y.cost.usd": 0.012})
        yield from (Batch(trace_id, 1 + n + ON_THE_WAY, [attempts[n]]) for n in (0, 1))
        yield Batch(trace_id, 2 + ON_THE_WAY, [together])

    assert sampled(*list(call(ONE))[:2]).kept == {}  # of themselves they are not
    names = ["POST /chat/completions", "POST /chat/completions", "chat m"]
    assert sampled(*numbered(call)).kept == dict.fromkeys(IDS, names)


def test_the_caller_may_ask_for_its_trace() -> None:
    asked = a_pipeline_call(ONE, took=1, tracestate="vendor=1, o11y=debug")
    assert sampled(*asked).kept == {ONE: WHOLE}
    assert sampled(*a_pipeline_call(ONE, took=1, tracestate="o11y=other")).kept == {}


def quick(trace_id: int) -> Iterator[Batch]:
    return a_pipeline_call(trace_id, took=1)


@pytest.mark.parametrize(("percentage", "share"), [("0", 0), ("10", 0.1), ("50", 0.5), ("100", 1)])
def test_of_the_others_a_share_is_kept_and_whole(percentage: str, share: float) -> None:
    environment = {"TAIL_SAMPLING_PERCENTAGE": percentage}
    kept = sampled(*numbered(quick), environment=environment).kept
    assert len(kept) / len(IDS) == pytest.approx(share, abs=0.07)
    assert all(names == WHOLE for names in kept.values())


def test_what_is_kept_goes_on_when_it_comes() -> None:
    first, *_, last = late_error(ONE)
    assert sampled(*late_error(ONE), environment={}).sent_at[ONE] == first.arrival
    assert sampled(*late_error(ONE)).sent_at[ONE] == last.arrival


def test_a_span_that_comes_after_its_root_is_waited_for() -> None:
    [*_, root] = quick(ONE)
    failed = Span("upsert documents", 0.5, 0.9, failed=True)
    after = Batch(ONE, root.arrival + 14, [failed])
    assert sampled(*quick(ONE), after).kept == {ONE: [*WHOLE, "upsert documents"]}


def test_a_trace_that_a_caller_goes_on_with_is_held_for_the_wait_and_no_longer() -> None:
    def calls(gap: float) -> list[Batch]:
        first = Span("POST /search", 0, 0.1)
        second = Span("POST /chat", gap, gap + 1, failed=True)
        return [Batch(ONE, 1, [first]), Batch(ONE, gap + 2, [second])]

    assert sampled(*calls(70)).kept == {ONE: ["POST /search", "POST /chat"]}
    assert sampled(*calls(80)).kept == {}


def test_more_traces_than_are_held_lose_first_spans_and_no_error() -> None:
    crowd = [Batch(trace_id, 5, [Span("GET /stats", 4, 4.1)]) for trace_id in IDS[:60]]
    others = [batch for batch in crowd if batch.trace_id != ONE]
    assert sampled(*late_error(ONE), *others).kept[ONE] == WHOLE
    crowded = sampled(*late_error(ONE), *others, num_traces=40).kept
    assert crowded[ONE] == ["chat m", "POST /full-pipeline"]


def test_what_is_not_simulated_is_not_guessed() -> None:
    span = Span("s", 0, 1)
    with pytest.raises(NotImplementedError):
        wants({"type": "rate_limiting", "rate_limiting": {}}, 3, [span])
    with pytest.raises(NotImplementedError):
        wants({"type": "ottl_condition", "ottl_condition": {"span": ["true"]}}, 3, [span])
    with pytest.raises(NotImplementedError):
        sampled(sample_on_first_match=True)
    with pytest.raises(ValueError, match="no duration"):
        seconds("75")
