"""`python -m inference_svc`: run the service."""

from o11y.service import run

from inference_svc.app import build
from inference_svc.settings import Settings

run("inference-svc", Settings, build)
