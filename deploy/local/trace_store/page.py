"""Pages for people, beside Tempo's API: the newest traces, and one trace as a waterfall."""

import json
from pathlib import Path

from opentelemetry.proto.trace.v1.trace_pb2 import Span
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from .store import Store, to_json

HERE = Path(__file__).parent


def routes(store: Store) -> list[Route]:
    """The routes GET / and GET /trace/{trace_id}."""
    templates = Jinja2Templates(HERE / "templates")  # they escape whatever they show
    templates.env.filters |= {"parsed": json.loads, "message": Span.FromString, "json": to_json}
    waterfall = (HERE / "waterfall.sql").read_text()

    def newest(request: Request) -> Response:
        traces = store.read("SELECT * FROM trace_line ORDER BY first DESC LIMIT 50")
        return templates.TemplateResponse(request, "traces.html", {"traces": traces})

    def trace(request: Request) -> Response:
        spans = store.read(waterfall, {"id": trace_id(request)})
        if not spans:
            raise HTTPException(404, "trace not found")
        return templates.TemplateResponse(request, "trace.html", {"spans": spans})

    return [Route("/", newest), Route("/trace/{trace_id}", trace)]


def trace_id(request: Request) -> bytes:
    """The trace id of a path, whose leading zeros may be missing. Raises ValueError."""
    found = bytes.fromhex(request.path_params["trace_id"].zfill(32))
    if len(found) != 16:
        raise ValueError("a trace id has at most 32 hexadecimal digits")
    return found
