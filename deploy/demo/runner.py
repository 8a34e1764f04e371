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
from deploy.demo.summary import ScenarioResult
from deploy.demo.workload import Strands

AT_ONCE = 4
PAUSE_AFTER_FAILURE_SECONDS = 1.0


class Runner:
    """One run: its gateway, its terminal, and what has come of its scenarios."""

    def __init__(self, http: httpx2.AsyncClient, gateway_url: str, console: Console) -> None:
        self.http = http
        self.gateway_url = gateway_url
        self.console = console
        self.results: list[ScenarioResult] = []

    async def play(self, name: str, strands: Strands) -> ScenarioResult:
        """Every call once, at most AT_ONCE side by side."""
        gate = asyncio.Semaphore(AT_ONCE)
        with self._watched(name, sum(map(len, strands))) as (result, heard):

            async def follow(strand: list[Call]) -> None:
                async with gate:
                    for call in strand:
                        outcome = await send(self.http, self.gateway_url, call)
                        heard(outcome, len(result.outcomes) + 1)

            async with asyncio.TaskGroup() as group:
                for strand in strands:
                    group.create_task(follow(strand))
        return result

    async def load(self, calls: list[Call], duration: float) -> None:
        """Play the calls again and again, AT_ONCE side by side, for `duration` seconds."""
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
    ) -> Iterator[tuple[ScenarioResult, Callable[[Outcome, float], None]]]:
        """A scenario's result, and what to tell of each outcome: how much of `whole` is done."""
        result = ScenarioResult(name)
        self.results.append(result)
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
                result.outcomes.append(outcome)
                progress.update(task, completed=min(done, whole), note=_note(result))

            try:
                yield result, heard
            finally:
                result.seconds = time.perf_counter() - started
        if progress.disable:
            self.console.print(f"{name:<9} {_note(result)}, {seconds(result.seconds)}")


def _note(result: ScenarioResult) -> str:
    failed = len(result.failed)
    return f"{len(result.outcomes)} calls" + (f", {failed} failed" if failed else "")
