"""Seals of the audit log and of the transitions, whose rows cannot be replaced any more."""

import sqlalchemy as sa
from alembic import op

from agent.store.seals import seal_existing

revision = "0020"
down_revision = "0019"

WHY = {"control_log": "the audit log only grows", "transitions": "transitions are only ever added"}


def upgrade() -> None:
    for table in WHY:
        for name in ("previous", "seal"):
            op.add_column(table, sa.Column(name, sa.String(64), nullable=False, server_default=""))
    # a line of another program must not take the place of a genuine one
    op.drop_index("control_log_taken", "control_log")
    taken = sa.text("state = 'taken'")
    op.create_index("control_log_taken", "control_log", ["control_id"], sqlite_where=taken)
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        return
    for table in WHY:
        op.execute(f"DROP TRIGGER {table}_no_update")
    config = op.get_context().config
    if config is not None and (secret := config.attributes.get("secret")) is not None:
        seal_existing(connection, secret)
    for table, why in WHY.items():
        op.execute(
            f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table}"
            f" BEGIN SELECT RAISE(ABORT, '{why}'); END"
        )
        # REPLACE deletes without the trigger against deletions
        used = f"SELECT 1 FROM {table} WHERE seq = NEW.seq"  # noqa: S608  a name of our own
        op.execute(
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} WHEN EXISTS ({used})"
            f" BEGIN SELECT RAISE(ABORT, '{why}'); END"
        )


def downgrade() -> None:
    raise NotImplementedError("a store cannot be downgraded: restore the backup of that version")
