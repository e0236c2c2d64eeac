"""StepInput: the whole of what one step decides from, with what the store remembers."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from agent.model.gradual_execution import BudgetCarryover, ExecutionProgress, SliceDraw
from agent.model.ledger import ExternalTransfer, TaxState
from agent.model.market import PricePoint, ScreenedToken, Snapshot
from agent.model.portfolio import (
    BlockedExit,
    ConditionalOrder,
    ExecutionConfig,
    Limits,
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
    """What the store remembers that a decision needs. Values in numeraire base units over the last 24 h of chain time.

    `last_rebalance_s` is the chain time of the newest swap that the policy's trigger asked for and that succeeded, `last_liquidity_s`
    that of the newest action with liquidity.
    `reverts_in_row` and `approvals_in_row` (steps that only approved) count since the last swap that succeeded, or since the
    owner resumed. `flows` are changes of balances that nobody has explained yet, whose falls are part of the loss. `unknown` says
    why the last 24 h cannot be told; then limits of a day refuse. `undecided` are liquidity positions of the wallet that the
    store does not know and that the owner has to take over or forget. The schedule's next review is late by `delay_ppm`
    millionths of its window, drawn at the last one. `depegged` are dollars that left their peg and are not back at it yet,
    `unread` (token, chain time since when) assets whose balance could not be read. `prices` are recorded prices, oldest first, as
    far back as policy/triggers/market_events.py says. `allocation` are the weights chosen last, `unchosen` says why none count.
    `reviews` are (schedule, chain time of its last review), named as policy/triggers/schedules.py does.
    `books` says where ledger and chain disagree, `tax` what a plan's taxable gain is told by (None: nothing is known of it).
    `campaign` is the correction that is under way over time, `campaign_ended_s` when the last one ended, and `draw` decides the size
    of the first round of the next (None: not drawn yet). `spent` is what the last one has taken of the budget that the next shares
    with it (None: nothing). `orders` says how each order stands, `orders_turn` how often that was written,
    `unit_value` what a unit of the portfolio was worth (None: nothing asks for it). `sleeves` are the books of strategies (None: there
    are no strategies). `loss_total` is the loss since the store began. `late` are exits that were refused when about to be sent.
    `invested` is what its owner invests with this step, base units by token.
    `fell_24h` and `fell_total` are the parts of those losses that are falls of balances without a transaction of ours. `accepted`
    are rises that were accepted as deposits in the last 24 h, since nobody explained them.
    `failed_s` is chain time of the newest of too many failures in a row; `failures_stop` says that there were too many since the
    owner resumed, whatever exits have succeeded since.
    `wasted_24h_wei` is gas of transactions that exchanged nothing (reverts, approvals, cancels) in the last 24 h, `wasted_wei` that of
    all that reverted since the store began; both are part of the losses. `rises` is what rose and nobody has explained, base units by
    token; `rose_s` chain time since which such rises have held purchases back, one after another, in the last policy.flows.SPELL_S.
    `left_rises` are those of `rises` that were left alone above portfolio.max_live_value once: they stay so, whatever prices do.
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
    """The whole of what one step decides from; the same input gives the same decision and plan.

    `spend_caps` are (token, base units) that legs may take from the wallet at most: what this step has approved already.
    `spent_gas_wei` is the gas money of those approvals: it still counts where native coin does, so that they are used up.
    `acted` says that this step has moved liquidity already: what it began is not held back by the bands of shares.
    `quarantine` are tokens that are left as they are; the portfolio then says what is wanted of the others. `wishes` say in words
    why its targets are other than those of the config. `split` are the strategies that share the wallet (None: it is one).
    `stuck` are exits that fired and cannot be done now: those assets are left as they are, and everything else goes on.
    `aside` says in words what is left alone since it came unexplained, above portfolio.max_live_value (a reserve by then), `aside_raw`
    how much of it, base units by token; without words it was given back to an exit.
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
