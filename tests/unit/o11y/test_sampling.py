"""Which spans are recorded: as the SDK would decide, for every sampler and parent."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)

from o11y.spans import LeanTracerProvider
from tests.unit.o11y.beside import Counted, Recorder, check


def context(sampled: bool, remote: bool, random: bool, state: TraceState | None = None) -> Context:
    flags = TraceFlags((1 if sampled else 0) | (2 if random else 0))
    return set_span_in_context(NonRecordingSpan(SpanContext(7 << 90, 8, remote, flags, state)))


PARENTS = [
    None,
    Context(),
    set_span_in_context(NonRecordingSpan(SpanContext(0, 0, True))),
    *(
        context(sampled, remote, random, state)
        for sampled, remote, random in itertools.product((True, False), repeat=3)
        for state in (None, TraceState([("a", "1")]))
    ),
]


SAMPLERS = [
    (None, None),
    ("always_on", None),
    ("always_off", None),
    ("parentbased_always_off", None),
    *(
        (f"{prefix}traceidratio", ratio)
        for prefix in ("", "parentbased_")
        for ratio in ("0", "1", "0.4", "0.6")
    ),
]


@pytest.mark.parametrize(("sampler", "ratio"), SAMPLERS)
@pytest.mark.parametrize("random", [True, False], ids=["random ids", "other ids"])
def test_the_sampler_of_the_environment_decides(
    sampler: str | None, ratio: str | None, random: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sampler:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    if ratio:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", ratio)
    made: list[tuple[bool, tuple[Any, ...]]] = []

    def work(tracer: Tracer) -> None:
        for number, parent in enumerate(PARENTS):
            span = tracer.start_span(f"s{number}", parent)
            made.append((span.is_recording(), tuple(span.get_span_context())))
            with tracer.start_as_current_span("outer", parent):
                tracer.start_span("inner").end()
            span.end()

    ids = [Counted(random), Counted(random)]
    for kind, generator in zip((LeanTracerProvider, TracerProvider), ids, strict=True):
        recorder = Recorder(kind, id_generator=generator)
        work(recorder.tracer)
        made.extend((True, each) for each in recorder.told())
    ours, theirs = made[: len(made) // 2], made[len(made) // 2 :]
    assert ours == theirs


class Choosy(Sampler):
    """Decides by the name, and says so."""

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        state = TraceState([("decided", "yes")])
        return SamplingResult(Decision[name], {**(attributes or {}), "chosen": name}, state)

    def get_description(self) -> str:
        return "choosy"


def test_a_sampler_may_add_to_a_span() -> None:
    def work(tracer: Tracer) -> None:
        for decision in Decision:
            tracer.start_span(decision.name, attributes={"a": 1}).end()

    assert len(check(work, sampler=Choosy())) == 1
