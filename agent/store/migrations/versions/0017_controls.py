"""Controls with their audit log, which cannot be changed, and plans as shown."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "controls",
        sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(40), nullable=False, unique=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("arguments_json", sa.Text, nullable=False),
        sa.Column("plan_hash", sa.String(64), nullable=False),
        sa.Column("asked_by", sa.String(80), nullable=False),
        sa.Column("origin", sa.String(20), nullable=False),
        sa.Column("asked_s", sa.BigInteger, nullable=False),
        sa.Column("expires_s", sa.BigInteger, nullable=False),
        sa.Column("seal", sa.String(64), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("code", sa.String(40), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("result_json", sa.Text, nullable=False),
        sa.Column("changed_s", sa.BigInteger, nullable=False),
    )
    op.create_index(
        "controls_unfinished",
        "controls",
        ["seq"],
        sqlite_where=sa.text("state IN ('queued', 'taken')"),
    )
    op.create_table(
        "control_log",
        sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("control_id", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("origin", sa.String(20), nullable=False),
        sa.Column("asked_by", sa.String(80), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("code", sa.String(40), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at_s", sa.BigInteger, nullable=False),
    )
    op.create_index(
        "control_log_taken",
        "control_log",
        ["control_id"],
        unique=True,
        sqlite_where=sa.text("state = 'taken'"),
    )
    op.create_index("control_log_by_time", "control_log", ["at_s"])
    if op.get_bind().dialect.name == "sqlite":
        for act in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER control_log_no_{act.lower()} BEFORE {act} ON control_log"
                " BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END"
            )
    op.create_table(
        "shown_plans",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("plan_json", sa.Text, nullable=False),
        sa.Column("shown_s", sa.BigInteger, nullable=False),
        sa.Column("waiting", sa.Boolean, nullable=False),
    )
    op.create_index("ix_shown_plans_shown_s", "shown_plans", ["shown_s"])


def downgrade() -> None:
    raise NotImplementedError("a store cannot be downgraded: restore the backup of that version")
