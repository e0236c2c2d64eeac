"""Funding payments of a futures venue that pays by the hour, off chain."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.create_table(
        "funding_payments",
        sa.Column("book", sa.BigInteger, primary_key=True),
        sa.Column("market", sa.String(60), primary_key=True),
        sa.Column("at_s", sa.BigInteger, primary_key=True),
        sa.Column("block_number", sa.BigInteger, nullable=False),
        sa.Column("entry_json", sa.Text, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("a store cannot be downgraded: restore the backup of that version")
