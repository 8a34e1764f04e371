"""Dashboards: the files are those the code writes, and no panel lacks what a reader needs."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.dashboards import names, promql, telemetry_docs
from deploy.dashboards.files import files
from deploy.dashboards.grafana import DASHBOARDS
from deploy.dashboards.page import Dashboard
from deploy.dashboards.panels import Panel
from deploy.local.trace_store.traceql import Condition
from o11y.telemetry import schema

KEYS = {attribute.key for attribute in schema.ATTRIBUTES}
RESOURCE = {"service.name"}


def panels() -> Iterator[tuple[Dashboard, Panel]]:
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            if isinstance(panel, Panel):
                yield dashboard, panel


def targets(kind: str) -> list[dict[str, Any]]:
    return [
        target
        for _, panel in panels()
        for target in panel.targets
        if target["datasource"]["type"] == kind
    ]


def test_the_files_are_what_the_code_writes() -> None:
    for path, text in files().items():
        assert path.read_text() == text, f"{path.name} is stale: make dashboards"


def test_a_generated_file_says_what_writes_it() -> None:
    assert all("`make dashboards`" in text for text in files().values())
    assert "`make telemetry-docs`" in telemetry_docs.page()


def test_no_two_dashboards_or_panels_of_one_share_a_name() -> None:
    assert len({dashboard.uid for dashboard in DASHBOARDS}) == len(DASHBOARDS)
    for dashboard in DASHBOARDS:
        numbers = [panel["id"] for panel in dashboard.json()["panels"]]
        assert len(set(numbers)) == len(numbers)


def test_no_panel_covers_another_or_leaves_the_page() -> None:
    for dashboard in DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in dashboard.json()["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            taken |= cells


def test_every_panel_says_what_it_shows_and_in_what_unit() -> None:
    for dashboard, panel in panels():
        where = f"{dashboard.title}: {panel.title}"
        assert panel.about.endswith("."), where
        assert panel.unit, where
        assert panel.targets, where


def test_every_panel_of_durations_has_exemplars() -> None:
    for dashboard, panel in panels():
        if panel.unit == "s" and panel.kind == "timeseries":
            for target in panel.targets:
                assert target["exemplar"], f"{dashboard.title}: {panel.title}"


def test_a_rate_is_taken_of_what_is_a_counter_by_its_name() -> None:
    """Prometheus puts a note on every other panel: the metric might not be a counter."""
    text = "".join(files().values())
    counted = re.findall(r"(?:rate|increase)\(([^\[]+)\[", text)
    assert len(counted) > 100
    for selector in counted:
        assert re.match(r"\w+_(total|sum|count|bucket)(\{|$)", selector), selector


def test_every_row_that_names_a_trace_opens_it() -> None:
    found = [panel for _, panel in panels() if panel.targets[0].get("queryType") == "traceql"]
    assert len(found) >= 4
    for panel in found:
        [override] = panel.overrides
        pattern = override["matcher"]["options"].strip("/i")
        assert re.fullmatch(pattern, "traceID", re.IGNORECASE)
        [link] = override["properties"][0]["value"]
        assert "${__value.raw}" in link["url"]


def test_traceql_names_attributes_of_the_schema() -> None:
    found = targets("tempo")
    named = [
        key
        for target in found
        for key in re.findall(r"span\.([\w.]+)", target.get("query", "").replace("(span", " span"))
    ]
    assert len(named) >= 8
    assert set(named) <= KEYS
    resource = [key for t in found for key in re.findall(r"resource\.([\w.]+)", t.get("query", ""))]
    assert resource
    assert set(resource) <= RESOURCE


def test_the_embedded_trace_store_understands_every_search() -> None:
    for target in targets("tempo"):
        if target["queryType"] == "traceql":
            assert Condition(target["query"].partition(" | select")[0]).sql


def test_logql_names_labels_loki_has() -> None:
    allowed = {"service_name", "detected_level", *map(names.label, KEYS)}
    for target in targets("loki"):
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", target["expr"])) <= allowed


def test_every_variable_is_used_and_every_one_used_is_there() -> None:
    for dashboard in DASHBOARDS:
        text = json.dumps(dashboard.json()["panels"])
        used = set(re.findall(r"\$\{?(?!_)(\w+)", text))
        assert used == {variable.name for variable in dashboard.variables}, dashboard.title


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: promql.rate(schema.OPENAI_COST, ["colour"]),
        lambda: promql.rate(schema.OPENAI_COST, where={"stage": '="x"'}),
        lambda: promql.selector(schema.OPENAI_COST, part="_bucket"),
        lambda: promql.selector(schema.HTTP_SERVER_DURATION),
    ],
)
def test_a_query_with_a_name_that_is_not_there_is_not_written(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"no label|no part"):
        wrong()
