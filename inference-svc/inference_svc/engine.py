"""The generation engine: Transformers' continuous batching behind an async call.

One thread of the manager runs the model; requests join and leave the running batch at each step.
The event loop only waits, so that health checks answer while the model works.
"""

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext, format_trace_id
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.requests import GenerationOutput, RequestStatus

from inference_svc.admission import Admission
from inference_svc.entry import Entry
from inference_svc.machine import Consumption, Machine
from inference_svc.manager import Manager
from inference_svc.model import LanguageModel
from inference_svc.recovery import EngineFailed, Failures, Stall, StepStalled
from inference_svc.sampling import Sampling
from inference_svc.steps import Step, Steps, Work
from inference_svc.text import TextStream
from o11y.http import deadline
from o11y.web.problems import Problem, out_of_time, unavailable

logger = logging.getLogger(__name__)

PAGE_SIZE = 64
"""Tokens in a page of the key-value cache."""

STOP_SECONDS = 2.0
WATCH_SECONDS = 0.2
SLOW_WATCH_SECONDS = 1.0
"""Most seconds between two looks at the engine that count for a stall: where more have passed, this
process did not run.
"""


@dataclass(frozen=True)
class GenerationRequest:
    """One sequence to generate: at most `max_new_tokens`, ended early by any of the `stop` texts.

    `temperature`, `top_p`, `top_k`, `seed` and `choice` are those of Sampling. Without a seed a
    random one is drawn.
    """

    prompt_ids: list[int]
    max_new_tokens: int
    temperature: float
    stop: tuple[str, ...] = ()
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    choice: int = 0

    def choices(self, count: int) -> list["GenerationRequest"]:
        """Requests for `count` sequences of one call, each with its own random numbers."""
        return [replace(self, choice=index) for index in range(count)]

    def sampling(self) -> Sampling:
        seed = secrets.randbits(64) if self.seed is None else self.seed
        return Sampling(self.temperature, self.top_p or 1.0, self.top_k, seed, self.choice)


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
    """Bounds of the engine in tokens, requests and seconds; see the settings of the same names.

    A step that takes longer than `stall_seconds` is interrupted and the calls in it fail; one that
    takes twice as long is the end of the engine.
    """

    max_context: int
    max_requests: int
    max_batch_tokens: int
    cache_blocks: int
    max_waiting: int
    stall_seconds: float = 15.0


Emit = Callable[[int, str], None]
"""Callback for the text of a sequence as it comes: the sequence's number and some more text."""


@dataclass(eq=False)
class Call:
    """The account of one call's sequences, filled while it runs. `context` is the caller's span."""

    context: SpanContext = INVALID_SPAN_CONTEXT
    works: list[Work] = field(default_factory=list)
    consumption: Consumption = field(default_factory=Consumption)


class Engine:
    """Generates text for concurrent calls. All methods are for the event loop's thread.

    `on_step` and `on_failure` are called in the engine's thread: with each step, and with the error
    of each one that failed.
    """

    def __init__(
        self, language_model: LanguageModel, limits: EngineLimits, machine: Machine | None = None
    ) -> None:
        self.language_model = language_model
        self.limits = limits
        self.window = min(language_model.window, limits.max_context)
        tokenizer = language_model.tokenizer
        eos = language_model.model.generation_config.eos_token_id
        if eos is None:
            eos = tokenizer.eos_token_id
        self.steps = Steps(machine or Machine())
        self.on_step: Callable[[Step], None] = lambda _: None
        self.on_failure: Callable[[Exception], None] = lambda _: None
        self._entries: dict[str, Entry] = {}
        self._failures = Failures()
        self._stall = Stall(SLOW_WATCH_SECONDS)
        self.manager = Manager(
            language_model.model,
            GenerationConfig(
                do_sample=False,  # the manager's Sampler does
                eos_token_id=eos,
                pad_token_id=tokenizer.pad_token_id,
            ),
            ContinuousBatchingConfig(
                page_size=PAGE_SIZE,
                num_blocks=limits.cache_blocks,
                max_batch_tokens=limits.max_batch_tokens,
                max_requests_per_batch=limits.max_requests,
                use_cuda_graph=False,  # see sampling.py
            ),
            self._entries,
            self.steps,
            self._step_failed,
            lambda step: self.on_step(step),
        )
        self._ids = itertools.count()
        self.admission = Admission(
            language_model.name, self.window, self.manager.capacity, limits.max_waiting
        )

    @property
    def running(self) -> int:
        """Sequences that are computed."""
        return sum(entry.work.admitted is not None for entry in list(self._entries.values()))

    @property
    def waiting(self) -> int:
        """Sequences whose first step hasn't begun."""
        return sum(entry.work.admitted is None for entry in list(self._entries.values()))

    @property
    def cache_blocks(self) -> int:
        """Blocks of PAGE_SIZE tokens that the cache has."""
        return self.manager.cache_blocks

    @property
    def cache_used(self) -> float:
        """Blocks of the cache that sequences hold."""
        return self.manager.cache_used()

    def start(self) -> None:
        self.manager.start()

    async def stop(self) -> None:
        """Refuse new calls and end the thread. Calls that still run fail: the server has waited for
        them already.
        """
        self.admission.stopping = True
        await asyncio.to_thread(self.manager.stop, block=True, timeout=STOP_SECONDS, hard_stop=True)

    def failure(self) -> str | None:
        """The reason why the engine can't serve now; None while it can."""
        if self.manager.recovering:
            return "the engine begins again after a failure"
        if (reason := self._lost()) is None and self._stalls:
            return str(StepStalled())
        return reason

    async def lost(self) -> str:
        """Wait until the engine can't be helped any more, fail all calls, and return the reason.

        Meanwhile interrupt the steps that take too long; the calls in one that can't be interrupted
        at once fail without waiting for it.
        """
        interrupted = abandoned = None
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            since = self.steps.busy_since
            self._stall.look(since)
            if (reason := self._lost()) and not self.admission.stopping:
                break
            if not self._stalls:
                continue
            if interrupted != since:
                interrupted = since
                self.manager.interrupt()
            elif abandoned != since and not self.manager.recovering:
                abandoned = since
                self._fail(StepStalled(), self.manager.in_step())
        for entry in list(self._entries.values()):
            entry.fail(unavailable(reason))
        return reason

    def _lost(self) -> str | None:
        error = self.manager.background_thread_status.fatal_error
        if error is not None:
            return f"the engine failed: {error}"
        if not self.manager.is_running():
            return "the engine is not running"
        longest = 2 * self.limits.stall_seconds
        if self._stall.seconds(self.steps.busy_since) > longest:
            return f"a step of the engine takes longer than {longest:g} s"
        return None

    @property
    def _stalls(self) -> bool:
        return self._stall.seconds(self.steps.busy_since) > self.limits.stall_seconds

    def _step_failed(self, error: Exception, entries: Sequence[Entry]) -> bool:
        """Fail the sequences of a step, in the engine's thread. True: the engine may go on."""
        goes_on = not self._failures.beyond_help()
        self.on_failure(error)
        self._fail(error, entries)
        return goes_on

    def _fail(self, error: Exception, entries: Sequence[Entry]) -> None:
        """Fail the sequences of a step, from any thread, and log the ids of their traces."""
        failed = EngineFailed(error)
        traces = {format_trace_id(entry.work.context.trace_id) for entry in entries}
        logger.error(
            "a step of the engine failed with %d sequences in it: %s",
            len(entries),
            error,
            exc_info=error,
            extra={"trace_ids": sorted(traces), "error_type": failed.kind},
        )
        for entry in entries:
            entry.loop.call_soon_threadsafe(entry.fail, EngineFailed(error))

    async def generate(
        self,
        requests: Sequence[GenerationRequest],
        emit: Emit | None = None,
        call: Call | None = None,
    ) -> list[Generation]:
        """Generate all sequences of one call together; `emit` gets their text as it comes, `call`
        the account of their work.

        Raises Problem: what Admission raises, 503 when the engine fails, 504 when the deadline
        passes. A cancelled call leaves the batch before the next step.
        """
        call = call or Call()
        lengths = [(len(request.prompt_ids), request.max_new_tokens) for request in requests]
        self.admission.enter(lengths, self._lost())  # during a recovery calls wait
        try:
            async with asyncio.timeout(deadline.remaining()):
                return await self._together(requests, emit, call)
        except TimeoutError:
            raise out_of_time("the generation did not finish in time") from None
        finally:
            self.admission.leave(len(requests))

    async def _together(
        self, requests: Sequence[GenerationRequest], emit: Emit | None, call: Call
    ) -> list[Generation]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        self._sequence(each, partial(emit, at) if emit else None, call)
                    )
                    for at, each in enumerate(requests)
                ]
        except* Problem as problems:
            raise problems.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _sequence(
        self, request: GenerationRequest, emit: Callable[[str], None] | None, call: Call
    ) -> Generation:
        work = Work(call.context, call.consumption)
        call.works.append(work)
        entry = Entry(work, TextStream(self.language_model.tokenizer, request.stop), emit)
        request_id = f"sequence-{next(self._ids)}"
        self._entries[request_id] = entry
        taken = None
        try:
            self.manager.add_request(
                request.prompt_ids,
                request_id=request_id,
                max_new_tokens=request.max_new_tokens,
                streaming=bool(request.stop or emit),
                sampling=request.sampling(),
            )
            output = await entry.done
            taken = len(output.prompt_ids) + len(output.generated_tokens) - 1
        finally:
            del self._entries[request_id]  # without an entry nothing is computed
            self.steps.settle(work, taken)
        if output.status == RequestStatus.FAILED:
            raise unavailable(f"the engine failed: {output.error}")
        self.admission.pace.ended()
        return self._generation(request, entry, output)

    def _generation(
        self, request: GenerationRequest, entry: Entry, output: GenerationOutput
    ) -> Generation:
        full = len(output.generated_tokens) >= request.max_new_tokens
        work = entry.work
        ended = output.lifespan[1] if output.is_finished() else time.perf_counter()
        first = ended if work.first_token is None else work.first_token
        admitted = first if work.admitted is None else work.admitted
        return Generation(
            text=entry.text,
            prompt_tokens=len(output.prompt_ids),
            completion_tokens=len(output.generated_tokens),
            finish_reason="length" if full and not entry.stream.stopped else "stop",
            queue_seconds=admitted - work.made,
            first_token_seconds=first - work.made,
            duration_seconds=ended - work.made,
        )
