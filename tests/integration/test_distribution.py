"""However a service is started it has the same telemetry, and each span once."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.support import llm, openai_standin
from tests.support.collectors import HttpCollector, log_bodies, metric_names, spans
from tests.support.llm import NO_EXPORT
from tests.support.processes import Service, environment, free_ports, service
from tests.support.waiting import until

INSTRUMENT = (str(Path(sys.executable).with_name("opentelemetry-instrument")), sys.executable)

FILE = """\
file_format: "1.0"
resource:
  attributes:
    - {{name: service.name, value: gateway}}
tracer_provider:
  processors:
    - batch:
        schedule_delay: 50
        exporter:
          otlp_http:
            endpoint: {url}/v1/traces
meter_provider:
  readers:
    - periodic:
        interval: 200
        exporter:
          otlp_http:
            endpoint: {url}/v1/metrics
logger_provider:
  processors:
    - batch:
        schedule_delay: 50
        exporter:
          otlp_http:
            endpoint: {url}/v1/logs
"""


@pytest.fixture
def collector() -> Iterator[HttpCollector]:
    collector = HttpCollector()
    yield collector
    collector.stop()


def by_variables(collector: HttpCollector) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_BLRP_SCHEDULE_DELAY": "50",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }


def by_file(collector: HttpCollector, folder: Path) -> dict[str, str]:
    file = folder / "otel.yaml"
    file.write_text(FILE.format(url=f"http://127.0.0.1:{collector.port}"))
    return {"OTEL_CONFIG_FILE": str(file)}


@contextmanager
def gateway(
    folder: Path, command: tuple[str, ...], settings: Mapping[str, str]
) -> Iterator[Service]:
    """A gateway with nothing behind it, run by this command."""
    one, two, three = (f"http://127.0.0.1:{port}" for port in free_ports(3))
    behind = {"LLM_PROXY_URL": one, "VECTOR_URL": two, "INFERENCE_URL": three}
    with service(
        "gateway", folder, "/livez", command=command, SEED_CORPUS="false", **behind, **settings
    ) as running:
        yield running


@pytest.mark.parametrize(
    ("command", "configured"),
    [
        ((sys.executable,), "variables"),
        (INSTRUMENT, "variables"),
        ((sys.executable,), "file"),
        (INSTRUMENT, "file"),
    ],
    ids=["python", "opentelemetry-instrument", "python-file", "opentelemetry-instrument-file"],
)
def test_every_way_to_start_gives_the_same_telemetry(
    command: tuple[str, ...], configured: str, collector: HttpCollector, tmp_path: Path
) -> None:
    settings = by_file(collector, tmp_path) if configured == "file" else by_variables(collector)
    with gateway(tmp_path, command, settings) as running:
        headers = {"x-user-id": "ann"}
        answer = httpx2.post(f"{running.url}/chat", json={"message": "hello"}, headers=headers)
        assert answer.status_code == 503
        until(lambda: len(spans(collector)) >= 4, 10)
        until(lambda: "http.server.request.duration" in metric_names(collector), 10)
        until(lambda: log_bodies(collector)["POST /chat 503"] == 1, 10)
        page = httpx2.get(f"{running.url}/metrics?scope=self").text
    log = running.log.read_text()
    assert Counter(span.name for span in spans(collector)) == {
        "POST /chat": 1,
        "POST /v1/chat/completions": 3,  # nobody is there: three attempts
    }
    assert {
        attribute.value.string_value
        for span in spans(collector)
        for attribute in span.attributes
        if attribute.key == "user.id"
    } == {"ann"}
    assert "http_server_request_duration_seconds_bucket" in page
    assert '"service":"gateway"' in log
    assert "Traceback" not in log
    assert "WARNING:opentelemetry" not in log


@pytest.mark.parametrize(("propagators", "traces"), [("none", 2), ("tracecontext", 1)])
def test_context_crosses_a_hop_as_the_propagators_say(
    propagators: str, traces: int, collector: HttpCollector, tmp_path: Path
) -> None:
    exports = {**by_variables(collector), "OTEL_PROPAGATORS": propagators}
    exports |= dict.fromkeys(NO_EXPORT, "otlp")
    with (
        openai_standin.running() as standin,
        llm.llm_proxy(tmp_path, llm.provider("openai", standin), **exports) as proxy,
        llm.gateway(tmp_path, proxy, **exports) as edge,
    ):
        call = llm.chat()
        headers = {"x-user-id": "ann"}
        assert httpx2.post(f"{edge.url}{call.path}", json=call.body, headers=headers).is_success
        until(lambda: len(spans(collector)) == 5, 10)
    sent = spans(collector)
    assert len({span.trace_id for span in sent}) == traces
    known = [any(each.key == "user.id" for each in span.attributes) for span in sent]
    assert known.count(True) == 2  # those of the gateway: no baggage goes on


@pytest.mark.parametrize("command", [(sys.executable,), INSTRUMENT], ids=["python", "instrument"])
def test_a_bad_value_is_all_that_is_said(command: tuple[str, ...], tmp_path: Path) -> None:
    run = refused(command, tmp_path, OTEL_BSP_MAX_QUEUE_SIZE="none")
    assert run.stderr.splitlines() == [
        "OTEL_BSP_MAX_QUEUE_SIZE: should be a whole number (got 'none')"
    ]


@pytest.mark.parametrize("command", [(sys.executable,), INSTRUMENT], ids=["python", "instrument"])
@pytest.mark.parametrize("content", ["file_format: '1.0'\ntracer_provider: 3\n", "a: [", ""])
def test_a_configuration_that_cannot_be_read_is_all_that_is_said(
    command: tuple[str, ...], content: str, tmp_path: Path
) -> None:
    file = tmp_path / "otel.yaml"
    file.write_text(content)
    run = refused(command, tmp_path, OTEL_CONFIG_FILE=str(file))
    [line] = run.stderr.splitlines()
    assert line.startswith("OTEL_CONFIG_FILE: ")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OTEL_PROPAGATORS", "b3"), ("OTEL_TRACES_EXPORTER", "zipkin")],
)
def test_a_package_that_is_missing_is_all_that_is_said(
    variable: str, value: str, tmp_path: Path
) -> None:
    run = refused((sys.executable,), tmp_path, **{**NO_EXPORT, variable: value})
    assert run.stderr.splitlines() == [
        f"{variable}: no installed package brings {value!r} (got {value!r})"
    ]


def refused(
    command: tuple[str, ...], folder: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The run of a service that these variables prevent."""
    run = subprocess.run(
        [*command, "-m", "gateway"],
        cwd=folder,
        env=environment(variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stdout) == (2, "")
    return run
