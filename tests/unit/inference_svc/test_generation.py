"""What the span of a generation and its metrics say."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from inference_svc.cost import Costs
from inference_svc.engine import Engine
from inference_svc.generation import Generator
from inference_svc.machine import Machine
from inference_svc.model import LanguageModel
from inference_svc.steps import Step
from o11y.http import deadline
from o11y.web.problems import Problem
from tests.support.engines import greedy, queued
from tests.support.recorded import Recorded, attributes, identity
from tests.support.steered import Steered
from tests.unit.inference_svc.conftest import LIMITS


@pytest.fixture
async def engine(language_model: LanguageModel, steered: Steered) -> AsyncIterator[Engine]:
    engine = Engine(language_model, dataclasses.replace(LIMITS, max_requests=1))
    engine.start()
    yield engine
    steered.release()
    await engine.stop()


@pytest.fixture
def generator(engine: Engine, recorded: Recorded) -> Generator:
    return Generator(engine, recorded.telemetry, Costs(None, Machine(), recorded.telemetry))


def events(span: ReadableSpan) -> dict[str, int]:
    return {event.name: event.timestamp for event in span.events}


async def test_the_span_tells_of_queue_first_token_and_batch(
    generator: Generator, recorded: Recorded
) -> None:
    await generator.run("chat", [greedy([1, 2, 3], 5)])
    [span] = recorded.spans()
    told = attributes(span)
    assert told["gen_ai.usage.input_tokens"] == 3
    assert told["gen_ai.usage.output_tokens"] == 5
    assert told["batch_efficiency"] == 1
    assert told["o11y.batch.steps"] == 5
    assert (told["o11y.batch.requests.mean"], told["o11y.batch.requests.max"]) == (1, 1)
    seen = events(span)
    assert list(seen) == ["admitted", "first token"]
    assert span.start_time
    assert span.end_time
    assert span.start_time <= seen["admitted"] < seen["first token"] < span.end_time


async def test_metrics_of_a_call_that_succeeds(generator: Generator, recorded: Recorded) -> None:
    await generator.run("chat", [greedy([1, 2, 3], 5)] * 2)
    labels = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "o11y-local",
        "gen_ai.request.model": "tiny",
        "gen_ai.response.model": "tiny",
    }
    for metric, count in (
        ("gen_ai.server.request.duration", 1),
        ("gen_ai.server.time_to_first_token", 1),
        ("gen_ai.server.time_per_output_token", 2),
    ):
        assert recorded.points(metric) == [(labels, count)], metric
    of_model = {"model": "tiny", "device": "cpu"}
    assert recorded.points("model_tokens_generated") == [({**of_model, "tenant": "_none"}, 10)]
    assert recorded.points("model_batch_size") == [(of_model, 10)]
    assert recorded.points("model_cache_blocks") == [(of_model, 16)]
    for metric in ("model_queue_depth", "model_requests_running", "model_cache_blocks_used"):
        assert recorded.points(metric) == [(of_model, 0)], metric


async def test_gauges_tell_who_runs_and_who_waits(
    generator: Generator, engine: Engine, steered: Steered, recorded: Recorded
) -> None:
    steered.hold()
    calls = asyncio.gather(*(generator.run("chat", [greedy([each])]) for each in (1, 2, 3)))
    await steered.held()
    await queued(engine, 3)
    values = [
        recorded.points(metric)[0].value
        for metric in ("model_requests_running", "model_queue_depth", "model_cache_blocks_used")
    ]
    steered.release()
    await calls
    assert values == [1, 2, 1]


async def test_the_engine_s_thread_knows_whose_trace_it_works_for(
    generator: Generator, engine: Engine, recorded: Recorded
) -> None:
    seen: list[SpanContext] = []

    def on_step(step: Step) -> None:
        seen.append(step.context)

    engine.on_step = on_step
    tracer = recorded.telemetry.tracer

    async def caller(name: str, prompt: list[int]) -> None:
        with tracer.start_as_current_span(name):
            await generator.run("chat", [greedy(prompt, 4)])

    await asyncio.gather(caller("ada", [1, 2]), caller("bob", [3, 4]))
    generations = {
        span.parent.span_id: span
        for span in recorded.spans()
        if span.name == "chat tiny" and span.parent
    }
    ada, bob = (
        identity(generations[identity(recorded.span(name)).span_id]) for name in ("ada", "bob")
    )
    assert ada.trace_id != bob.trace_id
    assert seen == [ada] * 4 + [bob] * 4  # one sequence at a time


async def test_who_runs_out_of_time_in_the_queue_is_counted_as_waiting(
    generator: Generator, steered: Steered, recorded: Recorded
) -> None:
    steered.hold()
    first = asyncio.create_task(generator.run("chat", [greedy([1])]))
    await steered.held()
    with deadline.within(0.05), pytest.raises(Problem):
        await generator.run("chat", [greedy([2])])
    [span] = recorded.spans()
    steered.release()
    await first
    assert attributes(span)["error.type"] == "out_of_time"
    assert list(events(span)) == ["cancelled"]
    [point] = recorded.points("model_requests_cancelled")
    assert (point.labels["reason"], point.labels["status"]) == ("out_of_time", "waiting")


async def test_who_leaves_while_it_runs_is_charged_what_was_generated(
    generator: Generator, engine: Engine, steered: Steered, recorded: Recorded
) -> None:
    steered.before = lambda step: steered.hold() if step == 4 else None
    call = asyncio.create_task(generator.run("chat", [greedy([1, 2], 60)]))
    await steered.held()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    steered.release()
    [span] = recorded.spans()
    assert attributes(span)["gen_ai.usage.output_tokens"] == 3
    assert list(events(span)) == ["admitted", "first token", "cancelled"]
    [point] = recorded.points("model_requests_cancelled")
    assert (point.labels["reason"], point.labels["status"]) == ("cancelled", "running")
    assert recorded.points("model_tokens_generated")[0].value == 3


async def test_who_is_not_let_in_is_counted_with_the_reason(
    generator: Generator, recorded: Recorded
) -> None:
    with pytest.raises(Problem):
        await generator.run("chat", [greedy([1], 500)])
    with pytest.raises(Problem):
        await generator.run("chat", [greedy([1])] * 9)
    told = {
        point.labels["reason"]: point.value for point in recorded.points("model_requests_rejected")
    }
    assert told == {"context_length_exceeded": 1, "busy": 1}
