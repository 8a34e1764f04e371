"""OpenTelemetry's distribution of this system, as `opentelemetry-instrument` and `run` load it.

`python -m gateway` does in its own process what `opentelemetry-instrument python -m gateway` does
around it: load the distro, the configurator and every instrumentation that is installed. Either
way there is one set of providers, and it is global.
"""

import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

from opentelemetry.configuration import ConfigurationError
from opentelemetry.distro import OpenTelemetryConfigurator, OpenTelemetryDistro
from opentelemetry.instrumentation.auto_instrumentation import initialize

from o11y.telemetry import providers
from o11y.telemetry.distribution_choice import choose
from o11y.telemetry.environment import CONFIG_FILE, prepare
from o11y.telemetry.providers import Providers


class _Process:
    """The service's name, once it is known, and the providers of this process."""

    def __init__(self) -> None:
        self.service: str | None = None
        self.providers: Providers | None = None


_process = _Process()


class Distro(OpenTelemetryDistro):
    """Checks and completes the variables."""

    def configure(self, **kwargs: object) -> None:  # noqa: ARG002
        # it warns of every other configurator that is installed
        logging.getLogger("opentelemetry.instrumentation.auto_instrumentation").setLevel("ERROR")
        try:
            prepare()
        except SystemExit as stop:
            _exit(stop.code if isinstance(stop.code, int) else 1)


class Configurator(OpenTelemetryConfigurator):
    """Sets up the SDK: by its variables, or by the file that OTEL_CONFIG_FILE names alone."""

    def configure(self, **kwargs: object) -> None:  # noqa: ARG002
        if os.environ.get(CONFIG_FILE):
            loader = logging.getLogger("opentelemetry.configuration")
            loader.setLevel("CRITICAL")  # it logs, with its stack, what it raises
            try:
                super().configure()  # type: ignore[no-untyped-call]
            except ConfigurationError as error:
                print(f"{CONFIG_FILE}: {' '.join(str(error).split())}", file=sys.stderr)
                _exit(2)
            loader.setLevel(logging.NOTSET)
            _process.providers = providers.of_the_configuration_file()
        else:
            service = _process.service or named_by(sys.orig_argv)
            _process.providers = providers.of_the_variables(service)
            _process.providers.become_global()


def start(service: str) -> Providers:
    """The providers of this process: those `opentelemetry-instrument` has set up, or new ones."""
    if _process.providers is None:
        _process.service = service
        choose()
        initialize(swallow_exceptions=False)
    if _process.providers is None:
        raise RuntimeError("another configurator than o11y was chosen by OTEL_PYTHON_CONFIGURATOR")
    return _process.providers


def _exit(status: int) -> NoReturn:
    """End the process: whoever loads a distribution at Python's start would print an exception, and
    go on without telemetry.
    """
    sys.stderr.flush()
    os._exit(status)


def named_by(command: list[str]) -> str:
    """The service's name by the command that runs it: `llm-proxy` of `python -m llm_proxy`."""
    if "-m" in command[:-1]:
        return command[command.index("-m") + 1].replace("_", "-")
    return Path(command[-1]).stem
