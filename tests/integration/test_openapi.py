"""What the OpenAPI descriptions say of all four services is so: whatever is asked of them.

Schemathesis makes up requests that the description allows, and others that it doesn't; the services
are processes, with the local model as the only provider.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CheckFunction
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    negative_data_rejection,
    positive_data_acceptance,
)

from o11y.telemetry import schema
from tests.support.llm import NO_EXPORT, gateway, llm_proxy, tiny_inference
from tests.support.processes import service

CASES = settings(
    max_examples=100,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
"""The same cases each time, however long the tiny model takes for them."""

LONGEST_QUERY = 60_000
"""The HTTP parser refuses an address of more than 64 KiB by itself, in plain text."""

UNCHECKED: list[CheckFunction] = [
    # JSON Schema can't say all that makes a request good: one vector a document, the model's
    # window, what Chroma takes for a filter, a provider's own rules
    positive_data_acceptance,
    # numbers may come as text, and true for 1, as pydantic takes them
    negative_data_rejection,
]


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    folder = tmp_path_factory.mktemp("openapi")
    with (
        tiny_inference(folder, **NO_EXPORT) as inference,
        service("vector_svc", folder, **NO_EXPORT) as vectors,
        llm_proxy(folder, {"name": "o11y-local"}, INFERENCE_URL=inference.url, **NO_EXPORT) as llm,
        gateway(
            folder, llm, VECTOR_URL=vectors.url, INFERENCE_URL=inference.url, **NO_EXPORT
        ) as front,
    ):
        yield {
            "gateway": front.url,
            "llm-proxy": llm.url,
            "vector-svc": vectors.url,
            "inference-svc": inference.url,
        }


@pytest.mark.parametrize("mode", GenerationMode, ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", schema.EVERY_SERVICE)
def test_a_service_is_as_described(
    name: str, mode: GenerationMode, urls: Mapping[str, str], subtests: pytest.Subtests
) -> None:
    description = schemathesis.openapi.from_url(f"{urls[name]}/openapi.json")
    for found in description.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        with subtests.test(operation.label):

            @CASES
            @given(case=operation.as_strategy(generation_mode=mode))
            def answers_as_described(case: Any) -> None:
                assume(len(urlencode(case.query or {}, doseq=True)) < LONGEST_QUERY)
                case.call_and_validate(excluded_checks=UNCHECKED, timeout=30)

            try:
                answers_as_described()
            except Unsatisfiable:  # whoever takes nothing can't be asked wrongly
                assert mode is GenerationMode.NEGATIVE
