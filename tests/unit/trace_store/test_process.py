"""The real process: started, fed by the SDK, stopped and killed."""

import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.support.trace_samples import export, span

ROOT = Path(__file__).parents[3]
PROTOBUF = {"Content-Type": "application/x-protobuf"}
DEADLINE_SECONDS = 30


def command(data: Path, *arguments: str) -> list[str]:
    module = [sys.executable, "-m", "deploy.local.trace_store"]
    return [*module, "--data", str(data), "--tempo-port", "0", *arguments]


class Process:
    """A store on free ports, once it says that it listens."""

    def __init__(self, data: Path) -> None:
        self.process = subprocess.Popen(
            command(data, "--otlp-port", "0"), cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        if not select.select([self.process.stdout], [], [], DEADLINE_SECONDS)[0]:
            self.process.kill()
        self.line = self.process.stdout.readline()
        self.otlp, self.tempo = re.findall(r"http://127\.0\.0\.1:\d+", self.line)

    def stop(self, number: signal.Signals) -> int:
        """Sends a signal to this process alone and gives its exit code."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_SECONDS)

    def __enter__(self) -> "Process":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.stop(signal.SIGKILL)
        assert self.process.stdout
        self.process.stdout.close()


@pytest.fixture
def start(tmp_path: Path) -> Callable[[], Process]:
    return lambda: Process(tmp_path)


@pytest.fixture
def running(start: Callable[[], Process]) -> Iterator[Process]:
    with start() as process:
        yield process


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_takes_what_the_sdk_exports(running: Process, compression: Compression) -> None:
    exporter = OTLPSpanExporter(f"{running.otlp}/v1/traces", compression=compression)
    provider = TracerProvider(resource=Resource.create({"service.name": "gateway"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("tests")
    with tracer.start_as_current_span("parent"), tracer.start_as_current_span("child") as child:
        child.set_attribute("gen_ai.request.model", "gpt-4o")
        child.add_event("first token", {"tokens": 1})
    provider.shutdown()
    query = {"q": '{ name = "child" && span.gen_ai.request.model = "gpt-4o" }'}
    (found,) = httpx.get(f"{running.tempo}/api/search", params=query).json()["traces"]
    everything = httpx.get(f"{running.tempo}/api/search").json()["traces"]
    assert [trace["traceID"] for trace in everything] == [found["traceID"]], "none of its own"
    assert int(found["traceID"], 16) == child.get_span_context().trace_id
    assert (found["rootServiceName"], found["rootTraceName"]) == ("gateway", "parent")
    batches = httpx.get(f"{running.tempo}/api/traces/{found['traceID']}").json()["batches"]
    spans = [span for batch in batches for scope in batch["scopeSpans"] for span in scope["spans"]]
    assert {span["name"] for span in spans} == {"parent", "child"}


def test_keeps_what_it_acknowledged_when_it_is_killed(start: Callable[[], Process]) -> None:
    sent = [span() for _ in range(20)]
    with start() as process, httpx.Client() as client:
        for one in sent:
            body = export(one).SerializeToString()
            answer = client.post(f"{process.otlp}/v1/traces", content=body, headers=PROTOBUF)
            assert answer.status_code == 200
        assert process.stop(signal.SIGKILL) == -signal.SIGKILL
    with start() as process, httpx.Client() as client:
        for one in sent:
            found = client.get(f"{process.tempo}/api/traces/{one.trace_id.hex()}")
            assert found.status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_soon_when_it_is_told_to(running: Process, number: signal.Signals) -> None:
    host, port = running.tempo.removeprefix("http://").split(":")
    with httpx.Client() as idle, socket.create_connection((host, int(port))) as silent:
        assert idle.get(f"{running.tempo}/ready").status_code == 200
        silent.sendall(b"GET /ready HTTP/1.1\r\n")
        began = time.monotonic()
        assert running.stop(number) == 0
        assert time.monotonic() - began < 3
    assert running.line.count("\n") == 1
    assert running.process.stdout
    assert running.process.stdout.read() == ""


def test_answers_a_sender_of_too_much(running: Process) -> None:
    body = bytes(40 * 2**20)
    answer = httpx.post(f"{running.otlp}/v1/traces", content=body, headers=PROTOBUF)
    assert answer.status_code == 413


def refusal(arguments: list[str]) -> str:
    """What a store says on standard error that doesn't start."""
    done = subprocess.run(
        arguments, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_says_that_a_port_is_busy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = refusal(command(tmp_path, "--otlp-port", str(port)))
    assert "Address already in use" in said
    assert str(port) in said


def test_says_that_it_cannot_write_to_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    assert str(file) in refusal(command(file / "below", "--otlp-port", "0"))


def test_says_that_its_file_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "traces.sqlite3").write_text("not a database " * 100)
    assert "file is not a database" in refusal(command(tmp_path, "--otlp-port", "0"))
