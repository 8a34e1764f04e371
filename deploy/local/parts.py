"""The processes of the embedded stack: their names, commands, ports and environments."""

import os
import secrets
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv import dotenv_values

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
_TOKEN_FILE = "internal-token"


class BadPort(ValueError):
    """The value of a port variable is no port number."""


@dataclass(frozen=True)
class Part:
    """One process. `ready` is the address that answers 200 once it can work."""

    name: str
    ports: dict[str, int]
    """Port numbers by the variable that sets them."""
    command: list[str]
    ready: str
    environment: dict[str, str] = field(default_factory=dict)


def port(variable: str, default: int, environment: Mapping[str, str]) -> int:
    text = environment.get(variable) or str(default)
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise BadPort(f"{variable}={text}: not a port number")
    return int(text)


def state_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of logs, process ids and data: `.local`, or `O11Y_STATE_DIR`."""
    return Path(environment.get("O11Y_STATE_DIR") or ROOT / ".local").absolute()


def internal_token(state: Path) -> str:
    """The token that the services know each other by; empty before `make_internal_token`."""
    file = state / _TOKEN_FILE
    return file.read_text() if file.exists() else ""


def make_internal_token(state: Path) -> None:
    """Make the token, once for a state folder; only its owner can read it.

    The file is there with its whole content or not at all: an empty token asks nobody for it.
    """
    if internal_token(state):
        return
    state.mkdir(parents=True, exist_ok=True)
    file, name = tempfile.mkstemp(dir=state, prefix=_TOKEN_FILE)  # its owner's alone
    with os.fdopen(file, "w") as written:
        written.write(secrets.token_urlsafe(24))
    Path(name).replace(state / _TOKEN_FILE)


def parts(environment: Mapping[str, str] = os.environ) -> list[Part]:
    """All parts, in the order they start. Raises BadPort.

    With an OTLP endpoint of the person's own (environment or `.env`) telemetry goes there; else
    traces go to the trace store, and metrics and logs are not exported. INTERNAL_TOKEN is the state
    folder's, unless it is set, be it to nothing.
    """
    state = state_folder(environment)
    ports = {
        name: port(name, default, environment)
        for name, default in (
            ("GATEWAY_PORT", 8080),
            ("LLM_PROXY_PORT", 8081),
            ("VECTOR_SVC_PORT", 8082),
            ("INFERENCE_SVC_PORT", 8083),
            ("OTLP_PORT", 4318),
            ("TEMPO_PORT", 3200),
        )
    }
    settings = {**dotenv_values(ROOT / ".env"), **environment}
    telemetry = (
        {}
        if settings.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        else {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{HOST}:{ports['OTLP_PORT']}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
        }
    )
    addresses = {
        "LLM_PROXY_URL": f"http://{HOST}:{ports['LLM_PROXY_PORT']}",
        "VECTOR_URL": f"http://{HOST}:{ports['VECTOR_SVC_PORT']}",
        "INFERENCE_URL": f"http://{HOST}:{ports['INFERENCE_SVC_PORT']}",
        "CHROMA_PERSIST_DIRECTORY": settings.get("CHROMA_PERSIST_DIRECTORY")
        or str(state / "chroma"),
        "TEMPO_URL": settings.get("TEMPO_URL") or f"http://{HOST}:{ports['TEMPO_PORT']}",
        "DATABASE_URL": settings.get("DATABASE_URL") or f"sqlite:///{state / 'o11y.db'}",
        "LEDGER_DIRECTORY": settings.get("LEDGER_DIRECTORY") or str(state / "ledger"),
    }

    token = settings.get("INTERNAL_TOKEN", internal_token(state)) or ""

    def service(name: str, module: str, variable: str) -> Part:
        return Part(
            name,
            {variable: ports[variable]},
            [sys.executable, "-m", module],
            f"http://{HOST}:{ports[variable]}/readyz",
            {
                **telemetry,
                **addresses,
                "INTERNAL_TOKEN": token,
                "OTEL_SERVICE_NAME": name,
                "APP_HOST": HOST,
                "APP_PORT": str(ports[variable]),
            },
        )

    store = Part(
        "trace-store",
        {"OTLP_PORT": ports["OTLP_PORT"], "TEMPO_PORT": ports["TEMPO_PORT"]},
        [
            *(sys.executable, "-m", "deploy.local.trace_store", "--data", str(state / "traces")),
            *("--otlp-port", str(ports["OTLP_PORT"]), "--tempo-port", str(ports["TEMPO_PORT"])),
        ],
        f"http://{HOST}:{ports['TEMPO_PORT']}/ready",
    )
    return [
        store,
        service("inference-svc", "inference_svc", "INFERENCE_SVC_PORT"),
        service("vector-svc", "vector_svc", "VECTOR_SVC_PORT"),
        service("llm-proxy", "llm_proxy", "LLM_PROXY_PORT"),
        service("gateway", "gateway", "GATEWAY_PORT"),
    ]
