"""`/chat` with `stream: true`, as a client of plain HTTP reads it."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.support.openai_standin import Standin, Step

TEXT = "Ein Gruß, Stück für Stück."


def events(url: str, **body: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and data of each server-sent event."""
    asked = {"message": "hi", "model": "gpt-4o-mini", "stream": True, **body}
    with httpx2.stream("POST", f"{url}/chat", json=asked, timeout=30) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        name = "message"
        for line in answer.iter_lines():
            key, _, value = line.partition(": ")
            if key == "event":
                name = value
            elif key == "data":
                yield name, json.loads(value)
            elif not line:
                name = "message"


def test_the_answer_comes_bit_by_bit_and_its_metadata_last(
    urls: dict[str, str], standins: tuple[Standin, Standin]
) -> None:
    standins[0].default = Step(text=TEXT, chunks=5, split=3, usage="cached")
    *said, (last, metadata) = events(urls["gateway"])
    assert {name for name, _ in said} == {"message"}
    assert len(said) > 1
    assert "".join(data["content"] for _, data in said) == TEXT
    assert last == "metadata"
    (bill,) = [each for each in standins[0].ledger.bills() if each.operation == "chat"][-1:]
    assert metadata["provider"] == "first"
    assert metadata["model"].startswith("gpt-4o-mini")
    assert metadata["usage"]["prompt_tokens"] == bill.prompt_tokens
    assert metadata["usage"]["completion_tokens"] == bill.completion_tokens
    assert bill.usd is not None
    assert metadata["cost_usd"] == pytest.approx(float(bill.usd), abs=1e-12)
    assert metadata["finish_reason"] == "stop"
    assert metadata["duration_seconds"] > 0


def test_a_stream_that_breaks_ends_with_a_problem(
    urls: dict[str, str], standins: tuple[Standin, Standin]
) -> None:
    standins[0].default = Step(chunks=9, cut="mid_stream", after=3)
    *said, (last, problem) = events(urls["gateway"])
    assert said
    assert last == "error"
    assert (problem["status"], problem["code"]) == (502, "stream_broken")
    assert problem["trace_id"]


def test_what_fails_before_the_first_word_has_a_status_of_its_own(
    urls: dict[str, str], standins: tuple[Standin, Standin]
) -> None:
    for standin in standins:
        standin.default = Step(status=429, retry_after="100")
    body = {"message": "hi", "model": "gpt-4o-mini", "stream": True}
    answer = httpx2.post(f"{urls['gateway']}/chat", json=body, timeout=30)
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "100"
