"""The instruments of calls to models; the labels of each set that comes are looked up once."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

from opentelemetry.metrics import Observation

from llm_proxy.provider import Provider
from llm_proxy.requests import Operation
from o11y.telemetry import schema
from o11y.telemetry.bounded import Bounded
from o11y.telemetry.identity import Tenants
from o11y.telemetry.instruments import BoundCounter, BoundHistogram, Value
from o11y.telemetry.signals import Telemetry

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

Attributes = dict[str, Value]
Ready = TypeVar("Ready")


class Times(NamedTuple):
    """The instruments for the times of an operation."""

    duration: BoundHistogram
    first_chunk: BoundHistogram
    chunk: BoundHistogram


class Bills(NamedTuple):
    """The instruments for the tokens of an attempt and their cost."""

    cost: BoundCounter
    unpriced: BoundCounter
    input_usage: BoundHistogram
    output_usage: BoundHistogram
    tokens: Mapping[str, BoundCounter]


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
        self.tenants = Tenants()
        self._duration = telemetry.histogram(schema.GEN_AI_DURATION)
        self._usage = telemetry.histogram(schema.GEN_AI_TOKENS)
        self._first_chunk = telemetry.histogram(schema.GEN_AI_FIRST_CHUNK)
        self._chunk = telemetry.histogram(schema.GEN_AI_CHUNK)
        self._cost = telemetry.counter(schema.OPENAI_COST)
        self._unpriced = telemetry.counter(schema.OPENAI_UNPRICED)
        self._tokens = telemetry.counter(schema.OPENAI_TOKENS)
        self._models = Bounded(MAX_MODELS)
        self._times: dict[tuple[object, ...], Times] = {}
        self._bills: dict[tuple[object, ...], Bills] = {}
        self.running = dict.fromkeys((provider.name for provider in providers), 0)
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
        labels = self._labels(operation, provider, model, answered)
        key = (*labels.values(), error)
        found = self._times.get(key)
        if found is None:
            self._times = _room(self._times)
            failed: Attributes = {schema.ERROR_TYPE: error} if error else {}
            found = self._times[key] = Times(
                self._duration.bind(labels | failed),
                self._first_chunk.bind(labels),
                self._chunk.bind(labels),
            )
        return found

    def bills(
        self,
        operation: Operation,
        provider: Provider,
        model: str,
        answered: str | None,
        estimated: bool,
        tenant: str,
    ) -> Bills:
        """The instruments of an attempt at this provider, made for a tenant."""
        labels = self._labels(operation, provider, model, answered)
        key = (*labels.values(), estimated, tenant)
        found = self._bills.get(key)
        if found is None:
            self._bills = _room(self._bills)
            found = self._bills[key] = self._bills_of(labels, estimated, tenant)
        return found

    def _bills_of(self, labels: Attributes, estimated: bool, tenant: str) -> Bills:
        by_model = {
            schema.LABEL_PROVIDER: labels[schema.PROVIDER],
            schema.LABEL_MODEL: labels[schema.REQUEST_MODEL],
        }
        call = by_model | {schema.LABEL_OPERATION: labels[schema.OPERATION]}
        billed = {
            schema.LABEL_ESTIMATED: "true" if estimated else "false",
            schema.LABEL_TENANT: tenant,
        }
        return Bills(
            cost=self._cost.bind(call | billed),
            unpriced=self._unpriced.bind(call),
            input_usage=self._usage.bind(labels | {schema.TOKEN_TYPE: "input"}),
            output_usage=self._usage.bind(labels | {schema.TOKEN_TYPE: "output"}),
            tokens={
                kind: self._tokens.bind(by_model | {schema.LABEL_TYPE: kind} | billed)
                for kind in TOKEN_TYPES
            },
        )

    def _labels(
        self, operation: Operation, provider: Provider, model: str, answered: str | None
    ) -> Attributes:
        labels: Attributes = {
            schema.OPERATION: operation.value,
            **provider.attributes,
            schema.REQUEST_MODEL: self._models(model),
        }
        if answered:
            labels[schema.RESPONSE_MODEL] = self._models(answered)
        return labels

    def _observe_running(self) -> Iterable[Observation]:
        for provider, count in self.running.items():
            yield Observation(count, {schema.LABEL_PROVIDER: provider})


def _room(ready: dict[tuple[object, ...], Ready]) -> dict[tuple[object, ...], Ready]:
    """The sets of labels that are kept ready: all, or none where they are too many."""
    return {} if len(ready) >= MAX_LABELS else ready
