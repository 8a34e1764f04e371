"""Scenarios against a stub gateway: what passes, what fails, and what is said about it."""

import json
from argparse import Namespace
from io import StringIO
from typing import Any

import httpx2
import pytest
from rich.console import Console

from deploy.demo import runner, scenarios, tempo, trace, tree
from deploy.demo.requests import SEED, search
from deploy.demo.workload import errors
from tests.support.stub_gateway import TRACE_ID, WINDOW, Stub, refuse


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempo, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(scenarios, "SETTLE_SECONDS", 0.05)
    monkeypatch.setattr(runner, "PAUSE_AFTER_FAILURE_SECONDS", 0.001)
    monkeypatch.delenv("TRACE_URL_TEMPLATE", raising=False)


async def play(scenario: str, stub: Stub, load_duration: float = 0.001) -> tuple[int, str]:
    """Exit code and output."""
    asked = Namespace(
        scenario=scenario,
        load_duration=load_duration,
        gateway_url="http://gateway",
        tempo_url="http://tempo",
    )
    to = Console(file=StringIO(), width=140, highlight=False, markup=False, emoji=False)
    code = await scenarios.run(asked, to, stub.transport())
    assert isinstance(to.file, StringIO)
    return code, to.file.getvalue()


async def test_all_passes_where_everything_is_right() -> None:
    stub = Stub()
    code, output = await play("all", stub)
    assert "Not as it should be" not in output
    assert code == 0
    assert stub.paths.count("/full-pipeline") == 4
    assert f"Trace {TRACE_ID}  4 spans, 4 services" in output
    assert f"It can be opened at http://gateway/console/traces?trace={TRACE_ID}" in output
    rows = [line.split() for line in output.splitlines()]
    assert next(row[1:3] for row in rows if row[:1] == ["total"]) == ["36", "0"]
    chats = next(row for row in reversed(rows) if row[:1] == ["chat"])
    assert (chats[1], chats[-3]) == ("6", "0.06")
    assert "\x1b" not in output


async def test_a_failed_expectation_is_told_with_its_trace() -> None:
    def unsorted(request: httpx2.Request, body: dict[str, Any]) -> dict[str, Any] | None:
        return body | {"results": body["results"][::-1]} if body.get("count") == 10 else None

    code, output = await play("search", Stub(unsorted))

    assert code == 1
    told = [line for line in output.splitlines() if line.startswith("- ")]
    assert len(told) == 1
    assert told[0].startswith("- search: POST /search: the results are not sorted by similarity")
    assert told[0].endswith(f"(make trace ID={TRACE_ID})")


async def test_a_failed_stage_is_named_without_its_consequences() -> None:
    def failing(request: httpx2.Request, body: dict[str, Any]) -> dict[str, Any] | None:
        if "stages" not in body:
            return None
        stages = body["stages"][:]
        stages[2] = stages[2] | {"status": "error", "error": "vector-svc can't be reached"}
        return body | {"stages": stages, "summary": body["summary"] | {"steps_completed": 1}}

    code, output = await play("pipeline", Stub(failing))

    assert code == 1
    reason = "stage search error: vector-svc can't be reached"
    assert (
        output.count(f"- pipeline: POST /full-pipeline: {reason} (make trace ID={TRACE_ID})") == 4
    )


async def test_an_empty_answer_is_an_answer() -> None:
    """In a chat, and in a pipeline, which has nothing to embed then and stores the query alone."""

    def silent(request: httpx2.Request, body: dict[str, Any]) -> dict[str, Any] | None:
        usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
        if "response" in body:
            return body | {"response": "", "metadata": body["metadata"] | {"usage": usage}}
        if "stages" not in body:
            return None
        stages, summary = body["stages"][:], body["summary"]
        if stages[4]["status"] == "ok":
            stages[4] |= {"status": "skipped", "error": "there is no answer to embed"}
            summary = summary | {"steps_completed": 5, "documents_stored": 1}
        results = body["results"] | {"openai_response": silent(request, Stub().chat({}))}
        return body | {"stages": stages, "summary": summary, "results": results}

    for scenario in ("chat", "pipeline"):
        code, output = await play(scenario, Stub(silent))
        assert code == 0, output


async def test_an_answer_that_was_not_embedded_though_there_was_one_is_a_failure() -> None:
    def skipping(request: httpx2.Request, body: dict[str, Any]) -> dict[str, Any] | None:
        if "stages" not in body:
            return None
        stages = body["stages"][:]
        stages[4] |= {"status": "skipped", "error": "no reason"}
        return body | {"stages": stages}

    code, output = await play("pipeline", Stub(skipping))
    assert code == 1
    assert output.count("stage embed_answer skipped: no reason") == 3


@pytest.mark.parametrize(("rate", "told"), [(1.6, True), (12.0, False)])
async def test_a_slow_machine_is_told_kindly(rate: float, told: bool) -> None:
    def writing(request: httpx2.Request, body: dict[str, Any]) -> dict[str, Any] | None:
        if "generated_texts" not in body:
            return None
        performance = body["metadata"]["performance"] | {"tokens_per_second": rate}
        return body | {"metadata": body["metadata"] | {"performance": performance}}

    code, output = await play("local", Stub(writing))
    assert code == 0
    assert ("The local model wrote 1.6 tokens a second. Everything works" in output) is told


async def test_every_run_asks_for_the_same_choices() -> None:
    seeds: set[Any] = set()

    def noting(request: httpx2.Request, body: dict[str, Any]) -> dict[str, Any] | None:
        if request.url.path in ("/chat", "/local-inference", "/full-pipeline"):
            asked = json.loads(request.content or b"{}") | dict(request.url.params)
            seeds.add(str(asked.get("seed")))
        return None

    await play("all", Stub(noting))
    assert seeds == {str(SEED)}


async def test_storing_again_must_add_nothing() -> None:
    def adding(request: httpx2.Request, body: dict[str, Any]) -> dict[str, Any] | None:
        stored = body.get("vector_db_result")
        return body | {"vector_db_result": stored | {"documents_added": 1}} if stored else None

    code, output = await play("embed", Stub(adding))
    assert code == 1
    assert output.count("storing the same again added 1 documents") == 2


async def test_a_service_missing_in_the_trace_is_a_failure() -> None:
    stub = Stub()
    stub.services = stub.services[:3]
    code, output = await play("pipeline", stub)
    assert code == 1
    assert f"- pipeline: no spans of inference-svc arrived (make trace ID={TRACE_ID})" in output


async def test_no_trace_store_is_no_failure() -> None:
    code, output = await play("pipeline", Stub(gone=("tempo",)))
    assert code == 0
    assert "No trace store answers at http://tempo" in output
    assert TRACE_ID in output


async def test_the_address_of_a_trace_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACE_URL_TEMPLATE", "http://grafana/explore?{a}&id={trace_id}")
    _, output = await play("pipeline", Stub())
    assert f"It can be opened at http://grafana/explore?{{a}}&id={TRACE_ID}" in output


async def test_without_a_gateway_one_sentence() -> None:
    code, output = await play("all", Stub(gone=("gateway",)))
    assert code == 1
    assert output == "No gateway answers at http://gateway; `make up` starts one.\n"


async def test_load_goes_on_for_its_time() -> None:
    stub = Stub()
    code, output = await play("load", stub, load_duration=0.2 / 60)
    assert code == 0
    assert stub.paths.count("/chat") > 3
    assert "The last pipeline call" not in output


async def test_a_load_on_a_gateway_that_goes_away_ends_and_fails() -> None:
    def leaving(request: httpx2.Request, body: dict[str, Any]) -> dict[str, Any] | None:
        if request.url.path == "/stats":
            stub.gone = ("gateway",)
        return None

    stub = Stub(leaving)
    code, output = await play("load", stub, load_duration=0.05 / 60)
    assert code == 1
    assert "no answer came (refused) (no trace id)" in output


@pytest.mark.parametrize(
    ("response", "says"),
    [
        (httpx2.Response(200, json={}), "status 200, not 422"),
        (httpx2.Response(422, json={}), "content type application/json, not application/problem"),
        (refuse("/chat", 422, "other"), "the field message is not named"),
    ],
)
def test_refusals_are_looked_at_closely(response: httpx2.Response, says: str) -> None:
    first = errors(WINDOW)[0][0]
    assert says in first.judge(response).failures[0]


def test_a_good_answer_needs_its_trace_id() -> None:
    response = httpx2.Response(200, json=Stub().search({"query": "a", "n_results": 1}))
    assert search("a", "alice", 1).judge(response).failures == ["the answer has no X-Trace-Id"]


def test_only_what_can_be_too_long_is_sent() -> None:
    assert len(errors(4096)) == len(errors(100_000)) + 1


def test_trace_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stub = Stub()
    real = httpx2.AsyncClient
    monkeypatch.setattr(httpx2, "AsyncClient", lambda **_: real(transport=stub.transport()))
    monkeypatch.setattr(tree, "PLAIN_WIDTH", 100)

    assert trace.main([TRACE_ID, "--tempo-url", "http://tempo/"]) == 0
    assert capsys.readouterr().out.startswith(f"Trace {TRACE_ID}  4 spans")

    stub.gone = ("tempo",)
    assert trace.main([TRACE_ID[1:], "--tempo-url", "http://tempo"]) == 1
    assert "No trace store answers" in capsys.readouterr().err

    with pytest.raises(SystemExit) as exit_:
        trace.main(["no-id"])
    assert exit_.value.code == 2
