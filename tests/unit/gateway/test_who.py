"""Who a request is for: its body says it, else its query, else its headers, never its baggage."""

import pytest

from tests.unit.gateway.services import CHAT, EMBED, GENERATE, Gateway, Services
from tests.unit.o11y.recorded import attributes

ANN = {"user.id": "ann"}
ALL = {"user.id": "ann", "session.id": "s1"}
BAGGAGE = {"baggage": "user.id=mallory,tenant=gold"}


@pytest.mark.parametrize(
    ("body", "headers", "who"),
    [
        ({}, {}, {}),
        ({"user_id": "ann"}, {}, ANN),
        ({"user_id": "ann", "session_id": "s1"}, {}, ALL),
        ({}, {"X-User-Id": "ann", "X-Session-Id": "s1"}, ALL),
        ({"user_id": "ann"}, {"X-User-Id": "bob", "X-Session-Id": "s1"}, ALL),
        ({}, {"X-User-Id": "a" * 129}, {}),
        ({}, {"X-User-Id": ""}, {}),
        ({}, {"X-User-Id": "a\tb", "X-Session-Id": "s1"}, {"session.id": "s1"}),
        ({}, BAGGAGE, {}),
        ({"user_id": "ann"}, BAGGAGE, ANN),
        ({}, {**BAGGAGE, "X-User-Id": "ann"}, ANN),
    ],
)
async def test_the_service_hears_who_asks_from_the_gateway_alone(
    body: dict[str, str],
    headers: dict[str, str],
    who: dict[str, str],
    gateway: Gateway,
    services: Services,
) -> None:
    response = await gateway.post("/chat", {"message": "a", **body}, headers)
    assert response.status_code == 200
    assert services.asked(CHAT).who == who


@pytest.mark.parametrize(
    ("path", "body", "call"),
    [
        ("/embed", {"texts": ["a"]}, EMBED),
        ("/search", {"query": "a"}, EMBED),
        ("/local-inference", {"prompt": "a"}, GENERATE),
        ("/full-pipeline", {"query": "a"}, GENERATE),
    ],
)
async def test_every_call_takes_its_user(
    path: str, body: dict[str, object], call: str, gateway: Gateway, services: Services
) -> None:
    await gateway.post(path, {**body, "user_id": "ann"}, {"X-Session-Id": "s1"})
    assert services.asked(call).who == ALL


@pytest.mark.parametrize(
    ("query", "body", "headers", "user"),
    [
        ("query=a&user_id=ann", None, {"X-User-Id": "bob"}, "ann"),
        ("query=a&user_id=bob", {"user_id": "ann"}, {"X-User-Id": "eve"}, "ann"),
        ("query=a", None, {"X-User-Id": "ann"}, "ann"),
    ],
)
async def test_the_body_counts_before_the_query_and_that_before_the_headers(
    query: str,
    body: object,
    headers: dict[str, str],
    user: str,
    gateway: Gateway,
    services: Services,
) -> None:
    await gateway.post(f"/full-pipeline?{query}", body, headers)
    assert services.asked(GENERATE).who == {"user.id": user}


async def test_every_span_of_the_call_carries_the_user(gateway: Gateway) -> None:
    await gateway.post("/full-pipeline", {"query": "a", "user_id": "ann", "session_id": "s1"})
    spans = gateway.recorded.spans()
    assert len(spans) == 8
    for span in spans:
        told = attributes(span)
        assert (told["user.id"], told["user_id"], told["session_id"]) == ("ann", "ann", "s1")
