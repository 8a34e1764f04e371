"""The first start's documents: once, into an empty collection, or not at all."""

import asyncio
import json

import httpx2
import pytest
from httpx2 import Response

from gateway import corpus
from gateway.contracts import EmbedRequest
from gateway.corpus import Corpus
from o11y.contracts import MAX_TEXTS
from tests.support.gateway_services import EMBED, STORE, VECTOR, Gateway, Services, problem
from tests.support.recorded import identity

STATS = f"{VECTOR}/stats"
PATIENCE_SECONDS = 5


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(corpus, "ATTEMPTS", 3)


async def load(gateway: Gateway) -> None:
    texts = Corpus(gateway.backends, gateway.recorded.telemetry)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await texts.load()
    assert texts.settled.is_set()


async def test_an_empty_collection_gets_every_text_once(
    gateway: Gateway, services: Services
) -> None:
    rows = [json.loads(line) for line in corpus.read().splitlines()]
    await load(gateway)
    assert services.calls() == [STATS, EMBED, STORE]
    body = services.asked(STORE).body
    assert body["documents"] == [row["text"] for row in rows]
    assert body["ids"] == [row["id"] for row in rows]
    assert len(body["embeddings"]) == len(rows)
    assert {row["kind"] for row in body["metadata"]} == {"corpus"}
    assert [row["title"] for row in body["metadata"]] == [row["title"] for row in rows]


async def test_a_filled_collection_is_left_alone(gateway: Gateway, services: Services) -> None:
    services.answers[STATS] = Response(200, json={"document_count": 1})
    await load(gateway)
    assert services.calls() == [STATS]


async def test_loading_is_one_trace(gateway: Gateway) -> None:
    await load(gateway)
    [root] = [span for span in gateway.recorded.spans() if span.parent is None]
    assert root.name == "load corpus"
    assert {identity(span).trace_id for span in gateway.recorded.spans()} == {
        identity(root).trace_id
    }


@pytest.mark.parametrize("call", [STATS, EMBED, STORE])
async def test_it_waits_for_a_service_that_is_not_there_yet(
    call: str, gateway: Gateway, services: Services
) -> None:
    tried: list[object] = []

    def late(body: object) -> Response | None:
        tried.append(body)
        return problem(503, "loading") if len(tried) == 1 else None

    services.answers[call] = late
    await load(gateway)
    assert len(tried) == 2
    assert services.calls()[-1] == STORE


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.ConnectError("refused"),
        problem(503, "no disk"),
        Response(200, content=b"<html>"),
        Response(200, json={}),
    ],
    ids=["refused", "problem", "HTML", "no count"],
)
@pytest.mark.parametrize("call", [STATS, EMBED, STORE])
async def test_it_gives_up_after_a_while_with_a_word_in_the_log(
    call: str,
    answer: Response | Exception,
    gateway: Gateway,
    services: Services,
    caplog: pytest.LogCaptureFixture,
) -> None:
    services.answers[call] = answer
    await load(gateway)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert warnings[0].startswith("the corpus could not be loaded: ")


# The texts themselves


def rows() -> list[dict[str, str]]:
    return [json.loads(line) for line in corpus.read().splitlines()]


def test_every_text_has_the_same_fields_and_none_is_empty() -> None:
    assert all(set(row) == {"id", "text", "topic", "title"} for row in rows())
    assert all(value.strip() == value != "" for row in rows() for value in row.values())


@pytest.mark.parametrize("field", ["id", "text", "title"])
def test_no_text_is_there_twice(field: str) -> None:
    values = [row[field] for row in rows()]
    assert len(values) == len(set(values))


def test_the_texts_fit_into_one_request() -> None:
    assert 10 < len(rows()) <= MAX_TEXTS
    EmbedRequest(texts=[row["text"] for row in rows()], ids=[row["id"] for row in rows()])
