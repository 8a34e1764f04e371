"""`python -m vector_svc`: run the service."""

from o11y.service import run
from vector_svc.app import build
from vector_svc.settings import Settings

run("vector-svc", Settings, build)
