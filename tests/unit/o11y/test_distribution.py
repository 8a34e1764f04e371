"""The distribution names a service by the command that runs it."""

from importlib.metadata import entry_points

import pytest
from opentelemetry.distro import OpenTelemetryConfigurator, OpenTelemetryDistro

from o11y.telemetry import distribution


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["python", "-m", "gateway"], "gateway"),
        (["/usr/bin/python3", "-X", "dev", "-m", "llm_proxy"], "llm-proxy"),
        (["python", "work/thing.py"], "thing"),
    ],
)
def test_a_service_is_named_by_its_command(command: list[str], name: str) -> None:
    assert distribution.named_by(command) == name


def test_opentelemetry_instrument_finds_it() -> None:
    [distro] = entry_points(group="opentelemetry_distro", name="o11y")
    [configurator] = entry_points(group="opentelemetry_configurator", name="o11y")
    assert issubclass(distro.load(), OpenTelemetryDistro)
    assert issubclass(configurator.load(), OpenTelemetryConfigurator)
