"""The instruments of calls to models; those of each set of labels that comes are found once."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from opentelemetry.metrics import Observation

from accounting.money import dollars
from accounting.told import Costs
from llm_proxy.provider import Provider
from llm_proxy.requests import Request
from o11y.openai.operations import Operation
from o11y.telemetry import schema
from o11y.telemetry.bounded import OVERFLOW, Bounded
from o11y.telemetry.identity import NO_TENANT, Tenants
from o11y.telemetry.instruments import BoundCounter, BoundHistogram, Value
from o11y.telemetry.signals import Telemetry

MAX_MODELS = 200
"""Model names come from callers: so many that have a price are metric labels, and so many that have
none. Those that are configured, or stand in a price list, always are.
"""

MAX_LABELS = 2000
"""Sets of labels kept ready."""

TEXT, AUDIO, UNKNOWN = "text", "audio", "unknown"

TOKEN_TYPES = (
    *(("input", None), ("input", AUDIO), ("output", TEXT), ("output", AUDIO)),
    *(("cached", None), ("cache_write", None), ("reasoning", TEXT)),
    *(("input_audio", AUDIO), ("output_audio", AUDIO)),
)
"""The `type` and `gen_ai.token.modality` of tokens that are counted; None is the prompt's modality.

Providers say how much of a prompt is audio and how much was cached, but not how much is images.
"""

Attributes = dict[str, Value]
Ready = TypeVar("Ready")


class Total:
    """A sum under one set of labels, which is read when metrics are collected: adding to it costs
    next to nothing, where a counter of the SDK's takes as long as half a span.
    """

    __slots__ = ("labels", "value")

    def __init__(self, labels: Attributes) -> None:
        self.labels = labels
        self.value = 0

    def add(self, amount: int) -> None:
        self.value += amount


class Times(NamedTuple):
    """The instruments for the times of an operation."""

    duration: BoundHistogram
    first_chunk: BoundHistogram
    chunk: BoundHistogram
    input_tokens: BoundHistogram
    output_tokens: BoundHistogram | None
    """None for operations that generate nothing."""


class Bills(NamedTuple):
    """The instruments for the tokens of an attempt and their cost."""

    cost: BoundCounter
    unpriced: BoundCounter
    tokens: Sequence[Total]
    """A sum for each of TOKEN_TYPES."""


class Meters:
    """The instruments of operations and of their attempts.

    `times_chunks` asks for a value of every chunk of every stream.
    """

    def __init__(
        self, telemetry: Telemetry, providers: Iterable[Provider], times_chunks: bool = False
    ) -> None:
        self.times_chunks = times_chunks
        self.tracer = telemetry.tracer
        self.capture = telemetry.capture
        self._tenants = Tenants()
        self._duration = telemetry.histogram(schema.GEN_AI_INFERENCE_DURATION)
        self._input_tokens = telemetry.histogram(schema.GEN_AI_INPUT_TOKENS)
        self._output_tokens = telemetry.histogram(schema.GEN_AI_OUTPUT_TOKENS)
        self._embeddings_duration = telemetry.histogram(schema.GEN_AI_EMBEDDINGS_DURATION)
        self._embeddings_tokens = telemetry.histogram(schema.GEN_AI_EMBEDDINGS_TOKENS)
        self._first_chunk = telemetry.histogram(schema.GEN_AI_FIRST_CHUNK)
        self._chunk = telemetry.histogram(schema.GEN_AI_CHUNK)
        self._cost = telemetry.counter(schema.OPENAI_COST)
        self._unpriced = telemetry.counter(schema.OPENAI_UNPRICED)
        self._tokens: dict[frozenset[tuple[str, Value]], Total] = {}
        telemetry.observable_counter(schema.OPENAI_TOKENS, self._observe_tokens)
        self._priced_models = Bounded(MAX_MODELS)
        self._other_models = Bounded(MAX_MODELS)
        self._times: dict[tuple[object, ...], Times] = {}
        self._bills: dict[tuple[object, ...], Bills] = {}
        self._providers = {provider.name: provider for provider in providers}
        self.running = dict.fromkeys(self._providers, 0)
        telemetry.observable_up_down_counter(schema.OPENAI_RUNNING, self._observe_running)

    def times(
        self,
        operation: Operation,
        provider: Provider,
        model: str,
        answered: str | None,
        error: str | None,
    ) -> Times:
        """The instruments of an operation whose last attempt was at this provider."""
        key = (operation, provider.name, model, answered, error)
        found = self._times.get(key)
        if found is None:
            accepted = error is None or answered is not None
            labels = self._labels(operation, provider, model, answered, accepted=accepted)
            ended = labels | ({schema.ERROR_TYPE: error} if error else {})
            embeds = operation.embeds
            duration = self._embeddings_duration if embeds else self._duration
            found = Times(
                duration.bind(ended | {schema.LABEL_PROVIDER: provider.name}),
                self._first_chunk.bind(labels),
                self._chunk.bind(labels),
                self._embeddings_tokens.bind(labels) if embeds else self._input_tokens.bind(ended),
                self._output_tokens.bind(ended) if operation.generates else None,
            )
            if labels[schema.REQUEST_MODEL] != OVERFLOW:  # it may get a place yet
                self._times = _room(self._times)
                self._times[key] = found
        return found

    def bills(
        self,
        request: Request,
        provider: Provider,
        model: str,
        answered: str | None,
        estimated: bool,
        tenant: str,
    ) -> Bills:
        """The instruments of an attempt that this provider bills, made for a tenant."""
        is_text = provider.is_local or request.is_text
        key = (request.operation, provider.name, model, answered, is_text, estimated, tenant)
        found = self._bills.get(key)
        if found is None:
            labels = self._labels(request.operation, provider, model, answered, accepted=True)
            self._bills = _room(self._bills)
            found = self._bills[key] = self._bills_of(
                labels | {schema.LABEL_PROVIDER: provider.name},
                TEXT if is_text else UNKNOWN,
                {
                    schema.LABEL_ESTIMATED: "true" if estimated else "false",
                    schema.LABEL_TENANT: self._tenants.label(tenant),
                },
            )
        return found

    def recover(self, costs: Costs) -> None:
        """Count the costs of a process that had ended before it could tell them. For any thread."""
        for kind, cost in costs.items():
            provider = self._providers.get(kind.provider)
            known = provider and self._label(provider, kind.model, accepted=True)
            labels = {
                schema.LABEL_PROVIDER: kind.provider,
                schema.LABEL_MODEL: known or OVERFLOW,
                schema.LABEL_OPERATION: kind.operation,
                schema.LABEL_ESTIMATED: "true" if kind.estimated else "false",
                schema.LABEL_TENANT: self._tenants.label(kind.tenant or NO_TENANT),
            }
            self._cost.add(float(dollars(cost)), labels)

    def _bills_of(self, labels: Attributes, prompt: str, billed: Attributes) -> Bills:
        call = {
            schema.LABEL_PROVIDER: labels[schema.LABEL_PROVIDER],
            schema.LABEL_MODEL: labels[schema.REQUEST_MODEL],
            schema.LABEL_OPERATION: labels[schema.OPERATION],
        }
        counted = {**labels, schema.LABEL_MODEL: labels[schema.REQUEST_MODEL], **billed}
        return Bills(
            cost=self._cost.bind(call | billed),
            unpriced=self._unpriced.bind(call),
            tokens=[
                self._total(
                    {**counted, schema.LABEL_TYPE: kind, schema.TOKEN_MODALITY: modality or prompt}
                )
                for kind, modality in TOKEN_TYPES
            ],
        )

    def _labels(
        self,
        operation: Operation,
        provider: Provider,
        model: str,
        answered: str | None,
        *,
        accepted: bool,
    ) -> Attributes:
        labels: Attributes = {
            schema.OPERATION: operation.name,
            **provider.attributes,
            schema.REQUEST_MODEL: self._label(provider, model, accepted=accepted),
        }
        if answered:
            labels[schema.RESPONSE_MODEL] = self._label(provider, answered, accepted=accepted)
        return labels

    def _label(self, provider: Provider, model: str, *, accepted: bool) -> str:
        if provider.is_configured(model) or provider.prices.lists(model):
            return model
        is_priced = accepted and provider.prices.knows(model)
        label = self._priced_models(model, accepted=is_priced)
        return self._other_models(model, accepted=accepted) if label == OVERFLOW else label

    def _total(self, labels: Attributes) -> Total:
        return self._tokens.setdefault(frozenset(labels.items()), Total(labels))

    def _observe_tokens(self) -> Iterable[Observation]:
        totals = list(self._tokens.values())
        return [Observation(total.value, total.labels) for total in totals if total.value]

    def _observe_running(self) -> Iterable[Observation]:
        for provider, count in self.running.items():
            yield Observation(count, {schema.LABEL_PROVIDER: provider})


def _room(ready: dict[tuple[object, ...], Ready]) -> dict[tuple[object, ...], Ready]:
    """The cache of instruments with their labels, emptied when it is full."""
    return {} if len(ready) >= MAX_LABELS else ready
