"""`python -m inference_svc`: run the service."""

from inference_svc.app import build
from inference_svc.settings import Settings
from o11y.service import run

run("inference-svc", Settings, build)
