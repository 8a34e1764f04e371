"""The internal token: what stands behind the gateway answers nobody who doesn't bring it."""

import httpx2
import pytest
from opentelemetry import baggage
from opentelemetry.trace import format_trace_id, get_current_span
from pydantic import SecretStr, ValidationError
from starlette.types import Receive, Scope, Send

from o11y.settings import ServiceSettings
from o11y.telemetry import identity
from o11y.web.internal_token import InternalTokenMiddleware, sent
from o11y.web.server_span import extract_with

TOKEN = SecretStr("the-internal-token-0123")


async def answers(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"here"})


async def asked(path: str, headers: list[tuple[str, str]]) -> httpx2.Response:
    transport = httpx2.ASGITransport(InternalTokenMiddleware(answers, TOKEN))
    async with httpx2.AsyncClient(transport=transport, base_url="http://a") as client:
        return await client.get(path, headers=headers)


async def test_a_request_with_the_token_passes() -> None:
    assert (await asked("/search", list(sent(TOKEN).items()))).text == "here"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("x-internal-token", "")],
        [("x-internal-token", "the-internal-token-0124")],
        [("x-internal-token", TOKEN.get_secret_value() + " x")],
        [("x-internal-token", TOKEN.get_secret_value())] * 2,
        [("authorization", f"Bearer {TOKEN.get_secret_value()}")],
    ],
)
async def test_any_other_is_refused(headers: list[tuple[str, str]]) -> None:
    refused = await asked("/search", headers)
    assert (refused.status_code, refused.json()["code"]) == (401, "internal")
    assert TOKEN.get_secret_value() not in refused.text
    openai = (await asked("/v1/models", headers)).json()["error"]
    assert (openai["type"], openai["code"]) == ("authentication_error", "internal")


@pytest.mark.parametrize(
    ("given", "tenant"),
    [(sent(TOKEN), "acme"), ({}, None), ({"x-internal-token": "the-internal-token-0124"}, None)],
)
def test_who_calls_is_believed_with_the_token_alone(
    given: dict[str, str], tenant: str | None
) -> None:
    """The trace goes on in any case."""
    trace_id = 32 * "a"
    headers = {"traceparent": f"00-{trace_id}-{16 * 'b'}-01", "baggage": "tenant.id=acme"}
    headers |= {name.lower(): value for name, value in given.items()}
    context = extract_with(TOKEN)(headers).context
    assert identity.attributes(context).get("tenant.id") == tenant
    assert baggage.get_all(context) == ({"tenant.id": tenant} if tenant else {})
    assert format_trace_id(get_current_span(context).get_span_context().trace_id) == trace_id


def test_without_a_token_nothing_is_sent() -> None:
    assert sent(None) == {}


@pytest.mark.parametrize("token", ["short", "with a space in the middle", "ümlaut-0123456789abc"])
def test_a_token_that_is_none_stops_a_service(token: str) -> None:
    with pytest.raises(ValidationError, match="internal_token"):
        ServiceSettings(app_port=1, internal_token=token)
