"""`python -m llm_proxy`: run the service."""

from o11y.service import run

from llm_proxy.app import build
from llm_proxy.settings import Settings

run("llm-proxy", Settings, build)
