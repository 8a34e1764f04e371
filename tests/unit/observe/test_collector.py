"""The Collector's configuration hangs together, and names what the schema has."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from deploy.observe import others
from o11y import schema
from tests.processes import ROOT

FOLDER = ROOT / "deploy/otel-collector"
KINDS = ("receivers", "processors", "exporters")
KEYS = {attribute.key for attribute in schema.ATTRIBUTES}
Configuration = Mapping[str, Any]


def merged(one: Any, other: Any) -> Any:
    """As the Collector lays one file over another: maps are merged, lists replaced."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: merged(one.get(key), other.get(key, one.get(key))) for key in {**one, **other}}
    return other


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return content


BASE = read("config.yaml")
CLOUD = merged(BASE, read("grafana-cloud.yaml"))
both = pytest.mark.parametrize("configuration", [BASE, CLOUD], ids=["base", "grafana-cloud"])


def pipelines(configuration: Configuration) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = configuration["service"]["pipelines"]
    return found


@both
def test_every_part_named_is_there(configuration: Configuration) -> None:
    connectors = set(configuration["connectors"])
    for name, pipeline in pipelines(configuration).items():
        for kind in KINDS:
            assert set(pipeline[kind]) <= {*configuration[kind], *connectors}, name
    assert set(configuration["service"]["extensions"]) == set(configuration["extensions"])
    for exporter in configuration["exporters"].values():
        assert exporter["sending_queue"]["storage"] in configuration["extensions"]


def test_every_part_is_used() -> None:
    for kind in (*KINDS, "connectors"):
        used = {
            part
            for pipeline in pipelines(BASE).values()
            for kinds in KINDS
            for part in pipeline[kinds]
        }
        assert set(BASE[kind]) <= used


@both
def test_every_connector_is_fed_and_read(configuration: Configuration) -> None:
    for connector in configuration["connectors"]:
        fed = [n for n, each in pipelines(configuration).items() if connector in each["exporters"]]
        assert fed == ["traces/counted"]
        assert connector in pipelines(configuration)["metrics"]["receivers"]


@both
def test_memory_is_limited_first_and_only_kept_traces_are_sampled(
    configuration: Configuration,
) -> None:
    for pipeline in pipelines(configuration).values():
        assert pipeline["processors"][0] == "memory_limiter"
    sampled = [
        name
        for name, each in pipelines(configuration).items()
        if "tail_sampling" in each["processors"]
    ]
    assert sampled == ["traces"]


@both
def test_a_backend_that_restarts_loses_nothing(configuration: Configuration) -> None:
    for exporter in configuration["exporters"].values():
        assert exporter["sending_queue"]["storage"] == "file_storage/queues"
        assert exporter["retry_on_failure"]["max_elapsed_time"] == "1h"


def test_sampling_keeps_what_somebody_will_ask_for() -> None:
    policies = {each["name"]: each for each in BASE["processors"]["tail_sampling"]["policies"]}
    assert set(policies) == {"errors", "slow", "expensive", "debug", "share"}
    for policy in policies.values():
        assert policy["type"] in policy
    [condition] = policies["expensive"]["ottl_condition"]["span"]
    assert set(re.findall(r'attributes\["([^"]+)"\]', condition)) <= KEYS


def test_the_connectors_count_into_our_buckets() -> None:
    bounds = [f"{round(1000 * bound)}ms" for bound in schema.SECONDS]
    assert BASE["connectors"]["spanmetrics"]["histogram"]["explicit"]["buckets"] == bounds
    assert BASE["connectors"]["servicegraph"]["latency_histogram_buckets"] == bounds


def test_grafana_asks_for_the_connectors_metrics() -> None:
    path = ROOT / "deploy/grafana/provisioning/datasources/datasources.yaml"
    named = set(re.findall(r"traces_\w+", path.read_text()))
    assert named == {others.SPAN_CALLS, f"{others.SPAN_SECONDS}_bucket"}
    assert "metrics_generator" not in (ROOT / "deploy/tempo/tempo.yaml").read_text()
