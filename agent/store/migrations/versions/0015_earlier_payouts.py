"""What transactions from before a store paid away: it counts in limits.payout_per_day.

Of those already written down it is not known: the chain is asked once more (store/earlier.py).
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("earlier", sa.Column("outflow", sa.Text, nullable=True))


def downgrade() -> None:
    raise NotImplementedError("a store is never taken back to an earlier version: restore the backup of that version")
