"""Ports of the store: one per subject, and StepStorage, which combines those of a step. Every write
is committed to disk before its method returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Protocol, TypeVar

from agent.model import (
    Allocation,
    CashAccount,
    CashMemory,
    ConditionalOrder,
    Entry,
    ExpectedBalances,
    ExternalTransaction,
    ExternalTransfer,
    History,
    Intent,
    IntentEvent,
    IntentKind,
    IntentState,
    LedgerBalance,
    NavPerShare,
    NavPoint,
    PricePoint,
    Receipt,
    Snapshot,
    StrategyBooking,
    StrategyLedger,
    StrategyState,
    SubmissionRefusal,
    UnsignedTx,
    Valuation,
)
from agent.ports.execution import Grant
from agent.units import Token

S = TypeVar("S")


class StepJournal(Protocol):
    """Steps, with input, request, decision and outcome."""

    def begin(
        self, step_id: str, now_s: int, input_json: str, asked_json: str | None = None
    ) -> None:
        """Store the input and request of a step. A second call replaces the input, for example
        after a token was quarantined.
        """

    def end(
        self, step_id: str, decision: str, reason: str, plan_json: str | None, outcome: str
    ) -> None:
        """Store the decision and the outcome of a step."""

    def input_json(self, step_id: str) -> str | None:
        """Return the input of a step as JSON; None for an unknown step."""

    def by_hand(self, intent_id: str) -> bool:
        """True if the step of an intent was a manual request."""


class Journal(Protocol):
    """The write-ahead journal of intents."""

    def intend(  # noqa: PLR0913
        self,
        step_id: str,
        kind: IntentKind,
        tx: UnsignedTx,
        grant: Grant,
        note: str,
        now_s: int,
        deadline_s: int | None,
        replaces: str | None = None,
    ) -> Intent:
        """Store a new intent in state PLANNED, with the grant that a restart needs to sign it
        again.

        `deadline_s` is the chain time after which the transaction must not be sent (None: never
        expires). `replaces` is the newest open intent at the same nonce, already sent; the new
        intent has a higher fee or cancels it. Raises OperatorNeeded if the nonce has another open
        intent.
        """

    def grant(self, intent_id: str) -> Grant:
        """Return the stored grant of an intent."""

    def advance(
        self,
        intent_id: str,
        to: IntentState,
        now_s: int,
        tx_hash: str | None = None,
        receipt: Receipt | None = None,
        note: str = "",
        event: IntentEvent | None = None,
    ) -> Intent:
        """Move an intent to another state, by `event` if given. Raises ValueError for a forbidden
        transition.
        """

    def open_intents(self) -> Sequence[Intent]:
        """Return the open intents, oldest first."""

    def intents_at(self, nonce: int) -> Sequence[Intent]:
        """Return all intents of a nonce, oldest first."""

    def undecided_at(self, nonce: int) -> Sequence[Intent]:
        """Return ended intents of a nonce that may still be mined, because a reorg removed the
        block of the transaction that replaced them.
        """

    def ended_in_block(self, limit: int) -> Sequence[Intent]:
        """Return the newest `limit` intents that ended final or reverted since the operator last
        adopted a nonce, newest first.
        """

    def unbooked(self) -> Sequence[Intent]:
        """Return the intents with a receipt that are not in a budget yet, oldest first."""

    def succeeded_in(self, *outcomes: str) -> Sequence[Intent]:
        """Return the successful swaps and liquidity actions of steps with one of these outcomes,
        oldest first; "" stands for a step without an outcome.
        """

    def expected_nonce(self) -> int | None:
        """Return the expected next nonce of the chain; None before a nonce was adopted."""

    def newest_venue_nonce(self) -> int:
        """Return the highest nonce of an order at an off-chain venue; 0 before the first."""

    def set_expected_nonce(self, nonce: int, now_s: int) -> None:
        """Store the expected next nonce, on first use or on the operator's command."""


class ProposalJournal(Protocol):
    """Intents that were proposed to external signers."""

    def mark_proposed(self, intent_id: str, since_block: int) -> None:
        """Store the block at which an intent was proposed."""

    def proposed(self) -> dict[str, int]:
        """Return the first block of each proposal, dropped ones included, by intent id."""


class BudgetJournal(Protocol):
    """Use of the daily limits, and state that is passed from step to step."""

    def history(self, chain_now_s: int) -> History:
        """Return the history at chain time `chain_now_s`."""

    def book(
        self,
        intent: Intent,
        turnover: Fraction,
        loss: Fraction,
        gas_wei: int,
        chain_s: int,
        outflow: Fraction = Fraction(0),
    ) -> None:
        """Add an ended intent to the budgets of loss, turnover and gas. A second call for the same
        intent changes nothing.
        """

    def mark_review(self, chain_s: int, delay_ppm: int = 0, reviews: Sequence[str] = ()) -> None:
        """Store the chain time of a review of the schedules `reviews`, and the random delay of the
        next one, in millionths of the longest.
        """

    def mark_depegged(self, tokens: Sequence[str]) -> None:
        """Store the stablecoins that left their peg and have not returned."""

    def mark_unread(self, since_s: Sequence[tuple[str, int]]) -> None:
        """Store the assets whose balance is unreadable, and the chain time when that began."""

    def mark_submission_refusals(self, found: Sequence[SubmissionRefusal]) -> None:
        """Replace the stored exits that were refused at submission."""


class BalanceJournal(Protocol):
    """Expected balances, external transfers, and wallet transactions that are not in the
    journal.
    """

    def expected(self) -> ExpectedBalances:
        """Return the expected balances, with the newest external transfers."""

    def record(
        self,
        snapshot: Snapshot,
        balances: Mapping[str, int],
        flows: Sequence[ExternalTransfer],
        turn: int,
    ) -> bool:
        """Store unexplained transfers, and the `balances` as new openings.

        Return False and store nothing if the openings were written after `turn`.
        """

    def mark_left_alone(self) -> None:
        """Mark all unexplained increases as excluded until they are explained."""

    def prior_day_known(self, chain_now_s: int) -> bool:
        """True if the last 24 h are fully recorded."""

    def mark_day_asked(self, chain_now_s: int) -> None:
        """Store the chain time at which reading the earlier transactions first failed."""

    def record_prior_day(self, found: Sequence[ExternalTransaction], nonce: int) -> None:
        """Store the wallet's earlier transactions found on chain, and its next nonce."""


class CashJournal(Protocol):
    """The account of portfolio.use_cash."""

    def read(self, token: str, block: int) -> CashMemory:
        """Return the account with the changes of `token` up to the block."""

    def record(self, account: CashAccount, turn: int) -> bool:
        """Store the account. Return False and store nothing if it was written after `turn`."""


class PositionJournal(Protocol):
    """Liquidity positions that the owner has to adopt or forget."""

    def scanned(self) -> bool:
        """True if the wallet was scanned for positions."""

    def record(self, names: Iterable[str], now_s: int) -> None:
        """Store positions that the owner has to adopt or forget."""


class LedgerJournal(Protocol):
    """The double-entry ledger. A reorg removes receipt and entry in one transaction."""

    def intents_without_entry(self) -> tuple[Intent, ...]:
        """Return final and reverted intents without a ledger entry, oldest first."""

    def unsettled(self) -> tuple[Intent, ...]:
        """Return the intents that are open, or ended in a block and have no ledger entry yet,
        oldest first.
        """

    def counted(self, intent_id: str) -> frozenset[str]:
        """Return the tokens whose changes by an intent belong in the ledger."""

    def principal(self, position: str) -> dict[str, int]:
        """Return the net amounts provided to a liquidity position, in base units by token."""

    def enter(self, intent: Intent, entry: Entry) -> bool:
        """Store the entry of a final intent; False if it has an entry, or a different receipt."""

    def funding_since_s(self) -> int | None:
        """Return the chain time after which funding payments of an off-chain venue may lack an
        entry; None without a ledger.
        """

    def enter_funding(self, entries: Iterable[Entry]) -> None:
        """Store entries of funding payments; payments that have an entry are unchanged."""

    def open_places(
        self, snapshot: Snapshot, found: Mapping[tuple[str, str], tuple[int, Fraction | None]]
    ) -> tuple[tuple[str, str], ...]:
        """Open ledger accounts for the new (place, token) pairs in `found`, with their (base units,
        value), if no transaction is pending. Return the opened pairs.
        """

    def has_places(self, places: Iterable[tuple[str, str]]) -> bool:
        """True if each (place, token) is in the ledger, or is a position opened by the agent."""

    def balances(self, head_block: int) -> tuple[LedgerBalance, ...]:
        """Return the wallet's balances at block `head_block` by the ledger."""

    def record_token_names(self, tokens: Sequence[Token], numeraire: Token, coin: str) -> None:
        """Store token names, which are still needed after a token has left the portfolio."""


class AuditedLedger(Protocol):
    """The whole ledger, for comparison with the journal."""

    def enterable_intents(self) -> tuple[Intent, ...]:
        """Return all final and reverted intents since the ledger was opened, with or without an
        entry, in chain order.
        """

    def entered(self) -> tuple[Entry, ...]:
        """Return the stored entries of intents."""

    def entries(self) -> tuple[Entry, ...]:
        """Return all entries, in chain order."""


class ValuationJournal(Protocol):
    """Value of all holdings over time."""

    def record(self, found: Valuation, forced: bool) -> bool:
        """Store a valuation, at most one an hour unless `forced`; True if stored."""

    def last_block(self) -> int:
        """Return the block of the newest valuation; -1 if there is none."""


class OrderJournal(Protocol):
    """Conditional orders, and the NAV per share for orders on the portfolio."""

    def update(
        self, orders: Sequence[ConditionalOrder], unit_value: NavPerShare | None, at_version: int
    ) -> bool:
        """Store the states of orders and the NAV per share; False if they were written after
        `at_version`.
        """


class StrategyJournal(Protocol):
    """Accounts of strategies. If a reorg removes a block, the bookings of its transactions are
    removed.
    """

    def ledger(self) -> StrategyLedger:
        """Return the bookings and states of strategies, and wallet changes not booked yet."""

    def record_bookings(self, bookings: Sequence[StrategyBooking], at_version: int) -> bool:
        """Store bookings. Return False and store nothing if the books changed after
        `at_version`.
        """

    def record_states(
        self, states: Sequence[StrategyState], points: Mapping[str, NavPoint]
    ) -> None:
        """Store the states of strategies and their NAV points; the first point of each hour is
        permanent.
        """

    def nav_points(self, name: str, since_s: int) -> tuple[NavPoint, ...]:
        """Return the NAV points of a strategy since `since_s`, oldest first."""


class AllocationJournal(Protocol):
    """Weights chosen by allocators."""

    def newest(self, owner: str = "") -> Allocation | None:
        """Return the last allocation of the portfolio (`owner` "") or of a strategy; None before
        the first.
        """

    def record(self, chosen: Allocation, owner: str = "") -> None:
        """Store an allocation; a second call with the same allocation changes nothing."""


class PriceJournal(Protocol):
    """Hourly reference prices."""

    def has(self, numeraire: str, at_s: int) -> bool:
        """True if prices are already recorded in the hour of `at_s`."""

    def record(self, numeraire: str, points: Sequence[PricePoint]) -> int:
        """Store prices in base units of `numeraire`; the first of each token and hour is permanent.
        Return the number of new prices.
        """

    def between(
        self, numeraire: str, since_s: int, until_s: int, every_s: int = ...
    ) -> tuple[PricePoint, ...]:
        """Return the recorded prices in `numeraire`, oldest first: per token the last of each
        interval `every_s`.
        """


class StepStorage(Protocol):
    """Journals of a step."""

    @property
    def steps(self) -> StepJournal:
        """Inputs and results of steps."""

    @property
    def journal(self) -> Journal:
        """Intents."""

    @property
    def budgets(self) -> BudgetJournal:
        """Daily limits."""

    @property
    def balances(self) -> BalanceJournal:
        """Expected balances."""

    @property
    def cash(self) -> CashJournal:
        """Account of portfolio.use_cash."""

    @property
    def ledger(self) -> LedgerJournal:
        """Double entry."""

    @property
    def valuations(self) -> ValuationJournal:
        """Values over time."""

    @property
    def orders(self) -> OrderJournal:
        """Conditional orders."""

    def layer(self, kind: Callable[[Any], S]) -> S:
        """Return the repository of a layer."""

    @property
    def strategies(self) -> StrategyJournal:
        """Books of strategies."""

    @property
    def allocations(self) -> AllocationJournal:
        """Chosen weights."""

    @property
    def prices(self) -> PriceJournal:
        """Hourly prices."""
