"""Requests of the owner (withdrawals, stop), confirmed payout addresses, values paid out, and texts
of configs."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "requests",
        sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("request_json", sa.Text, nullable=False),
        sa.Column("asked_s", sa.BigInteger, nullable=False),
        sa.Column("ended_s", sa.BigInteger),
    )
    op.create_table(
        "payout_addresses",
        sa.Column("address", sa.String(42), primary_key=True),
        sa.Column("confirmed_s", sa.BigInteger, nullable=False),
    )
    op.add_column("budgets", sa.Column("outflow", sa.Text))
    op.add_column("configs", sa.Column("text_z", sa.LargeBinary))
    op.add_column("configs", sa.Column("how", sa.String(20)))


def downgrade() -> None:
    raise NotImplementedError("a store cannot be downgraded: restore the backup of that version")
