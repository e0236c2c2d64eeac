"""The schema of agent/store/tables.py, from which later versions migrate. Nothing is written here: a
new store is created from the models of its version (agent/store/migrations/schema.py).
"""

revision = "0001"
down_revision = None


def upgrade() -> None:
    raise NotImplementedError("a store is created by open_store, not by migrations")


def downgrade() -> None:
    raise NotImplementedError("a store cannot be downgraded: restore the backup of that version")
