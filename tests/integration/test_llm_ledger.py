"""What providers bill against what llm-proxy tells of it, over hundreds of calls of every sort.

Two stand-ins keep ledgers of their own. Of a call whose usage they told, tokens and dollars on
llm-proxy's metrics and spans are the ledgers'; any other is counted, and marked as estimated.
"""

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from sqlalchemy import RowMapping, select

from accounting.database import connect
from accounting.money import dollars
from accounting.tables import ledger
from tests.integration.conftest import EmbeddedStack
from tests.support import openai_standin, tempo
from tests.support.llm import Call, chat, complete, embed, llm_proxy, provider
from tests.support.openai_standin import Bill, Standin, Step
from tests.support.processes import Service

AT_ONCE = 40
FACTOR = 1.5
"""How far the sum of all estimates may be from what was billed."""

PROMPT: dict[str, Any] = {"messages": [{"role": "user", "content": "Where is the café? " * 25}]}
ASKS = {"stream_options": {"include_usage": True}}
LONG: dict[str, Any] = {"size": 1024, "chunks": 256}
"""Four bytes a token, as estimates have it."""
FAILS = (Step(status=429, retry_after="0"), Step(status=500), Step(cut="before_first_byte"))
SAID = {
    "prompt_tokens": 1500,
    "completion_tokens": 300,
    "total_tokens": 1800,
    "prompt_tokens_details": {"cached_tokens": 1024},
    "completion_tokens_details": {"reasoning_tokens": 128},
}


def calls() -> list[Call]:
    """All of them, in an order that is the same each time."""
    made = [*reported(), *repeated(), *estimated(), *unpriced()]
    random.Random(4).shuffle(made)
    return made


def reported() -> Iterator[Call]:
    """The provider tells what it bills."""
    for _ in range(20):
        for model in ("gpt-4o-mini", "gpt-4o"):
            yield chat(Step(), model=model)
        yield chat(Step(usage="cached"), model="gpt-4o-mini")
        yield chat(Step(usage="reasoning"), model="o4-mini")
        yield chat(Step(usage="audio"), model="gpt-audio")
        yield chat(Step(usage=SAID), model="o4-mini")
        yield complete(Step())
        yield embed(Step())
    for _ in range(10):
        yield chat(Step(), stream=True)
        yield chat(Step(), stream=True, **ASKS)
        yield chat(Step(), stream=True, n=2)
        yield chat(Step(usage="in_last_chunk"), stream=True)
        yield chat(Step(usage="every_chunk"), stream=True, **ASKS)
        yield chat(Step(usage="cached"), stream=True, model="gpt-4o")
        yield chat(Step(usage="reasoning"), stream=True, model="o4-mini")
        yield chat(Step(usage="audio"), stream=True, model="gpt-audio")
        yield chat(Step(no_done=True, split=7), stream=True)
        yield complete(Step(), stream=True)


def repeated() -> Iterator[Call]:
    """Some attempts fail; a call without a script is answered by the second provider only."""
    for _ in range(8):
        for step in FAILS:
            yield chat(step, Step())
            yield chat(step, step, Step(), stream=True)
        yield embed(FAILS[0], Step())
        yield chat(Step(cut="mid_body", **LONG), Step(), **PROMPT)
        yield chat()
        yield chat(stream=True)
        yield complete(stream=True)
        yield chat(model="missing-model")


def estimated() -> Iterator[Call]:
    """Nobody tells, or not all of it."""
    for _ in range(6):
        yield chat(Step(usage="absent", **LONG), **PROMPT)
        yield chat(Step(usage="null", **LONG), **PROMPT)
        yield chat(Step(usage="absent", **LONG), stream=True, **PROMPT)
        yield chat(Step(usage="null", **LONG), stream=True, **ASKS, **PROMPT)
        yield chat(Step(cut="mid_stream", **LONG), stream=True, **PROMPT)
        yield chat(Step(cut="mid_stream", usage="every_chunk", **LONG), stream=True, **PROMPT)
        yield chat(Step(hang="mid_stream", **LONG), stream=True, **PROMPT)
        yield chat(Step(malformed="json", **LONG), **PROMPT)
        yield complete(Step(hang="mid_stream", after=0, **LONG), stream=True, prompt="Once " * 90)
        for _ in range(4):
            yield chat(Step(pace=0.01, **LONG), stream=True, **LEAVES, **PROMPT)


LEAVES = {"user": "leaves"}
"""The caller of such a call reads two events and goes."""


def unpriced() -> Iterator[Call]:
    for _ in range(5):
        yield chat(Step(), model="house-model")
        yield chat(Step(), stream=True, model="house-model")
        yield chat(Step(usage="absent"), model="house-model")
        yield embed(Step(), model="house-embedding")


ATTEMPT, CALL = "o11y.llm.attempt.number", "o11y.llm.attempts"
"""Keys that tell the span of an attempt, and that of a call."""

ATTEMPT_COST = "o11y.llm.attempt.cost.usd"


TYPES = ("input", "output", "cached", "cache_write", "reasoning", "input_audio", "output_audio")
COLUMNS = [f"{kind}_tokens" for kind in TYPES]
"""The types of tokens on metrics, and the ledger's columns for them."""


@dataclass
class Books:
    """All that was told of the calls."""

    standins: dict[str, Standin]
    scraped: list[tuple[str, dict[str, str], float]]
    attempts: list[tempo.Span]
    """The HTTP spans of the attempts."""
    calls: list[tempo.Span]
    """The GenAI spans of the calls."""
    rows: Sequence[RowMapping]
    """The ledger."""

    def bills(self, **which: Any) -> list[tuple[str, Bill]]:
        """With the provider that each is of."""
        return [
            (name, bill)
            for name, standin in self.standins.items()
            for bill in standin.ledger.bills(**which)
        ]

    def metric(self, sample: str, *by: str, **labels: str) -> Counter[tuple[str, ...]]:
        """The sums of a metric by these labels, of the samples with those."""
        sums: Counter[tuple[str, ...]] = Counter()
        for name, found, value in self.scraped:
            if name == sample and labels.items() <= found.items() and value:
                sums[tuple(found[label] for label in by)] += value  # type: ignore[assignment]
        return sums

    def attempts_billed(self, *, estimated: bool) -> list[tempo.Span]:
        return [
            span
            for span in self.attempts
            if "o11y.llm.attempt.input_tokens" in span.attributes
            and bool(span.attributes.get("o11y.usage.estimated")) is estimated
        ]


@pytest.fixture(scope="module")
def books(stack: EmbeddedStack, tmp_path_factory: pytest.TempPathFactory) -> Books:
    """Made once: every call, then all ledgers, metrics and spans."""
    with openai_standin.running() as first, openai_standin.running() as second:
        first.default = Step(status=503)
        limits = {"first_byte_seconds": 3, "idle_seconds": 2, "breaker_failures": 100_000}
        folder = tmp_path_factory.mktemp("ledger")
        database = f"sqlite:///{folder}/o11y.db"
        with llm_proxy(
            folder,
            provider("first", first, embedding_model="text-embedding-3-small", **limits),
            provider("second", second, **limits),
            OTEL_TRACES_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_ENDPOINT=stack.url("OTLP_PORT"),
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            DATABASE_URL=database,
        ) as proxy:
            trace_id = secrets.token_hex(16)
            made = calls()
            assert len(made) >= 400
            asyncio.run(make(proxy, made, trace_id))
            standins = {"first": first, "second": second}
            received = [one for standin in standins.values() for one in standin.requests]

            def whole(trace: tempo.Trace) -> bool:
                sent = having(trace, ATTEMPT)
                return len(sent) >= len(received) and all(trace.parent(span) for span in sent)

            trace = tempo.wait_for(stack.tempo, trace_id, whole)
            text = httpx2.get(f"{proxy.url}/metrics").text
            scraped = [
                (sample.name, dict(sample.labels), float(sample.value))
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            ]
        with closing(connect(database).connect()) as connection:
            rows = connection.execute(select(ledger)).mappings().all()
        return Books(standins, scraped, having(trace, ATTEMPT), having(trace, CALL), rows)


def having(trace: tempo.Trace, key: str) -> list[tempo.Span]:
    return [span for span in trace.spans if key in span.attributes]


async def make(proxy: Service, made: Iterable[Call], trace_id: str) -> None:
    """Make the calls, so many at once, all in one trace."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(client: httpx2.AsyncClient, call: Call) -> None:
        headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
        async with (
            places,
            client.stream("POST", call.path, json=call.body, headers=headers) as answer,
        ):
            if "user" not in call.body:
                await answer.aread()
                return
            events = answer.aiter_bytes()
            await anext(events)
            await anext(events)

    limits = httpx2.Limits(max_connections=AT_ONCE)
    async with httpx2.AsyncClient(base_url=proxy.url, timeout=60, limits=limits) as client:
        await asyncio.gather(*(one(client, call) for call in made))


def by_type(bill: Bill) -> dict[str, int]:
    return {
        "input": bill.prompt_tokens,
        "output": bill.completion_tokens,
        "cached": bill.cached_tokens,
        "input_audio": bill.prompt_audio_tokens,
        "output_audio": bill.completion_audio_tokens,
        "reasoning": bill.reasoning_tokens,
    }


def test_every_request_to_a_provider_has_its_span(books: Books) -> None:
    asked = Counter(
        (name, str(one.body["model"]))
        for name, standin in books.standins.items()
        for one in standin.requests
    )
    told = Counter(
        (span.attributes["o11y.llm.provider"], span.attributes["gen_ai.request.model"])
        for span in books.attempts
    )
    assert told == asked


def test_the_tokens_that_were_told_are_those_that_are_billed(books: Books) -> None:
    billed: Counter[tuple[str, ...]] = Counter()
    for name, bill in books.bills(reported=True):
        for kind, count in by_type(bill).items():
            billed[name, bill.model, kind] += count
    counted = books.metric(
        "openai_tokens_used_total", "provider", "model", "type", estimated="false"
    )
    assert counted == +billed

    attempts = books.attempts_billed(estimated=False)
    assert len(attempts) == len(books.bills(reported=True))
    for spans, key, kind in (
        (attempts, "o11y.llm.attempt.input_tokens", "input"),
        (attempts, "o11y.llm.attempt.output_tokens", "output"),
        (books.calls, "gen_ai.usage.cache_read.input_tokens", "cached"),
        (books.calls, "gen_ai.usage.reasoning.output_tokens", "reasoning"),
    ):
        total = sum(span.attributes.get(key, 0) for span in spans)
        assert (key, total) == (key, sum(n for (*_, of), n in billed.items() if of == kind))


def test_the_dollars_are_those_that_are_billed(books: Books) -> None:
    for name, standin in books.standins.items():
        billed = float(standin.ledger.usd(reported=True))
        assert billed > 0
        counted = books.metric("openai_cost_usd_total", "provider", estimated="false")
        assert counted[(name,)] == pytest.approx(billed, abs=1e-9)
        told = [
            span.attributes.get(ATTEMPT_COST, 0.0)
            for span in books.attempts_billed(estimated=False)
            if span.attributes["o11y.llm.provider"] == name
        ]
        assert sum(told) == pytest.approx(billed, abs=1e-9)


def test_the_ledger_has_a_row_for_each_attempt_that_is_billed(books: Books) -> None:
    for estimated in (False, True):
        spans = books.attempts_billed(estimated=estimated)
        rows = [row for row in books.rows if row["estimated"] is estimated]
        assert Counter((row["provider"], row["model"]) for row in rows) == Counter(
            (span.attributes["o11y.llm.provider"], span.attributes["gen_ai.request.model"])
            for span in spans
        )
        assert len({row["trace_id"] for row in rows}) == 1
    counted: Counter[tuple[str, ...]] = Counter()
    for row in books.rows:
        for kind, column in zip(TYPES, COLUMNS, strict=True):
            counted[row["provider"], kind] += row[column]
    assert +counted == books.metric("openai_tokens_used_total", "provider", "type")


def test_the_ledger_is_the_providers_to_the_picodollar(books: Books) -> None:
    for name, standin in books.standins.items():
        rows = [row for row in books.rows if row["provider"] == name and not row["estimated"]]
        assert dollars(sum(row["cost"] or 0 for row in rows)) == standin.ledger.usd(reported=True)
    costs = [float(dollars(row["cost"])) for row in books.rows if row["cost"] is not None]
    told = [span.attributes.get(ATTEMPT_COST, 0.0) for span in books.attempts]
    assert sum(costs) == pytest.approx(sum(told), abs=1e-9)
    unpriced = Counter(row["model"] for row in books.rows if row["cost"] is None)
    assert unpriced.keys() == {"house-model", "house-embedding"}


def test_a_call_costs_what_its_attempts_cost_together(books: Books) -> None:
    sums: Counter[str] = Counter()
    for span in books.attempts:
        sums[span.parent_id] += span.attributes.get(ATTEMPT_COST, 0.0)
    for call in books.calls:
        told = call.attributes.get("o11y.cost.usd", 0.0)
        assert told == pytest.approx(sums[call.span_id], abs=1e-12)


def test_what_has_no_price_is_counted_and_costs_nothing(books: Books) -> None:
    billed = Counter(
        (name, bill.model, bill.operation) for name, bill in books.bills() if bill.usd is None
    )
    assert len(billed) == 2
    counted = books.metric("openai_unpriced_calls_total", "provider", "model", "operation")
    assert counted == billed
    of_model = [
        span
        for span in books.attempts
        if str(span.attributes["gen_ai.request.model"]).startswith("house-")
    ]
    assert len(of_model) == billed.total()
    assert all(ATTEMPT_COST not in span.attributes for span in of_model)


def test_what_nobody_told_is_estimated_and_marked(books: Books) -> None:
    bills = [bill for _, bill in books.bills(reported=False)]
    spans = books.attempts_billed(estimated=True)
    assert Counter(span.attributes["gen_ai.request.model"] for span in spans) == Counter(
        bill.model for bill in bills
    )
    counted = books.metric("openai_tokens_used_total", "type", estimated="true")
    dollars = books.metric("openai_cost_usd_total", estimated="true")
    for estimate, billed in (
        (counted[("input",)], sum(bill.prompt_tokens for bill in bills)),
        (counted[("output",)], sum(bill.completion_tokens for bill in bills)),
        (dollars[()], float(sum(bill.usd for bill in bills if bill.usd is not None))),
    ):
        assert billed / FACTOR < estimate < billed * FACTOR


def test_retries_and_fallbacks_are_counted(books: Books) -> None:
    tries = {
        name: Counter(one.id for one in standin.requests if one.id)
        for name, standin in books.standins.items()
    }
    again = {name: sum(n - 1 for n in counts.values()) for name, counts in tries.items()}
    counted = books.metric("openai_retries_total", "provider")
    assert {name: counted[(name,)] for name in again} == again
    both = tries["first"].keys() & tries["second"].keys()
    assert books.metric("openai_fallbacks_total", "provider", "next") == {
        ("first", "second"): len(both)
    }
    assert len(both) > 0
