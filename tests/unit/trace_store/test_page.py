"""The pages for people."""

import re

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from deploy.local.trace_store.store import Store
from tests.support.trace_samples import SECOND, START, export, new_id, pairs, span

EVIL = "<script>alert('x')</script>&\"<b>"


def names(page: str) -> list[tuple[int, str]]:
    """Depth and name of each row of a waterfall."""
    rows = re.findall(r'--depth: (\d+)">\s*<summary>\s*<span class="name">.*?</span>(\w+)', page)
    return [(int(depth), name) for depth, name in rows]


async def waterfall(api: httpx.AsyncClient, trace: bytes) -> str:
    answer = await api.get(f"/trace/{trace.hex()}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.text


async def test_lists_the_newest_traces(api: httpx.AsyncClient, store: Store) -> None:
    assert "None yet" in (await api.get("/")).text
    for number in range(60):
        store.add(export(span(f"trace{number}", start=START + number * SECOND, seconds=0.25)))
    failed = span("broken", start=START + 99 * SECOND, status=Status.STATUS_CODE_ERROR)
    store.add(export(failed, service="llm-proxy"))
    page = (await api.get("/")).text
    assert re.findall(r">(trace\d+|broken)</a>", page) == [
        "broken",
        *(f"trace{number}" for number in range(59, 10, -1)),
    ]
    assert f'href="/trace/{failed.trace_id.hex()}"' in page
    assert "llm-proxy" in page
    assert "2026-09-21 " in page
    assert "250.00 ms" in page
    assert page.count("1 failed") == 1


async def test_lists_a_trace_whose_root_is_missing(api: httpx.AsyncClient, store: Store) -> None:
    orphan = span(parent=new_id(8))
    store.add(export(orphan))
    page = (await api.get("/")).text
    assert "not yet known" in page
    assert f">{orphan.trace_id.hex()}</a>" in page


async def test_shows_spans_below_their_parents(api: httpx.AsyncClient, store: Store) -> None:
    root = span("root", seconds=4)
    trace = root.trace_id

    def below(parent: Span, name: str, second: int) -> Span:
        return span(name, trace=trace, parent=parent.span_id, start=START + second * SECOND)

    first, second = below(root, "first", 1), below(root, "second", 2)
    store.add(
        export(below(second, "d", 2), below(first, "c", 2), second, below(first, "b", 1), root)
    )
    store.add(export(first, service="other", host="h1"))
    page = await waterfall(api, trace)
    assert names(page) == [(0, "root"), (1, "first"), (2, "b"), (2, "c"), (1, "second"), (2, "d")]
    assert "left: 0.000%; width: 100.000%" in page
    assert "left: 25.000%; width: 25.000%" in page
    assert "4.00 s, 6 spans" in page
    assert "h1" in page


async def test_shows_spans_without_a_way_to_a_root(api: httpx.AsyncClient, store: Store) -> None:
    trace = new_id(16)
    left, right, own = new_id(8), new_id(8), new_id(8)
    store.add(
        export(
            span("left", trace=trace, id=left, parent=right),
            span("right", trace=trace, id=right, parent=left),
            span("own", trace=trace, id=own, parent=own),
            span("orphan", trace=trace, parent=new_id(8)),
        )
    )
    page = await waterfall(api, trace)
    assert {(0, "own"), (0, "orphan"), (0, "left"), (0, "right")} == set(names(page))


async def test_shows_shared_ids_once(api: httpx.AsyncClient, store: Store) -> None:
    trace, shared, other = new_id(16), new_id(8), new_id(8)
    kinds = [kind for kind in Span.SpanKind.values() if kind]
    store.add(
        export(
            span("root", trace=trace, id=shared),
            *(span("a", trace=trace, id=other, parent=shared, kind=kind) for kind in kinds),
            *(span("b", trace=trace, id=shared, parent=other, kind=kind) for kind in kinds[1:]),
        )
    )
    assert len(names(await waterfall(api, trace))) == 1 + len(kinds) + len(kinds[1:])


async def test_shows_a_deep_trace(api: httpx.AsyncClient, store: Store) -> None:
    spans = [span("deep")]
    for _ in range(500):
        spans.append(span("deep", trace=spans[0].trace_id, parent=spans[-1].span_id))
    store.add(export(*spans))
    depths = [depth for depth, _ in names(await waterfall(api, spans[0].trace_id))]
    assert depths == list(range(501))


async def test_escapes_whatever_was_sent(api: httpx.AsyncClient, store: Store) -> None:
    sent = span(
        f"name {EVIL}",
        status=Status.STATUS_CODE_ERROR,
        message=f"message {EVIL}",
        attributes={f"key {EVIL}": f"value {EVIL}", "list": [EVIL], "many": 5},
    )
    sent.events.add(
        name=f"event {EVIL}",
        time_unix_nano=START + SECOND // 2,
        attributes=pairs({f"key {EVIL}": EVIL}),
    )
    store.add(export(sent, service=f"service {EVIL}", zone=EVIL))
    for page in (await waterfall(api, sent.trace_id), (await api.get("/")).text):
        assert "<script" not in page
        assert "<b>" not in page
        assert "name &lt;script&gt;" in page
        assert "service &lt;script&gt;" in page
    page = await waterfall(api, sent.trace_id)
    for text in ("message", "key", "value", "event"):
        assert f"{text} &lt;script&gt;" in page
    assert "after 500.00 ms" in page
    assert 'class="error">failed' in page


async def test_needs_nothing_from_elsewhere(api: httpx.AsyncClient, store: Store) -> None:
    sent = span()
    store.add(export(sent))
    for page in (await waterfall(api, sent.trace_id), (await api.get("/")).text):
        assert "default-src 'none'" in page
        assert "prefers-color-scheme: dark" in page
        assert not re.search(r"<script|<link|<img|@import|url\(|https?://", page)


async def test_says_when_there_is_no_such_trace(api: httpx.AsyncClient) -> None:
    assert (await api.get(f"/trace/{new_id(16).hex()}")).status_code == 404


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0000005, "0.5 µs"), (0.0125, "12.50 ms"), (61, "61.00 s")]
)
async def test_writes_durations_for_people(
    api: httpx.AsyncClient, store: Store, seconds: float, text: str
) -> None:
    sent = span(seconds=seconds)
    store.add(export(sent))
    assert text in await waterfall(api, sent.trace_id)
