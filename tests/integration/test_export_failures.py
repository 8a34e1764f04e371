"""When telemetry's backend fails requests don't notice, people are told once, and it recovers."""

import logging
import signal
import socket
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2
import psutil
import pytest
from opentelemetry._logs import LogRecord
from prometheus_client.samples import Sample

from o11y.settings import ServiceSettings
from o11y.telemetry.signals import Telemetry
from tests.support.collectors import (
    Collector,
    Conduct,
    GrpcCollector,
    HttpCollector,
    log_bodies,
    metric_names,
    span_names,
    spans,
)
from tests.support.llm import KEY, chat, gateway, llm_proxy, post, provider
from tests.support.openai_standin import Standin
from tests.support.processes import Service, free_ports
from tests.support.telemetry_variables import set_variables
from tests.support.waiting import until

HTTP = "http/protobuf"
GRPC = "grpc"
EXPORTING = {
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_METRICS_EXPORTER": "otlp",
    "OTEL_LOGS_EXPORTER": "otlp",
    "OTEL_BSP_SCHEDULE_DELAY": "50",
    "OTEL_BLRP_SCHEDULE_DELAY": "50",
}


@pytest.fixture
def start() -> Iterator[Callable[[str, int], Collector]]:
    """Starts collectors, which end with the test."""
    with ExitStack() as running:

        def started(protocol: str, port: int) -> Collector:
            collector = HttpCollector(port) if protocol == HTTP else GrpcCollector(port)
            running.callback(collector.stop)
            return collector

        yield started


@pytest.fixture
def telemetry_to(
    monkeypatch: pytest.MonkeyPatch, start: object
) -> Iterator[Callable[..., Telemetry]]:
    """The telemetry of a process that hardly waits, and keeps little; it ends before collectors."""
    running = ExitStack()

    def made(port: int, protocol: str, timeout: str = "0.5") -> Telemetry:
        set_variables(
            monkeypatch,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_TIMEOUT=timeout,
            OTEL_BSP_SCHEDULE_DELAY="10",
            OTEL_BSP_MAX_QUEUE_SIZE="20",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="10",
            OTEL_BLRP_SCHEDULE_DELAY="10",
            OTEL_BLRP_MAX_QUEUE_SIZE="20",
            OTEL_BLRP_MAX_EXPORT_BATCH_SIZE="10",
            OTEL_METRIC_EXPORT_INTERVAL="100",
        )
        telemetry = Telemetry("thing-svc", ServiceSettings(app_port=8000))
        running.callback(telemetry.shutdown)
        return telemetry

    with running:
        yield made


class Lines(logging.Handler):
    """Keeps what reaches the log of the process."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def log() -> Iterator[Lines]:
    # pytest's own would hear loggers, too, that keep their lines from the log
    lines = Lines()
    logging.getLogger().addHandler(lines)
    yield lines
    logging.getLogger().removeHandler(lines)


def work(telemetry: Telemetry, name: str, count: int = 1) -> None:
    logger = telemetry.logger_provider.get_logger("things")
    for _ in range(count):
        telemetry.tracer.start_span(name).end()
        logger.emit(LogRecord(body=name))


def samples(telemetry: Telemetry) -> Iterator[Sample]:
    """What the SDK measures of itself."""
    for family in telemetry.registry.collect():
        if family.name.startswith("otel_sdk_"):
            yield from family.samples


def lost(telemetry: Telemetry) -> dict[str, float]:
    """The records that were dropped or that nobody took, by what they were."""
    found: Counter[str] = Counter()
    for sample in samples(telemetry):
        if sample.labels.get("error_type") and sample.name.endswith("_total"):
            found[sample.name.split("_")[3]] += int(sample.value)
    return dict(found)


def failed_exports(telemetry: Telemetry) -> set[str]:
    """What could not export: span, log, metric."""
    return {
        sample.labels["otel_component_type"].split("_")[2]
        for sample in samples(telemetry)
        if sample.name == "otel_sdk_exporter_operation_duration_seconds_count"
        and (sample.labels.get("error_type") or sample.labels.get("http_response_status_code"))
    }


def nearly(counted: float, true: float) -> bool:
    """Whether a count is right but for the SDK's race: whether its queue is full is asked without
    the lock that guards it.
    """
    return abs(counted - true) <= 10


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
@pytest.mark.parametrize("conduct", [None, "hangs", "busy", "unavailable", "forbids"])
def test_what_is_lost_is_counted_and_told_once_and_all_signals_recover(
    conduct: Conduct | None,
    protocol: str,
    telemetry_to: Callable[..., Telemetry],
    start: Callable[[str, int], Collector],
    log: Lines,
) -> None:
    (port,) = free_ports(1)
    collector = None
    if conduct:
        collector = start(protocol, port)
        collector.conduct = conduct
    telemetry = telemetry_to(port, protocol)
    work(telemetry, "lost", 200)
    until(lambda: failed_exports(telemetry) == {"span", "log", "metric"})
    until(lambda: bool(log.records))
    if collector:
        collector.recover()
    else:
        collector = start(protocol, port)
    work(telemetry, "found")
    until(lambda: span_names(collector)["found"] == 1 and log_bodies(collector)["found"] == 1)
    until(lambda: "otel.sdk.exporter.span.exported" in metric_names(collector))
    until(lambda: len(log.records) == 2)
    # the SDK's HTTP exporters count what was answered by an error status as exported
    if protocol == GRPC or conduct in (None, "hangs"):
        until(lambda: nearly(lost(telemetry)["span"], 200 - span_names(collector)["lost"]))
        until(lambda: nearly(lost(telemetry)["log"], 200 - log_bodies(collector)["lost"]))
    told, recovered = log.messages()
    assert told.startswith(f"telemetry is being lost: http://127.0.0.1:{port}: Failed to export ")
    assert ("see OTEL_EXPORTER_OTLP_HEADERS" in told) == (conduct == "forbids")
    assert recovered == f"telemetry arrives again at http://127.0.0.1:{port}"
    assert not any(record.exc_info for record in log.records)
    assert {record.levelno for record in log.records} == {logging.WARNING}


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
def test_a_collector_that_dies_in_mid_run_is_found_again(
    protocol: str,
    telemetry_to: Callable[..., Telemetry],
    start: Callable[[str, int], Collector],
) -> None:
    (port,) = free_ports(1)
    collector = start(protocol, port)
    telemetry = telemetry_to(port, protocol, "10")
    work(telemetry, "before")
    until(lambda: span_names(collector)["before"] == 1)
    collector.stop()
    work(telemetry, "meanwhile", 5)
    collector = start(protocol, port)
    work(telemetry, "after")
    until(lambda: span_names(collector) == {"meanwhile": 5, "after": 1})


@pytest.fixture(params=[HTTP, GRPC])
def protocol(request: pytest.FixtureRequest) -> str:
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture
def collector(protocol: str, start: Callable[[str, int], Collector]) -> Collector:
    return start(protocol, 0)


@pytest.fixture
def exporting(
    protocol: str, collector: Collector, standin: Standin, tmp_path: Path
) -> Iterator[Service]:
    """llm-proxy that exports to the collector."""
    with llm_proxy(
        tmp_path,
        provider("openai", standin),
        **EXPORTING,
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.port}",
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
    ) as running:
        yield running


def seconds(url: str, duration: float) -> list[float]:
    """How long each call takes, of two clients that call for so long."""

    def client() -> list[float]:
        times = []
        until = time.monotonic() + duration
        with httpx2.Client() as http:
            while (began := time.monotonic()) < until:
                call = chat()
                assert http.post(f"{url}{call.path}", json=call.body, timeout=10).is_success
                times.append(time.monotonic() - began)
        return times

    with ThreadPoolExecutor(2) as pool:
        return [each for part in pool.map(lambda _: client(), range(2)) for each in part]


def p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[-1]


def sample(url: str, name: str) -> float:
    """The sum of a metric's series on /metrics."""
    lines = httpx2.get(f"{url}/metrics", timeout=10).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_requests_and_memory_do_not_notice_a_collector_that_hangs(
    exporting: Service, collector: Collector
) -> None:
    healthy, hanging = [], []
    seconds(exporting.url, 1)
    process = psutil.Process(exporting.process.pid)
    before = process.memory_info().rss
    for _ in range(3):
        collector.recover()
        healthy.append(p99(seconds(exporting.url, 1)))
        collector.let_go.clear()
        collector.conduct = "hangs"
        hanging.append(p99(seconds(exporting.url, 1.5)))
    assert statistics.median(hanging) < 3 * statistics.median(healthy) + 0.02
    assert process.memory_info().rss - before < 50e6


def test_a_full_queue_stays_bounded_and_the_process_ends_in_time(
    protocol: str, standin: Standin, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        running = stack.enter_context(
            llm_proxy(
                tmp_path,
                provider("openai", standin),
                **EXPORTING,
                OTEL_EXPORTER_OTLP_ENDPOINT=f"127.0.0.1:{silent.getsockname()[1]}",
                OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
                OTEL_BSP_MAX_QUEUE_SIZE="100",
                OTEL_BLRP_MAX_QUEUE_SIZE="50",
                OTEL_METRIC_EXPORT_INTERVAL="500",
            )
        )
        seconds(running.url, 1)
        process = psutil.Process(running.process.pid)
        before = process.memory_info().rss
        seconds(running.url, 6)
        assert process.memory_info().rss - before < 50e6
        dropped = '_processed_total{error_type="queue_full"'
        assert sample(running.url, f"otel_sdk_processor_span{dropped}") > 100
        assert sample(running.url, f"otel_sdk_processor_log{dropped}") > 50
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(10)
        assert time.monotonic() - began < 5
        log = running.log.read_text()
        assert log.count("telemetry is being lost") == 1
        assert "Traceback" not in log
        assert KEY not in log


def test_of_a_trace_all_spans_are_there_or_none(
    collector: Collector, protocol: str, standin: Standin, tmp_path: Path
) -> None:
    sampled = {
        **EXPORTING,
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.3",
    }
    # who is behind decides otherwise for traces of its own, and must follow
    behind = {**sampled, "OTEL_TRACES_SAMPLER_ARG": "0.9"}
    with (
        llm_proxy(tmp_path, provider("openai", standin), **behind) as llm,
        gateway(tmp_path, llm, **sampled) as edge,
    ):
        asked = [post(edge.url, chat()).headers["x-trace-id"] for _ in range(150)]
        wanted = {trace for trace in asked if int(trace[16:], 16) < 0.3 * 2**64}

        def seen() -> Counter[str]:
            return Counter(span.trace_id.hex() for span in spans(collector))

        until(lambda: wanted <= set(seen()) and min(seen().values()) == max(seen().values()))
    assert 15 <= len(wanted) <= 75
    assert seen() == dict.fromkeys(wanted, 5)


def test_a_callers_mark_for_the_collector_is_on_every_span(
    collector: Collector, protocol: str, standin: Standin, tmp_path: Path
) -> None:
    exports = {
        **EXPORTING,
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
    }
    trace_id = "ab" * 16
    marked = {"traceparent": f"00-{trace_id}-{'cd' * 8}-01", "tracestate": "o11y=debug"}
    with (
        llm_proxy(tmp_path, provider("openai", standin), **exports) as llm,
        gateway(tmp_path, llm, **exports) as edge,
    ):
        one = chat()
        answer = httpx2.post(f"{edge.url}{one.path}", json=one.body, headers=marked, timeout=10)
        assert answer.headers["x-trace-id"] == trace_id
        until(lambda: len(spans(collector)) == 5)
    assert {span.trace_state for span in spans(collector)} == {"o11y=debug"}
