"""What the factory gives every service: probes, trace ids, access lines, deadlines, a process."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from pydantic import Field

from o11y.settings import ServiceSettings
from o11y.telemetry import distribution
from o11y.telemetry.signals import Telemetry
from o11y.web.service import StartError, create_app, run
from tests.support.processes import ROOT, free_ports
from tests.support.recorded import Names, Recorded, attributes, http, identity
from tests.support.small_service import TIMEOUT_SECONDS, always, application, service

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.fixture
async def things(recorded: Recorded) -> AsyncIterator[httpx2.AsyncClient]:
    async with service(recorded) as client:
        yield client


# Probes


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_what_machines_poll_leaves_no_span_and_no_access_line(
    path: str,
    things: httpx2.AsyncClient,
    recorded: Recorded,
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    assert (await things.get(path)).status_code == 200
    assert (recorded.spans(), lines()) == ([], [])


async def test_a_service_that_is_not_ready_says_why(recorded: Recorded) -> None:
    async def ready() -> str | None:
        return "the model is loading"

    async with service(recorded, ready) as client:
        response = await client.get("/readyz")
        assert (await client.get("/livez")).status_code == 200
    assert (response.status_code, response.json()["detail"]) == (503, "the model is loading")
    assert response.headers["retry-after"] == "1"


async def test_metrics_are_openmetrics(things: httpx2.AsyncClient) -> None:
    await things.get("/left")
    response = await things.get("/metrics")
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    assert {"http_server_request_duration_seconds", "memory_used_bytes"} <= set(families)
    routes = {
        sample.labels["http_route"]
        for sample in families["http_server_request_duration_seconds"].samples
    }
    assert routes == {"/left"}


# The trace


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/left", 200),
        ("GET", "/busy", 429),
        ("GET", "/v1/busy", 429),
        ("POST", "/things", 422),
        ("GET", "/nowhere", 404),
        ("GET", "/things", 405),
        ("GET", "/boom", 500),
    ],
)
async def test_every_answer_names_its_trace(
    method: str, path: str, status: int, things: httpx2.AsyncClient, recorded: Recorded
) -> None:
    response = await things.request(method, path)
    [span] = recorded.spans(SpanKind.SERVER)
    assert response.status_code == status
    assert response.headers.get_list("x-trace-id") == [f"{identity(span).trace_id:032x}"]


async def test_the_callers_trace_goes_on(things: httpx2.AsyncClient, recorded: Recorded) -> None:
    response = await things.get("/left", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    [span] = recorded.spans()
    assert response.headers["x-trace-id"] == TRACE
    assert f"{identity(span).trace_id:032x}" == TRACE
    assert span.parent
    assert f"{span.parent.span_id:016x}" == PARENT


PARENT_FIELD = ("traceparent", f"00-{TRACE}-{PARENT}-01")
ANOTHER_FIELD = ("traceparent", f"00-{PARENT * 2}-{PARENT}-01")


@pytest.mark.parametrize("states", [["a=1", "b=2"], ["a=1,b=2"], ["a=1", "", "b=2"]])
async def test_fields_of_one_name_are_one_list(
    states: list[str], things: httpx2.AsyncClient, recorded: Recorded
) -> None:
    fields = [PARENT_FIELD, *(("tracestate", state) for state in states)]
    await things.get("/left", headers=fields)
    [span] = recorded.spans()
    assert span.parent
    assert span.parent.trace_state.to_header() == "a=1,b=2"


@pytest.mark.parametrize("second", [PARENT_FIELD, ANOTHER_FIELD, ("traceparent", "")])
async def test_two_traceparents_are_none(
    second: tuple[str, str], things: httpx2.AsyncClient, recorded: Recorded
) -> None:
    response = await things.get("/left", headers=[PARENT_FIELD, second])
    [span] = recorded.spans()
    assert span.parent is None
    assert response.headers["x-trace-id"] != TRACE


async def test_a_request_is_one_span(things: httpx2.AsyncClient, recorded: Recorded) -> None:
    await things.get("/things/7")
    [span] = recorded.spans()
    assert (span.name, span.kind) == ("GET /things/{number}", SpanKind.SERVER)


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("query=hunter2&user_id=hunter2", "query=REDACTED&user_id=REDACTED"),
        ("query=hunter2%20hunter2", "query=REDACTED"),
        ("empty=", "empty=REDACTED"),
        ("hunter2&a=b", "=REDACTED&a=REDACTED"),
        ("hunter2" * 6 + "=a", "=REDACTED"),
        ("a%26b=hunter2", "a%26b=REDACTED"),
    ],
)
async def test_the_span_keeps_the_names_of_query_parameters_alone(
    query: str, kept: str, things: httpx2.AsyncClient, recorded: Recorded
) -> None:
    await things.get(f"/left?{query}")
    [span] = recorded.spans()
    assert attributes(span)["url.query"] == kept
    assert "hunter2" not in str(attributes(span))


# Access lines


@pytest.mark.parametrize(
    ("method", "path", "route", "status"),
    [
        ("GET", "/left", "/left", 200),
        ("GET", "/things/7?query=hunter2", "/things/{number}", 200),
        ("GET", "/busy", "/busy", 429),
        ("POST", "/things", "/things", 422),
        ("GET", "/nowhere", "/nowhere", 404),
        ("GET", "/boom", "/boom", 500),
    ],
)
async def test_a_request_is_one_access_line_with_its_trace(
    method: str,
    path: str,
    route: str,
    status: int,
    things: httpx2.AsyncClient,
    recorded: Recorded,
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    await things.request(method, path)
    [span], [line] = recorded.spans(), lines()
    assert line["message"] == f"{method} {route} {status}"
    assert (line["method"], line["route"], line["status"]) == (method, route, status)
    assert line["trace_id"] == f"{identity(span).trace_id:032x}"
    assert line["span_id"] == f"{identity(span).span_id:016x}"
    assert 0 <= line["duration_seconds"] < TIMEOUT_SECONDS
    assert "hunter2" not in json.dumps(line)


async def test_the_access_line_lies_within_the_span(
    things: httpx2.AsyncClient,
    recorded: Recorded,
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    await things.get("/left")
    [span], [line] = recorded.spans(), lines()
    at = datetime.fromisoformat(line["timestamp"]).timestamp() * 1e9
    assert span.start_time
    assert span.end_time
    microsecond = 1000
    assert span.start_time - microsecond <= at <= span.end_time + microsecond


# The deadline


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, TIMEOUT_SECONDS),
        ("5", 5),
        ("1000", TIMEOUT_SECONDS),
        ("0", 0),
        ("soon", TIMEOUT_SECONDS),
        ("-1", TIMEOUT_SECONDS),
        ("nan", TIMEOUT_SECONDS),
    ],
)
async def test_a_request_may_ask_for_less_time_and_never_for_more(
    header: str | None, seconds: float, things: httpx2.AsyncClient
) -> None:
    headers = {} if header is None else {"X-Request-Timeout": header}
    left = (await things.get("/left", headers=headers)).json()
    assert left == pytest.approx(seconds, abs=0.5)
    assert left <= seconds


# The process


async def test_what_telemetry_is_left_is_sent_when_the_service_stops(
    settings: ServiceSettings,
) -> None:
    backend = Names()
    app = application(Telemetry("thing-svc", settings, [BatchSpanProcessor(backend)]))
    async with app.router.lifespan_context(app), http(app) as client:
        await client.get("/left")
    assert backend.sent == ["GET /left"]


class Settings(ServiceSettings):
    app_port: int = Field(8000, ge=1, le=65535)


@pytest.fixture
def nothing_global(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that runs in this process gets providers of its own, as it does in tests."""
    monkeypatch.setattr(distribution, "start", lambda _: None)


@pytest.mark.usefixtures("nothing_global", "root")
def test_a_service_that_cannot_start_says_so_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def build(settings: Settings, telemetry: Telemetry) -> FastAPI:
        raise StartError("there is no model")

    with pytest.raises(SystemExit) as stopped:
        run("thing-svc", Settings, build)
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "thing-svc: there is no model\n"


def doomed(settings: Settings, telemetry: Telemetry) -> FastAPI:
    """A service that fails as soon as it runs, while a thread of its never ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=threading.Event().wait).start()
        asyncio.get_running_loop().call_later(0.01, app.fail, "the engine is lost")
        yield

    app = create_app("thing-svc", telemetry, [], lifespan, always, 1.0)
    return app


def test_a_service_that_can_go_on_no_more_ends_its_process_and_says_why() -> None:
    program = (
        "from tests.unit.o11y.test_service import Settings, doomed\n"
        "from o11y.web.service import run\n"
        "run('thing-svc', Settings, doomed)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "APP_PORT": str(free_ports(1)[0])},
        capture_output=True,
        timeout=30,
    )
    assert ended.returncode == 1, ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    [critical] = [line for line in lines if line["level"] == "CRITICAL"]
    assert critical["message"] == "this process ends: the engine is lost"


@pytest.mark.usefixtures("nothing_global")
def test_a_service_with_a_bad_setting_is_never_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(settings: Settings, telemetry: Telemetry) -> FastAPI:
        raise AssertionError

    monkeypatch.setenv("APP_PORT", "no")
    with pytest.raises(SystemExit) as stopped:
        run("thing-svc", Settings, build)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("APP_PORT: ")
