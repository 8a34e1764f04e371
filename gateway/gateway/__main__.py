"""`python -m gateway`: run the service."""

from o11y.service import run

from gateway.app import build
from gateway.settings import Settings

run("gateway", Settings, build)
