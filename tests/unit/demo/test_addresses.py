"""The demo finds the stack where `make up` has put it."""

import pytest

from deploy.demo.addresses import credentials, gateway_url, tempo_url


@pytest.mark.parametrize(
    ("environment", "gateway", "tempo"),
    [
        ({}, "http://localhost:8080", "http://localhost:3200"),
        (
            {"GATEWAY_PORT": "9080", "TEMPO_PORT": "9200"},
            "http://localhost:9080",
            "http://localhost:9200",
        ),
        (
            {"GATEWAY_URL": "http://far:1/", "GATEWAY_PORT": "9080", "TEMPO_URL": "http://far:2"},
            "http://far:1",
            "http://far:2",
        ),
        ({"GATEWAY_PORT": "", "TEMPO_URL": ""}, "http://localhost:8080", "http://localhost:3200"),
    ],
)
def test_the_addresses_follow_the_ports(
    environment: dict[str, str], gateway: str, tempo: str
) -> None:
    assert (gateway_url(environment), tempo_url(environment)) == (gateway, tempo)


def test_a_gateway_that_asks_for_keys_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GATEWAY_KEY", raising=False)
    assert credentials() == {}
    monkeypatch.setenv("GATEWAY_KEY", "o11y-sk-1")
    assert credentials() == {"authorization": "Bearer o11y-sk-1"}
