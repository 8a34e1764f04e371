"""Search, by tags and by TraceQL."""

from typing import Any

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from deploy.local.trace_store.store import Store
from tests.support.trace_samples import SECOND, START, export, new_id, span

TRACE = bytes.fromhex("00000000000000000000000000abcdef")


@pytest.fixture
def chat(store: Store) -> Span:
    """A root span of the gateway and below it a failed one of the proxy, beside another trace."""
    root = span("POST /chat", trace=TRACE, kind=Span.SPAN_KIND_SERVER, seconds=2)
    failed = span(
        "chat gpt",
        trace=TRACE,
        parent=root.span_id,
        start=START + SECOND // 2,
        seconds=1.5,
        kind=Span.SPAN_KIND_CLIENT,
        status=Status.STATUS_CODE_ERROR,
        attributes={
            "model": "gpt-4o",
            "http.response.status_code": 429,
            "cost": 0.25,
            "streamed": True,
            "a b": "quoted",
            "reasons": ["stop", "length"],
            "text": "429",
            "quote": 'say "hi" \\o/',
            "both": "span",
            "odd": float("nan"),
            "raw": b"\x00\xff",
            "none": None,
        },
    )
    store.add(export(root, service="gateway", zone="eu", both="resource"))
    store.add(export(failed, service="llm-proxy", zone="us", both="resource"))
    store.add(export(span("unrelated", start=START - 60 * SECOND, seconds=30), service="other"))
    return failed


async def search(api: httpx.AsyncClient, **asked: object) -> list[dict[str, Any]]:
    answer = await api.get("/api/search", params={k: str(v) for k, v in asked.items()})
    assert answer.status_code == 200, answer.text
    traces: list[dict[str, Any]] = answer.json()["traces"]
    return traces


async def spans_found(api: httpx.AsyncClient, query: str) -> set[str]:
    """The names of the spans that a query selects, over all traces."""
    found = await search(api, q=query, spss=100)
    ids = {span["spanID"] for trace in found for span in trace["spanSet"]["spans"]}
    named = await search(api, q='{ name =~ ".*" }', spss=100)
    spans = [span for trace in named for span in trace["spanSet"]["spans"]]
    return {span["name"] for span in spans if span["spanID"] in ids}


async def test_answers_in_tempos_shape(api: httpx.AsyncClient, chat: Span) -> None:
    answer = await api.get("/api/search", params={"q": "{ status = error && .cost > 0 }"})
    span_set = {
        "spans": [
            {
                "spanID": chat.span_id.hex(),
                "startTimeUnixNano": str(START + SECOND // 2),
                "durationNanos": str(3 * SECOND // 2),
                "attributes": [
                    {"key": "cost", "value": {"doubleValue": 0.25}},
                    {"key": "status", "value": {"stringValue": "error"}},
                ],
            }
        ],
        "matched": 1,
    }
    assert answer.json() == {
        "traces": [
            {
                "traceID": "abcdef",
                "rootServiceName": "gateway",
                "rootTraceName": "POST /chat",
                "startTimeUnixNano": str(START),
                "durationMs": 2000,
                "spanSet": span_set,
                "spanSets": [span_set],
            }
        ],
        "metrics": {},
    }


@pytest.mark.parametrize(
    ("query", "type", "value"),
    [
        ("{ .model != `` }", "stringValue", "gpt-4o"),
        ("{ .http.response.status_code > 0 }", "intValue", "429"),
        ("{ .cost > 0 }", "doubleValue", 0.25),
        ("{ .streamed = true }", "boolValue", True),
        ("{ kind = client }", "stringValue", "client"),
    ],
)
async def test_shows_what_the_query_compares(
    api: httpx.AsyncClient, chat: Span, query: str, type: str, value: object
) -> None:
    (found,) = await search(api, q=query)
    (attribute,) = found["spanSet"]["spans"][0]["attributes"]
    assert attribute["value"] == {type: value}


@pytest.mark.parametrize(
    "query",
    [
        # operators, by the type of the value
        '{ span.model = "gpt-4o" }',
        '{ span.model != "gpt-5" }',
        '{ span.model > "gpt-3" }',
        '{ span.model >= "gpt-4o" }',
        '{ span.model < "gpt-5" }',
        '{ span.model <= "gpt-4o" }',
        '{ span.model =~ "gpt-.*" }',
        '{ span.model !~ "gpt" }',
        "{ span.http.response.status_code = 429 }",
        "{ span.http.response.status_code != 200 }",
        "{ span.http.response.status_code > 428.5 }",
        "{ span.http.response.status_code >= 429 }",
        "{ span.http.response.status_code < 500 }",
        "{ span.http.response.status_code <= 429 }",
        "{ span.cost = 0.25 }",
        "{ span.cost > -1 }",
        "{ span.streamed = true }",
        "{ span.streamed != false }",
        # any element of an array, none for the negated operators
        '{ span.reasons = "stop" }',
        '{ span.reasons =~ "len.*" }',
        '{ span.reasons != "other" }',
        '{ span.reasons !~ "other.*" }',
        # scopes
        '{ .model = "gpt-4o" }',
        '{ resource.service.name = "llm-proxy" }',
        '{ .service.name = "llm-proxy" }',
        '{ .both = "span" }',
        # texts and names
        "{ span.model = `gpt-4o` }",
        '{ span."a b" = "quoted" }',
        '{ ."a b" = "quoted" }',
        r'{ span.quote = "say \"hi\" \\o/" }',
        '{ span.quote =~ `say "hi".*` }',
        '{ span.odd = "nan" }',
        '{ span.raw = "AP8=" }',
        # intrinsics
        '{ name = "chat gpt" }',
        '{ span:name =~ "chat.*" }',
        "{ status = error }",
        "{ span:status = error }",
        "{ kind = client }",
        "{ span:kind != server && kind != internal }",
        "{ duration = 1500ms }",
        "{ duration >= 1s500ms && duration < 1.6s }",
        "{ duration > 1499999us && duration < 1500000001ns }",
        '{ rootName = "POST /chat" && kind = client }',
        '{ rootServiceName = "gateway" && kind = client }',
        '{ trace:id = "abcdef" && kind = client }',
        '{ trace:id = "00000000000000000000000000ABCDEF" && kind = client }',
        # logic
        '{ kind = server && status = error || span.model = "gpt-4o" }',
        '{ span.model = "gpt-4o" || kind = server && status = error }',
        "{ (kind = server || kind = client) && status = error }",
        "{((status=error))&&(kind=client||kind=server)}",
        '{ span.model = "gpt-4o" && (resource.zone = "eu" || resource.zone = "us") }',
    ],
)
async def test_selects_the_span(api: httpx.AsyncClient, chat: Span, query: str) -> None:
    assert await spans_found(api, query) == {"chat gpt"}


@pytest.mark.parametrize(
    "query",
    [
        '{ span.model = "gpt" }',
        '{ span.model != "gpt-4o" }',
        '{ span.model =~ "gpt" }',
        '{ span.model !~ "gpt-.*" }',
        '{ span.reasons != "stop" }',
        '{ span.reasons !~ "st.*" }',
        # another type never matches
        '{ span.http.response.status_code = "429" }',
        '{ span.http.response.status_code != "200" }',
        "{ span.text = 429 }",
        "{ span.text > 1 }",
        "{ span.streamed = 1 }",
        '{ span.streamed = "true" }',
        # nor does what is missing
        '{ span.missing != "x" }',
        '{ span.missing !~ "x" }',
        '{ span.none != "x" }',
        '{ resource.model = "gpt-4o" }',
        '{ span.service.name = "llm-proxy" }',
        '{ .both = "resource" && kind = client }',
        '{ trace:id = "abcde" }',
        "{ status = ok }",
        "{ kind = consumer }",
        "{ duration > 1h }",
        "{ kind = server && status = error }",
    ],
)
async def test_selects_nothing(api: httpx.AsyncClient, chat: Span, query: str) -> None:
    assert await spans_found(api, query) == set()


async def test_selects_everything(api: httpx.AsyncClient, chat: Span) -> None:
    for query in ("{}", " { } "):
        assert await spans_found(api, query) == {"POST /chat", "chat gpt", "unrelated"}


async def test_compares_every_status_and_kind(api: httpx.AsyncClient, store: Store) -> None:
    for code in Status.StatusCode.values():
        for kind in Span.SpanKind.values():
            store.add(export(span(f"{code} {kind}", status=code, kind=kind)))
    kinds = ("unspecified", "internal", "server", "client", "producer", "consumer")
    for code, status in enumerate(("unset", "ok", "error")):
        for number, kind in enumerate(kinds):
            found = await spans_found(api, f"{{ status = {status} && kind = {kind} }}")
            assert found == {f"{code} {number}"}


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ("{ status = error } | count() > 2", "nothing around it"),
        ("{ status = error } && { kind = server }", "}"),
        ("{ status = error } >> { kind = server }", "} >>"),
        ('name = "x"', "one { ... }"),
        ("{ status = error", "one { ... }"),
        ("{ event.name = 1 }", "event.name"),
        ("{ parent.a = 1 }", "parent.a"),
        ("{ nestedSetParent < 0 }", "nestedSetParent"),
        ("{ span. = 1 }", "span."),
        ("{ span.a }", "span.a"),
        ("{ !(span.a = 1) }", "!"),
        ("{ span.a + 1 > 2 }", "span.a + 1"),
        ("{ 1 = span.a }", "1 = span.a"),
        ("{ span.a = span.b }", "span.b"),
        ("{ span.a = nil }", "nil"),
        ("{ ? }", "?"),
        ('{ span.a = "x }', '"x'),
        ("{ status = broken }", "broken"),
        ('{ status = "error" }', "one of unset, ok, error"),
        ("{ kind = 3 }", "3"),
        ("{ duration > 5x }", "5x"),
        ('{ name =~ "(" }', "unterminated"),
        ("{ span.a = 1 span.b = 2 }", "joined by && or ||"),
        ("{ span.a = 1 && }", "joined by && or ||"),
        ("{ (span.a = 1 }", "parentheses"),
        ("{ span.a = 1) || (span.b = 2 }", "parentheses"),
        ("{ () }", "parentheses"),
        ("{" + "(" * 31 + "kind=server" + ")" * 31 + "}", "parentheses"),
        ("{" + " || ".join(["kind=server"] * 301) + "}", "300 comparisons"),
        (f"{{ span.a = {2**63} }}", "too large"),
    ],
)
async def test_says_which_part_of_a_query_it_does_not_support(
    api: httpx.AsyncClient, chat: Span, query: str, part: str
) -> None:
    answer = await api.get("/api/search", params={"q": query})
    assert answer.status_code == 400
    assert part in answer.text


@pytest.mark.parametrize(
    "tags",
    [
        "service.name=llm-proxy",
        "service.name=LLM",
        "status.code=error",
        'name="chat gpt"',
        "root.name=/chat root.service.name=gate",
        "http.response.status_code=429 streamed=true",
        "model=gpt",
        'quote="say \\"hi\\""',
        # each tag on a span of its own
        "service.name=gateway status.code=error",
        "zone=eu model=gpt",
    ],
)
async def test_finds_traces_by_tags(api: httpx.AsyncClient, chat: Span, tags: str) -> None:
    (found,) = await search(api, tags=tags)
    assert found["traceID"] == "abcdef"
    assert "spanSets" not in found


@pytest.mark.parametrize(
    "tags", ["service.name=nobody", "service.name=gateway zone=asia", "missing=x", "model=%"]
)
async def test_finds_no_trace_without_all_tags(
    api: httpx.AsyncClient, chat: Span, tags: str
) -> None:
    assert await search(api, tags=tags) == []


async def test_finds_traces_by_duration(api: httpx.AsyncClient, chat: Span) -> None:
    async def roots(**asked: object) -> list[str]:
        return [trace["rootTraceName"] for trace in await search(api, **asked)]

    assert await roots(maxDuration="2s") == ["POST /chat"]
    assert await roots(maxDuration="1999ms") == []
    assert await roots(minDuration="2001ms") == ["unrelated"]
    assert await roots(minDuration="1s", maxDuration="1m") == ["POST /chat", "unrelated"]
    assert await roots(q="{ status = error }", minDuration="10s") == []


async def test_finds_traces_by_time(api: httpx.AsyncClient, chat: Span) -> None:
    async def roots(start: int, end: int) -> list[str]:
        second = START // SECOND
        found = await search(api, start=second + start, end=second + end)
        return [trace["rootTraceName"] for trace in found]

    assert await roots(-5, 5) == ["POST /chat"]
    assert await roots(-40, -35) == ["unrelated"]
    assert await roots(-40, 0) == ["POST /chat", "unrelated"]
    assert await roots(3, 100) == []


async def test_gives_the_latest_traces_first_up_to_a_limit(
    api: httpx.AsyncClient, store: Store
) -> None:
    for second in (3, 1, 2):
        store.add(export(span(str(second), start=START + second * SECOND)))
    names = [trace["rootTraceName"] for trace in await search(api, q="{}", limit=2)]
    assert names == ["3", "2"]
    store.add(export(*(span() for _ in range(30))))
    assert len(await search(api)) == 20


async def test_shows_the_first_spans_of_a_set(api: httpx.AsyncClient, store: Store) -> None:
    trace = new_id(16)
    store.add(export(*(span(str(n), trace=trace, start=START + n) for n in (5, 1, 4, 2, 3))))
    query = '{ name != "" }'
    (found,) = await search(api, q=query)
    assert [span["name"] for span in found["spanSet"]["spans"]] == ["1", "2", "3"]
    assert found["spanSet"]["matched"] == 5
    (found,) = await search(api, q=query, spss=1)
    assert len(found["spanSet"]["spans"]) == 1


async def test_names_a_root_that_came_late(api: httpx.AsyncClient, store: Store) -> None:
    root = span("root")
    store.add(export(span("child", trace=root.trace_id, parent=root.span_id)))
    (found,) = await search(api)
    assert found["rootServiceName"] == "<root span not yet received>"
    assert found["rootTraceName"] == ""
    store.add(export(root))
    (found,) = await search(api)
    assert (found["rootServiceName"], found["rootTraceName"]) == ("gateway", "root")


@pytest.mark.parametrize(
    "asked",
    [
        {"limit": "0"},
        {"limit": "-1"},
        {"limit": "many"},
        {"spss": "0"},
        {"start": "5"},
        {"start": "5", "end": "5"},
        {"start": "x", "end": "5"},
        {"end": "9999999999"},
        {"minDuration": "5"},
        {"maxDuration": "soon"},
        {"tags": "word"},
        {"tags": 'key="open'},
        {"q": "{}", "tags": "a=b"},
    ],
)
async def test_refuses_bad_parameters(api: httpx.AsyncClient, asked: dict[str, str]) -> None:
    answer = await api.get("/api/search", params=asked)
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text
