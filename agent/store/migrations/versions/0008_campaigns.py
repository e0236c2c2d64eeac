"""Gradual executions, limit orders, and the slices of both."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "campaigns",
        sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(40), nullable=False, unique=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("begun_s", sa.BigInteger, nullable=False),
        sa.Column("body_json", sa.Text, nullable=False),
        sa.Column("ended_s", sa.BigInteger),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("why", sa.Text, nullable=False),
    )
    op.create_table(
        "rounds",
        sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("campaign_id", sa.String(40), sa.ForeignKey("campaigns.id"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("step_id", sa.String(40), nullable=False),
        sa.Column("at_s", sa.BigInteger, nullable=False),
        sa.Column("size_ppm", sa.Integer, nullable=False),
        sa.Column("wait_ppm", sa.Integer, nullable=False),
    )
    op.create_index("ix_rounds_campaign_id", "rounds", ["campaign_id"])


def downgrade() -> None:
    raise NotImplementedError("a store cannot be downgraded: restore the backup of that version")
