import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from inference_svc.batching import Batcher
from inference_svc.machine import Consumption, Machine
from o11y.http import deadline
from o11y.web.problems import Problem

SECONDS = 10


class Work:
    """Doubles numbers, each batch when it is let; a negative number fails its batch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = threading.Semaphore(0)
        self.let = threading.Semaphore(0)

    def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        self.begun.release()
        assert self.let.acquire(timeout=SECONDS)
        if min(numbers) < 0:
            raise ValueError("negative")
        return [2 * number for number in numbers]

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=SECONDS)


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
async def batcher(work: Work) -> AsyncIterator[Batcher[int, int]]:
    """A number costs itself, a batch at most 10; 8 may wait."""
    batcher = Batcher("numbers", work, abs, max_cost=10, max_waiting=8, machine=Machine())
    yield batcher
    work.let.release(100)
    batcher.close()


async def begun(batcher: Batcher[int, int], work: Work, *items: int) -> "asyncio.Task[list[int]]":
    """A call whose batch runs."""
    call = asyncio.create_task(results(batcher, *items))
    await work.has_begun()
    return call


async def results(batcher: Batcher[int, int], *items: int) -> list[int]:
    return (await batcher.run(items, Consumption())).results


async def test_what_comes_while_a_batch_runs_is_the_next_batch(
    batcher: Batcher[int, int], work: Work
) -> None:
    work.let.release(2)
    alone = asyncio.create_task(batcher.run([1], Consumption()))
    await work.has_begun()
    one, other = await asyncio.gather(
        batcher.run([2, 3], Consumption()), batcher.run([4], Consumption())
    )
    assert work.batches == [[1], [2, 4, 3]]
    assert ((await alone).results, one.results, other.results) == ([2], [4, 6], [8])
    assert ((await alone).batch_size, one.batch_size, other.batch_size) == (1, 3, 3)
    assert one.queue_seconds >= 0


async def test_callers_of_the_same_moment_share_the_first_batch(
    batcher: Batcher[int, int], work: Work
) -> None:
    work.let.release()
    assert await asyncio.gather(*(results(batcher, n) for n in (1, 2, 3))) == [[2], [4], [6]]
    assert work.batches == [[1, 2, 3]]


async def test_a_batch_is_bounded_by_its_cost_and_a_large_call_takes_several(
    batcher: Batcher[int, int], work: Work
) -> None:
    work.let.release(3)
    assert await results(batcher, 6, 4, 1, 99) == [12, 8, 2, 198]
    assert work.batches == [[6, 4], [1], [99]]


async def test_calls_take_turns(batcher: Batcher[int, int], work: Work) -> None:
    await begun(batcher, work, 1)
    large = asyncio.create_task(results(batcher, 5, 5, 5, 5, 5))
    await asyncio.sleep(0)  # it joins the queue
    small = asyncio.create_task(results(batcher, 2))
    await asyncio.sleep(0)
    work.let.release(4)
    assert await small == [4]
    assert work.batches[:2] == [[1], [5, 2]]
    assert await large == [10] * 5
    assert work.batches == [[1], [5, 2], [5, 5], [5, 5]]


async def test_too_many_waiting_are_429_with_retry_after(
    batcher: Batcher[int, int], work: Work
) -> None:
    await begun(batcher, work, 1)
    waiting = asyncio.create_task(results(batcher, *[1] * 8))
    await asyncio.sleep(0)  # it joins the queue
    with pytest.raises(Problem) as refused:
        await batcher.run([1], Consumption())
    assert refused.value.status == 429
    assert int(refused.value.headers["Retry-After"]) >= 1
    work.let.release(2)
    assert await waiting == [2] * 8


async def test_a_failing_batch_fails_only_its_callers(
    batcher: Batcher[int, int], work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    good = await begun(batcher, work, 1)
    bad, beside = (asyncio.create_task(results(batcher, item)) for item in (-1, 2))
    later = asyncio.create_task(results(batcher, 9))
    work.let.release(3)
    assert (await good, await later) == ([2], [18])
    for call in (bad, beside):
        with pytest.raises(Problem, match="the numbers failed: ValueError") as failed:
            await call
        assert failed.value.status == 503
    assert "a batch of 2 failed" in caplog.text


async def test_a_batch_with_too_few_results_fails_and_the_next_one_runs() -> None:
    def lossy(numbers: list[int]) -> list[int]:
        return [number for number in numbers if number != 5]

    batcher = Batcher("numbers", lossy, abs, max_cost=10, max_waiting=8, machine=Machine())
    with pytest.raises(Problem, match="the numbers failed: ValueError"):
        await results(batcher, 5, 2)
    assert await results(batcher, 3) == [3]
    batcher.close()


async def test_who_left_while_waiting_is_not_computed(
    batcher: Batcher[int, int], work: Work
) -> None:
    running = await begun(batcher, work, 1)
    left, stays = (asyncio.create_task(results(batcher, item)) for item in (2, 3))
    await asyncio.sleep(0)
    assert batcher.waiting == 2
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    assert batcher.waiting == 1
    work.let.release(2)
    assert (await running, await stays) == ([2], [6])
    assert work.batches == [[1], [3]]


async def test_a_deadline_that_passes_in_the_queue_is_504_and_nothing_is_computed(
    batcher: Batcher[int, int], work: Work
) -> None:
    running = await begun(batcher, work, 1)
    with deadline.within(0.02), pytest.raises(Problem) as late:
        await batcher.run([2], Consumption())
    with deadline.within(0), pytest.raises(Problem) as too_late:
        await batcher.run([3], Consumption())
    assert (late.value.status, too_late.value.status) == (504, 504)
    work.let.release()
    assert await running == [2]
    assert (work.batches, batcher.waiting) == ([[1]], 0)


async def test_a_caller_that_leaves_during_its_batch_takes_no_result_from_others(
    batcher: Batcher[int, int], work: Work
) -> None:
    work.let.release()
    first = await begun(batcher, work, 1)
    await first
    left, stays = (asyncio.create_task(results(batcher, item)) for item in (2, 3))
    await work.has_begun()
    left.cancel()
    work.let.release()
    assert await stays == [6]


async def test_closing_fails_who_waits_and_who_comes(
    batcher: Batcher[int, int], work: Work
) -> None:
    running = await begun(batcher, work, 1)
    waiting = asyncio.create_task(results(batcher, 2))
    await asyncio.sleep(0)
    work.let.release()
    batcher.close()
    assert await running == [2]
    for call in (waiting, batcher.run([3], Consumption())):
        with pytest.raises(Problem, match="the numbers are stopping"):
            await call
    assert work.batches == [[1]]


async def test_the_thread_of_a_batch_ends_with_it() -> None:
    threads: list[threading.Thread] = []

    def note(items: list[int]) -> list[int]:
        threads.append(threading.current_thread())
        return items

    batcher = Batcher("notes", note, lambda _: 1, max_cost=8, max_waiting=8, machine=Machine())
    await batcher.run([1], Consumption())
    await batcher.run([2], Consumption())
    for thread in threads:
        await asyncio.to_thread(thread.join, 5)
    assert [thread.is_alive() for thread in threads] == [False, False]
    batcher.close()
