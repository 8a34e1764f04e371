"""What is believed of a request's headers: whose trace it belongs to, and which do no harm."""

from collections.abc import AsyncIterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from tests.support.gateway_services import CHAT, Gateway
from tests.support.recorded import attributes, identity, traceparent

TRACE, SPAN = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
PARENT = f"00-{TRACE:032x}-{SPAN:016x}-01"
HUGE = "a" * 65_536

Headers = list[tuple[str, str]]


async def ask(gateway: Gateway, headers: Headers) -> ReadableSpan:
    """The gateway's own span of a chat that came with these headers."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    response = await gateway.client.post("/chat", json={"message": "a"}, headers=raw)
    assert response.status_code == 200
    [server] = gateway.recorded.spans(SpanKind.SERVER)
    asked = gateway.services.asked(CHAT)
    assert traceparent(asked.headers)[0] == identity(server).trace_id
    assert response.headers["x-trace-id"] == f"{identity(server).trace_id:032x}"
    return server


@pytest.fixture
async def linking() -> AsyncIterator[Gateway]:
    gateway = Gateway("link")
    yield gateway
    await gateway.close()


async def test_a_callers_trace_is_continued(gateway: Gateway) -> None:
    server = await ask(gateway, [("traceparent", PARENT), ("tracestate", "a=1")])
    assert server.parent
    assert (server.parent.trace_id, server.parent.span_id) == (TRACE, SPAN)
    assert identity(server).trace_id == TRACE
    assert server.links == ()
    assert gateway.services.asked(CHAT).headers["tracestate"] == "a=1"


async def test_or_linked_to_one_of_our_own(linking: Gateway) -> None:
    server = await ask(linking, [("traceparent", PARENT), ("tracestate", "a=1")])
    [link] = server.links
    assert (link.context.trace_id, link.context.span_id) == (TRACE, SPAN)
    assert server.parent is None
    assert identity(server).trace_id != TRACE
    assert "tracestate" not in linking.services.asked(CHAT).headers


async def test_a_linked_caller_does_not_decide_what_is_recorded(linking: Gateway) -> None:
    server = await ask(linking, [("traceparent", PARENT[:-2] + "00")])
    assert identity(server).trace_flags.sampled


async def test_without_a_caller_there_is_nothing_to_link(linking: Gateway) -> None:
    server = await ask(linking, [("X-User-Id", "ann")])
    assert (server.parent, server.links) == (None, ())
    assert attributes(server)["user.id"] == "ann"


@pytest.mark.parametrize("trace_context", ["continue", "link"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        "garbage",
        HUGE,
        PARENT + "-" + HUGE,
        PARENT + "-extra",
        "ff" + PARENT[2:],
        "zz" + PARENT[2:],
        f"00-{0:032x}-{SPAN:016x}-01",
        f"00-{TRACE:032x}-{0:016x}-01",
        PARENT.upper(),
        "\xff\xfe",
        "%s%d{}",
    ],
    ids=range(12),
)
async def test_a_traceparent_that_is_none_begins_a_new_trace(
    value: str, trace_context: str, gateway: Gateway, linking: Gateway
) -> None:
    asked = gateway if trace_context == "continue" else linking
    server = await ask(asked, [("traceparent", value)])
    assert (server.parent, server.links) == (None, ())


@pytest.mark.parametrize(
    "state",
    ["garbage", HUGE, "=,=,;", "a=1," * 100, ",".join(f"k{n}={n}" for n in range(99)), "a=\xff"],
    ids=range(6),
)
async def test_a_tracestate_that_is_none_is_left_out(state: str, gateway: Gateway) -> None:
    server = await ask(gateway, [("traceparent", PARENT), ("tracestate", state)])
    assert identity(server).trace_id == TRACE
    assert len(gateway.services.asked(CHAT).headers.get("tracestate", "")) <= 512


@pytest.mark.parametrize(
    "given",
    [
        "user.id=mallory,tenant.id=gold",
        "user.id=" + HUGE,
        ",".join(f"k{n}=v" for n in range(5000)),
        ";;=,",
        "user.id=%00%ff",
    ],
    ids=range(5),
)
async def test_baggage_from_outside_reaches_nothing(given: str, gateway: Gateway) -> None:
    server = await ask(gateway, [("baggage", given), ("X-Session-Id", "s1")])
    assert gateway.services.asked(CHAT).who == {"session.id": "s1"}
    assert not {"user.id", "tenant.id"} & set(attributes(server))


@pytest.mark.parametrize(
    ("given", "tenant"),
    [
        ("acme", "acme"),
        ("a.b-c_1", "a.b-c_1"),
        ("a" * 64, "a" * 64),
        ("a" * 65, None),
        ("_other", None),
        ("_none", None),
        ("a b", None),
        ("", None),
        (HUGE, None),
    ],
    ids=range(9),
)
async def test_a_tenant_is_what_the_header_says(
    given: str, tenant: str | None, gateway: Gateway
) -> None:
    server = await ask(gateway, [("X-Tenant-Id", given)])
    assert gateway.services.asked(CHAT).who == ({"tenant.id": tenant} if tenant else {})
    assert attributes(server).get("tenant.id") == tenant
