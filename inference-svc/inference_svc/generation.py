"""One generation call: the engine's work under its span, with its metrics."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from opentelemetry.trace import Span
from opentelemetry.util.genai.types import InputMessage, OutputMessage, TextPart
from opentelemetry.util.types import AttributeValue

from inference_svc import engine_metrics
from inference_svc.admission import Rejected
from inference_svc.cost import PROVIDER, Charge, Costs
from inference_svc.engine import Call, Emit, Engine, Generation, GenerationRequest
from inference_svc.recovery import EngineFailed
from inference_svc.steps import occupancy
from o11y.contracts import LocalInferenceMetadata, Performance, Usage
from o11y.telemetry import identity, schema
from o11y.telemetry.error_types import error_type
from o11y.telemetry.genai import Operation
from o11y.telemetry.identity import Tenants
from o11y.telemetry.signals import Telemetry

Turn = tuple[str, str]
"""A role, and what was said in it."""

WAITING, RUNNING = "waiting", "running"


@dataclass(frozen=True)
class Outcome:
    """The sequences of a call and what they cost in tokens and time."""

    generations: list[Generation]
    metadata: LocalInferenceMetadata
    usd: float | None = None
    """US dollars; None without a price."""


def _parameters(request: GenerationRequest) -> dict[str, AttributeValue]:
    """The attributes of parameters that a call may leave out, as far as they were given."""
    attributes: dict[str, AttributeValue | None] = {
        schema.REQUEST_TOP_P: request.top_p,
        schema.REQUEST_TOP_K: request.top_k,
        schema.REQUEST_SEED: request.seed,
        schema.REQUEST_STOP: request.stop or None,
    }
    return {key: value for key, value in attributes.items() if value is not None}


class Generator:
    """Runs calls on the engine and tells telemetry about them."""

    def __init__(self, engine: Engine, telemetry: Telemetry, costs: Costs) -> None:
        self.engine = engine
        self._costs = costs
        self._tracer = telemetry.tracer
        self._capture = telemetry.capture
        self._duration = telemetry.histogram(schema.MODEL_REQUEST_DURATION)
        self._tokens = telemetry.counter(schema.MODEL_TOKENS)
        self._tenants = Tenants()
        self._first_token = telemetry.histogram(schema.MODEL_FIRST_TOKEN)
        self._output_token = telemetry.histogram(schema.MODEL_OUTPUT_TOKEN)
        self._rejected = telemetry.counter(schema.MODEL_REJECTED)
        self._cancelled = telemetry.counter(schema.MODEL_CANCELLED)
        model = engine.language_model
        self._labels = {schema.LABEL_MODEL: model.name, schema.LABEL_DEVICE: model.device}
        self._device = {schema.MODEL_DEVICE: model.device}
        engine_metrics.observe(engine, telemetry)

    async def run(
        self,
        name: str,
        requests: Sequence[GenerationRequest],
        emit: Emit | None = None,
        *,
        turns: Sequence[Turn] = (),
    ) -> Outcome:
        """Generate all `requests` (the choices of one call) inside a span `{name} {model}`;
        `emit` is told their text as it comes. `asked` is what the requests' tokens say, for
        telemetry where it may tell it.
        """
        model = self.engine.language_model
        operation = Operation(
            self._tracer,
            f"{name} {model.name}",
            {
                schema.OPERATION: name,
                schema.PROVIDER: PROVIDER,
                schema.REQUEST_MODEL: model.name,
                schema.REQUEST_MAX_TOKENS: requests[0].max_new_tokens,
                schema.REQUEST_TEMPERATURE: requests[0].temperature,
                schema.REQUEST_CHOICES: len(requests),
                **_parameters(requests[0]),
                **({schema.REQUEST_STREAM: True} if emit else {}),
                schema.MODEL_NAME: model.name,
                schema.MODEL_DEVICE: model.device,
                schema.MODEL_PARAMETERS: model.parameters,
            },
            duration=self._duration,
            labels=self._server_labels(name) | self._device,
        )
        with operation.running():
            call = Call(operation.span.get_span_context())
            prompt = len(requests[0].prompt_ids)
            most = sum(request.max_new_tokens for request in requests)
            charge = await self._costs.begin(model.name, name, prompt, most)
            try:
                generations = await self.engine.generate(requests, emit, call)
            except BaseException as error:
                self._failed(operation, requests, call, charge, error)
                self._capture_content(operation.span, turns, ())
                raise
            outcome = self._succeeded(operation, name, call, charge, generations)
            self._capture_content(operation.span, turns, generations)
            return outcome

    def _succeeded(
        self,
        operation: Operation,
        name: str,
        call: Call,
        charge: Charge,
        generations: list[Generation],
    ) -> Outcome:
        outcome = self._outcome(call, generations, operation.stop())
        usage, performance = outcome.metadata.usage, outcome.metadata.performance
        prompt, generated = usage.prompt_tokens, usage.completion_tokens
        self._describe(operation.span, call, prompt, generated)
        usd = charge.settle(operation.span, call.consumption, prompt, generated)
        outcome = replace(outcome, usd=usd)
        outcome.metadata.cost_usd = usd or 0.0
        operation.span.set_attributes(
            {
                schema.FINISH_REASONS: [item.finish_reason for item in generations],
                schema.TOKENS_PER_SECOND: performance.tokens_per_second,
            }
        )
        labels = self._server_labels(name)
        self._first_token.record(performance.time_to_first_token_seconds, labels, call.context)
        for item in generations:
            if item.completion_tokens > 1:
                after = item.duration_seconds - item.first_token_seconds
                self._output_token.record(
                    after / (item.completion_tokens - 1), labels, call.context
                )
        return outcome

    def _failed(
        self,
        operation: Operation,
        requests: Sequence[GenerationRequest],
        call: Call,
        charge: Charge,
        error: BaseException,
    ) -> None:
        kind = _kind(error)
        if call.works:
            generated = sum(work.tokens for work in call.works)
            prompt = len(requests[0].prompt_ids)
            self._describe(operation.span, call, prompt, generated)
            charge.settle(operation.span, call.consumption, prompt, generated, kind)
            broken = [schema.FINISH_ERROR] * len(requests)
            operation.span.set_attribute(schema.FINISH_REASONS, broken)
        else:
            charge.void()
        if isinstance(error, Rejected):
            self._rejected.add(1, {**self._labels, schema.LABEL_REASON: error.code})
        elif kind in (schema.ERROR_CANCELLED, "out_of_time"):
            ran = any(work.admitted is not None for work in call.works)
            where = {schema.LABEL_REASON: kind, schema.LABEL_STATUS: RUNNING if ran else WAITING}
            self._cancelled.add(1, {**self._labels, **where})
            operation.span.add_event(schema.EVENT_CANCELLED, where)
        operation.fail(kind, str(error))

    def _capture_content(
        self, span: Span, turns: Sequence[Turn], generations: Iterable[Generation]
    ) -> None:
        if self._capture:
            self._capture.record(
                span,
                [InputMessage(role, [TextPart(text)]) for role, text in turns],
                [
                    OutputMessage("assistant", [TextPart(each.text)], each.finish_reason)
                    for each in generations
                ],
            )

    def _describe(self, span: Span, call: Call, prompt: int, generated: int) -> None:
        """Set the attributes of a call that was let in, however it ended."""
        works, full = call.works, occupancy(call.works)
        span.set_attributes(
            {
                schema.RESPONSE_MODEL: self.engine.language_model.name,
                schema.INPUT_TOKENS: prompt,
                schema.OUTPUT_TOKENS: generated,
                schema.PROMPT_TOKENS_ORIGINAL: prompt,
                schema.COMPLETION_TOKENS_ORIGINAL: generated,
                schema.STEPS: full.steps,
                schema.BATCH_MEAN: full.mean,
                schema.BATCH_MOST: full.most,
                schema.BATCH_EFFICIENCY: full.efficiency,
            }
        )
        tenant = {schema.LABEL_TENANT: self._tenants.label(identity.tenant())}
        self._tokens.add(generated, {**self._labels, **tenant})
        began = works[0].made
        if admitted := _earliest(work.admitted for work in works):
            span.add_event(schema.EVENT_ADMITTED, timestamp=_epoch_ns(admitted))
            span.set_attribute(schema.QUEUE_SECONDS, admitted - began)
        if first := _earliest(work.first_token for work in works):
            span.add_event(schema.EVENT_FIRST_TOKEN, timestamp=_epoch_ns(first))
            span.set_attribute(schema.FIRST_TOKEN_SECONDS, first - began)

    def _server_labels(self, operation: str) -> dict[str, str]:
        name = self.engine.language_model.name
        return {
            schema.OPERATION: operation,
            schema.PROVIDER: PROVIDER,
            schema.REQUEST_MODEL: name,
            schema.RESPONSE_MODEL: name,
        }

    def _outcome(self, call: Call, generations: list[Generation], seconds: float) -> Outcome:
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
                    batch_efficiency=occupancy(call.works).efficiency,
                ),
            ),
        )


def _kind(error: BaseException) -> str:
    """`error.type`: a word that programs can group by."""
    return error.kind if isinstance(error, EngineFailed) else error_type(error)


def _earliest(stamps: Iterable[float | None]) -> float | None:
    return min((stamp for stamp in stamps if stamp is not None), default=None)


def _epoch_ns(stamp: float) -> int:
    """A time of `time.perf_counter` as nanoseconds since 1970."""
    return time.time_ns() - int((time.perf_counter() - stamp) * 1e9)
