"""`python -m gateway`: run the service."""

from gateway.app import build
from gateway.settings import Settings
from o11y.service import run

run("gateway", Settings, build)
