"""The Collector's configuration hangs together, and names what the schema has."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from deploy.dashboards import others
from deploy.dashboards.boards import cost
from gateway.settings import Settings
from o11y.telemetry import schema
from tests.support.processes import ROOT

FOLDER = ROOT / "deploy/otel-collector"
KINDS = ("receivers", "processors", "exporters")
Configuration = Mapping[str, Any]


def merged(one: Any, other: Any) -> Any:
    """As the Collector lays one file over another: maps are merged, lists replaced."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: merged(one.get(key), other.get(key, one.get(key))) for key in {**one, **other}}
    return other


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return content


COMMON = read("config.yaml")
BASE = merged(COMMON, read("span-metrics.yaml"))
CLOUD = merged(COMMON, read("grafana-cloud.yaml"))
both = pytest.mark.parametrize("configuration", [BASE, CLOUD], ids=["base", "grafana-cloud"])
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def pipelines(configuration: Configuration) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = configuration["service"]["pipelines"]
    return found


@both
def test_every_part_named_is_there(configuration: Configuration) -> None:
    connectors = set(configuration.get("connectors", ()))
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


def test_every_connector_is_fed_before_sampling_and_read() -> None:
    assert set(BASE["connectors"]) == {"span_metrics", "service_graph"}
    for connector in BASE["connectors"]:
        fed = [n for n, each in pipelines(BASE).items() if connector in each["exporters"]]
        assert fed == ["traces/counted"]
        assert connector in pipelines(BASE)["metrics"]["receivers"]


def test_grafana_cloud_counts_spans_itself() -> None:
    assert "connectors" not in CLOUD
    assert set(pipelines(CLOUD)) == {"traces", "metrics", "logs"}
    for pipeline in pipelines(CLOUD).values():
        assert pipeline["receivers"] == ["otlp"]
        assert pipeline["exporters"] == ["otlp_http/grafana_cloud"]


def test_compose_starts_the_collector_with_these_files() -> None:
    path = ROOT / "deploy/compose.grafana-cloud.yml"
    cloud = yaml.safe_load(path.read_text())["services"]
    for services, names in (
        (COMPOSE, ["config.yaml", "span-metrics.yaml"]),
        (cloud, ["config.yaml", "grafana-cloud.yaml"]),
    ):
        words = services["otel-collector"]["command"]
        assert words == [f"--config=/etc/otelcol/{name}" for name in names]


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
    assert policies["expensive"]["ottl_condition"]["span"] == [
        f'span.attributes["{schema.COST_USD}"] >= {cost.EXPENSIVE_USD}'
    ]


def test_traces_are_held_for_longer_than_the_time_out_of_requests() -> None:
    """`${env:…}s15s`: the durations of Go add up. A variable without a value is the default."""
    sampling = COMMON["processors"]["tail_sampling"]
    assert sampling["sampling_strategy"] == "span-ingest"
    default = f"{Settings.model_fields['request_timeout_seconds'].default:g}"
    assert sampling["decision_wait"] == f"${{env:REQUEST_TIMEOUT_SECONDS:-{default}}}s15s"
    passed = COMPOSE["otel-collector"]["environment"]["REQUEST_TIMEOUT_SECONDS"]
    assert passed == f"${{REQUEST_TIMEOUT_SECONDS:-{default}}}"


def test_decisions_are_remembered_for_longer_than_traces_are_held() -> None:
    sampling = COMMON["processors"]["tail_sampling"]
    assert min(sampling["decision_cache"].values()) >= 5 * sampling["num_traces"]


def test_the_traces_that_wait_fit_into_the_collectors_memory() -> None:
    """Of 5 spans of 3 kB each; the rest is the Collector's own, and room for what comes."""
    container = COMPOSE["otel-collector"]
    assert container["deploy"]["resources"]["limits"]["memory"] == "1g"
    limiter = COMMON["processors"]["memory_limiter"]
    usual = limiter["limit_percentage"] - limiter["spike_limit_percentage"]
    held = COMMON["processors"]["tail_sampling"]["num_traces"] * 5 * 3_000
    assert held < 0.6 * (usual / 100 * 2**30)
    most = limiter["limit_percentage"] / 100 * 2**10
    assert 0.9 * most < int(container["environment"]["GOMEMLIMIT"].removesuffix("MiB")) < most


def test_what_sends_no_spans_has_a_name_in_the_service_map() -> None:
    named = BASE["connectors"]["service_graph"]["virtual_node_peer_attributes"]
    assert named == [schema.PEER_SERVICE, schema.DB_SYSTEM]


def test_the_collectors_own_metrics_have_the_names_the_dashboards_ask_for() -> None:
    [reader] = COMMON["service"]["telemetry"]["metrics"]["readers"]
    exporter = reader["pull"]["exporter"]["prometheus"]
    assert (exporter["without_type_suffix"], exporter["without_units"]) == (False, False)


def test_the_connectors_count_into_our_buckets() -> None:
    bounds = [f"{round(1000 * bound)}ms" for bound in schema.SECONDS]
    spans, graph = BASE["connectors"]["span_metrics"], BASE["connectors"]["service_graph"]
    assert spans["histogram"]["explicit"]["buckets"] == bounds
    assert graph["latency_histogram_buckets"] == bounds
    assert spans["metrics_flush_interval"] == graph["metrics_flush_interval"] == "15s"


def test_grafana_asks_for_the_connectors_metrics() -> None:
    path = ROOT / "deploy/grafana/provisioning/datasources/datasources.yaml"
    named = set(re.findall(r"traces_\w+", path.read_text()))
    assert named == {others.SPAN_CALLS, f"{others.SPAN_SECONDS}_bucket"}
    assert "metrics_generator" not in (ROOT / "deploy/tempo/tempo.yaml").read_text()
