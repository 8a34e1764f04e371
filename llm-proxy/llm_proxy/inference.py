"""One call to a model as its caller sees it: one GenAI span, whatever attempts it takes.

Span and `gen_ai.*` metrics are those of the OpenTelemetry GenAI utilities, name by name; a test
holds them against each other.
"""

from decimal import Decimal
from itertools import pairwise

from opentelemetry.trace import SpanKind

from llm_proxy.answers import ResponseInfo
from llm_proxy.content import MessageAccumulator, input_messages
from llm_proxy.meters import Attributes, Meters
from llm_proxy.provider import Provider
from llm_proxy.requests import Request
from llm_proxy.tokens import Tokens
from o11y.telemetry import genai, schema


class Inference(genai.Operation):
    """A call to a model: its span, its times, and what all its attempts cost together."""

    def __init__(self, meters: Meters, request: Request, provider: Provider, model: str) -> None:
        """`provider` is the first one to be asked, `model` what it calls the model."""
        self._meters = meters
        self._request = request
        self._provider = provider
        self._model = model
        self._info = ResponseInfo()
        self._answer: MessageAccumulator | None = None
        self._tokens: Tokens | None = None
        self._known_usd: Decimal | None = None
        self.attempts = 0
        self.arrivals: list[float] = []
        """Times at which events of the stream came, in seconds since the call began."""
        self.usd: Decimal | None = Decimal(0)
        """US dollars of all attempts; None when the price of one isn't known."""
        super().__init__(
            meters.tracer,
            f"{request.operation.name} {model}",
            {
                schema.OPERATION: request.operation.name,
                **provider.attributes,
                schema.LLM_PROVIDER: provider.name,
                schema.REQUEST_MODEL: model,
                **request.attributes,
            },
            SpanKind.CLIENT,
        )

    @property
    def generates(self) -> bool:
        """True for operations that write text, which embeddings don't."""
        return self._request.operation.generates

    def asks(self, provider: Provider, model: str) -> None:
        """Name the provider, the first one or the next, that is asked now: on the span, too."""
        self._provider, self._model = provider, model
        self.span.update_name(f"{self._request.operation.name} {model}")
        named = {schema.LLM_PROVIDER: provider.name, schema.REQUEST_MODEL: model}
        self.span.set_attributes({**provider.attributes, **named})

    def listener(self) -> MessageAccumulator | None:
        """The accumulator of an attempt's answer; None where its content is not captured."""
        capture = self._meters.capture
        listens = capture and capture.has_content and self.generates and self.span.is_recording()
        self._answer = MessageAccumulator() if listens else None
        return self._answer

    def bill(self, tokens: Tokens, usd: Decimal | None, source: str) -> None:
        """An attempt is billed so many tokens."""
        self._tokens = tokens if self._tokens is None else self._tokens + tokens
        if usd is None:
            self.usd = None
            return
        if self.usd is not None:
            self.usd += usd
        self._known_usd = (self._known_usd or Decimal(0)) + usd
        self.span.set_attribute(schema.COST_SOURCE, source)

    def hears(self, info: ResponseInfo) -> None:
        """Take over what the last attempt's answer states of itself."""
        self._info = info

    def end(self) -> None:
        """End the span and record the times, once."""
        if self.ended:
            return
        seconds = self.stop()
        self.span.set_attributes(self._outcome())
        times = self._meters.times(
            self._request.operation, self._provider, self._model, self._info.model, self.error
        )
        times.duration.record(seconds, self.context)
        if self._tokens and not self._tokens.estimated:
            times.input_tokens.record(self._tokens.input, self.context)
            if times.output_tokens:
                times.output_tokens.record(self._tokens.output, self.context)
        if self.arrivals:
            times.first_chunk.record(self.arrivals[0], self.context)
            if self._meters.times_chunks:
                for before, after in pairwise(self.arrivals):
                    times.chunk.record(after - before, self.context)
        if self._meters.capture and self.generates:
            if self._answer:
                messages = self._answer.messages()
                self._meters.capture.record(self.span, input_messages(self._request.body), messages)
            else:
                self._meters.capture.record(self.span)
        super().end()

    def _outcome(self) -> Attributes:
        """Attributes that are known at the end only."""
        info, tokens = self._info, self._tokens
        found: Attributes = {schema.LLM_ATTEMPTS: self.attempts}
        if info.model:
            found[schema.RESPONSE_MODEL] = info.model
        if info.id:
            found[schema.RESPONSE_ID] = info.id
        if info.finish_reasons:
            found[schema.FINISH_REASONS] = info.finish_reasons
        if self.arrivals:
            found[schema.FIRST_CHUNK_SECONDS] = self.arrivals[0]
        if self._known_usd is not None:
            found[schema.COST_USD] = float(self._known_usd)
        if tokens is None:
            return found
        found[schema.INPUT_TOKENS] = found[schema.PROMPT_TOKENS_ORIGINAL] = tokens.input
        if self.generates:
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
        return found
