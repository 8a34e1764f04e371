"""A step that fails takes its own sequences along and no other; an engine beyond help says so."""

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator
from functools import partial

import pytest
import torch

from inference_svc.cost import Costs
from inference_svc.engine import Call, Engine, GenerationRequest
from inference_svc.generation import Generator
from inference_svc.machine import Machine
from inference_svc.model import LanguageModel
from inference_svc.recovery import EngineFailed, Failures, Stall
from inference_svc.running import Running
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


def out_of_memory() -> RuntimeError:
    error: RuntimeError = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    return error


async def test_only_who_was_in_the_step_fails(engine: Engine, steered: Steered) -> None:
    (alone,) = await engine.generate([greedy([3, 4])])
    steered.hold()
    doomed = asyncio.create_task(engine.generate([greedy([1, 2])]))
    await steered.held()
    waiting = asyncio.create_task(engine.generate([greedy([3, 4])]))
    await queued(engine, 2)
    third = steered.steps + 2  # by then the engine's thread has seen who waits
    steered.before = lambda step: steered.errors.append(out_of_memory()) if step == third else None
    steered.release()
    with pytest.raises(EngineFailed, match="the engine failed: CUDA out of memory") as failed:
        await doomed
    assert (failed.value.status, failed.value.kind) == (503, "OutOfMemoryError")
    assert (await waiting)[0].text == alone.text
    assert engine.failure() is None
    assert engine.cache_used == 0
    assert engine.admission.inside == 0


async def test_nothing_that_was_cached_before_a_failure_is_trusted_after_it(
    language_model: LanguageModel, steered: Steered
) -> None:
    engine = Engine(language_model, dataclasses.replace(LIMITS, max_context=128))
    engine.start()
    prompt = [1 + index % 60 for index in range(70)]

    async def computed() -> int:
        call = Call()
        await engine.generate([greedy(prompt, 2)], call=call)
        return call.works[0].steps[0].slots

    assert [await computed(), await computed()] == [70, 6]  # a block of 64 is found
    steered.errors.append(out_of_memory())
    with pytest.raises(EngineFailed):
        await engine.generate([greedy([5])])
    assert await computed() == 70
    await engine.stop()


async def test_it_is_not_ready_until_it_has_begun_again(engine: Engine, steered: Steered) -> None:
    meanwhile: list[str | None] = []
    engine.on_failure = lambda _: meanwhile.append(engine.failure())
    steered.errors.append(out_of_memory())
    with pytest.raises(EngineFailed):
        await engine.generate([greedy([1])])
    await engine.generate([greedy([1])])
    assert meanwhile == ["the engine begins again after a failure"]
    assert engine.failure() is None


async def test_a_stream_that_fails_ends_with_the_problem(
    engine: Engine, steered: Steered, recorded: Recorded
) -> None:
    steered.before = lambda step: (
        steered.errors.append(RuntimeError("a cosmic ray")) if (step == 5) else None
    )
    generator = Generator(engine, recorded.telemetry, Costs(None, Machine(), recorded.telemetry))
    running = Running(partial(generator.run, "chat", [GenerationRequest([1, 2], 60, 0.0)]))
    await running.begin()
    with pytest.raises(EngineFailed, match="a cosmic ray"):
        [_ async for _ in running.pieces()]
    [span] = recorded.spans()
    assert attributes(span)["error.type"] == "RuntimeError"
    assert attributes(span)["gen_ai.usage.output_tokens"] == 4
    [failures] = recorded.points("model_engine_failures")
    assert (failures.labels["error.type"], failures.value) == ("RuntimeError", 1)
    [duration] = recorded.points("gen_ai.server.request.duration")
    assert duration.labels["error.type"] == "RuntimeError"


async def test_a_failure_is_logged_once_with_its_traces(
    engine: Engine, steered: Steered, recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    generator = Generator(engine, recorded.telemetry, Costs(None, Machine(), recorded.telemetry))
    steered.errors.append(out_of_memory())
    with caplog.at_level(logging.ERROR), pytest.raises(EngineFailed):
        await generator.run("chat", [greedy([1])])
    [line] = caplog.records
    [span] = recorded.spans()
    assert line.__dict__["trace_ids"] == [f"{identity(span).trace_id:032x}"]
    assert line.__dict__["error_type"] == "OutOfMemoryError"
    assert line.exc_info


async def test_an_engine_that_fails_again_and_again_is_lost_and_all_are_told(
    engine: Engine, steered: Steered, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        steered.errors.append(out_of_memory())
        with pytest.raises(EngineFailed):
            await engine.generate([greedy([1])])
    steered.hold()
    steered.errors.append(out_of_memory())
    doomed = asyncio.create_task(engine.generate([greedy([1])]))
    await steered.held()
    waiting = asyncio.create_task(engine.generate([greedy([2])]))
    await queued(engine, 2)
    steered.release()
    async with asyncio.timeout(10):
        assert "CUDA out of memory" in await engine.lost()
        for call in (doomed, waiting):
            with pytest.raises(Problem, match="the engine failed: CUDA out of memory") as failed:
                await call
            assert failed.value.status == 503
    with pytest.raises(Problem, match="CUDA out of memory"):
        await engine.generate([greedy([1])])


async def test_a_step_that_hangs_holds_nobody_past_its_deadline(
    engine: Engine, steered: Steered
) -> None:
    steered.hold()
    with deadline.within(0.1), pytest.raises(Problem) as late:
        await engine.generate([greedy([1])])
    assert late.value.status == 504
    steered.release()


async def test_a_step_that_runs_on_is_interrupted_and_the_others_go_on(
    engine: Engine, steered: Steered
) -> None:
    engine.limits = dataclasses.replace(engine.limits, stall_seconds=2)
    (alone,) = await engine.generate([greedy([2])])
    steered.spin()
    watching = asyncio.create_task(engine.lost())
    stuck = asyncio.create_task(engine.generate([greedy([1])]))
    await steered.held()
    waiting = asyncio.create_task(engine.generate([greedy([2])]))
    async with asyncio.timeout(10):
        with pytest.raises(EngineFailed, match="ENGINE_STALL_SECONDS") as failed:
            await stuck
        assert failed.value.kind == "StepStalled"
        assert (await waiting)[0].text == alone.text
    assert engine.failure() is None
    watching.cancel()


async def test_who_is_in_a_step_that_cannot_be_interrupted_does_not_wait_for_it(
    engine: Engine, steered: Steered
) -> None:
    engine.limits = dataclasses.replace(engine.limits, stall_seconds=2)
    steered.hold()
    watching = asyncio.create_task(engine.lost())
    stuck = asyncio.create_task(engine.generate([greedy([1])]))
    async with asyncio.timeout(10):
        with pytest.raises(EngineFailed, match="ENGINE_STALL_SECONDS"):
            await stuck
    assert engine.failure() == "a step of the engine took longer than ENGINE_STALL_SECONDS allows"
    steered.release()
    assert await engine.generate([greedy([2])])
    assert engine.failure() is None
    watching.cancel()


async def test_a_step_that_never_ends_is_the_end_of_the_engine(
    engine: Engine, steered: Steered
) -> None:
    engine.limits = dataclasses.replace(engine.limits, stall_seconds=0.5)
    steered.hold()
    stuck = asyncio.create_task(engine.generate([greedy([1])]))
    await steered.held()
    waiting = asyncio.create_task(engine.generate([greedy([2])]))
    async with asyncio.timeout(10):
        assert await engine.lost() == "a step of the engine takes longer than 1 s"
        with pytest.raises(Problem, match="ENGINE_STALL_SECONDS"):
            await stuck
        with pytest.raises(Problem, match="takes longer than 1 s"):
            await waiting
    assert engine.failure() == "a step of the engine takes longer than 1 s"


def test_a_process_that_was_stopped_did_not_stall() -> None:
    times = iter((0.0, 0.2, 0.4, 0.6, 3600.0, 3600.2, 3600.4, 3600.6))
    stall = Stall(1.0, lambda: next(times))
    seen = []
    for since in (None, 5.0, 5.0, 5.0, 5.0, 6.0, None):
        stall.look(since)
        seen.append(round(stall.seconds(since), 6))
    assert seen == [0, 0, 0.2, 1.2, 1.4, 0, 0]
    assert stall.seconds(6.0) == 0


def test_three_failures_within_a_minute_are_one_too_many() -> None:
    times = iter((0.0, 50.0, 100.0, 105.0, 300.0))
    failures = Failures(lambda: next(times))
    seen = [failures.beyond_help() for _ in range(5)]
    assert seen == [False, False, False, True, False]
