"""A storm: calls of every sort at a whole stack, whose parts are killed one after another.

When all is quiet again, every billed attempt must be in
the ledger, the ledger in the sums of budgets and in the metrics, and no budget passed.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2

from tests.support.storm.calls import Make, sorts
from tests.support.storm.comparison import CALL_SECONDS, compare
from tests.support.storm.outcome import Outcome, table
from tests.support.storm.stack import KEYS, Stack

__all__ = ["Outcome", "Storm", "storm", "table"]

AT_ONCE = 48


class Storm:
    """The calls that come to a stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.outcome = Outcome()

    def run(self, count: int) -> Outcome:
        """Make so many calls, with a kill after each part of them, and compare all accounts."""
        began = time.monotonic()
        asyncio.run(self._all(count, self._stack.kills()))
        self._stack.settle()
        compare(self._stack, self.outcome)
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    async def _all(self, count: int, kills: Sequence[tuple[str, Callable[[], None]]]) -> None:
        makes, chance = list(sorts()), random.Random(7)
        numbers = iter(range(count))
        points = {count * (at + 1) // (len(kills) + 1): kill for at, kill in enumerate(kills)}
        killing: list[asyncio.Future[None]] = []
        async with httpx2.AsyncClient(
            timeout=CALL_SECONDS, limits=httpx2.Limits(max_connections=AT_ONCE)
        ) as client:

            async def caller() -> None:
                for number in numbers:
                    if number in points:
                        name, kill = points[number]
                        self.outcome.kills.append(name)
                        killing.append(asyncio.ensure_future(asyncio.to_thread(kill)))
                    make, leaves = makes[number % len(makes)]
                    key = "aaaaaaaaaabbcd"[number * 5 % 14]
                    gateway = self._stack.gateways[number % 2]
                    status = await self._call(client, gateway.url, KEYS[key], make, leaves)
                    self.outcome.statuses[status] += 1
                    if status == 503 or (status == 0 and not leaves):  # somebody was killed
                        await asyncio.sleep(chance.uniform(0.2, 1.0))

            await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
            await asyncio.gather(*killing)

    async def _call(
        self, client: httpx2.AsyncClient, url: str, key: str, make: Make, leaves: bool
    ) -> int:
        """The status; 0 where the caller left, or had no answer."""
        path, body = make()
        headers = {"authorization": f"Bearer {key}"}
        try:
            async with client.stream("POST", url + path, json=body, headers=headers) as answer:
                async for _ in answer.aiter_bytes():
                    if leaves and answer.status_code == 200:
                        return 0
                return answer.status_code
        except httpx2.HTTPError:
            return 0


@contextmanager
def storm(folder: Path) -> Iterator[Storm]:
    """A stack that a storm may come to."""
    with ExitStack() as stack:
        yield Storm(Stack(folder, stack))
