"""Running sums: balances by book and total loss; indexes that keep old books fast."""

import json
from fractions import Fraction

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

GRAIN = 10**12


def upgrade() -> None:
    op.create_table(
        "running",
        sa.Column("book", sa.BigInteger, primary_key=True),
        sa.Column("token", sa.String(42), primary_key=True),
        sa.Column("raw", sa.Text, nullable=False),
    )
    op.create_index("intents_by_nonce", "intents", ["nonce"])
    op.create_index("intents_by_step", "intents", ["step_id"])
    op.create_index("budgets_by_kind", "budgets", ["kind", "succeeded", "chain_s"])
    opened, fell = sa.text("kind IS NULL"), sa.text("delta_raw LIKE '-%'")
    op.create_index(
        "flows_unexplained", "flows", ["seq"], sqlite_where=opened, postgresql_where=opened
    )
    op.create_index("flows_that_fell", "flows", ["seq"], sqlite_where=fell, postgresql_where=fell)
    connection = op.get_bind()
    connection.execute(sa.text("DELETE FROM meta WHERE key IN ('loss_total', 'settled_to')"))
    _balances(connection)
    _losses(connection)


def _balances(connection: sa.Connection) -> None:
    """Write the sum of opening balance, entries and later transfers of each token and book."""
    sums: dict[tuple[int, str], int] = {}
    after: dict[tuple[int, str], int] = {}
    for book, token, raw, flow in connection.execute(
        sa.text("SELECT book, token, raw, after_flow FROM book_openings WHERE place = ''")
    ):
        sums[book, token], after[book, token] = int(raw), flow
    for book, moved in connection.execute(sa.text("SELECT book, wallet_json FROM entries")):
        for token, raw in json.loads(moved).items():
            if (book, token) in sums:
                sums[book, token] += int(raw)
    newest = connection.execute(sa.text("SELECT MAX(seq) FROM books")).scalar() or 0
    for seq, token, raw in connection.execute(sa.text("SELECT seq, token, delta_raw FROM flows")):
        if seq > after.get((newest, token), seq):
            sums[newest, token] += int(raw)
    for (book, token), raw in sums.items():
        insert = sa.text("INSERT INTO running (book, token, raw) VALUES (:book, :token, :raw)")
        connection.execute(insert, {"book": book, "token": token, "raw": str(raw)})


def _losses(connection: sa.Connection) -> None:
    """Write the sum of all losses, each rounded up to 10^-12 base units."""
    total = 0
    for (loss,) in connection.execute(sa.text("SELECT loss FROM budgets WHERE loss <> '0'")):
        total += max(0, -(-(Fraction(loss) * GRAIN) // 1))
    if total:
        connection.execute(
            sa.text("INSERT INTO meta (key, value) VALUES ('loss_total', :total)"),
            {"total": str(total)},
        )


def downgrade() -> None:
    raise NotImplementedError("a store cannot be downgraded: restore the backup of that version")
