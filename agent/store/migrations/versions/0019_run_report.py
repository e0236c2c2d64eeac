"""The report of a run: its state and figures, from which servers and commands judge its health."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.create_table(
        "run_report",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("report_json", sa.Text, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("a store cannot be downgraded: restore the backup of that version")
