"""Who a request is for, on every span and for the metrics of tenants."""

import pytest
from opentelemetry import baggage

from o11y.telemetry.bounded import OVERFLOW
from o11y.telemetry.identity import NO_TENANT, Tenants, attributes, extract, tenant
from tests.support import recorded as recording
from tests.support.recorded import Recorded
from tests.support.whose import identified

ANN = {"user.id": "ann", "user_id": "ann"}
SESSION = {"session.id": "s1", "session_id": "s1"}
TENANT = {"tenant.id": "acme"}


@pytest.mark.parametrize(
    ("user", "session", "tenant", "expected"),
    [
        (None, None, None, {}),
        ("ann", None, None, ANN),
        (None, "s1", None, SESSION),
        (None, None, "acme", TENANT),
        ("ann", "s1", "acme", {**ANN, **SESSION, **TENANT}),
    ],
)
def test_a_span_carries_who_under_every_name(
    user: str | None,
    session: str | None,
    tenant: str | None,
    expected: dict[str, str],
    recorded: Recorded,
) -> None:
    with (
        identified(user, session, tenant),
        recorded.telemetry.tracer.start_as_current_span("work"),
    ):
        assert attributes() == expected
    assert recording.attributes(recorded.span("work")) == expected


def test_spans_below_carry_it_too(recorded: Recorded) -> None:
    tracer = recorded.telemetry.tracer
    with (
        identified("ann", "s1"),
        tracer.start_as_current_span("outer"),
        tracer.start_as_current_span("inner"),
    ):
        pass
    assert recording.attributes(recorded.span("inner")) == {**ANN, **SESSION}


def test_who_is_not_given_anew_stays() -> None:
    with identified("ann", "s1", "acme"), identified("bob", None):
        assert attributes() == {"user.id": "bob", "user_id": "bob", **SESSION, **TENANT}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("user.id=ann,session.id=s1", {**ANN, **SESSION}),
        ("tenant.id=acme", TENANT),
        ("user.id=a%20%C3%A9", {"user.id": "a é", "user_id": "a é"}),
        ("stage=prod", {}),
        (",;=,,", {}),
        ("user.id=" + "a" * 70_000, {}),
        (",".join(f"k{n}=v" for n in range(1000)), {}),
    ],
    ids=range(7),
)
def test_a_service_believes_the_gateways_baggage(header: str, expected: dict[str, str]) -> None:
    assert attributes(extract({"baggage": header})) == expected


def test_tenants_are_a_bounded_number_of_labels() -> None:
    tenants = Tenants(limit=2)
    labels = []
    for name in (None, "a", "b", "c", "a", None):
        with identified(None, None, name):
            labels.append(tenants.label(tenant()))
    assert labels == [NO_TENANT, "a", "b", OVERFLOW, "a", NO_TENANT]


def test_baggage_is_what_travels() -> None:
    with identified("ann", "s1", "acme"):
        assert dict(baggage.get_all()) == {
            "user.id": "ann",
            "session.id": "s1",
            "tenant.id": "acme",
        }
