"""/metrics: all services in one scrape that Prometheus' own parser reads."""

import asyncio
import random
from collections import Counter

import httpx2
import pytest
from httpx2 import Response
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as plain_text_to_metric_families

from gateway import federation
from gateway.federation import merge, parse
from tests.support.gateway_services import (
    INFERENCE,
    LLM,
    METRICS,
    VECTOR,
    Gateway,
    Held,
    Services,
    problem,
)

ALL = (LLM, VECTOR, INFERENCE)
UP = "o11y_service_up"


async def scraped(gateway: Gateway, scope: str | None = None) -> dict[str, Metric]:
    """The families of a scrape, by name."""
    response = await gateway.client.get("/metrics", params={"scope": scope} if scope else None)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    return {family.name: family for family in text_string_to_metric_families(response.text)}


def up(families: dict[str, Metric]) -> dict[str, float]:
    return {sample.labels["service"]: sample.value for sample in families[UP].samples}


def labels(family: Metric, name: str) -> set[str]:
    return {sample.labels[name] for sample in family.samples}


async def test_every_sample_names_the_service_it_comes_from(gateway: Gateway) -> None:
    families = await scraped(gateway)
    assert labels(families["things_seconds"], "service") == set(ALL)
    assert labels(families["memory_used_bytes"], "service") == {"gateway"}
    assert all(
        {"service", "instance"} <= sample.labels.keys()
        for each in families.values()
        for sample in each.samples
    )
    assert up(families) == dict.fromkeys(ALL, 1)


async def test_each_replica_is_scraped_and_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    async def replicas(host: str, port: int) -> list[str]:
        return [f"{host}-1", f"{host}-2"]

    monkeypatch.setattr("gateway.service_client.as_is", replicas)
    gateway = Gateway()
    gateway.services.answers[f"{VECTOR}-2/metrics"] = httpx2.ConnectError("refused")
    families = await scraped(gateway)
    await gateway.close()
    there = {f"{name}-{number}:80" for name in ALL for number in (1, 2)}
    missing = {f"{VECTOR}-2:80"}
    assert {one.labels["instance"]: one.value for one in families[UP].samples} == {
        **dict.fromkeys(there, 1),
        **dict.fromkeys(missing, 0),
    }
    assert labels(families["things_seconds"], "instance") == there - missing
    assert labels(families["things_seconds"], "service") == set(ALL)


async def test_values_types_labels_and_exemplars_stay_as_they_are(gateway: Gateway) -> None:
    families = await scraped(gateway)
    things, calls = families["things_seconds"], families["calls"]
    assert (things.type, things.unit, things.documentation) == (
        "histogram",
        "seconds",
        "Time of things.",
    )
    assert (calls.type, labels(calls, "model")) == ("counter", {"m"})
    assert {sample.value for sample in calls.samples} == {4}
    bucket = things.samples[0]
    assert (bucket.labels["le"], bucket.value) == ("1.0", 1)
    assert bucket.exemplar
    assert bucket.exemplar.labels["trace_id"] == "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("slow"),
        problem(500),
        Response(200, text="<html>"),
        Response(200, text=METRICS.removesuffix("# EOF\n")),
        Response(200, text=""),
    ],
    ids=["refused", "slow", "500", "HTML", "cut off", "empty"],
)
async def test_a_service_without_metrics_is_down_and_hides_no_other(
    answer: Response | Exception, gateway: Gateway, services: Services
) -> None:
    services.answers[f"{VECTOR}/metrics"] = answer
    families = await scraped(gateway)
    assert up(families) == {LLM: 1, VECTOR: 0, INFERENCE: 1}
    assert labels(families["things_seconds"], "service") == {LLM, INFERENCE}
    assert "memory_used_bytes" in families


async def test_the_gateways_own_metrics_can_be_had_alone(
    gateway: Gateway, services: Services
) -> None:
    families = await scraped(gateway, "self")
    assert labels(families["memory_used_bytes"], "service") == {"gateway"}
    assert "things_seconds" not in families
    assert services.requests == []


async def test_what_the_gateway_measures_is_read_by_the_parser(gateway: Gateway) -> None:
    await gateway.post("/full-pipeline", {"query": "a"})
    families = await scraped(gateway)
    assert {
        "pipeline_stage_duration_seconds",
        "http_client_request_duration_seconds",
        "http_server_request_duration_seconds",
        "cpu_usage_percent",
    } <= set(families)


async def test_a_scrape_is_in_no_trace(gateway: Gateway, services: Services) -> None:
    await scraped(gateway)
    assert gateway.recorded.spans() == []
    assert all(asked.headers["traceparent"].endswith("-00") for asked in services.requests)


async def test_the_text_is_of_the_form_that_is_asked_for(gateway: Gateway) -> None:
    async def asked(accept: str) -> Response:
        return await gateway.client.get("/metrics", headers={"accept": accept})

    prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"
    for accept in ("", "*/*", prometheus):
        open_metrics = await asked(accept)
        assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
    plain = await asked("text/plain;version=0.0.4")
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {one.name: one for one in plain_text_to_metric_families(plain.text)}
    assert labels(families["calls"], "service") == set(ALL)
    assert {one.name for one in families["calls"].samples} == {"calls_total"}
    for text in (plain.text, open_metrics.text):
        for word in ("# TYPE", "# HELP"):
            told = Counter(line.split()[2] for line in text.splitlines() if line.startswith(word))
            assert set(told.values()) == {1}


async def test_a_replica_that_hangs_holds_up_no_scrape(
    gateway: Gateway, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(federation, "SCRAPE_SECONDS", 0.05)
    services.answers[f"{VECTOR}/metrics"] = services.answers[f"{LLM}/metrics"] = Held()
    async with asyncio.timeout(1):
        families = await scraped(gateway)
    assert up(families) == {LLM: 0, VECTOR: 0, INFERENCE: 1}


async def test_what_is_no_scope_is_refused(gateway: Gateway) -> None:
    answer = await gateway.client.get("/metrics", params={"scope": "most"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "scope"


@pytest.mark.parametrize("seed", range(20))
def test_garbage_is_no_scrape_and_no_error(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(50):
        spoilt = list(METRICS)
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(spoilt))
            spoilt[at : at + chance.randrange(3)] = chance.choice(['"', "{", "}", "#", " ", "\n"])
        families = parse("".join(spoilt))
        assert families is None or all(family.name for family in families)


def test_labels_of_where_a_sample_comes_from_are_the_scrape_s() -> None:
    made = Metric("calls", "Calls.", "gauge")
    made.add_sample("calls", {"service": "mine", "model": "m"}, 1)
    [merged] = merge([({"service": "a", "instance": "b"}, [made])])
    assert [sample.labels for sample in merged.samples] == [
        {"service": "a", "instance": "b", "exported_service": "mine", "model": "m"}
    ]


@pytest.mark.parametrize("first", [True, False])
def test_families_whose_samples_have_the_same_names_do_not_meet(first: bool) -> None:
    counter, gauge = Metric("calls", "Calls.", "counter"), Metric("calls_total", "Calls.", "gauge")
    scrapes = [({"service": "a"}, [counter]), ({"service": "b"}, [gauge])]
    kept = merge(scrapes if first else scrapes[::-1])
    assert [family.name for family in kept] == ["calls" if first else "calls_total"]


def test_a_family_of_two_types_is_kept_as_the_first_has_it() -> None:
    def family(kind: str) -> Metric:
        made = Metric("calls", "Calls.", kind)
        made.add_sample("calls", {}, 1)
        return made

    [merged] = merge([({"service": "a"}, [family("gauge")]), ({"service": "b"}, [family("info")])])
    assert merged.type == "gauge"
    assert [sample.labels["service"] for sample in merged.samples] == ["a"]
