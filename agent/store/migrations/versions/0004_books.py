"""Openings for expected balances, unexplained changes, transactions from before the store, and
positions found in the wallet."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "openings",
        sa.Column("token", sa.String(42), primary_key=True),
        sa.Column("raw", sa.Text, nullable=False),
        sa.Column("block_number", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "flows",
        sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("token", sa.String(42), nullable=False),
        sa.Column("delta_raw", sa.Text, nullable=False),
        sa.Column("value", sa.Text),
        sa.Column("since_block", sa.BigInteger, nullable=False),
        sa.Column("block_number", sa.BigInteger, nullable=False),
        sa.Column("chain_s", sa.BigInteger, nullable=False),
        sa.Column("halts", sa.Boolean, nullable=False),
        sa.Column("kind", sa.String(20)),
        sa.Column("told_s", sa.BigInteger),
    )
    op.create_index("ix_flows_chain_s", "flows", ["chain_s"])
    op.create_table(
        "earlier",
        sa.Column("tx_hash", sa.String(80), primary_key=True),
        sa.Column("chain_s", sa.BigInteger, nullable=False),
        sa.Column("turnover", sa.Text, nullable=False),
        sa.Column("loss", sa.Text, nullable=False),
        sa.Column("gas_wei", sa.Text, nullable=False),
        sa.Column("block_number", sa.BigInteger, nullable=False),
        sa.Column("changes_json", sa.Text, nullable=False),
    )
    op.create_index("ix_earlier_chain_s", "earlier", ["chain_s"])
    op.create_table(
        "found_positions",
        sa.Column("name", sa.String(120), primary_key=True),
        sa.Column("verdict", sa.String(20), nullable=False),
        sa.Column("move_json", sa.Text),
        sa.Column("after_seq", sa.BigInteger, nullable=False),
        sa.Column("at_s", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("a store cannot be downgraded: restore the backup of that version")
