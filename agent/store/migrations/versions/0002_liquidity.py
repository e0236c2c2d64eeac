"""Changes of liquidity positions by the agent's transactions."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "liquidity",
        sa.Column("intent_id", sa.String(40), sa.ForeignKey("intents.id"), primary_key=True),
        sa.Column("move_json", sa.Text, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("a store cannot be downgraded: restore the backup of that version")
