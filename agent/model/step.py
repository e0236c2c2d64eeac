"""Inputs of one step: StepInput, History (the store's part of it), and the request that starts the
step.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from agent.model.gradual_execution import BudgetCarryover, ExecutionProgress, LimitOrder, SliceDraw
from agent.model.ledger import ExternalTransfer, TaxState
from agent.model.limits import Limits
from agent.model.market import PricePoint, ScreenedToken, Snapshot
from agent.model.portfolio import (
    BlockedExit,
    ConditionalOrder,
    ExecutionConfig,
    NavPerShare,
    Policy,
    Portfolio,
    ReferenceConfig,
    SubmissionRefusal,
)
from agent.model.strategies import CapitalSplit, StrategyBooks
from agent.model.transactions import PendingPayment
from agent.model.weights import Allocation


@dataclass(frozen=True, slots=True)
class History:
    """The store's part of a decision's input. Values in numeraire base units over the last 24 h of
    chain time.

    `last_rebalance_s` is the chain time of the newest successful swap that the policy's trigger
    asked for, `last_liquidity_s` that of the newest liquidity action. `reverts_in_row` and
    `approvals_in_row` (steps that only approved) count since the last successful swap, or since the
    owner resumed. `flows` are unexplained balance changes; their decreases are part of the loss.
    `unknown` is the reason why the last 24 h are not known; limits of a day then refuse.
    `undecided` are liquidity positions of the wallet that the store does not know and that the
    owner has to adopt or forget. The schedule's next review is late by `delay_ppm` millionths of
    its window, drawn at the last one. `depegged` are stablecoins that left their peg and have not
    returned, `unread` (token, chain time since when) assets whose balance could not be read.
    `prices` are recorded prices, oldest first, as far back as policy/triggers/market_events.py
    says. `allocation` are the weights chosen last, `unchosen` the reason why none count. `reviews`
    are (schedule, chain time of its last review), named as policy/triggers/schedules.py does.

    `books` describes a disagreement of ledger and chain, `tax` has the inputs of a plan's taxable
    gain (None: not known). `campaign` is the gradual execution under way, `campaign_ended_s` the
    end of the last one, and `draw` decides the size of the first slice of the next (None: not drawn
    yet). `spent` is the part of a shared budget that the last one used (None: nothing). `orders`
    are the states of the orders, `orders_turn` the number of their writes, `unit_value` the last
    NAV per share (None: not needed). `sleeves` are the books of the strategies (None: there are
    none). `loss_total` is the loss since the store began. `late` are exits that were refused at
    submission. `invested` is the amount that the owner invests with this step, base units by token.

    `fell_24h` and `fell_total` are the parts of those losses that are decreases without a
    transaction of the agent. `accepted` are unexplained increases accepted as deposits in the last
    24 h. `failed_s` is the chain time of the newest of too many failures in a row; `failures_stop`
    is true after too many since the owner resumed, even if exits have succeeded since.
    `wasted_24h_wei` is gas of transactions that exchanged nothing (reverts, approvals, cancels) in
    the last 24 h, `wasted_wei` that of all reverts since the store began; both are part of the
    losses. `rises` are unexplained increases, base units by token; `rose_s` is the chain time since
    which such increases have blocked purchases, one after another, in the last ACCEPTANCE_WINDOW_S
    of policy/cash_flows/balance_changes.py. `left_rises` are those of `rises` that were once
    excluded above portfolio.max_live_value: they stay excluded at any price.
    """

    last_rebalance_s: int | None
    last_review_s: int | None
    turnover_24h: Fraction
    loss_24h: Fraction
    gas_24h_wei: int
    reverts_in_row: int
    started_s: int | None
    approvals_in_row: int = 0
    last_liquidity_s: int | None = None
    flows: tuple[ExternalTransfer, ...] = ()
    unknown: str = ""
    undecided: tuple[str, ...] = ()
    delay_ppm: int = 0
    depegged: tuple[str, ...] = ()
    unread: tuple[tuple[str, int], ...] = ()
    loss_total: Fraction = Fraction(0)
    prices: tuple[PricePoint, ...] = ()
    allocation: Allocation | None = None
    unchosen: str = ""
    outflow_24h: Fraction = Fraction(0)
    claims: tuple[PendingPayment, ...] = ()
    stopped: str = ""
    reviews: tuple[tuple[str, int], ...] = ()
    books: str = ""
    tax: TaxState | None = None
    campaign: ExecutionProgress | None = None
    campaign_ended_s: int | None = None
    draw: SliceDraw | None = None
    spent: BudgetCarryover | None = None
    orders: tuple[ConditionalOrder, ...] = ()
    orders_turn: int = 0
    unit_value: NavPerShare | None = None
    sleeves: StrategyBooks | None = None
    late: tuple[SubmissionRefusal, ...] = ()
    invested: tuple[tuple[str, int], ...] = ()
    fell_24h: Fraction = Fraction(0)
    fell_total: Fraction = Fraction(0)
    accepted: tuple[ExternalTransfer, ...] = ()
    failed_s: int | None = None
    failures_stop: bool = False
    wasted_24h_wei: int = 0
    wasted_wei: int = 0
    rises: tuple[tuple[str, int], ...] = ()
    rose_s: int | None = None
    left_rises: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class StepInput:
    """Everything that one step decides from; the same input gives the same decision and plan.

    `spend_caps` are the most (token, base units) that legs may take from the wallet: the amounts
    this step has approved. `spent_gas_wei` is the gas of those approvals; limits on native coin
    still count it, so that the approvals can be used. `acted` is true once this step has moved
    liquidity: the bands of shares do not hold back the rest of it. `quarantine` are tokens that are
    not traded; the portfolio then has targets for the others. `wishes` explain why the targets
    differ from the config. `split` are the strategies that share the wallet (None: one strategy).
    `stuck` are fired exits that cannot be carried out now: their assets are skipped, and everything
    else continues. `aside` explains an unexplained deposit that is excluded above
    portfolio.max_live_value (reserved then), `aside_raw` its amount, base units by token; with
    `aside` empty the amount was returned to an exit.
    """

    snapshot: Snapshot
    portfolio: Portfolio
    policy: Policy
    reference: ReferenceConfig
    limits: Limits
    execution: ExecutionConfig
    history: History
    spend_caps: tuple[tuple[str, int], ...] = ()
    spent_gas_wei: int = 0
    acted: bool = False
    quarantine: tuple[ScreenedToken, ...] = ()
    wishes: tuple[str, ...] = ()
    split: CapitalSplit | None = None
    stuck: tuple[BlockedExit, ...] = ()
    aside: str = ""
    aside_raw: tuple[tuple[str, int], ...] = ()


# --- Requests that start a step. StepInput and the request together repeat a plan.


@dataclass(frozen=True, slots=True)
class AgentCycle:
    """A cycle of the agent: open limit `orders` first, then its strategy."""

    orders: tuple[LimitOrder, ...] = ()


@dataclass(frozen=True, slots=True)
class Swap:
    """One manual swap; the amount is in base units of `token_in`."""

    token_in: str
    token_out: str
    amount_in_raw: int


@dataclass(frozen=True, slots=True)
class SwapAtPrice:
    """One manual swap at a limit price."""

    order: LimitOrder


@dataclass(frozen=True, slots=True)
class Invest:
    """Invest new deposits `came` (token, base units) in the underweight assets.

    `before` is the id of a purchase under way, or "".
    """

    came: tuple[tuple[str, int], ...]
    before: str = ""


@dataclass(frozen=True, slots=True)
class RaiseForWithdrawal:
    """Raise the shortfall of `token` for a withdrawal."""

    token: str


@dataclass(frozen=True, slots=True)
class Unwrap:
    """Unwrap native coin, in base units, for a withdrawal."""

    raw: int


@dataclass(frozen=True, slots=True)
class SellEverything:
    """Sell everything for the numeraire, at the end of the bot."""


@dataclass(frozen=True, slots=True)
class SellEntireBalance:
    """Sell the whole balance of a `token` removed from the config, to the last base unit."""

    token: str


@dataclass(frozen=True, slots=True)
class ManualAction:
    """An action without a plan: a payout, or allowances revoked by the command named in `what`."""

    what: str


PlanRequest = (
    AgentCycle
    | Swap
    | SwapAtPrice
    | Invest
    | RaiseForWithdrawal
    | Unwrap
    | SellEverything
    | SellEntireBalance
)
"""Requests that lead to a plan."""
StepRequest = PlanRequest | ManualAction
