"""`python -m vector_svc`: run the service."""

from o11y.telemetry import environment

environment.prepare()  # before OpenTelemetry is imported, which reads its variables then

from o11y.web.service import run  # noqa: E402
from vector_svc.app import build  # noqa: E402
from vector_svc.settings import Settings  # noqa: E402

run("vector-svc", Settings, build)
