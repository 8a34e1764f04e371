"""The telemetry schema holds together: each name once, each with its source."""

import pytest

from o11y.telemetry import schema
from o11y.telemetry.schema import METRICS, Metric

KEYS = {value for value in vars(schema).values() if isinstance(value, str)}

each_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)


def test_each_name_is_given_once() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names)) > 10


@each_metric
def test_a_metric_says_where_its_name_comes_from(metric: Metric) -> None:
    assert metric.source in ("original", "o11y") or metric.source.startswith("semconv ")


@each_metric
def test_a_metric_is_described_in_a_sentence(metric: Metric) -> None:
    assert metric.description.endswith(".")


@each_metric
def test_labels_are_keys_of_the_schema(metric: Metric) -> None:
    assert set(metric.labels) <= KEYS
    assert len(metric.labels) == len(set(metric.labels))


@each_metric
def test_users_and_sessions_are_no_labels(metric: Metric) -> None:
    people = {schema.USER_ID, schema.SESSION_ID, schema.USER_ID_ORIGINAL}
    assert not people & set(metric.labels)


@each_metric
def test_histograms_and_only_they_have_rising_buckets(metric: Metric) -> None:
    assert bool(metric.buckets) is (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))


@each_metric
def test_a_unit_is_no_part_of_the_name_it_is_added_to(metric: Metric) -> None:
    suffix = {"s": "_seconds", "By": "_bytes", "%": "_percent"}.get(metric.unit)
    assert suffix is None or not metric.name.endswith(suffix)
    assert metric.kind != "counter" or not metric.name.endswith("_total")
