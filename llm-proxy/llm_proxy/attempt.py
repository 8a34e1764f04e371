"""One attempt at a provider: its CLIENT span, its metrics, its tokens and what they cost.

Span and `gen_ai.*` metrics are those of the OpenTelemetry GenAI utilities, name by name (a test
holds them against each other); written here because they take five times as long to write them.
"""

import time
from collections.abc import Iterable
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple

from opentelemetry.context import Context
from opentelemetry.metrics import Observation
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

from llm_proxy.answers import Said, Tokens
from llm_proxy.provider import Provider
from llm_proxy.requests import Operation, Request
from o11y import schema
from o11y.bounded import Bounded
from o11y.metering import Key, frozen
from o11y.telemetry import Telemetry

MAX_MODELS = 200
"""Model names come from callers: so many are metric labels."""

MAX_LABELS = 2000
"""Sets of labels kept ready."""

TOKEN_TYPES = (
    "input",
    "output",
    "cached",
    "cache_write",
    "input_audio",
    "output_audio",
    "reasoning",
)

Attributes = dict[str, str | int | float | bool | tuple[str, ...]]


class Labels(NamedTuple):
    """The labels of an attempt's measurements, made once for each that may be."""

    timed: Key
    duration: Key
    api_duration: Key
    call: Key
    cost: Key
    input_usage: Key
    output_usage: Key
    tokens: dict[str, Key]


class Meters:
    """The instruments of attempts."""

    def __init__(self, telemetry: Telemetry, providers: list[Provider]) -> None:
        self.tracer = telemetry.tracer
        self.duration = telemetry.histogram(schema.GEN_AI_DURATION)
        self.usage = telemetry.histogram(schema.GEN_AI_TOKENS)
        self.first_chunk = telemetry.histogram(schema.GEN_AI_FIRST_CHUNK)
        self.chunk = telemetry.histogram(schema.GEN_AI_CHUNK)
        self.api_duration = telemetry.histogram(schema.OPENAI_API_DURATION)
        self.cost = telemetry.counter(schema.OPENAI_COST)
        self.unpriced = telemetry.counter(schema.OPENAI_UNPRICED)
        self.tokens = telemetry.counter(schema.OPENAI_TOKENS)
        self._models = Bounded(MAX_MODELS)
        self._labels: dict[tuple[object, ...], Labels] = {}
        self.running = dict.fromkeys((provider.name for provider in providers), 0)
        telemetry.sum(schema.OPENAI_RUNNING, self._observe_running)

    def labels(
        self, start: Attributes, model: str, answered: str | None, error: str | None, guessed: bool
    ) -> Labels:
        """The labels of an attempt with these attributes, at this model, that ended so."""
        model = self._models(model)
        answered = self._models(answered) if answered else None
        key = (*start.values(), model, answered, error, guessed)
        found = self._labels.get(key)
        if found is None:
            if len(self._labels) > MAX_LABELS:
                self._labels.clear()
            found = self._labels[key] = _labels(start, model, answered, error, guessed)
        return found

    def _observe_running(self) -> Iterable[Observation]:
        for provider, count in self.running.items():
            yield Observation(count, {schema.LABEL_PROVIDER: provider})


class Attempt:
    """Begins with its span and ends once, whoever ends it."""

    def __init__(
        self,
        meters: Meters,
        provider: Provider,
        request: Request,
        model: str,
        retry: int,
        number: int,
    ) -> None:
        self.cost_usd: Decimal | None = Decimal(0)
        """What it cost; None when the price isn't known."""
        self._meters = meters
        self._provider = provider
        self._request = request
        self._model = model
        self._arrivals: list[float] = []
        self._ended = False
        self._replica: str | None = None
        self._status: int | None = None
        start: Attributes = {
            schema.OPERATION: request.operation.value,
            schema.PROVIDER: provider.name,
            schema.REQUEST_MODEL: model,
        }
        if provider.address and provider.port:
            start[schema.SERVER_ADDRESS] = provider.address
            start[schema.SERVER_PORT] = provider.port
        self._start = start
        told = start | {schema.LLM_ATTEMPT: number}
        if retry:
            told[schema.HTTP_RESEND_COUNT] = retry
        self.span = meters.tracer.start_span(
            f"{request.operation.value} {model}", kind=SpanKind.CLIENT, attributes=told
        )
        self._traced = self.span.get_span_context()
        self.context: Context = set_span_in_context(self.span)
        meters.running[provider.name] += 1
        self._began = time.perf_counter()

    def answered(self, status: int, replica: str | None) -> None:
        """The head of an answer has come."""
        self._status = status
        self._replica = replica

    @property
    def accepted(self) -> bool:
        """The provider took the call and began its answer."""
        return self._status == 200

    @property
    def has_arrived(self) -> bool:
        return bool(self._arrivals)

    def arrived(self) -> None:
        """Events of a stream have come."""
        self._arrivals.append(time.perf_counter())

    def end(self, said: Said, tokens: Tokens | None, error: str | None = None) -> None:
        """`tokens` is what is billed, None when nothing is; `error` the `error.type`."""
        if self._ended:
            return
        self._ended = True
        seconds = time.perf_counter() - self._began
        self._meters.running[self._provider.name] -= 1
        found = self._told(said)
        if error:
            found[schema.ERROR_TYPE] = error
            self.span.set_status(StatusCode.ERROR)
        guessed = tokens is not None and tokens.estimated
        labels = self._meters.labels(self._start, self._model, said.model, error, guessed)
        self._record(seconds, labels)
        if tokens is not None:
            self._bill(said, tokens, labels, found)
        self.span.set_attributes(found)
        self.span.end()

    def _told(self, said: Said) -> Attributes:
        """Attributes that are known at the end only."""
        request, found = self._request, Attributes()
        optional = (
            (schema.RESPONSE_MODEL, said.model),
            (schema.RESPONSE_ID, said.id),
            (schema.FINISH_REASONS, said.finish_reasons or None),
            (schema.REQUEST_TEMPERATURE, request.temperature),
            (schema.REQUEST_TOP_P, request.top_p),
            (schema.REQUEST_MAX_TOKENS, request.max_tokens),
            (schema.REQUEST_CHOICES, request.choices),
            (schema.REQUEST_SEED, request.seed),
            (schema.REQUEST_STREAM, request.stream or None),
            (schema.HTTP_STATUS, self._status),
            (schema.SERVER_ADDRESS, self._replica),
        )
        for key, value in optional:
            if value is not None:
                found[key] = value
        if self._arrivals:
            found[schema.FIRST_CHUNK_SECONDS] = self._arrivals[0] - self._began
        return found

    def _record(self, seconds: float, labels: Labels) -> None:
        meters, context = self._meters, self._traced
        meters.duration.record(seconds, labels.duration, context)
        meters.api_duration.record(seconds, labels.api_duration, context)
        if self._arrivals:
            meters.first_chunk.record(self._arrivals[0] - self._began, labels.timed, context)
            gaps = (after - before for before, after in pairwise(self._arrivals))
            meters.chunk.record_all(gaps, labels.timed, context)

    def _bill(self, said: Said, tokens: Tokens, labels: Labels, found: Attributes) -> None:
        """Count the tokens and what they cost."""
        meters = self._meters
        for kind, count in _by_type(tokens):
            meters.tokens.add(count, labels.tokens[kind])
        generates = self._request.operation is not Operation.EMBEDDINGS
        if not tokens.estimated:
            meters.usage.record(tokens.input, labels.input_usage, self._traced)
            if generates:
                meters.usage.record(tokens.output, labels.output_usage, self._traced)
        found[schema.INPUT_TOKENS] = found[schema.PROMPT_TOKENS_ORIGINAL] = tokens.input
        if generates:
            found[schema.OUTPUT_TOKENS] = found[schema.COMPLETION_TOKENS_ORIGINAL] = tokens.output
        for key, count in (
            (schema.CACHE_READ_TOKENS, tokens.cached),
            (schema.CACHE_WRITE_TOKENS, tokens.cache_write),
            (schema.REASONING_TOKENS, tokens.reasoning),
            (schema.AUDIO_INPUT_TOKENS, tokens.input_audio),
            (schema.AUDIO_OUTPUT_TOKENS, tokens.output_audio),
        ):
            if count:
                found[key] = count
        if tokens.estimated:
            found[schema.USAGE_ESTIMATED] = True
        if not self._provider.is_local:
            self.cost_usd = self._provider.prices.cost_usd(
                said.model or self._model, tokens, said.service_tier
            )
        if self.cost_usd is None:
            meters.unpriced.add(1, labels.call)
        else:
            found[schema.COST_USD] = float(self.cost_usd)
            meters.cost.add(float(self.cost_usd), labels.cost)


def _labels(
    start: Attributes, model: str, answered: str | None, error: str | None, guessed: bool
) -> Labels:
    timed = start | {schema.REQUEST_MODEL: model}
    if answered:
        timed[schema.RESPONSE_MODEL] = answered
    status = "cancelled" if error == schema.ERROR_CANCELLED else "error" if error else "ok"
    by_model = {schema.LABEL_PROVIDER: start[schema.PROVIDER], schema.LABEL_MODEL: model}
    call = by_model | {schema.LABEL_OPERATION: start[schema.OPERATION]}
    estimated = {schema.LABEL_ESTIMATED: "true" if guessed else "false"}
    return Labels(
        timed=frozen(timed),
        duration=frozen(timed | ({schema.ERROR_TYPE: error} if error else {})),
        api_duration=frozen(call | {schema.LABEL_STATUS: status}),
        call=frozen(call),
        cost=frozen(call | estimated),
        input_usage=frozen(timed | {schema.TOKEN_TYPE: "input"}),
        output_usage=frozen(timed | {schema.TOKEN_TYPE: "output"}),
        tokens={
            kind: frozen(by_model | {schema.LABEL_TYPE: kind} | estimated) for kind in TOKEN_TYPES
        },
    )


def _by_type(tokens: Tokens) -> Iterable[tuple[str, int]]:
    for kind in TOKEN_TYPES:
        if count := getattr(tokens, kind):
            yield kind, count
