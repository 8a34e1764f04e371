"""One attempt at a provider: its CLIENT span, its metrics, its tokens and what they cost.

Span and `gen_ai.*` metrics are those of the OpenTelemetry GenAI utilities, name by name (a test
holds them against each other); written here because they take five times as long to write them.
"""

from collections.abc import Iterable
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple

from opentelemetry.context import Context
from opentelemetry.metrics import Observation
from opentelemetry.trace import SpanKind, StatusCode, get_current_span, set_span_in_context

from llm_proxy.answers import Said, Tokens
from llm_proxy.content import Answer, asked
from llm_proxy.provider import Provider
from llm_proxy.requests import Operation, Request
from o11y import schema
from o11y.bounded import Bounded
from o11y.identity import Tenants
from o11y.instruments import BoundCounter, BoundHistogram
from o11y.stopwatch import Stopwatch
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


class Measures(NamedTuple):
    """Where an attempt's values go, under labels looked up once for each set there may be."""

    first_chunk: BoundHistogram
    chunk: BoundHistogram
    duration: BoundHistogram
    unpriced: BoundCounter
    cost: BoundCounter
    input_usage: BoundHistogram
    output_usage: BoundHistogram
    tokens: dict[str, BoundCounter]


class Meters:
    """The instruments of attempts."""

    def __init__(
        self, telemetry: Telemetry, providers: list[Provider], times_chunks: bool = False
    ) -> None:
        self.times_chunks = times_chunks
        self.tracer = telemetry.tracer
        self.capture = telemetry.capture
        self.duration = telemetry.histogram(schema.GEN_AI_DURATION)
        self.usage = telemetry.histogram(schema.GEN_AI_TOKENS)
        self.first_chunk = telemetry.histogram(schema.GEN_AI_FIRST_CHUNK)
        self.chunk = telemetry.histogram(schema.GEN_AI_CHUNK)
        self.cost = telemetry.counter(schema.OPENAI_COST)
        self.unpriced = telemetry.counter(schema.OPENAI_UNPRICED)
        self.tokens = telemetry.counter(schema.OPENAI_TOKENS)
        self.tenants = Tenants()
        self._models = Bounded(MAX_MODELS)
        self._measures: dict[tuple[object, ...], Measures] = {}
        self.running = dict.fromkeys((provider.name for provider in providers), 0)
        telemetry.sum(schema.OPENAI_RUNNING, self._observe_running)

    def measures(
        self,
        start: Attributes,
        model: str,
        answered: str | None,
        error: str | None,
        guessed: bool,
        tenant: str,
    ) -> Measures:
        """Those of a tenant's attempt with these attributes, at this model, that ended so."""
        model = self._models(model)
        answered = self._models(answered) if answered else None
        key = (*start.values(), model, answered, error, guessed, tenant)
        found = self._measures.get(key)
        if found is None:
            if len(self._measures) > MAX_LABELS:
                self._measures.clear()
            found = self._labelled(start, model, answered, error, guessed, tenant)
            self._measures[key] = found
        return found

    def _labelled(
        self,
        start: Attributes,
        model: str,
        answered: str | None,
        error: str | None,
        guessed: bool,
        tenant: str,
    ) -> Measures:
        timed = start | {schema.REQUEST_MODEL: model}
        if answered:
            timed[schema.RESPONSE_MODEL] = answered
        by_model = {schema.LABEL_PROVIDER: start[schema.PROVIDER], schema.LABEL_MODEL: model}
        call = by_model | {schema.LABEL_OPERATION: start[schema.OPERATION]}
        billed = {
            schema.LABEL_ESTIMATED: "true" if guessed else "false",
            schema.LABEL_TENANT: tenant,
        }
        return Measures(
            first_chunk=self.first_chunk.of(timed),
            chunk=self.chunk.of(timed),
            duration=self.duration.of(timed | ({schema.ERROR_TYPE: error} if error else {})),
            unpriced=self.unpriced.of(call),
            cost=self.cost.of(call | billed),
            input_usage=self.usage.of(timed | {schema.TOKEN_TYPE: "input"}),
            output_usage=self.usage.of(timed | {schema.TOKEN_TYPE: "output"}),
            tokens={
                kind: self.tokens.of(by_model | {schema.LABEL_TYPE: kind} | billed)
                for kind in TOKEN_TYPES
            },
        )

    def _observe_running(self) -> Iterable[Observation]:
        for provider, count in self.running.items():
            yield Observation(count, {schema.LABEL_PROVIDER: provider})


class CallCost:
    """What the attempts of a call cost together; the request's span has it, too."""

    def __init__(self) -> None:
        self.usd: Decimal | None = Decimal(0)
        """None when the price of one isn't known."""
        self._known = Decimal(0)
        self._request_span = get_current_span()

    def add(self, usd: Decimal | None) -> None:
        if usd is None or self.usd is None:
            self.usd = None
        else:
            self.usd += usd
        self._known += usd or 0
        self._request_span.set_attribute(schema.LLM_COST_USD, float(self._known))


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
        call_cost: CallCost,
    ) -> None:
        self.call_cost = call_cost
        self._meters = meters
        self._provider = provider
        self._request = request
        self._model = model
        self._tenant = meters.tenants.label()
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
        self._watch = Stopwatch()
        self.span = meters.tracer.start_span(
            f"{request.operation.value} {model}",
            kind=SpanKind.CLIENT,
            attributes=told,
            start_time=self._watch.start_ns,
        )
        generates = request.operation is not Operation.EMBEDDINGS
        captures = meters.capture and generates and self.span.is_recording()
        self.answer = Answer() if captures else None
        """Put together where telemetry may tell it."""
        self.context: Context = set_span_in_context(self.span)
        meters.running[provider.name] += 1

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
        self._arrivals.append(self._watch.seconds())

    def end(self, said: Said, tokens: Tokens | None, error: str | None = None) -> None:
        """`tokens` is what is billed, None when nothing is; `error` the `error.type`."""
        if self._ended:
            return
        self._ended = True
        seconds = self._watch.seconds()
        self._meters.running[self._provider.name] -= 1
        found = self._told(said)
        if error:
            found[schema.ERROR_TYPE] = error
            self.span.set_status(StatusCode.ERROR)
        guessed = tokens is not None and tokens.estimated
        measures = self._meters.measures(
            self._start, self._model, said.model, error, guessed, self._tenant
        )
        self._record(seconds, measures)
        billed = Decimal(0) if tokens is None else self._bill(said, tokens, measures, found)
        self.call_cost.add(billed)
        self.span.set_attributes(found)
        if self._meters.capture and self.answer:
            said_to, said_by = asked(self._request.body), self.answer.messages()
            self._meters.capture.tell(self.span, said_to, said_by)
        self.span.end(self._watch.end_ns(seconds))

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
            found[schema.FIRST_CHUNK_SECONDS] = self._arrivals[0]
        return found

    def _record(self, seconds: float, measures: Measures) -> None:
        measures.duration.record(seconds, self.context)
        if self._arrivals:
            measures.first_chunk.record(self._arrivals[0], self.context)
            if self._meters.times_chunks:
                for before, after in pairwise(self._arrivals):
                    measures.chunk.record(after - before, self.context)

    def _bill(
        self, said: Said, tokens: Tokens, measures: Measures, found: Attributes
    ) -> Decimal | None:
        """Count the tokens and what they cost: that many USD, None when the price isn't known."""
        for kind, total in measures.tokens.items():
            if count := getattr(tokens, kind):
                total.add(count, self.context)
        generates = self._request.operation is not Operation.EMBEDDINGS
        if not tokens.estimated:
            measures.input_usage.record(tokens.input, self.context)
            if generates:
                measures.output_usage.record(tokens.output, self.context)
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
        cost_usd: Decimal | None = Decimal(0)
        source = schema.COST_FREE
        if not self._provider.is_free:
            model, prices = said.model or self._model, self._provider.prices
            cost_usd = prices.cost_usd(model, tokens, said.service_tier)
            source = prices.source(model)
        if cost_usd is None:
            measures.unpriced.add(1, self.context)
        else:
            found[schema.COST_USD] = float(cost_usd)
            found[schema.COST_SOURCE] = source
            measures.cost.add(float(cost_usd), self.context)
        return cost_usd
