"""The request of a step as JSON, so that a replay proposes the step again. Unknown for earlier
steps."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.add_column("steps", sa.Column("asked_json", sa.Text, nullable=True))


def downgrade() -> None:
    raise NotImplementedError("a store cannot be downgraded: restore the backup of that version")
