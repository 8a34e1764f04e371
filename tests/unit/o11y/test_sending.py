"""One attempt at a backend: what its answer means, over HTTP and over gRPC."""

import socket
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from o11y.sending import Failure, GrpcSender, HttpSender, Link, Sender, _seconds
from tests.collectors import Collector, Conduct, GrpcCollector, HttpCollector
from tests.processes import free_ports

LINK = Link({"Authorization": "Basic MTIzOnRva2Vu"})
SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


def over_http(port: int) -> Sender:
    return HttpSender(f"http://127.0.0.1:{port}/v1/traces", LINK)


def over_grpc(port: int) -> Sender:
    return GrpcSender(f"127.0.0.1:{port}", True, SERVICE, LINK)


Open = Callable[[int], Sender]
each_protocol = pytest.mark.parametrize("open_sender", [over_http, over_grpc])


@pytest.fixture
def collector(open_sender: Open) -> Iterator[Collector]:
    made: Collector = HttpCollector() if open_sender is over_http else GrpcCollector()
    yield made
    made.stop()


@pytest.fixture
def sender(open_sender: Open, collector: Collector) -> Iterator[Sender]:
    made = open_sender(collector.port)
    yield made
    made.close()


def failure(sender: Sender, seconds: float = 5) -> Failure:
    result = sender.send(b"", seconds)
    assert isinstance(result, Failure)
    return result


@each_protocol
@pytest.mark.parametrize(
    ("conduct", "error", "again", "wait", "credentials"),
    [
        ("busy", ("429", "RESOURCE_EXHAUSTED"), True, 1, False),
        ("unavailable", ("503", "UNAVAILABLE"), True, None, False),
        ("forbids", ("401", "UNAUTHENTICATED"), False, None, True),
        ("strict", ("400", "INVALID_ARGUMENT"), False, None, False),
    ],
)
def test_a_failure_says_what_to_do_about_it(
    conduct: Conduct,
    error: tuple[str, str],
    again: bool,
    wait: float | None,
    credentials: bool,
    collector: Collector,
    sender: Sender,
) -> None:
    collector.conduct = conduct
    found = failure(sender)
    assert found.error in error
    assert f"answers {found.error}" in found.said
    assert (found.again, found.wait, found.credentials) == (again, wait, credentials)


@each_protocol
def test_rows_that_were_refused_are_counted(collector: Collector, sender: Sender) -> None:
    assert sender.send(b"", 5) == 0
    collector.conduct = "rejects"
    assert sender.send(b"", 5) == 1


@each_protocol
def test_a_backend_that_hangs_is_given_up_in_time(collector: Collector, sender: Sender) -> None:
    collector.conduct = "hangs"
    began = time.monotonic()
    found = failure(sender, 0.2)
    assert time.monotonic() - began < 2
    assert found.again
    assert "does not answer within" in found.said


@each_protocol
def test_a_port_that_is_open_and_silent_is_given_up_in_time(open_sender: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sender = open_sender(silent.getsockname()[1])
        began = time.monotonic()
        assert failure(sender, 0.3).again
        assert time.monotonic() - began < 2
        sender.close()


@each_protocol
def test_a_backend_that_comes_late_or_again_is_found_at_once(open_sender: Open) -> None:
    (port,) = free_ports(1)
    sender = open_sender(port)
    for _ in range(3):
        found = failure(sender)
        assert found.again
        assert "refused" in found.said.lower()
        collector: Collector = (HttpCollector if open_sender is over_http else GrpcCollector)(port)
        assert sender.send(b"", 5) == 0
        collector.stop()
    sender.close()


def test_a_kept_connection_that_was_closed_costs_no_message() -> None:
    collector = HttpCollector()
    sender = over_http(collector.port)
    assert sender.send(b"", 5) == 0
    collector.stop()
    again = HttpCollector(collector.port)
    assert sender.send(b"", 5) == 0
    sender.close()
    again.stop()


@each_protocol
def test_proxies_and_netrc_are_not_for_a_backend_inside(
    open_sender: Open, collector: Collector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (nobody,) = free_ports(1)
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "GRPC_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{nobody}")
        monkeypatch.setenv(variable.lower(), f"http://127.0.0.1:{nobody}")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("NETRC", str(netrc))
    sender = open_sender(collector.port)
    assert sender.send(b"", 5) == 0
    sender.close()
    if isinstance(collector, HttpCollector):
        assert collector.received[0][1] == "Basic MTIzOnRva2Vu"
    else:
        assert collector.credentials == "Basic MTIzOnRva2Vu"


def test_a_backend_outside_is_asked_through_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (nobody,) = free_ports(1)
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{nobody}")
    sender = HttpSender("https://backend.invalid/v1/traces", LINK)
    assert "refused" in failure(sender).said
    sender.close()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, None), ("3", 3), ("soon", None), (formatdate(time.time() - 60, usegmt=True), 0)],
)
def test_retry_after_is_seconds_or_a_date(text: str | None, seconds: float | None) -> None:
    assert _seconds(text) == seconds


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://user:secret@host:4318/v1/traces", "http://host:4318/v1/traces"),
        ("https://host/otlp/v1/logs", "https://host/otlp/v1/logs"),
    ],
)
def test_an_address_is_shown_without_its_credentials(address: str, shown: str) -> None:
    sender = HttpSender(address, LINK)
    assert sender.address == shown
    sender.close()
