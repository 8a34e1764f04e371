"""Limits, budgets, and the ledger"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COUNTS = (
    *("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens"),
    *("reasoning_tokens", "input_audio_tokens", "output_audio_tokens"),
)


def upgrade() -> None:
    op.add_column("keys", sa.Column("limits", sa.JSON))
    op.add_column("keys", sa.Column("budgets", sa.JSON))
    op.create_table(
        "tenants",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("limits", sa.JSON),
        sa.Column("budgets", sa.JSON),
    )
    op.create_table(
        "ledger",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tenant", sa.String(64)),
        sa.Column("key_id", sa.String(32)),
        sa.Column("user_id", sa.String(128)),
        sa.Column("operation", sa.String(32), nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("response_model", sa.String(256)),
        sa.Column("provider", sa.String(64), nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in COUNTS),
        sa.Column("cost", sa.BigInteger),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("status", sa.String(64), nullable=False),
        sa.Column("trace_id", sa.String(32)),
        sa.Column("replica", sa.String(32), nullable=False),
    )
    op.create_index("ix_ledger_time", "ledger", ["time"])
    op.create_index("ix_ledger_tenant_time", "ledger", ["tenant", "time"])
    op.create_index("ix_ledger_key_id_time", "ledger", ["key_id", "time"])
    op.create_table(
        "spend",
        sa.Column("scope", sa.String(8), primary_key=True),
        sa.Column("owner", sa.String(64), primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("amount", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "grants",
        sa.Column("replica", sa.String(32), primary_key=True),
        sa.Column("scope", sa.String(8), primary_key=True),
        sa.Column("owner", sa.String(64), primary_key=True),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("reserved", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_grants_owner", "grants", ["scope", "owner"])


def downgrade() -> None:
    for table in ("grants", "spend", "ledger", "tenants"):
        op.drop_table(table)
    op.drop_column("keys", "budgets")
    op.drop_column("keys", "limits")
