"""Joins the items of concurrent callers into batches, computed one after another in a thread.

Each batch has a thread of its own: see threads.py.

Items that come while a batch runs go into the next one; no item waits for others to come. Calls
take turns, item by item, so that a large one does not keep the others waiting.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar, cast

from inference_svc import threads
from inference_svc.machine import Consumption, Machine, Spent
from inference_svc.pace import Pace
from o11y.http import deadline
from o11y.web.problems import Problem, out_of_time, unavailable

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Batched(Generic[Result]):
    """The results of one call, in its order.

    `queue_seconds` is how long the call waited for its first batch, `batch_size` how many items
    the largest of its batches had, those of other callers included.
    """

    results: list[Result]
    queue_seconds: float
    batch_size: int


@dataclass(eq=False)
class _Call(Generic[Item, Result]):
    items: Sequence[Item]
    done: asyncio.Future[None]
    results: list[Result | None]
    missing: int
    consumption: Consumption
    taken: int = 0
    """Items that are in a batch, or have been; they are taken in their order."""
    came: float = field(default_factory=time.perf_counter)
    began: float | None = None
    batch_size: int = 0


class Batcher(Generic[Item, Result]):
    """Runs `work`, which turns items into as many results, off the event loop.

    A batch costs at most `max_cost`, or is a single item; at most `max_waiting` items wait. All
    methods are for the event loop's thread.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[Item]], list[Result]],
        cost: Callable[[Item], int],
        max_cost: int,
        max_waiting: int,
        machine: Machine,
    ) -> None:
        self._name = name
        self._work = work
        self._cost = cost
        self._max_cost = max_cost
        self._max_waiting = max_waiting
        self._machine = machine
        self._spent = Spent(0.0, 0.0)
        """The part of the last batch in the machine's work."""
        self._pace = Pace()
        self._queue: deque[_Call[Item, Result]] = deque()
        """The calls that have items left to take, the one whose turn it is first."""
        self._busy = False
        self._closed = False
        self._running: Future[list[Result]] | None = None
        self.waiting = 0
        """Items whose batch has not begun and whose caller still waits."""

    async def run(self, items: Sequence[Item], consumption: Consumption) -> Batched[Result]:
        """Compute the results for these items, in batches with those of other callers, of whose
        work `consumption` gets its part by the cost of the items.

        Raises Problem 429 when too many wait, 503 when the work fails or the batcher is closed, 504
        when the deadline passes. Items still waiting when their call ends are never computed.
        """
        left = deadline.remaining()
        if left == 0:
            raise out_of_time(f"the deadline had passed before the {self._name} began")
        if self._closed:
            raise unavailable(f"the {self._name} are stopping")
        if self.waiting + len(items) > self._max_waiting:
            raise Problem(
                429,
                f"{self.waiting} pieces of text wait for {self._name}; "
                f"at most {self._max_waiting} may",
                code="busy",
                headers={"Retry-After": str(self._pace.seconds_for(len(items)))},
            )
        loop = asyncio.get_running_loop()
        call: _Call[Item, Result] = _Call(
            items, loop.create_future(), [None] * len(items), len(items), consumption
        )
        self.waiting += len(items)
        self._queue.append(call)
        if not self._busy:
            self._busy = True
            loop.call_soon(self._next)  # callers of this turn of the loop join the batch
        try:
            async with asyncio.timeout(left):
                await call.done
        except TimeoutError:
            raise out_of_time(f"the {self._name} were not ready in time") from None
        finally:
            self._leave(call)
        began = call.came if call.began is None else call.began
        return Batched(cast(list[Result], call.results), began - call.came, call.batch_size)

    def close(self) -> None:
        """Fail the calls with waiting items, and wait for the batch that runs."""
        self._closed = True
        for call in self._queue:
            _fail(call, f"the {self._name} are stopping")
        if self._running is not None:
            wait([self._running])

    def _leave(self, call: _Call[Item, Result]) -> None:
        """Take what is left of an ended call out of the queue."""
        if call in self._queue:
            self._queue.remove(call)
            self.waiting -= len(call.items) - call.taken

    def _next(self) -> None:
        """Begin the next batch, if anything waits."""
        batch: list[tuple[_Call[Item, Result], int]] = []
        cost = 0
        while self._queue:
            call = self._queue[0]
            cost += self._cost(call.items[call.taken])
            if batch and cost > self._max_cost:
                break
            self._queue.popleft()
            batch.append((call, call.taken))
            call.taken += 1
            if call.taken < len(call.items):
                self._queue.append(call)
        self._busy = bool(batch) and not self._closed
        if not self._busy:
            return
        self.waiting -= len(batch)
        now = time.perf_counter()
        for call, _ in batch:
            call.began = now if call.began is None else call.began
            call.batch_size = max(call.batch_size, len(batch))
        items = [call.items[index] for call, index in batch]
        self._running = threads.submit(self._name, partial(self._compute, items))
        running = asyncio.wrap_future(self._running)
        running.add_done_callback(lambda done: self._ended(batch, done))

    def _ended(
        self,
        batch: list[tuple[_Call[Item, Result], int]],
        done: asyncio.Future[list[Result]],
    ) -> None:
        self._share(batch)
        error = done.exception()
        if error is None and len(done.result()) != len(batch):
            error = ValueError(f"{len(done.result())} results for {len(batch)} items")
        if error is not None:
            logger.error("a batch of %d failed", len(batch), exc_info=error)
            for call, _ in batch:
                _fail(call, f"the {self._name} failed: {type(error).__name__}")
        else:
            for (call, index), result in zip(batch, done.result(), strict=True):
                call.results[index] = result
                call.missing -= 1
                self._pace.ended()
                if not call.missing and not call.done.done():
                    call.done.set_result(None)
        self._next()

    def _compute(self, items: list[Item]) -> list[Result]:
        before = self._machine.begin()
        try:
            return self._work(items)
        finally:
            after = self._machine.end()
            self._spent = Spent(after.seconds - before.seconds, after.joules - before.joules)

    def _share(self, batch: list[tuple[_Call[Item, Result], int]]) -> None:
        costs = [self._cost(call.items[index]) for call, index in batch]
        total = sum(costs) or 1
        for (call, _), cost in zip(batch, costs, strict=True):
            share = cost / total
            call.consumption.add(self._spent.seconds * share, self._spent.joules * share)


def _fail(call: _Call[Item, Result], reason: str) -> None:
    """End a call with a Problem of its own, unless it has ended already."""
    if not call.done.done():
        call.done.set_exception(unavailable(reason))
