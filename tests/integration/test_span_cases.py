"""Every call of the gateway leaves exactly the spans of its case, whatever becomes of the call.

Gateway, llm-proxy, vector-svc and inference-svc are processes, the providers are stand-ins, the
local model is a tiny one; what is compared is what the trace store was sent.
"""

import secrets
import time
from collections.abc import Iterator

import httpx2
import pytest

from tests.support import openai_standin
from tests.support.house import House, call, services, wanted
from tests.support.llm import exports_to
from tests.support.processes import trace_store
from tests.support.span_cases import CASES, EMBED, Case

COMPLETE_SECONDS = 15.0


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("spans")
    with (
        openai_standin.running() as first,
        openai_standin.running() as second,
        trace_store(folder) as (store, otlp),
    ):
        with services(folder, first, second, exports_to(otlp)) as gateways:
            running = House(store.url, gateways, first, second)
            httpx2.post(f"{gateways[False]}/embed", json=EMBED, timeout=30).raise_for_status()
            yield running
        running.check()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_call_leaves_exactly_these_spans(house: House, case: Case) -> None:
    trace_id, caller = secrets.token_hex(16), secrets.token_hex(8)
    headers = {"traceparent": f"00-{trace_id}-{caller}-01", "content-type": "application/json"}
    steps = {house.first: case.first, house.second: case.second}
    for standin, script in steps.items():
        standin.next.extend(script)
    if case.seconds:
        headers["x-request-timeout"] = str(case.seconds)
    call(house, case, headers)
    for standin in steps:
        assert not standin.next, "not all that was to happen did"
    give_up = time.monotonic() + COMPLETE_SECONDS
    while (found := house.tree(case, trace_id, caller)) != wanted(case):
        if time.monotonic() > give_up:
            assert found == wanted(case)
        time.sleep(0.05)
    house.seen.append((case, trace_id, caller))


def test_no_two_cases_have_one_name() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
