"""Strategies over one wallet: bookings, states, and NAV per share."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "sleeve_bookings",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("source", sa.String(120), nullable=False, unique=True),
        sa.Column("booking_json", sa.Text, nullable=False),
    )
    op.create_table(
        "sleeves",
        sa.Column("name", sa.String(60), primary_key=True),
        sa.Column("state_json", sa.Text, nullable=False),
    )
    op.create_table(
        "sleeve_units",
        sa.Column("name", sa.String(60), primary_key=True),
        sa.Column("hour", sa.BigInteger, primary_key=True),
        sa.Column("at_s", sa.BigInteger, nullable=False),
        sa.Column("unit", sa.Text, nullable=False),
        sa.Column("health_index", sa.Text, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("a store cannot be downgraded: restore the backup of that version")
