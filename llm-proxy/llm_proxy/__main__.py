"""`python -m llm_proxy`: run the service."""

from llm_proxy.app import build
from llm_proxy.settings import Settings
from o11y.service import run

run("llm-proxy", Settings, build)
