"""Who a request is for: its body says it, else its query, else its headers, never its baggage."""

import pytest
from opentelemetry import context, trace
from opentelemetry.context import Context

from gateway.caller import identify
from tests.support.gateway_services import CHAT, EMBED, GENERATE, Gateway, Services
from tests.support.recorded import Lines, Recorded, attributes

BOTH_NAMES = {"user.id": "ann", "user_id": "ann"}
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
        ("/chat", {"message": "a"}, CHAT),
        ("/embed", {"texts": ["a"]}, EMBED),
        ("/search", {"query": "a"}, EMBED),
        ("/local-inference", {"prompt": "a"}, GENERATE),
        ("/full-pipeline", {"query": "a"}, GENERATE),
        ("/local-inference", {"prompt": "a", "stream": True}, GENERATE),
    ],
)
async def test_every_call_takes_its_user(
    path: str, body: dict[str, object], call: str, gateway: Gateway, services: Services
) -> None:
    await gateway.post(path, {**body, "user_id": "ann"}, {"X-Session-Id": "s1"})
    assert services.asked(call).who == ALL
    services.requests.clear()
    await gateway.post(f"{path}?user_id=bob&session_id=s1", {**body, "user_id": "ann"})
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


CHATS: dict[str, object] = {"messages": [{"role": "user", "content": '"user": "eve"'}]}


@pytest.mark.parametrize(
    ("body", "query", "headers", "who"),
    [
        ({}, "", {}, {}),
        ({}, "", {"X-User-Id": "ann", "X-Session-Id": "s1"}, ALL),
        ({}, "?user_id=ann&session_id=s1", {"X-User-Id": "bob"}, ALL),
        ({"user": "ann"}, "?user_id=bob&session_id=s1", {"X-User-Id": "eve"}, ALL),
        ({"user": "bob", "safety_identifier": "ann"}, "", {}, ANN),
        ({"user": "é"}, "", {"X-User-Id": "ann"}, ANN),
        ({"user": "a" * 129, "safety_identifier": 5}, "?user_id=ann", {}, ANN),
        ({"user": None}, "", {}, {}),
        ({"metadata": {"user_id": "eve", "session_id": "s2"}}, "", {}, {}),
        ({}, "?stream_id=7", {}, {}),
    ],
    ids=range(10),
)
async def test_a_call_of_openais_api_says_who_in_its_own_words(
    body: dict[str, object],
    query: str,
    headers: dict[str, str],
    who: dict[str, str],
    gateway: Gateway,
    services: Services,
) -> None:
    response = await gateway.post(f"/v1/chat/completions{query}", {**CHATS, **body}, headers)
    assert response.status_code == 200
    assert services.asked(CHAT).who == who
    assert services.asked(CHAT).body == {**CHATS, **body}


@pytest.mark.parametrize("path", ["/v1/models", "/health", "/stats"])
async def test_calls_without_a_body_say_who_too(
    path: str, gateway: Gateway, services: Services
) -> None:
    await gateway.client.get(f"{path}?user_id=ann", headers={"X-Session-Id": "s1"})
    assert services.requests
    assert all(asked.who == ALL for asked in services.requests)


@pytest.mark.parametrize("value", ["", "a" * 129, "a%00b", "a%0Ab", "%C3%A9"], ids=range(5))
@pytest.mark.parametrize("field", ["user_id", "session_id"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat", {"message": "a"}),
        ("/embed", {"texts": ["a"]}),
        ("/full-pipeline", {"query": "a"}),
        ("/v1/chat/completions", CHATS),
        ("/v1/embeddings", {"input": "a"}),
    ],
)
async def test_a_query_that_names_nobody_is_refused(
    path: str,
    body: dict[str, object],
    field: str,
    value: str,
    gateway: Gateway,
    services: Services,
) -> None:
    response = await gateway.post(f"{path}?{field}={value}", body)
    assert response.status_code == 422
    answer = response.json()
    named = answer["error"]["param"] if "error" in answer else answer["errors"][0]["field"]
    assert named == field
    assert services.requests == []


@pytest.mark.parametrize("field", ["user_id", "session_id"])
@pytest.mark.parametrize("value", ["", "a" * 129, "a\x00b", "é", 5], ids=range(5))
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat", {"message": "a"}),
        ("/embed", {"texts": ["a"]}),
        ("/search", {"query": "a"}),
        ("/local-inference", {"prompt": "a"}),
        ("/full-pipeline", {"query": "a"}),
    ],
)
async def test_a_body_that_names_nobody_is_refused(
    path: str, body: dict[str, object], value: object, field: str, gateway: Gateway
) -> None:
    response = await gateway.post(path, {**body, field: value})
    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/chat", {"message": "a", "user_id": "ann", "session_id": "s1"}, 200),
        ("/chat", {"message": "a", "user_id": "ann", "session_id": "s1", "stream": True}, 502),
        ("/chat?user_id=ann&session_id=s1", {"message": ""}, 422),
        ("/v1/chat/completions?session_id=s1", {**CHATS, "user": "ann"}, 200),
        ("/nowhere", {}, 404),
    ],
)
async def test_the_access_line_says_who(
    path: str, body: dict[str, object], status: int, gateway: Gateway, lines: Lines
) -> None:
    headers = {"X-User-Id": "ann", "X-Session-Id": "s1", "X-Tenant-Id": "acme"}
    await gateway.post(path, body, headers)
    [line] = lines()
    [span] = [span for span in gateway.recorded.spans() if span.parent is None]
    assert line["status"] == status
    assert {**ALL, "tenant.id": "acme"}.items() <= line.items()
    assert line["span_id"] == f"{span.context.span_id:016x}"
    assert {**ALL, "tenant.id": "acme"}.items() <= attributes(span).items()


async def test_who_asked_before_is_not_who_asks_now(gateway: Gateway, lines: Lines) -> None:
    await gateway.post("/chat", {"message": "a", "user_id": "ann"})
    await gateway.post("/chat", {"message": "a"})
    assert [line.get("user.id") for line in lines()] == ["ann", None]


def test_who_is_told_late_is_on_the_span_already_open_and_those_to_come(
    recorded: Recorded,
) -> None:
    tracer = recorded.telemetry.tracer
    token = context.attach(Context())
    with tracer.start_as_current_span("outer"):
        identify("ann")
        with tracer.start_as_current_span("inner"):
            pass
    context.detach(token)
    assert attributes(recorded.span("outer")) == BOTH_NAMES
    assert attributes(recorded.span("inner")) == BOTH_NAMES


def test_nobody_is_no_error() -> None:
    before = context.get_current()
    assert not trace.get_current_span().is_recording()
    identify(None, None)
    assert context.get_current() is before
