"""Level of the pause switch: hard also cancels pending transactions and revokes allowances."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column(
        "pauses", sa.Column("hard", sa.Boolean, nullable=False, server_default=sa.false())
    )


def downgrade() -> None:
    raise NotImplementedError("a store cannot be downgraded: restore the backup of that version")
