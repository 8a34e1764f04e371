"""Traces for the console, from Tempo's HTTP API: the embedded store's, or Tempo itself.

Where keys are on, a key sees its tenant's traces and no others; the admin key sees all.
"""

import asyncio
import json
import time
from typing import Annotated, Any, Literal

import httpx2
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, ValidationError
from pydantic.alias_generators import to_camel

from gateway.console.pages import DATA
from gateway.console.spans import Span, StoredTrace, spans_of
from o11y.telemetry import identity, schema
from o11y.web.problems import Problem, unavailable

READ_SECONDS = 10.0
MAX_BYTES = 16 * 2**20
"""Longest answer of the store that is read."""

_DAY = 86_400

_WORDS = (
    ("service", "resource.service.name"),
    ("route", "rootName"),
    ("user", f'span."{schema.USER_ID}"'),
    ("session", f'span."{schema.SESSION_ID}"'),
    ("tenant", f'span."{schema.TENANT_ID}"'),
    ("model", f'span."{schema.REQUEST_MODEL}"'),
)
"""Fields that are searched for by a word, and their names in TraceQL."""


class Searched(BaseModel):
    """A search: conditions that one span of a trace meets, or TraceQL of one's own."""

    service: str = ""
    route: str = ""
    user: str = ""
    session: str = ""
    tenant: str = ""
    model: str = ""
    status: Literal["", "ok", "error", "unset"] = ""
    min_ms: float | None = Field(None, ge=0, le=1e9)
    min_usd: float | None = Field(None, ge=0, le=1e9)
    q: str = Field("", max_length=4000)
    days: int = Field(7, ge=1, le=3660)
    limit: int = Field(100, ge=1, le=500)

    def traceql(self) -> str:
        """The search as TraceQL, but for `min_ms`, which is of the whole trace."""
        conditions = [
            f"{name} = {json.dumps(value, ensure_ascii=False)}"
            for field, name in _WORDS
            if (value := getattr(self, field))
        ]
        if self.status:
            conditions.append(f"status = {self.status}")
        if self.min_usd is not None:
            conditions.append(f'span."{schema.COST_USD}" >= {self.min_usd:f}')
        return "{ " + " && ".join(conditions) + " }"


class _Found(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)

    trace_id: str = Field(alias="traceID")
    root_service_name: str = ""
    root_trace_name: str = ""
    start_time_unix_nano: int = 0
    duration_ms: int = 0


class _FoundTraces(BaseModel):
    traces: list[_Found] | None = None


class TraceLine(BaseModel):
    """`started`: seconds since 1970; `duration`: milliseconds."""

    id: str
    service: str
    name: str
    started: float
    duration: float


class TraceLines(BaseModel):
    query: str
    """The search as TraceQL."""
    traces: list[TraceLine]


class TraceAnswer(BaseModel):
    id: str
    spans: list[Span]


class TraceReader:
    """Reads from Tempo's API at `url`; without one nothing can be read. Raises Problem."""

    def __init__(
        self, url: HttpUrl | None, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._client = None
        if url:
            self._client = httpx2.AsyncClient(
                base_url=str(url), timeout=READ_SECONDS, transport=transport
            )

    async def aclose(self) -> None:
        if self._client:
            await self._client.aclose()

    async def trace(self, trace_id: str) -> list[Span]:
        """The spans that have come until now; none where nobody knows the trace."""
        content = await self._get(f"/api/traces/{trace_id}", {})
        if content is None:
            return []
        try:
            return spans_of(StoredTrace.model_validate_json(content))
        except ValueError as error:
            raise _unreadable() from error

    async def search(self, query: str, searched: Searched) -> list[TraceLine]:
        now = int(time.time())
        asked = {
            "q": query,
            "limit": searched.limit,
            "start": now - searched.days * _DAY,
            "end": now + 60,
        }
        if searched.min_ms:
            asked["minDuration"] = f"{searched.min_ms:f}ms"
        content = await self._get("/api/search", asked)
        try:
            found = _FoundTraces.model_validate_json(content or b"{}").traces or []
        except ValidationError as error:
            raise _unreadable() from error
        return [
            TraceLine(
                id=each.trace_id.zfill(32),
                service=each.root_service_name,
                name=each.root_trace_name,
                started=each.start_time_unix_nano / 1e9,
                duration=each.duration_ms,
            )
            for each in found
        ]

    async def _get(self, path: str, asked: dict[str, Any]) -> bytes | None:
        if self._client is None:
            raise Problem(404, "traces can't be shown: TEMPO_URL is not set", code="no_traces")
        content = bytearray()
        try:
            async with (
                asyncio.timeout(READ_SECONDS),
                self._client.stream("GET", path, params=asked) as response,
            ):
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > MAX_BYTES:
                        raise Problem(502, "the trace is too large to be shown")
        except (httpx2.HTTPError, TimeoutError) as error:
            raise unavailable("the trace store doesn't answer") from error
        if response.status_code == 404:
            return None
        if response.status_code == 400:
            detail = f"q: {content[:300].decode(errors='replace')}"
            raise Problem(422, detail, code="invalid_input", field="q")
        if response.status_code != 200:
            raise unavailable(f"the trace store answers with status {response.status_code}")
        return bytes(content)


def _unreadable() -> Problem:
    return Problem(502, "the trace store's answer can't be read", code="bad_upstream")


def router(reader: TraceReader) -> APIRouter:
    api = APIRouter(prefix=DATA.rstrip("/"), include_in_schema=False)

    @api.get("/traces")
    async def search(searched: Annotated[Searched, Query()]) -> TraceLines:
        """The newest traces that meet the conditions."""
        own = _own_tenant()
        if own is not None:
            if searched.q:
                detail = "q: TraceQL of one's own is for the admin key; a key searches by fields"
                raise Problem(403, detail, code="admin_key_needed", field="q")
            searched.tenant = own
        query = searched.q or searched.traceql()
        return TraceLines(query=query, traces=await reader.search(query, searched))

    @api.get("/traces/{trace_id}")
    async def read(trace_id: str) -> TraceAnswer:
        """A trace, as far as it has come."""
        if len(trace_id) != 32 or set(trace_id) - set("0123456789abcdef"):
            detail = "trace_id: should have 32 hexadecimal digits"
            raise Problem(422, detail, code="invalid_input", field="trace_id")
        spans = await reader.trace(trace_id)
        own = _own_tenant()
        if own is not None:
            # a caller may continue a trace of somebody else's, whose spans stay unseen
            spans = [span for span in spans if span.attributes.get(schema.TENANT_ID) == own]
        return TraceAnswer(id=trace_id, spans=spans)

    return api


def _own_tenant() -> str | None:
    """The tenant of the caller's key; None for a caller who sees all."""
    who = identity.attributes()
    return who.get(schema.TENANT_ID, "") if schema.KEY_ID in who else None
