"""What waits to be sent: bounded, counted when it is lost, and told of once."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, get_value
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource

from o11y import batches, schema
from o11y.batches import Batches, Limits, Outlet, Reports
from o11y.metering import Counter
from o11y.otlp import Row
from o11y.sending import Failure

DOWN = Failure("connect_error", "can't be reached", True)
FORBIDS = Failure("401", "answers 401", False, credentials=True)
STRICT = Failure("400", "answers 400", False)
RESOURCE = Resource.get_empty()


class Script:
    """A backend whose every answer the test gives."""

    address = "backend"

    def __init__(self) -> None:
        self.asked: queue.Queue[int] = queue.Queue()
        self.answers: queue.Queue[int | Failure] = queue.Queue()
        self.always: int | Failure | None = None
        self.suppressed: object = None
        self.seconds = 0.0

    def send(self, body: bytes, seconds: float) -> int | Failure:
        self.suppressed = get_value(_SUPPRESS_INSTRUMENTATION_KEY)
        self.seconds = seconds
        self.asked.put(rows(body))
        return self.answers.get(timeout=10) if self.always is None else self.always

    def close(self) -> None:
        self.always = DOWN
        self.answers.put(DOWN)

    def gets(self) -> int:
        """Rows of the next attempt, which waits for its answer."""
        return self.asked.get(timeout=5)


def rows(body: bytes) -> int:
    request = ExportTraceServiceRequest.FromString(body)
    return sum(len(scope.spans) for part in request.resource_spans for scope in part.scope_spans)


class Way:
    """A queue before a scripted backend, and its counters."""

    def __init__(self, reports: Reports, signal: str = "traces", limits: Limits | None = None):
        self.backend = Script()
        self.exported = Counter(schema.SPANS_EXPORTED)
        self.processed = Counter(schema.SPANS_PROCESSED)
        self.outlet = Outlet(signal, self.backend, self.exported, "exporter", reports)
        self.batches = Batches(
            self.outlet, self.processed, "processor", limits or Limits(8, 4, 0.01)
        )

    def put(self, count: int, size: int = 10) -> None:
        for _ in range(count):
            self.batches.put(Row(RESOURCE, None, b"\x2a" + bytes([size - 2]) + b"x" * (size - 2)))


def counted(counter: Counter) -> dict[object, float]:
    """The sums by `error.type`."""
    points = counter.read(0, 1).data.data_points
    return {(p.attributes or {}).get(schema.ERROR_TYPE): p.value for p in points}  # type: ignore[union-attr]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(batches, "CLOSE_SECONDS", 0.3)


@pytest.fixture
def ways() -> Iterator[Callable[..., Way]]:
    made: list[Way] = []

    def make(*arguments: object, **options: object) -> Way:
        made.append(Way(*arguments, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for way in made:
        way.batches.close()


@pytest.fixture
def way(ways: Callable[..., Way]) -> Way:
    return ways(Reports())


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    assert {record.levelno for record in caplog.records} <= {logging.WARNING}
    assert not any(record.exc_info for record in caplog.records)
    return [record.getMessage() for record in caplog.records]


def test_a_row_does_not_wait_for_a_batch(way: Way) -> None:
    way.put(1)
    assert way.backend.gets() == 1
    assert way.backend.suppressed is True
    way.backend.answers.put(0)
    until(lambda: counted(way.exported) == {None: 1})
    assert counted(way.processed) == {None: 1}


def test_the_oldest_rows_make_room_and_are_counted(
    way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    way.put(1)
    assert way.backend.gets() == 1  # under way, and no answer comes
    way.put(20)
    assert len(way.batches._rows) == 8
    assert counted(way.processed) == {None: 1, "queue_full": 12}
    way.backend.always = 0
    way.backend.answers.put(0)
    until(lambda: counted(way.exported) == {None: 9})
    until(lambda: len(lines(caplog)) == 2)
    assert lines(caplog) == [
        "telemetry is being lost: more is waiting than backend takes",
        "telemetry arrives again at backend",
    ]


def test_large_rows_are_bounded_by_their_bytes(
    ways: Callable[..., Way], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "QUEUE_BYTES", 500)
    monkeypatch.setattr(batches, "BATCH_BYTES", 250)
    monkeypatch.setattr(batches, "LARGEST_ROW", 101)
    way = ways(Reports(), limits=Limits(1000, 100, 0.01))
    way.put(1)
    assert way.backend.gets() == 1
    way.put(9, size=100)
    assert way.batches._bytes == 500
    way.put(1, size=102)
    assert counted(way.processed) == {None: 1, "queue_full": 4, "too_large": 1}
    way.backend.always = 0
    way.backend.answers.put(0)
    assert [way.backend.gets() for _ in range(3)] == [2, 2, 1]
    until(lambda: way.batches._bytes == 0)


def test_a_batch_that_failed_is_sent_again(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    way.put(3)
    for answer in (DOWN, DOWN, 0):
        assert way.backend.gets() == 3
        way.backend.answers.put(answer)
    until(lambda: counted(way.exported) == {None: 3})
    assert lines(caplog) == []


def test_a_batch_that_fails_for_too_long_is_dropped(
    way: Way, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(batches, "GIVE_UP_SECONDS", 0.05)
    way.backend.always = DOWN
    way.put(3)
    until(lambda: counted(way.exported) == {"connect_error": 3})
    way.put(2)
    until(lambda: counted(way.exported) == {"connect_error": 5})
    assert lines(caplog) == ["telemetry is being lost: backend can't be reached"]
    way.backend.always = 0
    way.put(1)
    until(lambda: len(lines(caplog)) == 2)
    assert lines(caplog)[1] == "telemetry arrives again at backend"
    assert counted(way.exported) == {"connect_error": 5, None: 1}


def test_wrong_credentials_are_told_once_for_all_signals_with_the_variable_to_look_at(
    ways: Callable[..., Way], caplog: pytest.LogCaptureFixture
) -> None:
    reports = Reports()
    signals = [ways(reports, signal) for signal in ("traces", "logs", "metrics")]
    for way in signals:
        way.backend.always = FORBIDS
    for number in range(1, 4):
        for way in signals:
            way.put(1)
            until(lambda way=way, number=number: counted(way.exported) == {"401": number})  # type: ignore[misc]
    assert lines(caplog) == [
        "telemetry is being lost: backend answers 401; see OTEL_EXPORTER_OTLP_HEADERS"
    ]
    for number, way in enumerate(signals):
        assert len(lines(caplog)) == 1, number
        way.backend.always = 0
        way.put(1)
        until(lambda way=way: counted(way.exported).get(None) == 1)  # type: ignore[misc]
    until(lambda: len(lines(caplog)) == 2)
    assert lines(caplog)[1] == "telemetry arrives again at backend"


def test_another_trouble_in_an_outage_is_told_as_well(
    ways: Callable[..., Way], caplog: pytest.LogCaptureFixture
) -> None:
    reports = Reports()
    for kind, why in [("unreachable", "a"), ("credentials", "b"), ("unreachable", "c")]:
        reports.lost("traces", kind, why)
    assert lines(caplog) == ["telemetry is being lost: a", "telemetry is being lost: b"]
    reports.lost("logs", "refused", "d")
    reports.arrived("traces", "backend")
    assert lines(caplog)[2:] == ["telemetry is being lost: d", "telemetry arrives again at backend"]
    reports.arrived("traces", "backend")
    assert len(lines(caplog)) == 4


def test_what_fails_now_and_then_is_told_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = Reports()
    for _ in range(50):
        reports.lost("traces", "refused", "backend answers 400")
        reports.arrived("traces", "backend")
    assert len(lines(caplog)) == 2
    monkeypatch.setattr(batches, "REMIND_SECONDS", 0.0)
    reports.lost("traces", "refused", "backend answers 400")
    assert len(lines(caplog)) == 3


def test_rows_the_backend_finds_wrong_are_not_sent_again(way: Way) -> None:
    way.put(3)
    assert way.backend.gets() == 3
    way.backend.answers.put(STRICT)
    way.put(1)
    assert way.backend.gets() == 1
    way.backend.answers.put(0)
    until(lambda: counted(way.exported) == {"400": 3, None: 1})


def test_rows_the_backend_refused_are_lost(way: Way, caplog: pytest.LogCaptureFixture) -> None:
    way.put(3)
    assert way.backend.gets() == 3
    way.backend.answers.put(2)
    until(lambda: counted(way.exported) == {None: 1, "rejected": 2})
    assert lines(caplog) == ["telemetry is being lost: backend refused 2 rows"]


def test_a_backend_is_left_alone_as_long_as_it_asks(way: Way) -> None:
    way.put(1)
    assert way.backend.gets() == 1
    way.backend.answers.put(DOWN._replace(wait=0.3))
    began = time.monotonic()
    assert way.backend.gets() == 1
    assert time.monotonic() - began >= 0.28
    way.backend.answers.put(0)


def test_nothing_is_asked_again_and_again_while_it_fails(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "LONGEST_PAUSE", 0.2)
    way.backend.always = DOWN
    way.put(1)
    way.backend.gets()
    began = time.monotonic()
    for _ in range(3):
        way.backend.gets()
    assert time.monotonic() - began >= 3 * 0.8 * 0.2 - 0.02


def test_the_end_sends_what_waits(ways: Callable[..., Way]) -> None:
    way = ways(Reports(), limits=Limits(100, 50, 600))
    way.backend.always = 0
    way.put(7)
    way.batches.close()
    assert counted(way.exported) == {None: 7}
    way.put(1)
    assert counted(way.processed)["already_shutdown"] == 1


@pytest.mark.parametrize("under_way", [True, False])
def test_a_backend_that_hangs_holds_the_end_for_a_while_only(
    under_way: bool, ways: Callable[..., Way]
) -> None:
    way = ways(Reports(), limits=Limits(100, 4, 0.01 if under_way else 600))
    way.put(3)
    if under_way:
        assert way.backend.gets() == 3
    way.put(40)
    began = time.monotonic()
    way.batches.close()
    assert 0.25 < time.monotonic() - began < 2
    assert under_way or way.backend.seconds <= 0.3


def test_rows_from_many_threads_are_all_counted(ways: Callable[..., Way]) -> None:
    way = ways(Reports(), limits=Limits(64, 16, 0.001))
    way.backend.always = 0
    threads = [threading.Thread(target=way.put, args=[2000]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def all_told() -> bool:
        dropped = counted(way.processed).get("queue_full", 0)
        return counted(way.exported).get(None, 0) + dropped == 8000

    until(all_told)
