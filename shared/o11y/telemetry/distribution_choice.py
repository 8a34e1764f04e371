"""Chooses this distribution where others are installed as well.

`opentelemetry-instrument` imports this module when it collects its options, before it starts the
service; without a choice it would take the first distribution it finds.
"""

import os

from o11y.telemetry.environment import NAME


def choose() -> None:
    """Name distro and configurator, unless somebody has."""
    os.environ.setdefault("OTEL_PYTHON_DISTRO", NAME)
    os.environ.setdefault("OTEL_PYTHON_CONFIGURATOR", NAME)


choose()
