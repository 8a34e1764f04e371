"""The generation engine: Transformers' continuous batching behind an async call.

One thread of the manager runs the model; requests join and leave the running batch at each step.
The event loop only waits, so that health checks answer while the model works.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.requests import GenerationOutput, RequestStatus

from inference_svc.model import LanguageModel
from inference_svc.pace import Pace
from inference_svc.text import TextStream
from o11y import deadline
from o11y.problems import Problem, out_of_time, unavailable

PAGE_SIZE = 64
"""Tokens in a page of the key-value cache."""

GREEDY = 1e-6
"""Temperature that makes sampling pick the likeliest token: the engine has no other greedy mode."""

STOP_SECONDS = 2.0


@dataclass(frozen=True)
class GenerationRequest:
    """Token ids in, at most `max_new_tokens` out, ended early by any of the `stop` texts."""

    prompt_ids: list[int]
    max_new_tokens: int
    temperature: float
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Generation:
    """One finished sequence. Times are in seconds from when the request was made."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    queue_seconds: float
    first_token_seconds: float
    duration_seconds: float


@dataclass(frozen=True)
class EngineLimits:
    """Bounds in tokens and requests; see the settings of the same names."""

    max_context: int
    max_requests: int
    max_batch_tokens: int
    cache_blocks: int
    max_waiting: int


Emit = Callable[[int, str], None]
"""Is told the text of a sequence, by its number, as it comes."""


class _Waiter:
    """A caller waiting for one sequence, and what arrived for it."""

    def __init__(
        self, request: GenerationRequest, stream: TextStream, emit: Callable[[str], None] | None
    ) -> None:
        self.request = request
        self.stream = stream
        self.done: asyncio.Future[GenerationOutput] = asyncio.get_running_loop().create_future()
        self.text = ""
        self._emit = emit
        self._seen = 0

    def take(self, output: GenerationOutput) -> None:
        """What the engine has generated so far."""
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


class Engine:
    """Owns the model while it runs. All methods are for the event loop's thread."""

    def __init__(self, language_model: LanguageModel, limits: EngineLimits) -> None:
        self.language_model = language_model
        self.limits = limits
        self.window = min(language_model.window, limits.max_context)
        tokenizer = language_model.tokenizer
        eos = language_model.model.generation_config.eos_token_id
        if eos is None:
            eos = tokenizer.eos_token_id
        self._manager = language_model.model.init_continuous_batching(
            generation_config=GenerationConfig(
                do_sample=True,
                temperature=0.99,  # any value but 1 makes temperature a parameter of the request
                top_k=0,
                eos_token_id=eos,
                pad_token_id=tokenizer.pad_token_id,
            ),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=PAGE_SIZE,
                num_blocks=limits.cache_blocks,
                max_batch_tokens=limits.max_batch_tokens,
                max_requests_per_batch=limits.max_requests,
                per_request_processors=True,
            ),
        )
        self._ids = itertools.count()
        self._pace = Pace()
        self.inside = 0
        """Sequences running or waiting."""

    def start(self) -> None:
        self._manager.start()

    async def stop(self) -> None:
        """End the thread. What still runs fails: the server has given it its time already."""
        await asyncio.to_thread(
            self._manager.stop, block=True, timeout=STOP_SECONDS, hard_stop=True
        )

    def failure(self) -> str | None:
        """Why the engine can't serve, or None while it can."""
        error = self._manager.background_thread_status.fatal_error
        if error is not None:
            return f"the engine failed: {error}"
        return None if self._manager.is_running() else "the engine is not running"

    async def generate(
        self, requests: Sequence[GenerationRequest], emit: Emit | None = None
    ) -> list[Generation]:
        """Generate all sequences of one call together; `emit` is told their text as it comes.

        Raises Problem 422 for a prompt beyond the window, 429 when too many wait, 503 when the
        engine is down, 504 when the deadline passes. A cancelled call leaves the batch.
        """
        for request in requests:
            self._check_window(request)
        if self.inside + len(requests) > self.limits.max_waiting:
            raise Problem(
                429,
                f"{self.inside} sequences are running or waiting; at most "
                f"{self.limits.max_waiting} may",
                code="busy",
                headers={"Retry-After": str(self._pace.seconds_for(len(requests)))},
            )
        self.inside += len(requests)
        try:
            async with asyncio.timeout(deadline.remaining()):
                return await self._together(requests, emit)
        except TimeoutError:
            raise out_of_time("the generation did not finish in time") from None
        finally:
            self.inside -= len(requests)

    async def _together(
        self, requests: Sequence[GenerationRequest], emit: Emit | None
    ) -> list[Generation]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._sequence(each, partial(emit, at) if emit else None))
                    for at, each in enumerate(requests)
                ]
        except* Problem as problems:
            raise problems.exceptions[0] from None
        return [task.result() for task in tasks]

    def _check_window(self, request: GenerationRequest) -> None:
        length = len(request.prompt_ids)
        if length + request.max_new_tokens > self.window:
            raise Problem(
                422,
                f"the prompt has {length} tokens and {request.max_new_tokens} new ones are asked "
                f"for; {self.language_model.name} takes {self.window} together",
                code="context_length_exceeded",
                field="prompt",
            )

    async def _sequence(
        self, request: GenerationRequest, emit: Callable[[str], None] | None
    ) -> Generation:
        started = time.perf_counter()
        tokenizer = self.language_model.tokenizer
        waiter = _Waiter(request, TextStream(tokenizer, request.stop), emit)
        request_id = f"sequence-{next(self._ids)}"
        if reason := self.failure():
            raise unavailable(reason)
        self._manager.register_result_handler(request_id, waiter.take)
        try:
            self._manager.add_request(
                request.prompt_ids,
                request_id=request_id,
                max_new_tokens=request.max_new_tokens,
                streaming=bool(request.stop or emit),
                record_timestamps=True,
                temperature=max(request.temperature, GREEDY),
            )
            output = await waiter.done
        finally:
            if not waiter.done.done() or waiter.done.cancelled() or waiter.stream.stopped:
                self._manager.cancel_request(request_id)
            self._manager.output_router.result_handlers.pop(request_id, None)
        if output.status == RequestStatus.FAILED:
            raise unavailable(f"the engine failed: {output.error}")
        self._pace.ended()
        return self._generation(waiter, output, started)

    def _generation(self, waiter: _Waiter, output: GenerationOutput, started: float) -> Generation:
        full = len(output.generated_tokens) >= waiter.request.max_new_tokens
        stamps = output.timestamps or [time.perf_counter()]
        return Generation(
            text=waiter.text,
            prompt_tokens=len(output.prompt_ids),
            completion_tokens=len(output.generated_tokens),
            finish_reason="length" if full and not waiter.stream.stopped else "stop",
            queue_seconds=max(0.0, output.lifespan[0] - started),
            first_token_seconds=stamps[0] - started,
            duration_seconds=stamps[-1] - started,
        )
