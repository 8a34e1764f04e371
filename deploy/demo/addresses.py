"""Addresses at which the demo finds the gateway and the trace store."""

import os
from argparse import ArgumentParser
from collections.abc import Mapping


def gateway_url(environment: Mapping[str, str] = os.environ) -> str:
    """The gateway's address: GATEWAY_URL, else this machine's at GATEWAY_PORT."""
    return _url("GATEWAY", "8080", environment)


def tempo_url(environment: Mapping[str, str] = os.environ) -> str:
    """The address of Tempo's API: TEMPO_URL, else this machine's at TEMPO_PORT."""
    return _url("TEMPO", "3200", environment)


def add_arguments(parser: ArgumentParser) -> None:
    """Let a command be told both addresses; a slash at their end makes no difference."""
    parser.add_argument("--gateway-url", type=_without_slash, default=gateway_url())
    parser.add_argument("--tempo-url", type=_without_slash, default=tempo_url())


def _without_slash(url: str) -> str:
    return url.rstrip("/")


def _url(name: str, default_port: str, environment: Mapping[str, str]) -> str:
    port = environment.get(f"{name}_PORT") or default_port
    return _without_slash(environment.get(f"{name}_URL") or f"http://localhost:{port}")


def credentials() -> dict[str, str]:
    """The header with the key that a gateway with keys asks for, where GATEWAY_KEY names one."""
    key = os.environ.get("GATEWAY_KEY")
    return {"authorization": f"Bearer {key}"} if key else {}
