"""What asked for a step, as JSON, so that it can be proposed again by the same. Of steps already
written down it is not known."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.add_column("steps", sa.Column("asked_json", sa.Text, nullable=True))


def downgrade() -> None:
    raise NotImplementedError(
        "a store is never taken back to an earlier version: restore the backup of that version"
    )
