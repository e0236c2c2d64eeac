"""The double-entry ledger: books, their openings, entries of final transactions, and valuations."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "books",
        sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("opened_s", sa.BigInteger, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
    )
    op.create_table(
        "book_openings",
        sa.Column("book", sa.BigInteger, primary_key=True),
        sa.Column("place", sa.String(120), primary_key=True),
        sa.Column("token", sa.String(42), primary_key=True),
        sa.Column("raw", sa.Text, nullable=False),
        sa.Column("value", sa.Text),
        sa.Column("block_number", sa.BigInteger, nullable=False),
        sa.Column("chain_s", sa.BigInteger, nullable=False),
        sa.Column("after_intent", sa.BigInteger, nullable=False),
        sa.Column("after_flow", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "entries",
        sa.Column("intent_id", sa.String(40), sa.ForeignKey("intents.id"), primary_key=True),
        sa.Column("book", sa.BigInteger, nullable=False),
        sa.Column("block_number", sa.BigInteger, nullable=False),
        sa.Column("intent_seq", sa.BigInteger, nullable=False),
        sa.Column("wallet_json", sa.Text, nullable=False),
        sa.Column("entry_json", sa.Text, nullable=False),
    )
    op.create_index("entries_by_book", "entries", ["book", "block_number"])
    op.create_table(
        "valuations",
        sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("book", sa.BigInteger, nullable=False),
        sa.Column("block_number", sa.BigInteger, nullable=False),
        sa.Column("chain_s", sa.BigInteger, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("held_z", sa.LargeBinary, nullable=False),
    )
    op.create_index("valuations_by_time", "valuations", ["book", "chain_s"])


def downgrade() -> None:
    raise NotImplementedError("a store cannot be downgraded: restore the backup of that version")
