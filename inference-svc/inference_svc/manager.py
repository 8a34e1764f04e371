"""Transformers' continuous batching, extended: steps observed, calls cancelled, failures survived.

All that is known of the library's insides is here. Its loop runs in a thread of its own, and calls
what is overridden here at each step. There is no public way to see a step, to go on after one that
failed, or to have a daemon as its thread: hence `_create_batch_processor`, `_generation_loop_body`,
`_generation_step`, `_generation_thread` and `_run_generation_loop`, and no other private name.
"""

import ctypes
import gc
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel
from transformers.generation.continuous_batching.continuous_api import (
    ContinuousBatchingManager,
    ContinuousBatchProcessor,
    OutputRouter,
)
from transformers.generation.continuous_batching.input_outputs import ContinuousBatchingAsyncIOs
from transformers.generation.continuous_batching.model_runner import infer_max_single_request_tokens
from transformers.generation.continuous_batching.requests import (
    FutureRequestState,
    GenerationOutput,
    RequestState,
)
from transformers.generation.continuous_batching.scheduler import (
    SCHEDULER_MAPPING,
    FIFOScheduler,
)

from inference_svc.entry import Entry
from inference_svc.recovery import StepStalled
from inference_svc.sampling import Sampler
from inference_svc.steps import Part, Step, Steps

Entries = Mapping[str, Entry]
"""Sequences with a waiting caller, by request id; one that isn't among them is cancelled."""

Failed = Callable[[Exception, Sequence[Entry]], bool]
"""Callback for a failed step: its error and the sequences that fail with it. True: go on."""

SCHEDULER = "o11y"


class Scheduler(FIFOScheduler):  # type: ignore[misc]
    """First in, first out; before each batch, sequences without caller or time are cancelled."""

    entries: Entries
    steps: Steps

    def clear_cancelled_requests(self) -> list[RequestState]:
        now = time.monotonic()
        for request_id in (*self.active_requests, *self.waiting_requests):
            entry = self.entries.get(request_id)
            if entry is None or entry.deadline <= now:
                self.set_request_cancellation(request_id)
        cancelled: list[RequestState] = super().clear_cancelled_requests()
        if self.has_pending_requests():
            self.steps.work()
        return cancelled


SCHEDULER_MAPPING[SCHEDULER] = Scheduler


class Router(OutputRouter):  # type: ignore[misc]
    """Hands generated tokens to the sequences' entries; drops those nobody waits for."""

    def __init__(self, entries: Entries) -> None:
        super().__init__()
        self._entries = entries

    def deliver(self, output: GenerationOutput) -> None:
        self.deliver_batch([output])

    def deliver_batch(self, outputs: list[GenerationOutput]) -> None:
        found = [
            (entry, output)
            for output in outputs
            if (entry := self._entries.get(output.request_id)) is not None
        ]
        if found:
            found[0][0].loop.call_soon_threadsafe(_take, found)


def _take(found: list[tuple[Entry, GenerationOutput]]) -> None:
    for entry, output in found:
        entry.take(output)


class Manager(ContinuousBatchingManager):  # type: ignore[misc]
    """The library's manager, which calls `observe` after each step and `failed` for a failed one.

    The cache is made at once: raises MemoryError, ValueError or torch's OutOfMemoryError when it
    can't be.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        generation: GenerationConfig,
        config: ContinuousBatchingConfig,
        entries: Entries,
        steps: Steps,
        failed: Failed,
        observe: Callable[[Step], None],
    ) -> None:
        config.scheduler_type = SCHEDULER
        super().__init__(model, generation, config)
        self.logit_processor = Sampler()
        self.output_router = Router(entries)
        self._entries = entries
        self._steps = steps
        self._failed = failed
        self._observe = observe
        self._batch: list[FutureRequestState] = []
        self._step: Step | None = None
        self.recovering = False
        self.warmup()
        self._cache = self._processor.cache
        self.capacity: int = infer_max_single_request_tokens(self._cache)
        """Tokens of the longest sequence that the cache could hold."""

    @property
    def cache_blocks(self) -> int:
        """Blocks of PAGE_SIZE tokens that the cache has."""
        return int(self._cache.num_blocks)

    def cache_used(self) -> float:
        """Blocks that sequences hold; those kept for their prefix alone count as free."""
        cache = self._cache
        total = cache.num_sectors * cache.bytes_per_sector
        free = cache.compute_free_capacity(relative=False) + sum(
            len(each.ledger.cached_blocks) * each.bytes_per_block
            for each in cache.cache_allocators.values()
        )
        return float(cache.num_blocks * (total - free) / total)

    def start(self) -> None:
        """Start the thread: a daemon, since one that hangs must not keep the process alive."""
        self.background_thread_status.clear()
        self._generation_thread = threading.Thread(
            target=self._run_generation_loop, name="engine", daemon=True
        )
        self._generation_thread.start()

    def in_step(self) -> list[Entry]:
        """The sequences in the step that is computed now, or all that run when there is none."""
        ids = [each.state.request_id for each in list(self._batch)]
        ids = ids or list(self._processor.scheduler.active_requests)
        return [entry for each in ids if (entry := self._entries.get(each)) is not None]

    def interrupt(self) -> None:
        """Raise StepStalled in the engine's thread before its next Python instruction.

        The interpreter can't end a thread, only raise in it (`PyThreadState_SetAsyncExc`): a loop
        ends at once, a call into a C library only when it returns.
        """
        thread = self._generation_thread
        if thread is not None and thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(StepStalled)
            )

    @property
    def _processor(self) -> ContinuousBatchProcessor:
        return self.batch_processor

    def _create_batch_processor(self) -> ContinuousBatchProcessor:
        processor = super()._create_batch_processor()
        processor.scheduler.entries = self._entries
        processor.scheduler.steps = self._steps
        return processor

    def _generation_loop_body(
        self, batch_processor: ContinuousBatchProcessor, bootstrapping: bool
    ) -> bool:
        self._steps.busy_since = time.monotonic()
        before = self._step
        try:
            goes_on: bool = super()._generation_loop_body(batch_processor, bootstrapping)
            if batch_processor.use_async_batching and before not in (None, self._step):
                self._steps.landed(before)  # its results come one step later
            return goes_on
        except Exception as error:
            self._steps.rest()
            if not self._recover(batch_processor, error):
                raise
            return True
        finally:
            self._batch = []
            self._steps.rest()
            self._steps.busy_since = None

    def _generation_step(self) -> None:
        processor = self._processor
        ios = processor.inputs_and_outputs
        if isinstance(ios, ContinuousBatchingAsyncIOs):
            ios = ios.io_pairs[ios.current_pair].host_io
        self._batch = ios.requests_in_batch
        parts = [
            Part(
                entry.work,
                future.state.position_offset - future.query_length,
                future.query_length,
                future.has_new_token,
            )
            for future in self._batch
            if (entry := self._entries.get(future.state.request_id)) is not None
        ]
        self._step = self._steps.begin(parts, ios.num_q_tokens, len(self._batch) - len(parts))
        try:
            super()._generation_step()
        finally:  # before its results or its error are handed over, which may end a call
            self._steps.share(parts)
        if not processor.use_async_batching:
            self._steps.landed(self._step)
        self._observe(self._step)

    def _recover(self, processor: ContinuousBatchProcessor, error: Exception) -> bool:
        """Fail the requests of the step, and begin again with the others and an empty cache.

        An error outside a step fails all that run, since nobody can say whose it is. Requests that
        ran but were not in the step begin again with what they had generated added to their prompt,
        as after an eviction. False: the engine must end.
        """
        self.recovering = True
        scheduler = processor.scheduler
        running, waiting = scheduler.active_requests, scheduler.waiting_requests
        batch: dict[str, Any] = {each.state.request_id: each.state for each in self._batch}
        if batch and self._step is not None:
            self._steps.failed(self._step)
        lost = batch or dict(running) or dict(waiting)
        again = [
            state.create_equivalent_initial_request()
            for request_id, state in running.items()
            if request_id not in lost
        ]
        again += [waiting[each] for each in scheduler.waiting_requests_order if each not in lost]
        entries = [entry for each in lost if (entry := self._entries.get(each)) is not None]
        if not self._failed(error, entries):
            return False
        error.__traceback__ = None  # it holds the step's tensors
        self._batch, self._step = [], None
        processor.reset()
        processor.cache.reset()
        gc.collect()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        for state in again:
            scheduler.add_waiting_request(state)
        self.recovering = False
        return True
