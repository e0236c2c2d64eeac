"""How hard the pause switch stands: hard also takes back what waits and what may still be taken."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column(
        "pauses", sa.Column("hard", sa.Boolean, nullable=False, server_default=sa.false())
    )


def downgrade() -> None:
    raise NotImplementedError(
        "a store is never taken back to an earlier version: restore the backup of that version"
    )
