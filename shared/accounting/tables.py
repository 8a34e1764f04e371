"""The tables (SQLAlchemy Core). A change here needs a migration in `migrations/versions`.

Money is a whole number of picodollars, see `money`.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Index,
    MetaData,
    String,
    Table,
)

metadata = MetaData()

keys = Table(
    "keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("tenant", String(64), nullable=False, index=True),
    Column("hash", String(64), nullable=False),
    Column("former_hash", String(64)),
    Column("former_until", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("disabled", Boolean, nullable=False, default=False),
    Column("models", JSON),
    Column("routes", JSON),
    Column("limits", JSON),
    Column("budgets", JSON),
)
"""API keys: never the keys themselves, but SHA-256 of their secret part, in hex. `models` and
`routes` are lists, or null where all are allowed; the former hash counts until a time after a
rotation. `limits` and `budgets` are objects, or null where there are none.
"""

tenants = Table(
    "tenants",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("limits", JSON),
    Column("budgets", JSON),
)
"""Tenants that have limits or budgets of their own; others need no row."""

ledger = Table(
    "ledger",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("time", DateTime(timezone=True), nullable=False),
    Column("tenant", String(64)),
    Column("key_id", String(32)),
    Column("user_id", String(128)),
    Column("operation", String(32), nullable=False),
    Column("model", String(256), nullable=False),
    Column("response_model", String(256)),
    Column("provider", String(64), nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("input_audio_tokens", BigInteger, nullable=False),
    Column("output_audio_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger),
    Column("estimated", Boolean, nullable=False),
    Column("status", String(64), nullable=False),
    Column("trace_id", String(32)),
    Column("replica", String(32), nullable=False),
    Index("ix_ledger_time", "time"),
    Index("ix_ledger_tenant_time", "tenant", "time"),
    Index("ix_ledger_key_id_time", "key_id", "time"),
)
"""A row for each attempt that a provider bills. `time` is its beginning; `cost` is null where no
price is known; `status` is "ok" or the `error.type`; `replica` is who made it.
"""

spend = Table(
    "spend",
    metadata,
    Column("scope", String(8), primary_key=True),
    Column("owner", String(64), primary_key=True),
    Column("day", Date, primary_key=True),
    Column("amount", BigInteger, nullable=False),
)
"""Sums of the ledger for each key and tenant, by day (UTC). They outlive the ledger's rows."""

grants = Table(
    "grants",
    metadata,
    Column("replica", String(32), primary_key=True),
    Column("scope", String(8), primary_key=True),
    Column("owner", String(64), primary_key=True),
    Column("amount", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Index("ix_grants_owner", "scope", "owner"),
)
"""Money that a replica may still spend for a key or tenant without asking again:
nobody else may. `reserved` is what its running calls may cost, as it said last.
"""
