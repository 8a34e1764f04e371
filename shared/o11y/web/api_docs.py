"""`/docs`, a page made of a service's OpenAPI description, and an icon for the browser.

Swagger UI's files are those of the package fastapi-offline: the page works without the internet and
names no other host. ReDoc is left out, since its page loads a picture from its maker's host.
"""

from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.staticfiles import StaticFiles

FAVICON = "/favicon.ico"

_FILES = "/docs/files"
_ICON = Path(__file__).with_name("favicon.ico").read_bytes()
_DAY = 86_400


def install(app: FastAPI) -> None:
    """Add the page and the icon to an application that was made with `docs_url=None`."""

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        root = request.scope.get("root_path", "").rstrip("/")
        return get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=app.title,
            swagger_js_url=f"{root}{_FILES}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{_FILES}/swagger-ui.css",
            swagger_favicon_url=f"{root}{FAVICON}",
            swagger_ui_parameters={"validatorUrl": None},
        )

    @app.get(FAVICON, include_in_schema=False)
    async def favicon() -> Response:
        headers = {"cache-control": f"public, max-age={_DAY}"}
        return Response(_ICON, headers=headers, media_type="image/vnd.microsoft.icon")

    files = StaticFiles(packages=[("fastapi_offline", "static")])

    @app.get(_FILES + "/{name}", include_in_schema=False)  # and no mount, which has no route
    async def file(name: str, request: Request) -> Response:
        return await files.get_response(name, request.scope)
