"""Traces in one SQLite file, which stays below a size because the oldest are deleted."""

import base64
import json
import math
import re
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from contextlib import closing
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

ADD_SPAN = f"INSERT INTO record VALUES ({', '.join('?' * 12)}) ON CONFLICT DO NOTHING"
ADD_ORIGIN = "INSERT INTO origin VALUES (NULL, ?, ?) ON CONFLICT DO UPDATE SET id = id RETURNING id"
FORGET_OLDEST = "DELETE FROM trace WHERE id IN oldest AND (SELECT bytes FROM used) + ? > ?"


class Store:
    """Keeps spans on disk: once `add` has returned, they survive the process, however it ends.

    Half of `max_bytes` is left to SQLite's write-ahead log. Any thread may call any method.
    Raises OSError or sqlite3.Error where the file can't be used.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "traces.sqlite3"
        self._budget = max_bytes // 2
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._writer = sqlite3.connect(self._path, check_same_thread=False)
        self._writer.executescript(Path(__file__).with_name("schema.sql").read_text())

    def close(self) -> None:
        """Close the file: interrupt readers, and wait for a write under way."""
        self._closed.set()
        with self._lock:
            self._writer.close()

    def add(self, export: TracesData) -> None:
        """Store all spans or none. Raises IntegrityError or OverflowError for bad ids or times."""
        with self._lock, self._writer:
            self._make_room(2 * export.ByteSize())
            for group in export.resource_spans:
                resource = ResourceSpans(resource=group.resource, schema_url=group.schema_url)
                resource_id = self._origin(resource, group.resource.attributes)
                for part in group.scope_spans:
                    scope = ScopeSpans(scope=part.scope, schema_url=part.schema_url)
                    origins = resource_id, self._origin(scope, ())
                    self._writer.executemany(ADD_SPAN, (row(s, origins) for s in part.spans))
            self._make_room(0)

    def _origin(self, message: ResourceSpans | ScopeSpans, attributes: Iterable[KeyValue]) -> int:
        values = message.SerializeToString(deterministic=True), to_json(attributes)
        return int(self._writer.execute(ADD_ORIGIN, values).fetchall()[0][0])

    def _make_room(self, needed: int) -> None:
        """Delete the oldest traces until `needed` bytes fit: SQLite uses freed pages again."""
        while self._writer.execute(FORGET_OLDEST, (needed, self._budget)).rowcount:
            pass

    def read(self, sql: str, parameters: Mapping[str, object] | None = None) -> list[sqlite3.Row]:
        """Query the tables and views of schema.sql, with everything added until now."""
        with closing(sqlite3.connect(self._path)) as reader:
            reader.row_factory = sqlite3.Row
            reader.create_function("regexp", 2, lambda p, text: re.fullmatch(p, text) is not None)
            reader.set_progress_handler(self._closed.is_set, 10_000)
            return reader.execute(sql, parameters or {}).fetchall()

    def trace(self, trace_id: bytes) -> TracesData:
        """The spans of a trace, none when there is no such trace."""
        data = TracesData()
        rows = self.read("SELECT * FROM stored_span WHERE trace = :id", {"id": trace_id})
        for (resource, scope), spans in groupby(rows, itemgetter("resource", "scope")):
            group = data.resource_spans.add()
            group.MergeFromString(resource)
            group.scope_spans.add().MergeFromString(scope)
            group.scope_spans[0].spans.extend(Span.FromString(span["data"]) for span in spans)
        return data


def row(span: Span, origins: tuple[int, int]) -> tuple[object, ...]:
    """The columns of table `record` for a span: those for searches, then the span as it came."""
    ids = span.trace_id, span.span_id, span.parent_span_id
    times = span.start_time_unix_nano, span.end_time_unix_nano
    searched = span.name, span.kind, span.status.code, *times, to_json(span.attributes)
    return *ids, *searched, *origins, span.SerializeToString()


def to_json(attributes: Iterable[KeyValue]) -> str:
    return json.dumps({pair.key: plain(pair.value) for pair in attributes})


def plain(value: AnyValue) -> object:
    """A value for JSON: bytes become base64, and NaN and infinities text, since JSON has none."""
    match value.WhichOneof("value"):
        case "array_value":
            return [plain(item) for item in value.array_value.values]
        case "kvlist_value":
            return {pair.key: plain(pair.value) for pair in value.kvlist_value.values}
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "double_value" if not math.isfinite(value.double_value):
            return str(value.double_value)
        case field:
            return getattr(value, field) if field else None
