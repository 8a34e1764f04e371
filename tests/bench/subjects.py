"""What is measured: the upstream itself, LiteLLM, and our services with and without telemetry."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx2

from tests.bench import litellm
from tests.bench.runner import Cores, Process, running
from tests.bench.upstream import MODEL
from tests.support.processes import ROOT, free_ports

KEY = "sk-bench"
CALLER_KEY = f"o11y-sk-{'b' * 12}-{'e' * 32}"
"""The key that every request brings: gateways that ask for none don't look at it."""
START_SECONDS = 60.0
NO_SETTINGS: Mapping[str, str] = {}


@dataclass(frozen=True)
class Site:
    """Where a subject is started and what it talks to."""

    folder: Path
    upstream_url: str
    sink_url: str
    upstream: Process
    cores: Cores


@dataclass(frozen=True)
class Started:
    """A running subject: its base URL with `/v1`, its processes, those whose work is its own."""

    url: str
    processes: list[Process]
    version: str = ""


Start = Callable[[Site], AbstractContextManager[Started]]


@dataclass(frozen=True)
class Subject:
    """Something that answers `POST …/chat/completions`."""

    key: str
    title: str
    start: Start = field(repr=False)


@contextmanager
def started_upstream(folder: Path, cores: Cores) -> Iterator[Site]:
    """The canned upstream with its sink, beside the load generator."""
    port, sink_port = free_ports(2)
    url, sink_url = f"http://127.0.0.1:{port}/v1", f"http://127.0.0.1:{sink_port}"
    command = [sys.executable, "-m", "tests.bench.upstream", str(port), str(sink_port)]
    with running(
        command, "upstream", folder, f"{url}/models", START_SECONDS, cores.load, {}, ROOT
    ) as process:
        yield Site(folder, url, sink_url, process, cores)


def exported(sink_url: str) -> str:
    """What the sink was sent, in words."""
    try:
        counts = httpx2.get(f"{sink_url}/counts", timeout=5, trust_env=False).json()
    except (httpx2.HTTPError, ValueError):
        return "the sink did not say what it was sent."
    requests = counts["traces"] + counts["metrics"] + counts["logs"]
    return f"the sink took {requests:,} requests with {counts['bytes'] / 1e6:,.0f} MB."


@contextmanager
def _upstream(site: Site) -> Iterator[Started]:
    yield Started(site.upstream_url, [site.upstream])


@contextmanager
def _litellm(site: Site) -> Iterator[Started]:
    venv = litellm.environment()
    (port,) = free_ports(1)
    config = site.folder / "litellm.yaml"
    config.write_text(litellm.config(MODEL, site.upstream_url, KEY))
    url = f"http://127.0.0.1:{port}"
    with running(
        [*litellm.command(venv), "--config", str(config), "--port", str(port)],
        "litellm",
        site.folder,
        f"{url}/health/liveliness",
        litellm.START_SECONDS,
        site.cores.subject,
        litellm.SETTINGS,
    ) as process:
        yield Started(f"{url}/v1", [process], f"LiteLLM {litellm.version(venv)}")


@contextmanager
def service(
    site: Site, module: str, name: str, telemetry: bool, **settings: str
) -> Iterator[tuple[str, Process]]:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    exported = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": site.sink_url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    told = exported if telemetry else {"OTEL_SDK_DISABLED": "true"}
    with running(
        [sys.executable, "-m", module],
        name,
        site.folder,
        f"{url}/readyz",
        START_SECONDS,
        site.cores.subject,
        {"APP_PORT": str(port), **told, **settings},
    ) as process:
        yield url, process


def _llm_proxy(
    site: Site, name: str, telemetry: bool, **settings: str
) -> AbstractContextManager[tuple[str, Process]]:
    return service(
        site,
        "llm_proxy",
        name,
        telemetry,
        OPENAI_API_KEY=KEY,
        OPENAI_BASE_URL=site.upstream_url,
        OPENAI_PRICING="openai",
        **settings,
    )


@contextmanager
def proxy_alone(
    site: Site, name: str, telemetry: bool, settings: Mapping[str, str] = NO_SETTINGS
) -> Iterator[Started]:
    """llm-proxy and nothing else of ours; `settings` are environment variables."""
    with _llm_proxy(site, name, telemetry, **settings) as (url, process):
        yield Started(f"{url}/v1", [process])


@contextmanager
def gateway_and_proxy(site: Site, settings: Mapping[str, str] = NO_SETTINGS) -> Iterator[Started]:
    """A gateway before llm-proxy, telemetry on; `settings` are environment variables of both."""
    (closed,) = free_ports(1)
    with ExitStack() as stack:
        proxy_url, proxy = stack.enter_context(
            _llm_proxy(site, "llm-proxy-behind", True, **settings)
        )
        url, gateway = stack.enter_context(
            service(
                site,
                "gateway",
                "gateway",
                True,
                LLM_PROXY_URL=proxy_url,
                VECTOR_URL=f"http://127.0.0.1:{closed}",
                INFERENCE_URL=f"http://127.0.0.1:{closed}",
                SEED_CORPUS="false",
                **settings,
            )
        )
        yield Started(f"{url}/v1", [gateway, proxy])


@contextmanager
def _thinnest(site: Site) -> Iterator[Started]:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    instrument = str(Path(sys.executable).with_name("opentelemetry-instrument"))
    uvicorn = [str(Path(sys.executable).with_name("uvicorn")), "tests.bench.thinnest:app"]
    with running(
        [instrument, *uvicorn, "--port", str(port), "--no-access-log"],
        "thinnest",
        site.folder,
        f"{url}/livez",
        START_SECONDS,
        site.cores.subject,
        {
            "UPSTREAM_URL": site.upstream_url,
            "OTEL_PYTHON_DISTRO": "distro",
            "OTEL_PYTHON_CONFIGURATOR": "configurator",
            "OTEL_SERVICE_NAME": "thinnest",
            "OTEL_EXPORTER_OTLP_ENDPOINT": site.sink_url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
        },
        ROOT,
    ) as process:
        yield Started(f"{url}/v1", [process])


SUBJECTS = [
    Subject("upstream", "upstream alone", _upstream),
    Subject("litellm", "LiteLLM", _litellm),
    Subject("thinnest", "the thinnest hop of the same parts, telemetry on", _thinnest),
    Subject("proxy", "llm-proxy, telemetry on", partial(proxy_alone, name="proxy", telemetry=True)),
    Subject(
        "proxy-off",
        "llm-proxy, telemetry off",
        partial(proxy_alone, name="proxy-off", telemetry=False),
    ),
    Subject("gateway", "gateway + llm-proxy, telemetry on", gateway_and_proxy),
]
