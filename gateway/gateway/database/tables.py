"""The tables (SQLAlchemy Core). A change here needs a migration in `migrations/versions`."""

from sqlalchemy import JSON, Boolean, Column, DateTime, MetaData, String, Table

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
)
"""API keys: never the keys themselves, but SHA-256 of their secret part, in hex. `models` and
`routes` are lists, or null where all are allowed; the former hash counts until a time after a
rotation.
"""
