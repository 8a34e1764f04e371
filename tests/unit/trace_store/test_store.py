"""What stays, what is forgotten, and how large the files grow."""

import os
from collections.abc import Iterable
from pathlib import Path

from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from deploy.local.trace_store.store import Store
from tests.support.trace_samples import START, export, new_id, span, spans_of

MEGABYTE = 2**20


def bulky(trace: bytes, size: int = 20_000) -> TracesData:
    """An export with a span of about `size` bytes."""
    return export(span(trace=trace, attributes={"noise": os.urandom(size // 2).hex()}))


def present(store: Store, traces: Iterable[bytes]) -> list[int]:
    """How many spans each trace has."""
    return [len(spans_of(store.trace(trace))) for trace in traces]


def test_keeps_its_traces_when_it_is_opened_again(tmp_path: Path) -> None:
    sent = span()
    first = Store(tmp_path / "new" / "folder", MEGABYTE)
    first.add(export(sent))
    first.close()
    second = Store(tmp_path / "new" / "folder", MEGABYTE)
    assert second.trace(sent.trace_id) == export(sent)
    second.close()


def test_the_files_stay_below_the_limit(tmp_path: Path) -> None:
    limit, size = 16 * MEGABYTE, 100_000
    store = Store(tmp_path, limit)
    traces = [new_id(16) for _ in range(2 * limit // size)]
    largest = 0
    for trace in traces:
        store.add(bulky(trace, size))
        largest = max(largest, sum(file.stat().st_size for file in tmp_path.iterdir()))
    kept = present(store, traces)
    store.close()
    assert limit / 2 < largest < limit
    assert sum(kept) * size > limit / 8
    assert kept == sorted(kept), "the oldest are forgotten first"


def test_forgets_whole_traces_and_those_first_that_have_been_quiet(tmp_path: Path) -> None:
    store = Store(tmp_path, MEGABYTE)
    quiet, busy = new_id(16), new_id(16)
    store.add(export(span(trace=busy), span(trace=quiet), span(trace=quiet, parent=new_id(8))))
    added = 0
    while present(store, [quiet]) == [2]:
        store.add(bulky(new_id(16)))
        store.add(export(span(trace=busy)))
        added += 1
    assert present(store, [quiet, busy]) == [0, added + 1]
    store.close()


def test_a_trace_larger_than_the_limit_does_not_break_it(tmp_path: Path) -> None:
    store = Store(tmp_path, MEGABYTE)
    endless = new_id(16)
    for _ in range(100):
        store.add(bulky(endless))
    after = span()
    store.add(export(after))
    assert store.trace(after.trace_id) == export(after)
    store.close()
    assert (tmp_path / "traces.sqlite3").stat().st_size <= MEGABYTE


def test_forgets_the_resources_of_forgotten_traces(tmp_path: Path) -> None:
    store = Store(tmp_path, MEGABYTE)
    for number in range(100):
        store.add(export(span(), process=number, noise=os.urandom(5_000).hex()))
    (row,) = store.read("SELECT count(*) AS origins, (SELECT count(*) FROM trace) AS n FROM origin")
    store.close()
    assert row["origins"] == row["n"] + 1, "a resource for each trace, and one scope"


def test_stores_a_shared_resource_once(store: Store) -> None:
    for _ in range(3):
        store.add(export(span(), span()))
    (row,) = store.read("SELECT count(*) AS origins FROM origin")
    assert row["origins"] == 2


def test_two_spans_may_share_an_id_when_their_kinds_differ(store: Store) -> None:
    client = span(kind=Span.SPAN_KIND_CLIENT)
    server = span(trace=client.trace_id, id=client.span_id, kind=Span.SPAN_KIND_SERVER)
    store.add(export(client, server))
    assert present(store, [client.trace_id]) == [2]


def test_the_earliest_root_names_the_trace(store: Store) -> None:
    trace = new_id(16)
    store.add(export(span("late", trace=trace, start=START + 5)))
    store.add(export(span("early", trace=trace, start=START), service="first"))
    store.add(export(span("later", trace=trace, start=START + 9)))
    (row,) = store.read("SELECT root_name, root_service FROM trace")
    assert tuple(row) == ("early", "first")
