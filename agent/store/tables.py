"""Tables of the store as SQLAlchemy models. Base units and values are text, because database
integers have fewer than 256 bits.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from agent.store.transitions import OPEN_STATE_NAMES

ROW_NUMBER_TYPE = BigInteger().with_variant(Integer, "sqlite")
"""Type of row numbers: SQLite generates them only in columns declared INTEGER."""

_IS_OPEN = "state IN (" + ", ".join(f"'{state}'" for state in OPEN_STATE_NAMES) + ")"


IS_UNFINISHED = "state IN ('queued', 'taken')"
"""Condition of the index on unfinished controls; a query has to repeat it to use the index."""


class Base(DeclarativeBase):
    """Base class of the models."""


class FactRow(Base):
    """Single facts, each under the key that a constant of its repository names: the owner of the
    store, numbers up to which rows were counted, versions that a write expects, marks of processes
    on PostgreSQL, small states as JSON. No seal protects them.
    """

    __tablename__ = "meta"
    key: Mapped[str] = mapped_column(String(40), primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class StepRow(Base):
    """One step and its result. JSON texts are zlib-compressed."""

    __tablename__ = "steps"
    seq: Mapped[int] = mapped_column(ROW_NUMBER_TYPE, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(40), unique=True)
    now_s: Mapped[int] = mapped_column(BigInteger)
    input_z: Mapped[bytes] = mapped_column(LargeBinary)
    decision: Mapped[str | None] = mapped_column(String(40))
    reason: Mapped[str | None] = mapped_column(Text)
    plan_z: Mapped[bytes | None] = mapped_column(LargeBinary)
    outcome: Mapped[str | None] = mapped_column(Text)
    request_json: Mapped[str | None] = mapped_column(Text)
    cycle_id: Mapped[str | None] = mapped_column(String(40))


class CycleRow(Base):
    """One cycle that has acted or left something out, and the reason of its end; only the newest
    may be open. An unreported one has ended; its transaction is reported once its request is
    repeated.
    """

    __tablename__ = "cycles"
    seq: Mapped[int] = mapped_column(ROW_NUMBER_TYPE, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(40), unique=True)
    state: Mapped[str] = mapped_column(String(20))
    cycle_json: Mapped[str] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        Index("one_open_cycle", "state", unique=True, sqlite_where=text("state = 'open'")),
    )


class IntentRow(Base):
    """One transaction: unsigned payload, nonce, and hash of the signed bytes, which are not stored
    (T8).
    """

    __tablename__ = "intents"
    seq: Mapped[int] = mapped_column(ROW_NUMBER_TYPE, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(40), unique=True)
    step_id: Mapped[str] = mapped_column(ForeignKey("steps.id"))
    kind: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(20))
    nonce: Mapped[int] = mapped_column(BigInteger)
    tx_json: Mapped[str] = mapped_column(Text)
    grant_z: Mapped[bytes] = mapped_column(LargeBinary)
    note: Mapped[str] = mapped_column(Text)
    created_s: Mapped[int] = mapped_column(BigInteger)
    deadline_s: Mapped[int | None] = mapped_column(BigInteger)
    tx_hash: Mapped[str | None] = mapped_column(String(80), index=True)
    receipt_json: Mapped[str | None] = mapped_column(Text)
    replaces: Mapped[str | None] = mapped_column(ForeignKey("intents.id"))

    __table_args__ = (
        Index(
            "one_open_intent_per_nonce",
            "nonce",
            unique=True,
            sqlite_where=text(f"replaces IS NULL AND {_IS_OPEN}"),
        ),
        Index("one_open_cancel_per_intent", "replaces", unique=True, sqlite_where=text(_IS_OPEN)),
        Index("intents_by_state", "state"),
        Index("intents_by_nonce", "nonce"),
        Index("intents_by_step", "step_id"),
    )


class TransitionRow(Base):
    """One transition of an intent. SQLite triggers forbid changes of rows, and each row is sealed
    (store/seals.py).
    """

    __tablename__ = "transitions"
    seq: Mapped[int] = mapped_column(ROW_NUMBER_TYPE, primary_key=True, autoincrement=True)
    intent_id: Mapped[str] = mapped_column(ForeignKey("intents.id"), index=True)
    old_state: Mapped[str | None] = mapped_column(String(20))
    new_state: Mapped[str] = mapped_column(String(20))
    at_s: Mapped[int] = mapped_column(BigInteger)
    tx_hash: Mapped[str | None] = mapped_column(String(80))
    note: Mapped[str] = mapped_column(Text)
    previous_seal: Mapped[str] = mapped_column(String(64), server_default="")
    seal: Mapped[str] = mapped_column(String(64), server_default="")


class BudgetUseRow(Base):
    """Use of daily limits by one intent, at the chain time of its block, as fractions "a/b";
    `outflow` is the value of its payout. `kind` is a budget kind: the intent's kind, or a more
    specific one for swaps without a trigger and for actions of some layers (layers/stores.py).
    """

    __tablename__ = "budgets"
    intent_id: Mapped[str] = mapped_column(ForeignKey("intents.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    succeeded: Mapped[bool] = mapped_column(Boolean)
    chain_s: Mapped[int] = mapped_column(BigInteger, index=True)
    turnover: Mapped[str] = mapped_column(Text)
    loss: Mapped[str] = mapped_column(Text)
    gas_wei: Mapped[str] = mapped_column(Text)
    outflow: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (Index("budgets_by_kind", "kind", "succeeded", "chain_s"),)


class MovementRow(Base):
    """A known change of one balance of the wallet, base units with sign."""

    __tablename__ = "movements"
    seq: Mapped[int] = mapped_column(ROW_NUMBER_TYPE, primary_key=True, autoincrement=True)
    token: Mapped[str] = mapped_column(String(42))
    delta_raw: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(20))
    block_number: Mapped[int] = mapped_column(BigInteger)
    chain_s: Mapped[int] = mapped_column(BigInteger)
    tx_hash: Mapped[str] = mapped_column(String(80))

    __table_args__ = (
        UniqueConstraint(
            "tx_hash", "token", "kind", name="one_movement_per_transaction_token_kind"
        ),
    )


class PositionChangeRow(Base):
    """Change of a liquidity position by one mined intent, as JSON; deleted if a reorg removes its
    block.
    """

    __tablename__ = "liquidity"
    intent_id: Mapped[str] = mapped_column(ForeignKey("intents.id"), primary_key=True)
    change_json: Mapped[str] = mapped_column(Text)


class OpeningBalanceRow(Base):
    """Balance in base units, without the transactions of intents after Meta "folded_seq"; see
    store/accounts/balances.py.
    """

    __tablename__ = "openings"
    token: Mapped[str] = mapped_column(String(42), primary_key=True)
    raw: Mapped[str] = mapped_column(Text)
    block_number: Mapped[int] = mapped_column(BigInteger)


class ExternalTransferRow(Base):
    """A balance change without a transaction of the agent; `kind` is NULL until it is
    classified.
    """

    __tablename__ = "flows"
    seq: Mapped[int] = mapped_column(ROW_NUMBER_TYPE, primary_key=True, autoincrement=True)
    token: Mapped[str] = mapped_column(String(42))
    delta_raw: Mapped[str] = mapped_column(Text)
    value: Mapped[str | None] = mapped_column(Text)
    since_block: Mapped[int] = mapped_column(BigInteger)
    block_number: Mapped[int] = mapped_column(BigInteger)
    chain_s: Mapped[int] = mapped_column(BigInteger, index=True)
    blocks_trading: Mapped[bool] = mapped_column(Boolean)
    kind: Mapped[str | None] = mapped_column(String(20))
    classified_s: Mapped[int | None] = mapped_column(BigInteger)

    __table_args__ = (
        Index("flows_unexplained", "seq", sqlite_where=text("kind IS NULL")),
        Index("flows_that_fell", "seq", sqlite_where=text("delta_raw LIKE '-%'")),
    )


class ExternalTransactionRow(Base):
    """A wallet transaction that this store did not send, read from the chain: its use of daily
    limits, and its balance changes as JSON, base units by token.
    """

    __tablename__ = "earlier"
    tx_hash: Mapped[str] = mapped_column(String(80), primary_key=True)
    chain_s: Mapped[int] = mapped_column(BigInteger, index=True)
    turnover: Mapped[str] = mapped_column(Text)
    loss: Mapped[str] = mapped_column(Text)
    gas_wei: Mapped[str] = mapped_column(Text)
    block_number: Mapped[int] = mapped_column(BigInteger)
    nonce: Mapped[int] = mapped_column(BigInteger)
    changes_json: Mapped[str] = mapped_column(Text)
    outflow: Mapped[str] = mapped_column(Text)


EXTERNAL_ORDER = (ExternalTransactionRow.block_number, ExternalTransactionRow.nonce)
"""Order of the wallet's external transactions on the chain."""


class FoundPositionRow(Base):
    """A liquidity position and the owner's decision on it: undecided, taken (with its mint as
    JSON), or forgotten.
    """

    __tablename__ = "found_positions"
    name: Mapped[str] = mapped_column(String(120), primary_key=True)
    verdict: Mapped[str] = mapped_column(String(20))
    change_json: Mapped[str | None] = mapped_column(Text)
    after_intent_seq: Mapped[int] = mapped_column(BigInteger)
    at_s: Mapped[int] = mapped_column(BigInteger)


class PriceRow(Base):
    """Price of a token in one hour, numeraire base units per token base unit as "a/b", and its
    source.
    """

    __tablename__ = "prices"
    numeraire: Mapped[str] = mapped_column(String(42), primary_key=True)
    token: Mapped[str] = mapped_column(String(42), primary_key=True)
    hour: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    at_s: Mapped[int] = mapped_column(BigInteger)
    price: Mapped[str] = mapped_column(Text)
    source: Mapped[str] = mapped_column(String(20))

    __table_args__ = (Index("prices_by_hour", "numeraire", "hour"),)


class OrderRow(Base):
    """State of one conditional order, as JSON."""

    __tablename__ = "orders"
    token: Mapped[str] = mapped_column(String(42), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    order_json: Mapped[str] = mapped_column(Text)


class ExecutionRow(Base):
    """An execution that takes several steps: its terms as JSON, and its end."""

    __tablename__ = "executions"
    seq: Mapped[int] = mapped_column(ROW_NUMBER_TYPE, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(40), unique=True)
    kind: Mapped[str] = mapped_column(String(20))
    begun_s: Mapped[int] = mapped_column(BigInteger)
    terms_json: Mapped[str] = mapped_column(Text)
    ended_s: Mapped[int | None] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(20))
    why: Mapped[str] = mapped_column(Text)


class ExecutionAttemptRow(Base):
    """An attempt at a part of an execution, written before it is sent, with the random draw for the
    next part; see store/executions.py.
    """

    __tablename__ = "execution_attempts"
    seq: Mapped[int] = mapped_column(ROW_NUMBER_TYPE, primary_key=True, autoincrement=True)
    execution_id: Mapped[str] = mapped_column(ForeignKey("executions.id"), index=True)
    part_number: Mapped[int] = mapped_column(Integer)
    step_id: Mapped[str] = mapped_column(String(40))
    at_s: Mapped[int] = mapped_column(BigInteger)
    size_ppm: Mapped[int] = mapped_column(Integer)
    wait_ppm: Mapped[int] = mapped_column(Integer)


class AllocationRow(Base):
    """Weights that an allocator chose for `owner`, as JSON; the newest of each owner counts. "" is
    the portfolio.
    """

    __tablename__ = "allocations"
    seq: Mapped[int] = mapped_column(ROW_NUMBER_TYPE, primary_key=True, autoincrement=True)
    owner: Mapped[str] = mapped_column(String(40))
    at_s: Mapped[int] = mapped_column(BigInteger)
    allocation_json: Mapped[str] = mapped_column(Text)

    __table_args__ = (Index("allocations_by_owner", "owner", "seq"),)


class PinRow(Base):
    """A trusted contract, by address and hash of its code."""

    __tablename__ = "pins"
    address: Mapped[str] = mapped_column(String(42), primary_key=True)
    code_hash: Mapped[str] = mapped_column(String(66))
    pinned_s: Mapped[int] = mapped_column(BigInteger)


class ImplementationRow(Base):
    """Implementation of a trusted proxy token, and the hash of its code."""

    __tablename__ = "implementations"
    token: Mapped[str] = mapped_column(String(42), primary_key=True)
    address: Mapped[str] = mapped_column(String(42))
    code_hash: Mapped[str] = mapped_column(String(66))
    pinned_s: Mapped[int] = mapped_column(BigInteger)


class PauseRow(Base):
    """Changes of the pause switch; the last row is its state. `hard` also cancels pending
    transactions and revokes allowances.
    """

    __tablename__ = "pauses"
    seq: Mapped[int] = mapped_column(ROW_NUMBER_TYPE, primary_key=True, autoincrement=True)
    paused: Mapped[bool] = mapped_column(Boolean)
    hard: Mapped[bool] = mapped_column(Boolean, server_default=false())
    reason: Mapped[str] = mapped_column(Text)
    at_s: Mapped[int] = mapped_column(BigInteger)


class ConfigRow(Base):
    """Versions of the config: hash, text without secrets, and origin (ConfigVersionStore)."""

    __tablename__ = "configs"
    seq: Mapped[int] = mapped_column(ROW_NUMBER_TYPE, primary_key=True, autoincrement=True)
    config_hash: Mapped[str] = mapped_column(String(80))
    at_s: Mapped[int] = mapped_column(BigInteger)
    text_z: Mapped[bytes | None] = mapped_column(LargeBinary)
    origin: Mapped[str] = mapped_column(String(20))


class RequestRow(Base):
    """A request of the owner, a withdrawal or a stop, as JSON."""

    __tablename__ = "requests"
    seq: Mapped[int] = mapped_column(ROW_NUMBER_TYPE, primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(String(20))
    state: Mapped[str] = mapped_column(String(20))
    request_json: Mapped[str] = mapped_column(Text)
    asked_s: Mapped[int] = mapped_column(BigInteger)
    ended_s: Mapped[int | None] = mapped_column(BigInteger)


class PayoutAddressRow(Base):
    """A payout address that the owner has confirmed."""

    __tablename__ = "payout_addresses"
    address: Mapped[str] = mapped_column(String(42), primary_key=True)
    confirmed_s: Mapped[int] = mapped_column(BigInteger)


class BookRow(Base):
    """One ledger book; the last row is the current one. `kind` is live or paper."""

    __tablename__ = "books"
    seq: Mapped[int] = mapped_column(ROW_NUMBER_TYPE, primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(String(20))
    opened_s: Mapped[int] = mapped_column(BigInteger)
    note: Mapped[str] = mapped_column(Text)


class BookOpeningRow(Base):
    """Holding of a token in the wallet or a liquidity position when it was added to a book,
    including intents up to `after_intent_seq` and transfers up to `after_transfer_id`.
    """

    __tablename__ = "book_openings"
    book_number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    place: Mapped[str] = mapped_column(String(120), primary_key=True)
    token: Mapped[str] = mapped_column(String(42), primary_key=True)
    raw: Mapped[str] = mapped_column(Text)
    value: Mapped[str | None] = mapped_column(Text)
    block_number: Mapped[int] = mapped_column(BigInteger)
    chain_s: Mapped[int] = mapped_column(BigInteger)
    after_intent_seq: Mapped[int] = mapped_column(BigInteger)
    after_transfer_id: Mapped[int] = mapped_column(BigInteger)


class EntryRow(Base):
    """The ledger entry of one final intent; deleted if a reorg removes its block.

    `wallet_moves_json` has its balance changes in the wallet, base units by token.
    """

    __tablename__ = "entries"
    intent_id: Mapped[str] = mapped_column(ForeignKey("intents.id"), primary_key=True)
    book_number: Mapped[int] = mapped_column(BigInteger)
    block_number: Mapped[int] = mapped_column(BigInteger)
    intent_seq: Mapped[int] = mapped_column(BigInteger)
    wallet_moves_json: Mapped[str] = mapped_column(Text)
    entry_json: Mapped[str] = mapped_column(Text)

    __table_args__ = (Index("entries_by_book", "book_number", "block_number"),)


class FundingRow(Base):
    """The ledger entry of one funding payment of a futures venue that pays by itself, off chain."""

    __tablename__ = "funding_payments"
    book_number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    market: Mapped[str] = mapped_column(String(60), primary_key=True)
    at_s: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    block_number: Mapped[int] = mapped_column(BigInteger)
    entry_json: Mapped[str] = mapped_column(Text)


class RunningBalanceRow(Base):
    """Sum of a token's opening, transfers and entries in the wallet, base units; see
    store/accounts/ledger_sums.py.
    """

    __tablename__ = "running"
    book_number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    token: Mapped[str] = mapped_column(String(42), primary_key=True)
    raw: Mapped[str] = mapped_column(Text)


class ValuationRow(Base):
    """Value of all holdings in one cycle, with holdings and prices as zlib-compressed JSON."""

    __tablename__ = "valuations"
    seq: Mapped[int] = mapped_column(ROW_NUMBER_TYPE, primary_key=True, autoincrement=True)
    book_number: Mapped[int] = mapped_column(BigInteger)
    block_number: Mapped[int] = mapped_column(BigInteger)
    chain_s: Mapped[int] = mapped_column(BigInteger)
    value: Mapped[str] = mapped_column(Text)
    holdings_z: Mapped[bytes] = mapped_column(LargeBinary)

    __table_args__ = (Index("valuations_by_time", "book_number", "chain_s"),)


class AlertRow(Base):
    """State of one alert by key, times in Unix seconds."""

    __tablename__ = "alerts"
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    text: Mapped[str] = mapped_column(Text)
    raised_s: Mapped[int] = mapped_column(BigInteger)
    since_s: Mapped[int | None] = mapped_column(BigInteger)
    unsent_count: Mapped[int] = mapped_column(Integer)
    last_sent_s: Mapped[int | None] = mapped_column(BigInteger)


class AlertMessageRow(Base):
    """An alert message in delivery to a target."""

    __tablename__ = "alert_letters"
    seq: Mapped[int] = mapped_column(ROW_NUMBER_TYPE, primary_key=True, autoincrement=True)
    target: Mapped[str] = mapped_column(String(40), index=True)
    kind: Mapped[str] = mapped_column(String(20))
    text: Mapped[str] = mapped_column(Text)
    queued_s: Mapped[int] = mapped_column(BigInteger)


class AlertTargetRow(Base):
    """Delivery record of a target."""

    __tablename__ = "alert_targets"
    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    delivered_s: Mapped[int | None] = mapped_column(BigInteger)
    failed_s: Mapped[int | None] = mapped_column(BigInteger)
    failures: Mapped[int] = mapped_column(Integer)
    why: Mapped[str] = mapped_column(Text)
    dropped_count: Mapped[int] = mapped_column(Integer)


class StrategyBookingRow(Base):
    """One booking in the accounts of strategies, as JSON; a transaction's booking is deleted if a
    reorg removes its block.
    """

    __tablename__ = "strategy_bookings"
    seq: Mapped[int] = mapped_column(ROW_NUMBER_TYPE, primary_key=True, autoincrement=True)
    source: Mapped[str] = mapped_column(String(120), unique=True)
    booking_json: Mapped[str] = mapped_column(Text)


class StrategyRow(Base):
    """State of one strategy without its holdings, as JSON."""

    __tablename__ = "strategies"
    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    state_json: Mapped[str] = mapped_column(Text)


class NavPointRow(Base):
    """NAV per share of a strategy in one hour, and its health index, in 10^-12."""

    __tablename__ = "strategy_units"
    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    hour: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    at_s: Mapped[int] = mapped_column(BigInteger)
    unit_nav: Mapped[str] = mapped_column(Text)
    health_index: Mapped[str] = mapped_column(Text)


class RunReportRow(Base):
    """The newest report of a run, as JSON; a single row with key 1."""

    __tablename__ = "run_report"
    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    report_json: Mapped[str] = mapped_column(Text)


class ControlRow(Base):
    """A requested action with its seal, and its state. Nothing here is trusted without the seal."""

    __tablename__ = "controls"
    seq: Mapped[int] = mapped_column(ROW_NUMBER_TYPE, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(40), unique=True)
    kind: Mapped[str] = mapped_column(String(20))
    arguments_json: Mapped[str] = mapped_column(Text)
    plan_hash: Mapped[str] = mapped_column(String(64))
    asked_by: Mapped[str] = mapped_column(String(80))
    origin: Mapped[str] = mapped_column(String(20))
    asked_s: Mapped[int] = mapped_column(BigInteger)
    expires_s: Mapped[int] = mapped_column(BigInteger)
    seal: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(20))
    code: Mapped[str] = mapped_column(String(40))
    reason: Mapped[str] = mapped_column(Text)
    result_json: Mapped[str] = mapped_column(Text)
    changed_s: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index("controls_unfinished", "seq", sqlite_where=text(IS_UNFINISHED)),)


class ControlLogRow(Base):
    """A line of the audit log of controls. Triggers forbid changes and deletions, and each row is
    sealed (store/seals.py).
    """

    __tablename__ = "control_log"
    seq: Mapped[int] = mapped_column(ROW_NUMBER_TYPE, primary_key=True, autoincrement=True)
    control_id: Mapped[str] = mapped_column(String(40))
    kind: Mapped[str] = mapped_column(String(20))
    origin: Mapped[str] = mapped_column(String(20))
    asked_by: Mapped[str] = mapped_column(String(80))
    state: Mapped[str] = mapped_column(String(20))
    code: Mapped[str] = mapped_column(String(40))
    reason: Mapped[str] = mapped_column(Text)
    at_s: Mapped[int] = mapped_column(BigInteger)
    previous_seal: Mapped[str] = mapped_column(String(64), server_default="")
    seal: Mapped[str] = mapped_column(String(64), server_default="")

    __table_args__ = (
        Index("control_log_taken", "control_id", sqlite_where=text("state = 'taken'")),
        Index("control_log_by_time", "at_s"),
    )


class ShownPlanRow(Base):
    """A plan as it was shown, by its hash; `is_offered` is True for the plan that a run offers."""

    __tablename__ = "shown_plans"
    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    plan_json: Mapped[str] = mapped_column(Text)
    shown_s: Mapped[int] = mapped_column(BigInteger, index=True)
    is_offered: Mapped[bool] = mapped_column(Boolean)
