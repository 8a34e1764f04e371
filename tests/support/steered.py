"""A model whose forward pass can be held, made to fail, and counted."""

import asyncio
import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import transformers

SECONDS = 10.0


class Steered:
    """`hold` stops the model inside its next step, in a call that can't be interrupted, and `spin`
    in a loop that can; `errors` are raised by the steps to come.
    """

    def __init__(self, model: transformers.PreTrainedModel) -> None:
        self.errors: list[Exception] = []
        self.before: Callable[[int], None] = lambda _: None
        self.steps = 0
        self._go = threading.Event()
        self._go.set()
        self._spins = False
        self._inside = threading.Event()
        self._loop_go = threading.Event()
        forward = model.forward

        @functools.wraps(forward)
        def steered(*args: Any, **kwargs: Any) -> Any:
            self.steps += 1
            self.before(self.steps)
            if not self._go.is_set():
                self._inside.set()
                assert self._go.wait(SECONDS)
            if self._spins:
                self._spins = False
                self._inside.set()
                ends = time.monotonic() + SECONDS
                while time.monotonic() < ends:
                    pass
            if self.errors:
                raise self.errors.pop(0)
            return forward(*args, **kwargs)

        model.forward = steered

    def hold(self) -> None:
        self._inside.clear()
        self._go.clear()

    def spin(self) -> None:
        self._inside.clear()
        self._spins = True

    async def held(self) -> None:
        """Wait until the model is inside the step that is held."""
        assert await asyncio.to_thread(self._inside.wait, SECONDS)

    def release(self) -> None:
        self._go.set()

    def hold_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the event loop do nothing until `loop_may_go`."""
        self._loop_go = threading.Event()
        loop.call_soon_threadsafe(self._loop_go.wait, SECONDS)

    def loop_may_go(self) -> None:
        self._loop_go.set()
