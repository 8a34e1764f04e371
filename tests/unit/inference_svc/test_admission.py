"""Who is let in, who is dropped while it waits, and who leaves: seen in the steps themselves."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest

from inference_svc.admission import Rejected
from inference_svc.engine import Call, Engine, GenerationRequest
from inference_svc.entry import Entry
from inference_svc.model import LanguageModel
from inference_svc.steps import occupancy
from o11y.http import deadline
from o11y.web.problems import Problem
from tests.support.engines import greedy, idle, queued
from tests.support.steered import Steered
from tests.unit.inference_svc.conftest import LIMITS

ONE = dataclasses.replace(LIMITS, max_requests=1)
"""One sequence at a time: who comes second waits."""


@pytest.fixture
async def engine(language_model: LanguageModel, steered: Steered) -> AsyncIterator[Engine]:
    engine = Engine(language_model, ONE)
    engine.start()
    yield engine
    steered.release()
    await engine.stop()


def begin(
    engine: Engine, request: GenerationRequest, seconds: float = 30
) -> tuple[asyncio.Task[object], Call]:
    call = Call()
    with deadline.within(seconds):
        return asyncio.create_task(engine.generate([request], call=call)), call


async def test_a_deadline_that_passes_in_the_queue_is_504_and_nothing_is_computed(
    engine: Engine, steered: Steered
) -> None:
    steered.hold()
    first, _ = begin(engine, greedy([1, 2]))
    await steered.held()
    late, call = begin(engine, greedy([3, 4]), seconds=0.05)
    with pytest.raises(Problem) as error:
        await late
    assert error.value.status == 504
    steered.release()
    await first
    await idle(engine)
    assert call.works[0].steps == []


async def test_who_is_late_is_dropped_even_before_its_caller_is_told(
    engine: Engine, steered: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries: list[Entry] = []

    class Kept(Entry):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            entries.append(self)

    monkeypatch.setattr("inference_svc.engine.Entry", Kept)
    steered.hold()
    first, _ = begin(engine, greedy([1, 2]))
    await steered.held()
    late, call = begin(engine, greedy([3, 4]))
    await queued(engine, 2)
    entries[1].deadline = 0
    steered.release()
    await first
    await idle(engine, callers=1)
    assert call.works[0].steps == []
    late.cancel()


async def test_a_deadline_that_has_passed_never_reaches_the_queue(engine: Engine) -> None:
    late, call = begin(engine, greedy([1]), seconds=0)
    with pytest.raises(Rejected) as error:
        await late
    assert (error.value.status, call.works) == (504, [])


@pytest.mark.parametrize("running", [True, False], ids=["running", "waiting"])
async def test_who_leaves_is_in_no_further_step(
    running: bool, engine: Engine, steered: Steered
) -> None:
    steered.hold()
    first, its = begin(engine, greedy([1, 2], 60))
    await steered.held()
    second, waits = begin(engine, greedy([3, 4], 60))
    await queued(engine, 2)
    leaver, call = (first, its) if running else (second, waits)
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    steered.release()
    await (second if running else first)
    await idle(engine)
    stayed = (waits if running else its).works[0]
    assert len(call.works[0].steps) == (1 if running else 0)
    assert steered.steps == len(stayed.steps) + len(call.works[0].steps)
    assert engine.cache_used == 0


async def test_what_can_never_fit_the_cache_is_refused(language_model: LanguageModel) -> None:
    narrow = Engine(language_model, dataclasses.replace(LIMITS, max_context=128, cache_blocks=1))
    with pytest.raises(Rejected, match=r"the cache holds 64 together \(ENGINE_CACHE_BLOCKS\)"):
        await narrow.generate([greedy([1, 2], 100)])


async def test_a_prompt_without_tokens_is_refused(engine: Engine) -> None:
    with pytest.raises(Rejected, match="no tokens"):
        await engine.generate([greedy([])])


async def test_who_must_give_up_its_cache_begins_again_and_says_the_same(
    language_model: LanguageModel,
) -> None:
    roomy, tight = (
        Engine(language_model, dataclasses.replace(LIMITS, max_context=128, cache_blocks=blocks))
        for blocks in (16, 3)
    )
    requests = [greedy([index, 5, 9], 90) for index in (1, 2)]
    roomy.start()
    expected = await roomy.generate(requests)
    await roomy.stop()
    tight.start()
    call = Call()
    squeezed = await tight.generate(requests, call=call)
    await tight.stop()
    assert [each.text for each in squeezed] == [each.text for each in expected]
    assert occupancy(call.works).efficiency < 0.9
    for work, each in zip(call.works, squeezed, strict=True):
        assert work.tokens >= each.completion_tokens
        assert each.first_token_seconds < each.duration_seconds / 2


async def test_alone_and_without_waste_all_that_is_computed_is_used(engine: Engine) -> None:
    call = Call()
    await engine.generate([greedy([1, 2, 3], 5)], call=call)
    assert occupancy(call.works).efficiency == 1
    assert sum(step.slots for step in call.works[0].steps) == 3 + 4


async def test_the_step_after_a_stop_text_is_waste(engine: Engine, steered: Steered) -> None:
    (whole,) = await engine.generate([greedy([1, 2, 3])])
    stop = whole.text.split()[3]
    told = len(whole.text[: whole.text.index(stop)].split()) + 1
    loop = asyncio.get_running_loop()
    first = steered.steps + 1

    def before(step: int) -> None:
        # the loop gets to see the stop text only when the step after it has begun
        if step == first + told - 1:
            steered.hold_loop(loop)
        if step == first + told:
            steered.loop_may_go()

    steered.before = before
    call = Call()
    await engine.generate([greedy([1, 2, 3], stop=(stop,))], call=call)
    slots = 3 + told - 1 + 1
    assert sum(step.slots for step in call.works[0].steps) == slots
    assert occupancy(call.works).efficiency == (slots - 1) / slots


async def test_a_stopping_engine_refuses_what_is_new(engine: Engine, steered: Steered) -> None:
    steered.hold()
    running, _ = begin(engine, greedy([1, 2]))
    await steered.held()
    stopping = asyncio.create_task(engine.stop())
    await asyncio.sleep(0)
    with pytest.raises(Rejected, match="this service is stopping") as refused:
        await engine.generate([greedy([3])])
    assert refused.value.status == 503
    steered.release()
    await stopping
    with pytest.raises(Problem):
        await running
