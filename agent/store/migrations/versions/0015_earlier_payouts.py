"""Payments by transactions from before a store; they count in limits.payout_per_day. Unknown for
recorded ones: the chain is queried once more (store/earlier.py).
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("earlier", sa.Column("outflow", sa.Text, nullable=True))


def downgrade() -> None:
    raise NotImplementedError(
        "a store is never taken back to an earlier version: restore the backup of that version"
    )
