"""One generation call: the engine's work under its span, with its metrics."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from opentelemetry.trace import SpanKind, StatusCode

from inference_svc.engine import Emit, Engine, Generation, GenerationRequest
from o11y import schema
from o11y.contracts import LocalInferenceMetadata, Performance, Usage
from o11y.telemetry import Telemetry

PROVIDER = "o11y-local"
"""`gen_ai.provider.name` of this service."""


@dataclass(frozen=True)
class Outcome:
    """The sequences of a call and what they cost in tokens and time."""

    generations: list[Generation]
    metadata: LocalInferenceMetadata


def batch_efficiency(lengths: Sequence[int]) -> float:
    """Share of the token slots a call's sequences held that carry a token.

    A call holds its place until its longest sequence ends: slots are sequences times the longest.
    """
    slots = len(lengths) * max(lengths, default=0)
    return sum(lengths) / slots if slots else 0.0


class Generator:
    """Runs calls on the engine and tells telemetry about them."""

    def __init__(self, engine: Engine, telemetry: Telemetry) -> None:
        self.engine = engine
        self._tracer = telemetry.tracer
        self._duration = telemetry.histogram(schema.MODEL_DURATION)
        self._tokens = telemetry.counter(schema.MODEL_TOKENS)
        self._first_token = telemetry.histogram(schema.MODEL_FIRST_TOKEN)

    async def run(
        self,
        operation: str,
        requests: Sequence[GenerationRequest],
        emit: Emit | None = None,
    ) -> Outcome:
        """Generate all `requests` (the choices of one call) inside a span `{operation} {model}`;
        `emit` is told their text as it comes.
        """
        model = self.engine.language_model
        labels = {schema.LABEL_MODEL: model.name, schema.LABEL_DEVICE: model.device}
        started = time.perf_counter()
        status = "error"
        with self._tracer.start_as_current_span(
            f"{operation} {model.name}",
            kind=SpanKind.INTERNAL,
            attributes={
                schema.OPERATION: operation,
                schema.PROVIDER: PROVIDER,
                schema.REQUEST_MODEL: model.name,
                schema.REQUEST_MAX_TOKENS: requests[0].max_new_tokens,
                schema.REQUEST_TEMPERATURE: requests[0].temperature,
                schema.REQUEST_CHOICES: len(requests),
                **({schema.REQUEST_STREAM: True} if emit else {}),
                schema.MODEL_NAME: model.name,
                schema.MODEL_DEVICE: model.device,
                schema.MODEL_PARAMETERS: model.parameters,
            },
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                generations = await self.engine.generate(requests, emit)
                status = "ok"
            except BaseException as error:
                cancelled = isinstance(error, asyncio.CancelledError)
                kind = schema.ERROR_CANCELLED if cancelled else type(error).__qualname__
                span.set_attribute(schema.ERROR_TYPE, kind)
                span.set_status(StatusCode.ERROR, str(error))
                raise
            finally:
                seconds = time.perf_counter() - started
                self._duration.record(seconds, {**labels, schema.LABEL_STATUS: status})
            outcome = self._outcome(generations, seconds)
            usage, performance = outcome.metadata.usage, outcome.metadata.performance
            span.set_attributes(
                {
                    schema.RESPONSE_MODEL: model.name,
                    schema.INPUT_TOKENS: usage.prompt_tokens,
                    schema.OUTPUT_TOKENS: usage.completion_tokens,
                    schema.PROMPT_TOKENS_ORIGINAL: usage.prompt_tokens,
                    schema.COMPLETION_TOKENS_ORIGINAL: usage.completion_tokens,
                    schema.FINISH_REASONS: [item.finish_reason for item in generations],
                    schema.QUEUE_SECONDS: performance.queue_seconds,
                    schema.FIRST_TOKEN_SECONDS: performance.time_to_first_token_seconds,
                    schema.TOKENS_PER_SECOND: performance.tokens_per_second,
                    schema.BATCH_EFFICIENCY: performance.batch_efficiency,
                }
            )
            self._tokens.add(usage.completion_tokens, labels)
            self._first_token.record(
                performance.time_to_first_token_seconds,
                {
                    schema.OPERATION: operation,
                    schema.PROVIDER: PROVIDER,
                    schema.REQUEST_MODEL: model.name,
                },
            )
        return outcome

    def _outcome(self, generations: list[Generation], seconds: float) -> Outcome:
        lengths = [item.completion_tokens for item in generations]
        prompt = generations[0].prompt_tokens
        model = self.engine.language_model
        return Outcome(
            generations,
            LocalInferenceMetadata(
                model=model.name,
                device=model.device,
                usage=Usage(
                    prompt_tokens=prompt,
                    completion_tokens=sum(lengths),
                    total_tokens=prompt + sum(lengths),
                ),
                performance=Performance(
                    duration_seconds=seconds,
                    tokens_per_second=sum(lengths) / seconds,
                    time_to_first_token_seconds=min(i.first_token_seconds for i in generations),
                    queue_seconds=min(item.queue_seconds for item in generations),
                    batch_efficiency=batch_efficiency(lengths),
                ),
            ),
        )
