"""Weights chosen by allocators."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "allocations",
        sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("owner", sa.String(40), nullable=False),
        sa.Column("at_s", sa.BigInteger, nullable=False),
        sa.Column("chosen_json", sa.Text, nullable=False),
    )
    op.create_index("allocations_by_owner", "allocations", ["owner", "seq"])


def downgrade() -> None:
    raise NotImplementedError("a store cannot be downgraded: restore the backup of that version")
