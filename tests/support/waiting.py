"""Waits for what can only be asked for again and again, each with a limit."""

import asyncio
import time
from collections.abc import Callable


def until(condition: Callable[[], bool], seconds: float = 5, pause: float = 0.01) -> float:
    """The seconds it took for the condition to hold. Fails when it doesn't in time."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds} s"
        time.sleep(pause)
    return time.monotonic() - started


async def eventually(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Let the loop run until the condition holds. Raises TimeoutError when it doesn't in time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nobody sets an event
            await asyncio.sleep(0)
