"""The page a browser is shown: it needs no other host, and all that it names is there."""

import re
import struct
from collections.abc import AsyncIterator, Callable
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2
import pytest

from tests.support.recorded import Recorded, attributes, http
from tests.support.small_service import application, service

ASKED_FOR = {("link", "href"), ("script", "src"), ("img", "src"), ("iframe", "src")}
TYPES = {
    "json": "application/json",
    "js": "text/javascript",
    "css": "text/css",
    "ico": "image/vnd.microsoft.icon",
}
ICON_ENTRY = 16
"""Bytes of an entry in an icon's directory."""


class Named(HTMLParser):
    """The addresses a browser asks for when it shows a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses = re.findall(r"\burl: '([^']*)'", page)
        """The one that Swagger UI is told in the page's script, and those of tags."""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value for name, value in attrs if value and (tag, name) in ASKED_FOR]


@pytest.fixture
async def things(recorded: Recorded) -> AsyncIterator[httpx2.AsyncClient]:
    async with service(recorded) as client:
        yield client


async def test_all_that_the_page_names_is_on_this_host(things: httpx2.AsyncClient) -> None:
    page = await things.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    named = Named(page.text).addresses
    assert {address.rpartition(".")[2] for address in named} == set(TYPES)
    for address in named:
        assert not urlsplit(address).netloc
        found = await things.get(urljoin("/docs", address))
        assert found.status_code == 200, address
        wanted = TYPES[address.rpartition(".")[2]]
        assert found.headers["content-type"].partition(";")[0] == wanted
        assert found.content


async def test_no_other_host_is_named_by_the_page_or_its_style(things: httpx2.AsyncClient) -> None:
    page = await things.get("/docs")
    assert "//" not in re.sub(r"^\s*//.*", "", page.text, flags=re.MULTILINE)
    style = await things.get("/docs/files/swagger-ui.css")
    loaded = re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')]{5})", style.text)
    assert set(loaded) == {"data:"}


async def test_no_page_judges_the_description_elsewhere(things: httpx2.AsyncClient) -> None:
    assert '"validatorUrl": null' in (await things.get("/docs")).text


async def test_the_page_knows_where_a_proxy_has_put_the_service(recorded: Recorded) -> None:
    app = application(recorded.telemetry)
    transport = httpx2.ASGITransport(app, root_path="/things-svc")
    async with httpx2.AsyncClient(transport=transport, base_url="http://service") as client:
        named = Named((await client.get("/docs")).text).addresses
    assert named
    assert all(address.startswith("/things-svc/") for address in named)


async def test_there_is_no_page_that_needs_the_internet(things: httpx2.AsyncClient) -> None:
    assert (await things.get("/redoc")).status_code == 404


async def test_the_description_tells_the_api_and_not_what_shows_it(
    things: httpx2.AsyncClient,
) -> None:
    paths = (await things.get("/openapi.json")).json()["paths"]
    assert "/things" in paths
    assert not [path for path in paths if path.startswith(("/docs", "/favicon"))]


async def test_a_file_is_sent_once(things: httpx2.AsyncClient) -> None:
    first = await things.get("/docs/files/swagger-ui.css")
    again = await things.get(
        "/docs/files/swagger-ui.css", headers={"if-none-match": first.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


async def test_files_outside_the_folder_are_not_shown(things: httpx2.AsyncClient) -> None:
    assert (await things.get("/docs/files/..%2Fcore.py")).status_code == 404
    assert (await things.get("/docs/files/nothing.js")).status_code == 404


async def test_files_share_one_route_in_telemetry(
    things: httpx2.AsyncClient, recorded: Recorded
) -> None:
    await things.get("/docs/files/swagger-ui.css")
    await things.get("/docs/files/nothing.js")
    routes = [attributes(span)["http.route"] for span in recorded.spans()]
    assert routes == ["/docs/files/{name}"] * 2


# The icon


async def test_the_icon_is_one_and_is_kept_for_a_day(things: httpx2.AsyncClient) -> None:
    answer = await things.get("/favicon.ico")
    assert answer.headers["cache-control"] == "public, max-age=86400"
    reserved, kind, count = struct.unpack_from("<HHH", answer.content)
    assert (reserved, kind) == (0, 1)
    for number in range(count):
        size, start = struct.unpack_from("<II", answer.content, 6 + number * ICON_ENTRY + 8)
        assert answer.content[start : start + size].startswith(b"\x89PNG")
        assert answer.content[start : start + size].endswith(b"IEND\xaeB`\x82")


async def test_a_browser_that_asks_for_the_icon_leaves_no_telemetry(
    recorded: Recorded, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    async with http(application(recorded.telemetry)) as client:
        assert (await client.get("/favicon.ico")).status_code == 200
    assert (recorded.spans(), lines()) == ([], [])
    assert recorded.points("http.server.request.duration") == []
