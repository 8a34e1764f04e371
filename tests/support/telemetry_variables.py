"""OpenTelemetry's variables of this process, as a service that starts finds them."""

import os

import pytest

from o11y.telemetry.environment import completed, faults


def set_variables(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """Set these, and what the distribution completes them with."""
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert faults(os.environ) == []
    for variable, completion in completed(os.environ).items():
        if completion is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, completion)
