"""The schema is the only source of names, and its page says what it says."""

import ast
from collections.abc import Iterator

import pytest

from deploy.dashboards import telemetry_docs
from o11y.telemetry import schema
from tests.support.processes import ROOT

SOURCES = ("gateway", "llm-proxy", "vector-svc", "inference-svc", "shared", "deploy")

KEYS = {attribute.key for attribute in schema.ATTRIBUTES}
EVENTS = {event.name for event in schema.EVENTS}
METRICS = {metric.name for metric in schema.METRICS}

# Words of requests, answers and plain English, which are also keys
WORDS = {
    *(schema.USER_ID_ORIGINAL, schema.SESSION_ID_ORIGINAL),
    *(schema.LABEL_REASON, schema.LABEL_STATUS, schema.EVENT_CANCELLED, schema.EVENT_ADMITTED),
}


def literals() -> Iterator[tuple[str, str]]:
    """File and text of each string in the code that could be a name."""
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name.startswith("shared/o11y/telemetry/schema/") or "/build/" in name:
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield name, node.value


def test_no_other_module_writes_a_name_of_telemetry() -> None:
    names = (KEYS | EVENTS | METRICS | {schema.SPAN_WORKFLOW, schema.SPAN_CORPUS}) - WORDS
    written = [
        (file, text)
        for file, text in literals()
        if (text in names or text.startswith(("gen_ai.", "o11y.usage.", "o11y.llm.", "hw.gpu.")))
    ]
    assert not written


def test_the_page_for_people_is_the_schema() -> None:
    page = telemetry_docs.PAGE.read_text(encoding="utf-8")
    assert page == telemetry_docs.page(), "write it anew: make telemetry-docs"


@pytest.mark.parametrize("span", schema.SPANS, ids=lambda span: f"{span.kind} {span.pattern}")
def test_a_span_has_keys_and_events_of_the_schema(span: schema.SpanName) -> None:
    assert set(span.attributes) <= KEYS
    assert set(span.events) <= EVENTS
    assert len(set(span.attributes)) == len(span.attributes)


def test_each_key_is_given_once_and_somewhere() -> None:
    keys = [attribute.key for attribute in schema.ATTRIBUTES]
    used = {key for span in schema.SPANS for key in span.attributes} | set(schema.IDENTITY)
    used |= {key for event in schema.EVENTS for key in event.attributes}
    used |= {key for metric in schema.METRICS for key in metric.labels}
    assert len(keys) == len(set(keys))
    assert set(keys) <= used


def test_a_label_with_a_dot_is_an_attribute() -> None:
    dotted = {key for metric in schema.METRICS for key in metric.labels if "." in key}
    assert dotted <= KEYS
