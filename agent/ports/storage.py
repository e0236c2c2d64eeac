"""Ports to remember through: a narrow one for each subject, and StepStorage, which has all that a
step needs.

Every method that changes something has committed to disk before it returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Protocol

from agent.model import (
    Allocation,
    ConditionalOrder,
    Entry,
    ExpectedBalances,
    ExternalTransaction,
    ExternalTransfer,
    GradualExecution,
    History,
    Intent,
    IntentEvent,
    IntentKind,
    IntentState,
    LedgerBalance,
    NavPerShare,
    PricePoint,
    Receipt,
    SliceDraw,
    Snapshot,
    SubmissionRefusal,
    UnsignedTx,
    Valuation,
)
from agent.model.strategies import NavPoint, StrategyBooking, StrategyLedger, StrategyState
from agent.ports.execution import Grant
from agent.units import Token


class StepJournal(Protocol):
    """Steps: what each was decided from, and how it ended."""

    def begin(
        self, step_id: str, now_s: int, input_json: str, asked_json: str | None = None
    ) -> None:
        """Store a step's input and request; again, with a new input, after a token was quarantined
        meanwhile.
        """

    def end(
        self, step_id: str, decision: str, reason: str, plan_json: str | None, outcome: str
    ) -> None:
        """Store a step's decision and outcome."""

    def input_json(self, step_id: str) -> str | None:
        """Return the input of a step, as JSON; None for a step that was not begun."""

    def by_hand(self, intent_id: str) -> bool:
        """True if that intent's step was a manual request."""


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
        """Store a new intent in state PLANNED, with the grant that a restart needs to sign the same
        bytes again.

        `deadline_s` is the chain time after which it must not be sent any more (None: it does not
        expire). `replaces` is the newest open intent at that nonce, whose bytes were sent: this one
        has a higher fee, or cancels it. Raises OperatorNeeded if the nonce already has an open
        intent that it may not replace.
        """

    def grant(self, intent_id: str) -> Grant:
        """The grant an intent was written down with."""

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
        """Move an intent along the transition table, by `event` if it is named. Raises ValueError
        for a forbidden transition.
        """

    def open_intents(self) -> Sequence[Intent]:
        """Intents that are not at an end, oldest first."""

    def intents_at(self, nonce: int) -> Sequence[Intent]:
        """Return every intent of that nonce, including ended ones, oldest first."""

    def undecided_at(self, nonce: int) -> Sequence[Intent]:
        """Return ended intents of that nonce that may still be mined, since the transaction that
        ended them lost its block.
        """

    def ended_in_block(self, limit: int) -> Sequence[Intent]:
        """The newest intents that ended final or reverted since the operator last adopted a nonce,
        newest first.
        """

    def unbooked(self) -> Sequence[Intent]:
        """Intents with a receipt that no budget knows yet, oldest first."""

    def expected_nonce(self) -> int | None:
        """The chain's next nonce as far as this journal knows; None before a nonce was adopted."""

    def set_expected_nonce(self, nonce: int, now_s: int) -> None:
        """Store `nonce` as the chain's next one: on first use, or on the operator's command."""


class ProposalJournal(Protocol):
    """Intents that were shown to an external signer."""

    def mark_proposed(self, intent_id: str, since_block: int) -> None:
        """Store that an intent is shown from that block on."""

    def proposed(self) -> dict[str, int]:
        """Return the block since which each proposal was shown, by the id of its intent; dropped
        proposals included.
        """


class BudgetJournal(Protocol):
    """Consumption of the daily limits, and what a step has to remember of the one before."""

    def history(self, chain_now_s: int) -> History:
        """Sums over the last 24 h of chain time."""

    def book(
        self,
        intent: Intent,
        turnover: Fraction,
        loss: Fraction,
        gas_wei: int,
        chain_s: int,
        outflow: Fraction = Fraction(0),
    ) -> None:
        """Add a finished intent to the loss, turnover and gas budgets; a second call for the same
        intent changes nothing.
        """

    def mark_review(self, chain_s: int, delay_ppm: int = 0, reviews: Sequence[str] = ()) -> None:
        """Store the time of a schedule's last review, and the delay of the next one in millionths
        of its window.

        `reviews` names the schedules reviewed.
        """

    def mark_depegged(self, tokens: Sequence[str]) -> None:
        """Store the stablecoins that left their peg and have not returned."""

    def mark_unread(self, since_s: Sequence[tuple[str, int]]) -> None:
        """Store (token, chain time since when) of assets whose balance could not be read."""

    def mark_submission_refusals(self, found: Sequence[SubmissionRefusal]) -> None:
        """Store the exits refused at submission, in place of all earlier ones."""


class BalanceJournal(Protocol):
    """Expected balances, transfers, and transactions of the wallet that the store did not send."""

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

        False, with nothing stored, if the openings have been written since `turn`.
        """

    def mark_left_alone(self) -> None:
        """Mark every unexplained increase as excluded until it is explained."""

    def prior_day_known(self, chain_now_s: int) -> bool:
        """True if the last 24 h are fully recorded."""

    def mark_day_asked(self, chain_now_s: int) -> None:
        """Store the first time the chain could not answer for earlier transactions."""

    def record_prior_day(self, found: Sequence[ExternalTransaction], nonce: int) -> None:
        """Store the transactions found on chain up to the wallet's next nonce."""


class PositionJournal(Protocol):
    """Liquidity positions that the owner has to decide on."""

    def scanned(self) -> bool:
        """True if the wallet was scanned for positions."""

    def record(self, names: Iterable[str], now_s: int) -> None:
        """Store positions that the owner has to decide on."""


class LedgerJournal(Protocol):
    """The double-entry ledger. An entry goes in one transaction with the receipt that a reorg
    takes.
    """

    def intents_without_entry(self) -> tuple[Intent, ...]:
        """Return final and reverted intents without a ledger entry, oldest first."""

    def unsettled(self) -> tuple[Intent, ...]:
        """Intents that have not ended, or ended in a block and are not in the book yet, oldest
        first.
        """

    def counted(self, intent_id: str) -> frozenset[str]:
        """Tokens whose movements by that intent belong into the book."""

    def principal(self, position: str) -> dict[str, int]:
        """Return the net amounts provided to a liquidity position, base units by token."""

    def enter(self, intent: Intent, entry: Entry) -> bool:
        """Store the entry of a final intent; False if it has one, or another receipt by now."""

    def open_places(
        self, snapshot: Snapshot, found: Mapping[tuple[str, str], tuple[int, Fraction | None]]
    ) -> tuple[tuple[str, str], ...]:
        """Open new (place, token) with (base units, value) in the ledger, once no own transaction
        is pending; return them.
        """

    def has_places(self, places: Iterable[tuple[str, str]]) -> bool:
        """True if all of these are in the ledger, or are positions opened by the agent."""

    def balances(self, head_block: int) -> tuple[LedgerBalance, ...]:
        """Return the wallet's balances at that block by the ledger."""

    def record_token_names(self, tokens: Sequence[Token], numeraire: Token, coin: str) -> None:
        """Store the names of tokens, for use after they have left the portfolio too."""


class AuditedLedger(Protocol):
    """The ledger as a whole, to compare it with the journal."""

    def enterable_intents(self) -> tuple[Intent, ...]:
        """All final and reverted intents since the book opened, in the order of the chain, whether
        they are in it or not.
        """

    def entered(self) -> tuple[Entry, ...]:
        """Return entries of intents, as stored."""

    def entries(self) -> tuple[Entry, ...]:
        """Every entry of the book, in the order of the chain."""


class ValuationJournal(Protocol):
    """Value of all holdings over time."""

    def record(self, found: Valuation, forced: bool) -> bool:
        """Store a valuation; at most once an hour unless `forced`."""

    def last_block(self) -> int:
        """Block of the newest valuation; -1 where there is none."""


class OrderJournal(Protocol):
    """Conditional orders and the NAV per share that they follow."""

    def update(
        self, orders: Sequence[ConditionalOrder], unit_value: NavPerShare | None, at_version: int
    ) -> bool:
        """Store the states of orders and the NAV per share; False if they have been written since
        `at_version`.
        """


class GradualExecutionJournal(Protocol):
    """Gradual executions. Their progress comes with the history."""

    def store_next_draw(self, draw: SliceDraw) -> None:
        """Store the draw for the first slice of the next execution, unless there is one already."""

    def begin(self, execution: GradualExecution) -> str:
        """Store an execution and return its id; its first draw is used up. Raises OperatorNeeded
        while another is open.
        """

    def begin_slice(
        self, campaign_id: str, number: int, step_id: str, at_s: int, draw: SliceDraw
    ) -> None:
        """Store a slice, or a retry of it, before it is sent; `draw` is for the next slice, drawn
        once for all retries.
        """

    def end(self, campaign_id: str, state: str, why: str, chain_s: int) -> bool:
        """End an execution or an order by name; False if none of that id is open."""


class StrategyJournal(Protocol):
    """Books of strategies. A transaction's change of them is undone if a reorg removes its
    block.
    """

    def ledger(self) -> StrategyLedger:
        """Return the strategies' bookings, and the wallet's changes that are not booked yet."""

    def record_bookings(self, bookings: Sequence[StrategyBooking], at_version: int) -> bool:
        """Store bookings; False, with nothing stored, if the books have changed since
        `at_version`.
        """

    def record_states(
        self, states: Sequence[StrategyState], points: Mapping[str, NavPoint]
    ) -> None:
        """Store the states of strategies and their unit values, the first of each hour
        permanently.
        """

    def nav_points(self, name: str, since_s: int) -> tuple[NavPoint, ...]:
        """Unit values of one strategy since then, oldest first."""


class AllocationJournal(Protocol):
    """Weights that allocators chose."""

    def newest(self, owner: str = "") -> Allocation | None:
        """The weights chosen last for the portfolio, or a strategy of it; None before the first
        choice.
        """

    def record(self, chosen: Allocation, owner: str = "") -> None:
        """Store chosen weights; storing the same ones again changes nothing."""


class PriceJournal(Protocol):
    """Hourly reference prices."""

    def has(self, numeraire: str, at_s: int) -> bool:
        """True if prices are already recorded in the hour of `at_s`."""

    def record(self, numeraire: str, points: Sequence[PricePoint]) -> int:
        """Store prices in base units of `numeraire`, the first of each token and hour permanently;
        return the number of new ones.
        """

    def between(
        self, numeraire: str, since_s: int, until_s: int, every_s: int = ...
    ) -> tuple[PricePoint, ...]:
        """Recorded prices in that numeraire, oldest first; of each `every_s` the last of each
        token.
        """


class StepStorage(Protocol):
    """All that a step remembers through."""

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
    def ledger(self) -> LedgerJournal:
        """Double entry."""

    @property
    def valuations(self) -> ValuationJournal:
        """Values over time."""

    @property
    def orders(self) -> OrderJournal:
        """Conditional orders."""

    @property
    def executions(self) -> GradualExecutionJournal:
        """Gradual executions."""

    @property
    def strategies(self) -> StrategyJournal:
        """Books of strategies."""

    @property
    def allocations(self) -> AllocationJournal:
        """Chosen weights."""

    @property
    def prices(self) -> PriceJournal:
        """Hourly prices."""
