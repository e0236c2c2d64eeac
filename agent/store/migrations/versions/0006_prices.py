"""Price history, at most one price per token and hour."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "prices",
        sa.Column("numeraire", sa.String(42), primary_key=True),
        sa.Column("token", sa.String(42), primary_key=True),
        sa.Column("hour", sa.BigInteger, primary_key=True),
        sa.Column("at_s", sa.BigInteger, nullable=False),
        sa.Column("price", sa.Text, nullable=False),
        sa.Column("source", sa.String(20), nullable=False),
    )
    op.create_index("prices_by_hour", "prices", ["numeraire", "hour"])


def downgrade() -> None:
    raise NotImplementedError("a store cannot be downgraded: restore the backup of that version")
