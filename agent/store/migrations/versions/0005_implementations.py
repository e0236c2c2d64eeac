"""Implementations of trusted proxy tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "implementations",
        sa.Column("token", sa.String(42), primary_key=True),
        sa.Column("address", sa.String(42), nullable=False),
        sa.Column("code_hash", sa.String(66), nullable=False),
        sa.Column("pinned_s", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("a store cannot be downgraded: restore the backup of that version")
