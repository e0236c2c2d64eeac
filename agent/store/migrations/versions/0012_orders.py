"""Conditional orders."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_table(
        "orders",
        sa.Column("token", sa.String(42), primary_key=True),
        sa.Column("kind", sa.String(20), primary_key=True),
        sa.Column("order_json", sa.Text, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("a store cannot be downgraded: restore the backup of that version")
