"""The account of the engine's forward steps: how much each computed, and for which sequences.

A step computes one slot for each token it is given, and for each token of padding. A slot is
useful when its result is used. It isn't when it is padding, when it computes again what an eviction
threw away, or when it lies past the last token its caller took: past a stop text, past the end
(batches prepared ahead), after the caller left, or in a step that failed. Of the tokens of a
sequence, those up to the last but one that was taken are useful: each is the input of the next.
"""

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext

from inference_svc.machine import Consumption, Machine, Spent


@dataclass(eq=False)
class Step:
    """One forward pass. `useful` falls when it turns out that a result is not used; `context` is
    the span of one of the calls in it.
    """

    requests: int
    slots: int
    useful: int
    context: SpanContext
    produces: list["Work"] = field(default_factory=list)
    """Sequences that get a token from this step, until it has come."""


class Work:
    """The account of one sequence. Times are those of `time.perf_counter`.

    `context` is the span of its caller: it travels with the sequence, so that what the engine's
    thread records belongs to the right trace. `consumption` is that of all sequences of its call.
    """

    def __init__(
        self,
        context: SpanContext = INVALID_SPAN_CONTEXT,
        consumption: Consumption | None = None,
    ) -> None:
        self.context = context
        self.consumption = consumption or Consumption()
        self.made = time.perf_counter()
        self.admitted: float | None = None
        """Time at which its first step began: until then it waited."""
        self.first_token: float | None = None
        self.tokens = 0
        """Tokens that were generated, taken or not."""
        self.steps: list[Step] = []
        self.reached = 0
        """Positions of the sequence that were computed."""
        self.limit = math.inf
        """Positions whose results are used, once that is known."""
        self.parts: list[tuple[Step, int, int]] = []
        """Steps of the unsettled sequence, each with the positions computed there: from, up to."""


class Part(NamedTuple):
    """A sequence's part in a step: `length` tokens after the `past` ones that the cache holds."""

    work: Work
    past: int
    length: int
    produces: bool


class Steps:
    """Keeps the account of the steps: the engine's thread adds to it, the event loop settles it."""

    def __init__(self, machine: Machine) -> None:
        self.count = 0
        self.busy_since: float | None = None
        """Time of `time.monotonic` at which the engine's thread began its work; None at rest."""
        self._machine = machine
        self._counted: Spent | None = None
        """The machine's share up to which the engine's work is counted; None at rest."""
        self._unshared = Spent(0.0, 0.0)
        """Work that is counted and not shared out yet."""
        self._lock = threading.Lock()

    def begin(self, parts: Sequence[Part], slots: int, left: int = 0) -> Step:
        """Note the start of a step, with `left` more requests whose callers have gone."""
        now = time.perf_counter()
        context = parts[0].work.context if parts else INVALID_SPAN_CONTEXT
        step = Step(len(parts) + left, slots, 0, context)
        with self._lock:
            self.count += 1
            for work, past, length, produces in parts:
                start = max(past, work.reached)
                work.reached = max(work.reached, past + length)
                step.useful += max(0, int(min(work.reached, work.limit)) - start)
                work.steps.append(step)
                work.parts.append((step, start, work.reached))
                if work.admitted is None:
                    work.admitted = now
                if produces:
                    step.produces.append(work)
        return step

    def work(self) -> None:
        """Note that the engine's thread works for sequences; it may have done so already."""
        if self._counted is None:
            self._counted = self._machine.begin()

    def rest(self) -> None:
        """Note that it doesn't any more."""
        if self._counted is not None:
            self._count(self._machine.end())
            self._counted = None

    def share(self, parts: Sequence[Part]) -> None:
        """Share out the work since the step before, also when this one failed: each sequence pays
        for its slots, and in proportion for the padding. Work that nobody is left to pay for goes
        to the next step.
        """
        if not parts:
            return
        self._count(self._machine.each())
        seconds, joules = self._unshared
        self._unshared = Spent(0.0, 0.0)
        slots = sum(part.length for part in parts)
        for part in parts:
            share = part.length / slots
            part.work.consumption.add(seconds * share, joules * share)

    def _count(self, now: Spent) -> None:
        before = self._counted or now
        self._counted = now
        self._unshared = Spent(
            self._unshared.seconds + now.seconds - before.seconds,
            self._unshared.joules + now.joules - before.joules,
        )

    def landed(self, step: Step) -> None:
        """Note that the step's tokens have come."""
        now = time.perf_counter()
        for work in step.produces:
            work.tokens += 1
            if work.first_token is None:
                work.first_token = now
        step.produces = []

    def failed(self, step: Step) -> None:
        """Note that nothing of the step is used."""
        with self._lock:
            step.useful, step.produces = 0, []

    def settle(self, work: Work, taken: int | None = None) -> None:
        """Note that the caller took `taken` positions, or all when None, and takes no more."""
        with self._lock:
            work.limit = work.reached if taken is None else taken
            for step, start, end in work.parts:
                unused = end - max(start, int(work.limit))
                if unused > 0:
                    step.useful = max(0, step.useful - unused)
            work.parts.clear()


class Occupancy(NamedTuple):
    """Number and size of the steps that a call took part in: `mean` and `most` sequences in one.

    `efficiency` is their useful slots over all their slots, of everyone in them, as far as both
    were known when the call ended; 0 for a call without a step.
    """

    steps: int
    mean: float
    most: int
    efficiency: float


def occupancy(works: Sequence[Work]) -> Occupancy:
    steps = {id(step): step for work in works for step in work.steps}.values()
    if not steps:
        return Occupancy(0, 0.0, 0, 0.0)
    sizes = [step.requests for step in steps]
    slots = sum(step.slots for step in steps)
    useful = sum(step.useful for step in steps)
    return Occupancy(len(steps), sum(sizes) / len(sizes), max(sizes), useful / slots)
