"""`python -m gateway`: run the service."""

from o11y.telemetry import environment

environment.prepare()  # before OpenTelemetry is imported, which reads its variables then

from gateway.app import build  # noqa: E402
from gateway.settings import Settings  # noqa: E402
from o11y.web.service import run  # noqa: E402

run("gateway", Settings, build)
