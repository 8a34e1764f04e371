"""A call's span is that of OpenTelemetry's GenAI utilities, and a little of ours; so are its
metrics under their former names, which the utilities still give them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import HistogramDataPoint
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode
from opentelemetry.util.genai.handler import TelemetryHandler
from opentelemetry.util.genai.types import Error

from llm_proxy.answers import ResponseInfo
from llm_proxy.attempt import Attempt
from llm_proxy.inference import Inference
from llm_proxy.meters import Meters
from llm_proxy.provider import Provider
from llm_proxy.requests import read
from llm_proxy.settings import Settings
from llm_proxy.spending import Charge
from llm_proxy.tokens import Tokens
from o11y.openai import operations
from o11y.openai.operations import COMPLETION, EMBEDDINGS, Operation
from o11y.telemetry import environment, schema
from tests.support.recorded import Recorded, attributes
from tests.support.upstream import INFERENCE, provider_settings

OURS = {
    schema.LLM_ATTEMPTS,
    schema.LLM_PROVIDER,
    schema.COST_USD,
    schema.COST_SOURCE,
    schema.PROMPT_TOKENS_ORIGINAL,
    schema.COMPLETION_TOKENS_ORIGINAL,
}
"""Keys of a call's span that the utilities' span has not."""

TIMES = {schema.FIRST_CHUNK_SECONDS}
"""Keys whose values are measured."""

CHAT = (
    b'{"model": "m", "messages": [{}], "temperature": 0.5, "top_p": 0.9, "max_tokens": 7, "n": 2,'
    b' "seed": 3'
)


@dataclass
class Call:
    """One call, as both are told of it."""

    operation: Operation = operations.CHAT
    body: bytes = CHAT + b"}"
    info: ResponseInfo = field(default_factory=ResponseInfo)
    tokens: Tokens | None = None
    error: str | None = None
    chunks: int = 0


SAID = ResponseInfo("id-1", "m-2024", "default", finish_reasons=("stop", "length"))
MANY = Tokens(100, 50, cached=10, cache_write=5, input_audio=4, output_audio=3, reasoning=2)
STREAMED = CHAT + b', "stream": true}'
CALLS = {
    "chat": Call(info=SAID, tokens=MANY),
    "plain chat": Call(
        body=b'{"messages": [{}]}', info=ResponseInfo(model="m"), tokens=Tokens(3, 1)
    ),
    "completion": Call(COMPLETION, b'{"prompt": "a", "max_tokens": 1}', SAID, Tokens(3, 1)),
    "embedding": Call(EMBEDDINGS, b'{"input": "a"}', ResponseInfo(model="e-1"), Tokens(8)),
    "failed embedding": Call(EMBEDDINGS, b'{"input": "a"}', error="429"),
    "failed chat": Call(error="500"),
    "lost chat": Call(error=schema.ERROR_CONNECTION_LOST),
    "stream": Call(body=STREAMED, info=SAID, tokens=MANY, chunks=4),
    "stream of one chunk": Call(body=STREAMED, info=SAID, tokens=Tokens(3, 1), chunks=1),
    "broken stream": Call(body=STREAMED, info=SAID, error=schema.ERROR_TIMEOUT, chunks=2),
}


class Both:
    """A provider, and telemetry for either of the two."""

    def __init__(self) -> None:
        self.ours = Recorded("llm-proxy", Settings())
        self.theirs = Recorded("llm-proxy", Settings())
        self.provider = Provider(
            provider_settings("a", {"chat_model": "m"}), INFERENCE, self.ours.telemetry
        )

    def write_ours(self, call: Call) -> ReadableSpan:
        meters = Meters(self.ours.telemetry, [self.provider], times_chunks=True)
        request = read(call.operation, call.body)
        inference = Inference(meters, request, self.provider, "m")
        attempt = Attempt(meters, inference, request, self.provider, "m", Charge())
        for _ in range(call.chunks):
            attempt.arrived()
        attempt.end(call.info, call.tokens, call.error)
        if call.error:
            inference.fail(call.error)
        inference.end()
        [span] = self.ours.spans()
        return span

    def write_theirs(self, call: Call) -> ReadableSpan:
        told = self.theirs.telemetry
        handler = TelemetryHandler(told.tracer_provider, told.meter_provider)
        if call.operation is EMBEDDINGS:
            self._embedding(handler, call)
        else:
            self._inference(handler, call)
        [span] = self.theirs.spans()
        return span

    def _embedding(self, handler: TelemetryHandler, call: Call) -> None:
        written = handler.embedding("a", request_model="m", server_address="a.test", server_port=80)
        written.response_model_name = call.info.model
        written.input_tokens = call.tokens.input if call.tokens else None
        written.fail(Error("", call.error)) if call.error else written.stop()

    def _inference(self, handler: TelemetryHandler, call: Call) -> None:
        said, tokens, request = call.info, call.tokens, read(call.operation, call.body)
        written = handler.inference(
            "a",
            request_model="m",
            server_address="a.test",
            server_port=80,
            operation_name=call.operation.name,
        )
        written.temperature, written.top_p = request.temperature, request.top_p
        written.max_tokens, written.seed = request.max_tokens, request.seed
        written.request_choice_count = request.choices
        written.request_stream = request.stream or None
        written.response_model_name, written.response_id = said.model, said.id
        written.finish_reasons = list(said.finish_reasons)
        for _ in range(call.chunks):
            written.record_stream_chunk()
        if tokens:
            written.input_tokens, written.output_tokens = tokens.input, tokens.output
            written.cache_read_input_tokens = tokens.cached
            written.cache_write_input_tokens = tokens.cache_write
            written.audio_input_tokens = tokens.input_audio
            written.audio_output_tokens = tokens.output_audio
            written.thinking_tokens = tokens.reasoning
        written.fail(Error("", call.error)) if call.error else written.stop()

    def close(self) -> None:
        self.ours.telemetry.shutdown()
        self.theirs.telemetry.shutdown()


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    monkeypatch.setenv(environment.OPT_IN, environment.FORMER_NAMES)
    both = Both()
    yield both
    both.close()


each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@each_call
def test_the_span_is_theirs_and_what_is_listed(call: Call, both: Both) -> None:
    ours, theirs = both.write_ours(call), both.write_theirs(call)
    assert (ours.name, ours.kind) == (theirs.name, theirs.kind)
    assert ours.status.status_code is theirs.status.status_code
    found, expected = attributes(ours), attributes(theirs)
    assert found.keys() - expected.keys() <= OURS
    assert expected.keys() <= found.keys()
    assert {key: found[key] for key in expected if key not in TIMES} == {
        key: value for key, value in expected.items() if key not in TIMES
    }


def series(recorded: Recorded) -> dict[str, Any]:
    """Every `gen_ai` histogram with unit, bounds, and the labels and counts of its points."""
    data = recorded.metrics.get_metrics_data()
    found: dict[str, Any] = {}
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                points = [
                    (sorted((point.attributes or {}).items()), point.count, point.explicit_bounds)
                    for point in metric.data.data_points
                    if isinstance(point, HistogramDataPoint)
                ]
                if points and metric.name.startswith("gen_ai."):
                    found[metric.name] = (metric.unit, sorted(points, key=repr))
    return found


@each_call
def test_the_metrics_under_their_former_names_are_theirs(call: Call, both: Both) -> None:
    both.write_ours(call)
    both.write_theirs(call)
    ours, theirs = series(both.ours), series(both.theirs)
    former = {alias.shown.name for alias in schema.FORMER}
    assert {name: unit for name, (unit, _) in ours.items() if name in former} == {
        name: unit for name, (unit, _) in theirs.items()
    }
    for name, (_, points) in theirs.items():
        assert [(dict(labels), n, tuple(bounds)) for labels, n, bounds in ours[name][1]] == [
            (dict(labels), n, tuple(bounds)) for labels, n, bounds in points
        ]


def test_a_failure_that_was_billed_is_no_label_of_its_tokens_former_name(both: Both) -> None:
    """The utilities put `error.type` there; the conventions listed no such attribute."""
    call = Call(info=SAID, tokens=Tokens(3, 1), error=schema.ERROR_TIMEOUT)
    assert both.write_ours(call).status.status_code is StatusCode.ERROR
    tokens = both.ours.points("gen_ai.client.token.usage")
    assert [schema.ERROR_TYPE in point.labels for point in tokens] == [False, False]


def usage(recorded: Recorded) -> dict[tuple[str, str], float]:
    """The counters of tokens, by name below `gen_ai.client.inference.usage` and modality."""
    prefix = "gen_ai.client.inference.usage."
    return {
        (metric.name.removeprefix(prefix), str(point.labels[schema.TOKEN_MODALITY])): point.value
        for metric in schema.METRICS
        if metric.name.startswith(prefix)
        for point in recorded.points(metric.name)
    }


IMAGE = b'{"messages": [{"content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}'


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        (b'{"messages": [{"content": "\\"type\\": \\"image_url\\""}]}', "text"),
        (IMAGE, "unknown"),
        (IMAGE.replace(b"image_url", b"file"), "unknown"),
        (IMAGE.replace(b"image_url", b"input_audio"), "text"),
    ],
)
def test_tokens_are_counted_by_modality(body: bytes, prompt: str, both: Both) -> None:
    both.write_ours(Call(body=body, info=SAID, tokens=MANY))
    assert usage(both.ours) == {
        ("input_tokens", prompt): 96,
        ("input_tokens", "audio"): 4,
        ("output_tokens", "text"): 47,
        ("output_tokens", "audio"): 3,
        ("cache_read.input_tokens", prompt): 10,
        ("cache_write.input_tokens", prompt): 5,
        ("reasoning.output_tokens", "text"): 2,
    }


def test_tokens_of_embeddings_are_no_usage_of_inference(both: Both) -> None:
    both.write_ours(CALLS["embedding"])
    assert usage(both.ours) == {}
    [point] = both.ours.points(schema.GEN_AI_EMBEDDINGS_TOKENS.name)
    assert point.value == 1


@each_call
def test_metrics_have_the_names_of_today(call: Call, both: Both) -> None:
    both.write_ours(call)
    embeds = call.operation is EMBEDDINGS
    durations = (schema.GEN_AI_INFERENCE_DURATION, schema.GEN_AI_EMBEDDINGS_DURATION)
    counts = [sum(point.value for point in both.ours.points(each.name)) for each in durations]
    assert counts == [not embeds, embeds]
    for metric in (*durations, schema.GEN_AI_INPUT_TOKENS, schema.GEN_AI_OUTPUT_TOKENS):
        for point in both.ours.points(metric.name):
            assert set(point.labels) <= set(metric.labels)
            assert point.labels.get(schema.ERROR_TYPE) == call.error


def test_an_estimate_is_in_no_convention(both: Both) -> None:
    call = Call(tokens=Tokens(3, 1, estimated=True))
    assert attributes(both.write_ours(call))[schema.USAGE_ESTIMATED] is True
    assert usage(both.ours) == {}
    assert both.ours.points(schema.GEN_AI_INPUT_TOKENS.name) == []


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://me.openai.azure.com/openai", "azure.ai.openai"),
        ("https://api.mistral.ai/v1", "mistral_ai"),
        ("https://api.x.ai/v1", "x_ai"),
        ("https://openrouter.ai/api/v1", "b"),
        ("http://127.0.0.1:9/v1", "b"),
    ],
)
def test_a_provider_has_the_name_the_conventions_list(url: str, name: str, both: Both) -> None:
    settings = provider_settings("b", {"base_url": url})
    provider = Provider(settings, INFERENCE, both.ours.telemetry)
    assert (provider.kind, provider.name) == (name, "b")


def test_former_names_are_shown_to_who_asks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(environment.OPT_IN, raising=False)
    both = Both()
    both.write_ours(CALLS["stream"])
    assert [both.ours.points(alias.shown.name) for alias in schema.FORMER] == [[]] * 8
    both.close()
