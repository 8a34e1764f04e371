"""All services as processes before stand-ins for providers, and calls as span cases have them."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from tests.support import tempo
from tests.support.llm import gateway, llm_proxy, provider, tiny_inference
from tests.support.openai_standin import Standin
from tests.support.processes import free_ports, service
from tests.support.span_cases import Case
from tests.support.trace_text import masked, render

PATIENCE = {"connect_seconds": 5, "first_byte_seconds": 1, "idle_seconds": 1}
"""Seconds. The providers' breakers stay closed: what one case does is nothing to the next."""


@dataclass
class House:
    """The services, and the calls made so far with the trees they left."""

    tempo_url: str
    gateways: dict[bool, str]
    """By whether llm-proxy behind it has the local model only."""
    first: Standin
    second: Standin
    seen: list[tuple[Case, str, str]] = field(default_factory=list)

    def tree(self, case: Case, trace_id: str, caller: str) -> str:
        return masked(render(tempo.read(self.tempo_url, trace_id), caller), wanted(case))

    def check(self) -> None:
        """Nothing came late: with the services gone, all spans there will be are there."""
        for case, trace_id, caller in self.seen:
            assert self.tree(case, trace_id, caller) == wanted(case), case.name


def wanted(case: Case) -> str:
    lines = case.tree.strip("\n").splitlines()
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[margin:] for line in lines).rstrip()


@contextmanager
def services(
    folder: Path, first: Standin, second: Standin, exports: dict[str, str]
) -> Iterator[dict[bool, str]]:
    """The addresses of the gateway before the providers, and of that before the local model."""
    models = {"chat_model": "gpt-4o-mini", "embedding_model": "text-embedding-3-small"}
    settings = {**PATIENCE, **models, "breaker_failures": 1000}
    with ExitStack() as stack:
        inference = stack.enter_context(tiny_inference(folder, ENGINE_MAX_WAITING="4", **exports))
        vectors = stack.enter_context(service("vector_svc", folder, **exports))
        outside = stack.enter_context(
            llm_proxy(
                folder,
                provider("first", first, retries=1, **settings),
                provider("second", second, retries=0, **settings),
                **exports,
            )
        )
        local = stack.enter_context(
            llm_proxy(
                folder, {"name": "o11y-local", "retries": 0}, INFERENCE_URL=inference.url, **exports
            )
        )
        (nobody,) = free_ports(1)
        urls = {}
        for llm, vector_url in ((outside, vectors.url), (local, f"http://127.0.0.1:{nobody}")):
            behind = {"VECTOR_URL": vector_url, "INFERENCE_URL": inference.url}
            urls[llm is local] = stack.enter_context(gateway(folder, llm, **behind, **exports)).url
        yield urls


def call(house: House, case: Case, headers: dict[str, str]) -> None:
    """Make the call as its caller does."""
    url = house.gateways[case.local]
    content = json.dumps(case.body)
    if case.leaves == 0:
        leave_early(url, case, content, headers, house.first)
        return
    with httpx2.stream(
        "POST", url + case.path, content=content, headers=headers, timeout=30
    ) as answer:
        events = 0
        for line in answer.iter_lines():
            events += line.startswith("data:")
            if events == case.leaves:
                return  # which closes the connection
    assert case.leaves is None, f"the stream ended after {events} events"


def leave_early(
    url: str, case: Case, content: str, headers: dict[str, str], provider: Standin
) -> None:
    """Go as soon as the first provider has the last request it is to have."""
    known = len(provider.requests)
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=30)
    connection.request("POST", case.path, content, headers)
    provider.wait_for(lambda: len(provider.requests) == known + len(case.first))
    connection.close()
