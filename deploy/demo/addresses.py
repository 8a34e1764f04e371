"""Addresses at which the demo finds the gateway and the trace store."""

import os
from collections.abc import Mapping


def gateway_url(environment: Mapping[str, str] = os.environ) -> str:
    """The gateway's address: GATEWAY_URL, else this machine's at GATEWAY_PORT."""
    return _url("GATEWAY", "8080", environment)


def tempo_url(environment: Mapping[str, str] = os.environ) -> str:
    """The address of Tempo's API: TEMPO_URL, else this machine's at TEMPO_PORT."""
    return _url("TEMPO", "3200", environment)


def _url(name: str, default_port: str, environment: Mapping[str, str]) -> str:
    port = environment.get(f"{name}_PORT") or default_port
    return (environment.get(f"{name}_URL") or f"http://localhost:{port}").rstrip("/")
