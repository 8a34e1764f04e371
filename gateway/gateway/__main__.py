"""`python -m gateway`: run the service."""

import gc

from o11y.telemetry import environment

environment.prepare()  # before OpenTelemetry is imported, which reads its variables then

from gateway.app import build  # noqa: E402
from gateway.settings import Settings  # noqa: E402
from o11y.web.service import run  # noqa: E402

gc.set_threshold(20_000, 20, 20)  # a request makes many objects, and no cycles
run("gateway", Settings, build)
