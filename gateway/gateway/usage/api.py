"""`GET /usage`: what was used and spent, from the ledger; for a key, its own."""

import asyncio
import csv
import io
from datetime import UTC, date, datetime
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from accounting.database import Migrated, sqlite_file
from accounting.usage import MAX_ROWS, TOKENS, Group, Usage, usage
from o11y.telemetry import identity, schema
from o11y.web.openapi import errors
from o11y.web.problems import Problem, unavailable

MAX_DAYS = 3660

CSV: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/csv": {"schema": {"type": "string"}}}}
}
"""The other form of the answer, in OpenAPI."""


class UsageRow(BaseModel):
    """The sums of one group; what was not asked for is null."""

    day: date | None = None
    tenant: str | None = None
    key: str | None = None
    """A key's id."""
    user: str | None = None
    model: str | None = None
    """The model that answered."""
    provider: str | None = None
    calls: int
    """Billed attempts: those of a call that was repeated are several."""
    failed: int
    estimated: int
    """Calls whose tokens nobody counted."""
    unpriced: int
    """Calls whose price isn't known; they are not in the cost."""
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    input_audio_tokens: int
    output_audio_tokens: int
    cost_usd: float

    @classmethod
    def of(cls, sums: Usage) -> "UsageRow":
        return cls(
            **sums.group,
            **sums.tokens,
            calls=sums.calls,
            failed=sums.failed,
            estimated=sums.estimated,
            unpriced=sums.unpriced,
            cost_usd=float(sums.cost_usd),
        )


class UsageAnswer(BaseModel):
    """The usage of some days, both included, in UTC."""

    first: date
    last: date
    truncated: bool
    """True where there are more groups than an answer has."""
    usage: list[UsageRow]


def router(engine: Engine) -> APIRouter:
    api = APIRouter(tags=["usage"], responses=errors(401, 403, 503))
    database = Migrated(engine)

    @api.get("/usage", response_model=UsageAnswer, responses=CSV)
    async def read_usage(
        first: Annotated[date | None, Query(alias="from")] = None,
        last: Annotated[date | None, Query(alias="to")] = None,
        group_by: Annotated[list[Group], Query(max_length=3)] = ["day"],  # noqa: B006
        format: Literal["json", "csv"] = "json",
    ) -> Response | UsageAnswer:
        """Usage from a day to a day (UTC, by default this month), by day, tenant, key, user, model
        or provider, or by several of them. A key sees its own, the admin key all.
        """
        today = datetime.now(UTC).date()
        last = last or today
        first = first or last.replace(day=1)
        if not 0 <= (last - first).days < MAX_DAYS:
            raise Problem(
                422,
                "from: should be before `to`, and not ten years",
                code="invalid_input",
                field="from",
            )
        groups = list(dict.fromkeys(group_by))
        key_id = identity.attributes().get(schema.KEY_ID)
        try:
            rows = await asyncio.to_thread(
                partial(_read, database, first, last, groups, key_id=key_id)
            )
        except (SQLAlchemyError, OSError) as error:
            raise unavailable("the ledger can't be read") from error
        truncated, rows = len(rows) > MAX_ROWS, rows[:MAX_ROWS]
        if format == "csv":
            return Response(_csv(groups, rows), media_type="text/csv; charset=utf-8")
        listed = [UsageRow.of(each) for each in rows]
        return UsageAnswer(first=first, last=last, truncated=truncated, usage=listed)

    return api


def _read(
    database: Migrated, first: date, last: date, groups: list[Group], *, key_id: str | None
) -> list[Usage]:
    if (file := sqlite_file(database.engine.url)) is not None and not file.exists():
        return []  # nothing was spent yet, and nothing is made for that
    return usage(database.ready(), first, last, groups, key_id=key_id)


def _csv(groups: list[Group], rows: list[Usage]) -> str:
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow([*groups, "calls", "failed", "estimated", "unpriced", *TOKENS, "cost_usd"])
    for row in rows:
        counts = (row.calls, row.failed, row.estimated, row.unpriced, *row.tokens.values())
        names = (_cell(value) for value in row.group.values())
        writer.writerow([*names, *counts, f"{row.cost_usd:f}"])
    return written.getvalue()


def _cell(value: str | None) -> str:
    """A caller's text as a cell: one that begins so would be a formula in a spreadsheet."""
    text = value or ""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
