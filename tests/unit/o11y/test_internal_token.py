"""The internal token: what stands behind the gateway answers nobody who doesn't bring it."""

import httpx2
import pytest
from pydantic import SecretStr, ValidationError
from starlette.types import Receive, Scope, Send

from o11y.settings import ServiceSettings
from o11y.web.internal_token import InternalTokenMiddleware, sent

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


def test_without_a_token_nothing_is_sent() -> None:
    assert sent(None) == {}


@pytest.mark.parametrize("token", ["short", "with a space in the middle", "ümlaut-0123456789abc"])
def test_a_token_that_is_none_stops_a_service(token: str) -> None:
    with pytest.raises(ValidationError, match="internal_token"):
        ServiceSettings(app_port=1, internal_token=token)
