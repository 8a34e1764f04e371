"""LiteLLM's proxy in a virtual environment of its own, set up as its documentation would be fast.

One worker of Granian, the fastest of its servers here; no database, no callbacks, no debug output,
no master key (ours checks none either).
`BENCH_LITELLM_VENV` names an environment that is there already.
"""

import os
import subprocess
import sys
from pathlib import Path

from tests.bench.runner import BenchError
from tests.support.processes import ROOT

SERIES = "1.106"
REQUIREMENTS = [f"litellm[proxy]=={SERIES}.*", "opentelemetry-sdk"]
"""Without OpenTelemetry's SDK LiteLLM tries in vain to import it at each request."""

INSTALL_SECONDS = 900
START_SECONDS = 120.0
SETTINGS = {
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
}


def environment() -> Path:
    """The virtual environment with LiteLLM, made when it isn't there."""
    named = os.environ.get("BENCH_LITELLM_VENV")
    venv = Path(named) if named else ROOT / ".local" / "bench" / "litellm"
    if (venv / "bin" / "litellm").exists() and version(venv).startswith(f"{SERIES}."):
        return venv
    if named:
        raise BenchError(f"BENCH_LITELLM_VENV has no LiteLLM {SERIES}")
    print(f"installing LiteLLM {SERIES} into .local/bench/litellm: a minute or two", flush=True)
    _run([sys.executable, "-m", "venv", "--clear", str(venv)])
    _run([str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", *REQUIREMENTS])
    return venv


def version(venv: Path) -> str:
    """LiteLLM's version there; empty without one."""
    code = "from importlib.metadata import version; print(version('litellm'))"
    try:
        found = subprocess.run(
            [venv / "bin" / "python", "-c", code],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()


def command(venv: Path) -> list[str]:
    """The proxy's command line without its configuration and port."""
    options = ["--host", "127.0.0.1", "--num_workers", "1", "--run_granian"]
    return [str(venv / "bin" / "litellm"), *options]


def config(model: str, upstream_url: str, key: str) -> str:
    """The proxy's configuration file: one model at the upstream."""
    return f"""\
model_list:
  - model_name: {model}
    litellm_params:
      model: openai/{model}
      api_base: {upstream_url}
      api_key: {key}
litellm_settings:
  set_verbose: false
"""


def _run(words: list[str]) -> None:
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise BenchError("LiteLLM could not be installed in time") from None
    if done.returncode:
        reason = (done.stderr.strip() or "pip failed").splitlines()[-1]
        raise BenchError(f"LiteLLM could not be installed: {reason[:200]}")
