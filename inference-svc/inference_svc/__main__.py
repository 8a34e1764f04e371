"""`python -m inference_svc`: run the service."""

from inference_svc import threads
from o11y.telemetry import environment

environment.prepare()  # before OpenTelemetry is imported, which reads its variables then
threads.share_the_cores()  # before PyTorch loads the library that reads it

from inference_svc.app import build  # noqa: E402
from inference_svc.settings import Settings  # noqa: E402
from o11y.web.service import run  # noqa: E402

run("inference-svc", Settings, build)
