"""The first version: steps, intents and their transitions, budgets, movements, pins, pauses,
configs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")
IS_OPEN = sa.text("state IN ('broadcast', 'mined', 'planned', 'signed')")
IS_OPEN_ORIGINAL = sa.text(
    "replaces IS NULL AND state IN ('broadcast', 'mined', 'planned', 'signed')"
)


def upgrade() -> None:
    op.create_table(
        "meta",
        sa.Column("key", sa.String(40), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "steps",
        sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(40), nullable=False, unique=True),
        sa.Column("now_s", sa.BigInteger, nullable=False),
        sa.Column("input_z", sa.LargeBinary, nullable=False),
        sa.Column("decision", sa.String(40)),
        sa.Column("reason", sa.Text),
        sa.Column("plan_z", sa.LargeBinary),
        sa.Column("outcome", sa.Text),
    )
    op.create_table(
        "intents",
        sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(40), nullable=False, unique=True),
        sa.Column("step_id", sa.String(40), sa.ForeignKey("steps.id"), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("nonce", sa.BigInteger, nullable=False),
        sa.Column("tx_json", sa.Text, nullable=False),
        sa.Column("grant_z", sa.LargeBinary, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("created_s", sa.BigInteger, nullable=False),
        sa.Column("deadline_s", sa.BigInteger),
        sa.Column("tx_hash", sa.String(80)),
        sa.Column("receipt_json", sa.Text),
        sa.Column("replaces", sa.String(40), sa.ForeignKey("intents.id")),
    )
    op.create_index(
        "one_open_intent_per_nonce",
        "intents",
        ["nonce"],
        unique=True,
        sqlite_where=IS_OPEN_ORIGINAL,
        postgresql_where=IS_OPEN_ORIGINAL,
    )
    op.create_index(
        "one_open_cancel_per_intent",
        "intents",
        ["replaces"],
        unique=True,
        sqlite_where=IS_OPEN,
        postgresql_where=IS_OPEN,
    )
    op.create_index("intents_by_state", "intents", ["state"])
    op.create_index("ix_intents_tx_hash", "intents", ["tx_hash"])
    op.create_table(
        "transitions",
        sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("intent_id", sa.String(40), sa.ForeignKey("intents.id"), nullable=False),
        sa.Column("before", sa.String(20)),
        sa.Column("after", sa.String(20), nullable=False),
        sa.Column("at_s", sa.BigInteger, nullable=False),
        sa.Column("tx_hash", sa.String(80)),
        sa.Column("note", sa.Text, nullable=False),
    )
    op.create_index("ix_transitions_intent_id", "transitions", ["intent_id"])
    op.create_table(
        "budgets",
        sa.Column("intent_id", sa.String(40), sa.ForeignKey("intents.id"), primary_key=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("succeeded", sa.Boolean, nullable=False),
        sa.Column("chain_s", sa.BigInteger, nullable=False),
        sa.Column("turnover", sa.Text, nullable=False),
        sa.Column("loss", sa.Text, nullable=False),
        sa.Column("gas_wei", sa.Text, nullable=False),
    )
    op.create_index("ix_budgets_chain_s", "budgets", ["chain_s"])
    op.create_table(
        "movements",
        sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("token", sa.String(42), nullable=False),
        sa.Column("delta_raw", sa.Text, nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("block_number", sa.BigInteger, nullable=False),
        sa.Column("chain_s", sa.BigInteger, nullable=False),
        sa.Column("tx_hash", sa.String(80), nullable=False),
        sa.UniqueConstraint(
            "tx_hash", "token", "kind", name="one_movement_per_transaction_token_kind"
        ),
    )
    op.create_table(
        "pins",
        sa.Column("address", sa.String(42), primary_key=True),
        sa.Column("code_hash", sa.String(66), nullable=False),
        sa.Column("pinned_s", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "pauses",
        sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at_s", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "configs",
        sa.Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("config_hash", sa.String(80), nullable=False),
        sa.Column("at_s", sa.BigInteger, nullable=False),
    )
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER transitions_no_{verb.lower()} BEFORE {verb} ON transitions "
                "BEGIN SELECT RAISE(ABORT, 'transitions are only ever added'); END"
            )


def downgrade() -> None:
    raise NotImplementedError("a store cannot be downgraded: restore the backup of that version")
