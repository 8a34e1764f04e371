"""The commands of the embedded stack, as a person at a terminal meets them."""

import json
import os
import signal
import socket
from pathlib import Path

import httpx2
import pytest

from tests.integration.conftest import EmbeddedStack, new_stack
from tests.support.processes import free_ports


def test_a_second_up_says_it_is_running(stack: EmbeddedStack) -> None:
    again = stack.command("up")
    assert again.returncode == 0
    assert again.stdout.startswith("already running: gateway and console http://localhost:")


def test_a_part_that_died_is_named_and_started_again(stack: EmbeddedStack) -> None:
    known = json.loads((stack.folder / "run" / "llm-proxy.json").read_text())
    os.kill(known["pid"], signal.SIGKILL)
    status = stack.command("status")
    again = stack.command("up")
    assert status.returncode == 1
    assert [line.split()[1] for line in status.stdout.splitlines() if "llm-proxy" in line] == [
        "died"
    ]
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("not running, so started again: llm-proxy")
    assert stack.command("status").returncode == 0


def test_a_busy_port_is_one_sentence_and_nothing_is_started(tmp_path: Path) -> None:
    other = new_stack(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", other.ports["VECTOR_SVC_PORT"]))
        taken.listen()
        up = other.command("up")
    assert up.returncode == 1
    assert up.stderr.startswith(f"port {other.ports['VECTOR_SVC_PORT']} (vector-svc) is in use")
    assert "VECTOR_SVC_PORT=PORT make up" in up.stderr
    assert other.command("down").stdout == "nothing was running\n"


def test_a_bad_port_is_named(tmp_path: Path) -> None:
    up = new_stack(tmp_path).command("up", GATEWAY_PORT="eighty")
    assert (up.returncode, up.stderr) == (1, "GATEWAY_PORT=eighty: not a port number\n")


def test_a_part_that_cannot_start_stops_the_rest(tmp_path: Path) -> None:
    (nobody,) = free_ports(1)
    other = new_stack(tmp_path)
    up = other.command(
        "up",
        LOCAL_MODEL_NAME="no-such/model",
        HF_ENDPOINT=f"http://127.0.0.1:{nobody}",
        HF_HOME=str(tmp_path),
        HF_HUB_OFFLINE="0",
    )
    assert up.returncode == 1
    assert "inference-svc stopped with exit code 1: inference-svc: LOCAL_MODEL_NAME=" in up.stderr
    assert "everything that was started has been stopped" in up.stderr
    assert "Traceback" not in up.stderr
    assert other.command("down").stdout == "nothing was running\n"


def test_logs_are_json_lines_with_the_trace(stack: EmbeddedStack, gateway: httpx2.Client) -> None:
    trace_id = gateway.post("/search", json={"query": "logs"}).headers["x-trace-id"]
    for name in ("gateway", "llm-proxy", "vector-svc", "inference-svc"):
        lines = (stack.folder / "logs" / f"{name}.log").read_text().splitlines()
        rows = [row for row in map(json.loads, lines) if row.get("trace_id") == trace_id]
        assert {row["service"] for row in rows} == {name}
        assert "o11y.access" in {row["logger"] for row in rows}


@pytest.mark.parametrize(
    ("port", "method", "path"),
    [
        ("LLM_PROXY_PORT", "POST", "/v1/chat/completions"),
        ("LLM_PROXY_PORT", "GET", "/v1/models"),
        ("VECTOR_SVC_PORT", "GET", "/stats"),
        ("VECTOR_SVC_PORT", "POST", "/search"),
        ("INFERENCE_SVC_PORT", "POST", "/local-inference"),
        ("INFERENCE_SVC_PORT", "POST", "/v1/embeddings"),
        ("INFERENCE_SVC_PORT", "GET", "/nowhere"),
    ],
)
def test_nobody_gets_around_the_gateway(
    stack: EmbeddedStack, port: str, method: str, path: str
) -> None:
    for headers in ({}, {"x-internal-token": "guessed-guessed-guessed"}, {"baggage": "a=b"}):
        answer = httpx2.request(method, stack.url(port) + path, json={}, headers=headers)
        assert answer.status_code == 401
    known = httpx2.request(
        method, stack.url(port) + path, json={}, headers={"x-internal-token": stack.token}
    )
    assert known.status_code in (200, 404, 422)
    for probe in ("/livez", "/readyz", "/metrics"):
        assert httpx2.get(stack.url(port) + probe).status_code == 200


def test_the_token_is_its_owners_and_in_no_log(stack: EmbeddedStack) -> None:
    file = stack.folder / "internal-token"
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(stack.token) >= 16
    logs = "".join(each.read_text() for each in (stack.folder / "logs").iterdir())
    assert stack.token not in logs
