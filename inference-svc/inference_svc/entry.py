"""A sequence in the engine's queue or in its batch, and the caller who waits for it."""

import asyncio
import math
import time
from collections.abc import Callable

from transformers.generation.continuous_batching.requests import GenerationOutput

from inference_svc.steps import Work
from inference_svc.text import TextStream
from o11y.http import deadline


class Entry:
    """Hands the tokens of one sequence to its caller as text.

    It belongs to the event loop; the engine's thread uses `work` and reads `deadline`, a time of
    `time.monotonic`: a sequence that waits until then is never computed.
    """

    def __init__(self, work: Work, stream: TextStream, emit: Callable[[str], None] | None) -> None:
        self.work = work
        self.stream = stream
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[GenerationOutput] = self.loop.create_future()
        self.text = ""
        left = deadline.remaining()
        self.deadline = math.inf if left is None else time.monotonic() + left
        self._emit = emit
        self._seen = 0

    def take(self, output: GenerationOutput) -> None:
        """Hand on the new text of `output`, which has all tokens generated so far."""
        if self.done.done():
            return
        text = self.stream.add(output.generated_tokens[self._seen :])
        self._seen = len(output.generated_tokens)
        if output.is_finished():
            text += self.stream.end()
        self.text += text
        if text and self._emit:
            self._emit(text)
        if output.is_finished() or self.stream.stopped:
            self.done.set_result(output)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
