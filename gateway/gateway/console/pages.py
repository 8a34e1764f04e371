"""The console's pages, their files, and signing in with a key.

The pages hold no data: their scripts ask the gateway's own API for it, with the key that a cookie
keeps. No script can read the cookie, no other site's page can have it sent, and it counts only with
the header `MARK`, which another site's page can't set.
"""

from http.cookies import SimpleCookie
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, HttpUrl, StringConstraints
from starlette.templating import Jinja2Templates
from starlette.types import Scope

FOLDER = "/console/"
SESSION = "/session"
DATA = f"{FOLDER}data/"
"""The routes that only the console asks; they need a key as others do."""

MARK = "x-o11y-console"
COOKIE = "o11y_key"

_HERE = Path(__file__).parent
_PAGES = {"playground": "/", **{name: FOLDER + name for name in ("traces", "usage", "system")}}
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


class SignIn(BaseModel):
    """A key, or the admin key."""

    key: Annotated[str, StringConstraints(pattern=r"^[!-~]+$", max_length=512)]


def is_page(path: str) -> bool:
    """True for what everybody may see: pages and their files, and the way to sign in."""
    return path in ("/", SESSION) or (path.startswith(FOLDER) and not path.startswith(DATA))


def key_of(scope: Scope) -> str | None:
    """The key that the console's cookie brings; None where there is none that counts."""
    headers = dict(scope["headers"])
    if MARK.encode() not in headers:
        return None
    cookie = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(COOKIE)
    return cookie.value if cookie else None


def router(grafana_url: HttpUrl | None) -> APIRouter:
    api = APIRouter(include_in_schema=False)
    grafana = str(grafana_url or "").rstrip("/")
    templates = Jinja2Templates(_HERE / "templates")
    files = StaticFiles(directory=_HERE / "static")

    def add(name: str, path: str) -> None:
        @api.get(path)
        async def page(request: Request) -> Response:
            values = {"root": _root(request), "pages": _PAGES, "page": name, "grafana": grafana}
            return templates.TemplateResponse(request, f"{name}.html", values, headers=_HEADERS)

    for name, path in _PAGES.items():
        add(name, path)

    @api.get(FOLDER + "files/{name}")
    async def file(name: str, request: Request) -> Response:
        response = await files.get_response(name, request.scope)
        response.headers.update(_HEADERS)
        return response

    @api.put(SESSION, status_code=204)
    async def sign_in(body: SignIn, request: Request, response: Response) -> None:
        """Keep a key for the console; whether it is a good one is seen when it is used."""
        response.set_cookie(
            COOKIE,
            body.key,
            path=_root(request) or "/",
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )

    @api.delete(SESSION, status_code=204)
    async def sign_out(request: Request, response: Response) -> None:
        """Forget it."""
        response.delete_cookie(
            COOKIE,
            path=_root(request) or "/",
            httponly=True,
            samesite="strict",
        )

    return api


def _root(request: Request) -> str:
    """The path that the gateway is reached under; empty where it has a host of its own."""
    root: str = request.scope.get("root_path", "")
    return root.rstrip("/")
