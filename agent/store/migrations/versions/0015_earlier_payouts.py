"""Payouts by transactions from before a store, which count in limits.payout_per_day. They are
unknown for stored rows, so the chain is read again (BalanceStore.prior_day_known).
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("earlier", sa.Column("outflow", sa.Text, nullable=True))


def downgrade() -> None:
    raise NotImplementedError("a store cannot be downgraded: restore the backup of that version")
