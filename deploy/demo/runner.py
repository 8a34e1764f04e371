"""Plays scenarios against a gateway, with a bar for each while it runs."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx2
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from deploy.demo.calls import Call, Outcome, send
from deploy.demo.figures import seconds
from deploy.demo.summary import Tally
from deploy.demo.workload import Strands

AT_ONCE = 4
PAUSE_AFTER_FAILURE_SECONDS = 1.0


class Runner:
    """One run of the demo: the gateway, the terminal, and the tallies of its scenarios."""

    def __init__(self, http: httpx2.AsyncClient, gateway_url: str, console: Console) -> None:
        self.http = http
        self.gateway_url = gateway_url
        self.console = console
        self.tallies: list[Tally] = []

    async def play(self, name: str, strands: Strands) -> Tally:
        """Send every call once, at most AT_ONCE side by side."""
        gate = asyncio.Semaphore(AT_ONCE)
        with self._watched(name, sum(map(len, strands))) as (tally, heard):

            async def follow(strand: list[Call]) -> None:
                async with gate:
                    for call in strand:
                        outcome = await send(self.http, self.gateway_url, call)
                        heard(outcome, len(tally.outcomes) + 1)

            async with asyncio.TaskGroup() as group:
                for strand in strands:
                    group.create_task(follow(strand))
        return tally

    async def load(self, calls: list[Call], duration: float) -> None:
        """Send the calls again and again, AT_ONCE side by side, for `duration` seconds."""
        supply = itertools.cycle(calls)
        started = time.perf_counter()
        with self._watched("load", duration) as (_, heard):

            async def work() -> None:
                while time.perf_counter() - started < duration:
                    outcome = await send(self.http, self.gateway_url, next(supply))
                    heard(outcome, time.perf_counter() - started)
                    if outcome.failures:
                        await asyncio.sleep(PAUSE_AFTER_FAILURE_SECONDS)

            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(work())

    @contextmanager
    def _watched(
        self, name: str, whole: float
    ) -> Iterator[tuple[Tally, Callable[[Outcome, float], None]]]:
        """A scenario's tally, and a function that adds an outcome and shows progress.

        The bar is full when the function's second argument reaches `whole`.
        """
        tally = Tally(name)
        self.tallies.append(tally)
        progress = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(24),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        started = time.perf_counter()
        with progress:
            task = progress.add_task(name, total=whole, note="")

            def heard(outcome: Outcome, done: float) -> None:
                tally.outcomes.append(outcome)
                progress.update(task, completed=min(done, whole), note=_note(tally))

            try:
                yield tally, heard
            finally:
                tally.seconds = time.perf_counter() - started
        if progress.disable:
            self.console.print(f"{name:<9} {_note(tally)}, {seconds(tally.seconds)}")


def _note(tally: Tally) -> str:
    failed = len(tally.failed)
    return f"{len(tally.outcomes)} calls" + (f", {failed} failed" if failed else "")
