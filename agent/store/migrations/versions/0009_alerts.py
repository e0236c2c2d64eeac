"""State of alerts, messages in delivery, and the delivery record of each target."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column("key", sa.String(200), primary_key=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("raised_s", sa.BigInteger, nullable=False),
        sa.Column("since_s", sa.BigInteger),
        sa.Column("untold", sa.Integer, nullable=False),
        sa.Column("told_s", sa.BigInteger),
    )
    op.create_table(
        "alert_letters",
        sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("target", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("made_s", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_alert_letters_target", "alert_letters", ["target"])
    op.create_table(
        "alert_targets",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("delivered_s", sa.BigInteger),
        sa.Column("failed_s", sa.BigInteger),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("lost", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("a store cannot be downgraded: restore the backup of that version")
