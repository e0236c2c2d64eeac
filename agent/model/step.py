"""Inputs of one step: StepInput, History (the store's part of it), and the request that starts the
step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from agent.model.futures import AccountAction, FuturesPolicy, Hedge
from agent.model.layers import Execution, LayerState, T, part_of, with_part
from agent.model.ledger import CashState, ExternalTransfer, TaxState
from agent.model.limits import Limits
from agent.model.market import PricePoint, ScreenedToken, Snapshot
from agent.model.plan import LimitOrder
from agent.model.portfolio import (
    Asset,
    BlockedExit,
    ConditionalOrder,
    ExecutionConfig,
    ExitFailures,
    NavPerShare,
    Policy,
    Portfolio,
    ReferenceConfig,
    SubmissionRefusal,
)
from agent.model.purchases import PurchaseProgress
from agent.model.strategies import CapitalSplit, StrategyBooks
from agent.model.transactions import PendingPayment
from agent.model.weights import Allocation, SignalAnswer


@dataclass(frozen=True, slots=True)
class History:
    """The store's part of a decision's input.

    Values are in numeraire base units; `_24h` means the last 24 h of chain time.
    """

    last_rebalance_s: int | None
    """Chain time of the newest successful swap that the policy's trigger started."""
    last_review_s: int | None
    """Chain time of the newest review of a schedule."""
    turnover_24h: Fraction
    loss_24h: Fraction
    """Losses of transactions and unexplained decreases."""
    gas_24h_wei: int
    reverts_in_row: int
    """Consecutive reverts since the last successful swap, or since the owner resumed."""
    started_s: int | None
    """Time of the first recorded step; None if there is none."""
    approvals_in_row: int = 0
    """Consecutive steps that only approved, counted as `reverts_in_row`."""
    last_liquidity_s: int | None = None
    """Chain time of the newest liquidity action."""
    flows: tuple[ExternalTransfer, ...] = ()
    """Unexplained balance changes."""
    unknown: str = ""
    """Reason why the last 24 h are unknown; daily limits then refuse. Empty: known."""
    undecided: tuple[str, ...] = ()
    """Liquidity positions of the wallet that the owner has to adopt or forget."""
    delay_ppm: int = 0
    """Random delay of the next review, in millionths of the longest; drawn at the last review."""
    depegged: tuple[str, ...] = ()
    """Stablecoins that left their peg and have not returned."""
    unread: tuple[tuple[str, int], ...] = ()
    """Assets with unreadable balances, each with the chain time of the first failed read."""
    loss_total: Fraction = Fraction(0)
    """Loss since the store was created."""
    prices: tuple[PricePoint, ...] = ()
    """Recorded prices, oldest first, as far back as allocators and market events need them."""
    allocation: Allocation | None = None
    """Last allocation."""
    unchosen: str = ""
    """Reason why no allocation is valid."""
    outflow_24h: Fraction = Fraction(0)
    """Payouts."""
    claims: tuple[PendingPayment, ...] = ()
    """Unpaid payments of open withdrawals."""
    stopped: str = ""
    """Reason why trading is stopped on request of the owner; empty: not stopped."""
    reviews: tuple[tuple[str, int], ...] = ()
    """Chain time of the last run of each schedule, by its name in policy/triggers/schedules.py."""
    books: str = ""
    """Disagreement of ledger and chain; empty: none."""
    tax: TaxState | None = None
    """Inputs of a plan's taxable gain; None: unknown."""
    purchase: PurchaseProgress | None = None
    """Active purchase in parts."""
    layers: tuple[LayerState, ...] = ()
    """States of the layers; a layer without one is off."""
    orders: tuple[ConditionalOrder, ...] = ()
    """States of the conditional orders."""
    orders_turn: int = 0
    """Number of writes of `orders`."""
    unit_value: NavPerShare | None = None
    """Last NAV per share; None: not needed."""
    sleeves: StrategyBooks | None = None
    """Books of the strategies; None: no strategies."""
    late: tuple[SubmissionRefusal, ...] = ()
    """Exits that were refused at submission."""
    invested: tuple[tuple[str, int], ...] = ()
    """Base units by token that the owner invests with this step."""
    fell_24h: Fraction = Fraction(0)
    """Part of `loss_24h` from balance decreases without a transaction of the agent."""
    fell_total: Fraction = Fraction(0)
    """Part of `loss_total` from such decreases."""
    accepted: tuple[ExternalTransfer, ...] = ()
    """Unexplained increases accepted as deposits in the last 24 h."""
    failed_s: int | None = None
    """Chain time of the failure that stopped the wallet, in older records only."""
    failures_stop: bool = False
    """True after too many failures since the owner resumed, even if exits have succeeded since."""
    wasted_24h_wei: int = 0
    """Gas of transactions other than trades: reverts, approvals, cancels. Part of `loss_24h`."""
    wasted_wei: int = 0
    """Gas of all reverts since the store was created. Part of `loss_total`."""
    rises: tuple[tuple[str, int], ...] = ()
    """Unexplained increases, base units by token."""
    rose_s: int | None = None
    """Chain time of the first increase that blocked purchases in the current window
    (ACCEPTANCE_WINDOW_S of policy/cash_flows/balance_changes.py).
    """
    left_rises: tuple[tuple[str, int], ...] = ()
    """Part of `rises` that was excluded because the value exceeded portfolio.max_live_value; it
    remains excluded even if the price falls.
    """
    failed_exits: tuple[ExitFailures, ...] = ()
    """Failures of each exit, newest first."""
    unpriced_falls: str = ""
    """Part of `unknown` from balance decreases without a price; exits ignore them."""
    reduced_24h: Fraction = Fraction(0)
    """Notional closed by futures reductions, without emergencies."""
    topped_up_24h: Fraction = Fraction(0)
    """Collateral that the agent deposited into the margin account."""
    emergency_gas_24h_wei: int = 0
    """Part of `gas_24h_wei` for positions closed ahead of liquidation."""
    emergency_s: int | None = None
    """Chain time of the newest position closed ahead of liquidation."""
    signals: tuple[SignalAnswer, ...] = ()
    """Answers of the signals that this step ran."""
    hedges: tuple[Hedge, ...] = ()
    """Hedges that replace sales, as of the newest futures order, including recently closed ones."""
    cash: CashState | None = None
    """Account of portfolio.use_cash; None: the agent uses all of the numeraire."""

    @property
    def execution(self) -> Execution | None:
        """Execution under way over several steps: a purchase, or that of a layer."""
        if self.purchase is not None:
            return self.purchase
        return next((one.execution for one in self.layers if one.execution is not None), None)

    def layer(self, kind: type[T]) -> T:
        """Return the state of a layer."""
        return part_of(self.layers, kind)

    @property
    def last_evaluation_s(self) -> int | None:
        """The later of the last rebalance and the last review, Unix seconds; None without either."""
        times_s = (self.last_rebalance_s, self.last_review_s)
        return max((at_s for at_s in times_s if at_s is not None), default=None)


@dataclass(frozen=True, slots=True)
class StepInput:
    """All inputs of one step. Equal inputs give equal decisions and plans.

    `portfolio` has the owner's targets, `effective_assets` the ones that the step trades to.
    """

    snapshot: Snapshot
    portfolio: Portfolio
    policy: Policy
    reference: ReferenceConfig
    limits: Limits
    execution: ExecutionConfig
    history: History
    spend_caps: tuple[tuple[str, int], ...] = ()
    """Maximum base units by token that legs may take from the wallet: the amounts approved in this
    step.
    """
    spent_gas_wei: int = 0
    """Gas of these approvals, added to the native balance in agent/policy/native_coin.py, so that
    the approvals can be used.
    """
    acted: bool = False
    """True once this step has moved liquidity; share bands then no longer block the remaining
    actions.
    """
    quarantine: tuple[ScreenedToken, ...] = ()
    """Tokens that are not traded; the remaining assets have targets."""
    wishes: tuple[str, ...] = ()
    """Reasons why the targets differ from the config."""
    split: CapitalSplit | None = None
    """Strategies that share the wallet; None: a single strategy."""
    stuck: tuple[BlockedExit, ...] = ()
    """Triggered exits that cannot be carried out now. Their assets are skipped."""
    aside: str = ""
    """Reason why an unexplained deposit above portfolio.max_live_value is excluded. Empty: none is
    excluded, or the amount was included again for an exit.
    """
    aside_raw: tuple[tuple[str, int], ...] = ()
    """Amount of that deposit, base units by token."""
    exits_only: str = ""
    """Missing prices of the assets left out of this portfolio: only exits may be decided. Empty: no
    asset is left out.
    """
    direct: tuple[str, ...] = ()
    """Tokens whose exits were refused in this step on a route through another token."""
    left_pools: tuple[str, ...] = ()
    """Pools whose withdrawal was refused or reverted in this step; their liquidity stays."""
    futures: FuturesPolicy | None = None
    """Targets and limits of the futures layer; None: no futures."""
    reduced_markets: tuple[str, ...] = ()
    """Futures markets in which this step has sent orders; a reduction requested by the owner sends
    at most one order per market.
    """
    reduction_goals: tuple[tuple[str, int], ...] = ()
    """Final sizes, by futures market, of this step's reduction; empty if none is in progress."""
    order_parts: tuple[tuple[str, int], ...] = ()
    """Divisors, by futures market, of reductions whose simulation reverted in this step."""
    futures_held: str = ""
    """Reason why the futures layer sends nothing in this proposal: no order is possible, or guards
    refused its plan. Empty: it may send.
    """
    spot_held: str = ""
    """Reason why the spot portfolio trades only exits in this proposal, because guards refused its
    plan. Empty: no restriction.
    """
    unhedged_bps: tuple[tuple[str, int], ...] = ()
    """Targets by token, before the adjustment for open hedges; empty without a hedge."""
    after_hedge: bool = False
    """True once this step has opened a hedge; its rebalance then continues regardless of bands."""
    effective_bps: tuple[tuple[str, int], ...] = ()
    """Effective targets by token, after allocator, strategies, orders, hedges and exclusions; empty
    if they are the owner's.
    """

    def layer(self, kind: type[T]) -> T:
        """Return the state of a layer."""
        return self.history.layer(kind)

    def with_layer(self, state: LayerState) -> StepInput:
        """Return the step with this state of a layer."""
        layers = with_part(self.history.layers, state)
        return replace(self, history=replace(self.history, layers=layers))

    @property
    def collateral(self) -> str:
        """Address of the margin account's collateral; empty without futures."""
        return "" if self.futures is None else self.futures.collateral

    @property
    def effective_assets(self) -> tuple[Asset, ...]:
        """Assets with their effective targets."""
        if not self.effective_bps:
            return self.portfolio.assets
        targets = dict(self.effective_bps)
        return tuple(
            replace(asset, target_bps=targets[asset.token.address])
            for asset in self.portfolio.assets
        )


# --- Requests that start a step. A plan can be repeated from StepInput and request.


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
    """Request to invest the new deposits `came` (token, base units) in the underweight assets.

    `before` is the id of a purchase under way, or "".
    """

    came: tuple[tuple[str, int], ...]
    before: str = ""


@dataclass(frozen=True, slots=True)
class RaiseForWithdrawal:
    """Request to raise the shortfall of `token` for a withdrawal."""

    token: str


@dataclass(frozen=True, slots=True)
class Unwrap:
    """Request to unwrap `raw` base units to native coin for a withdrawal."""

    raw: int


@dataclass(frozen=True, slots=True)
class SellEverything:
    """Request to sell everything for the numeraire, for the shutdown."""


@dataclass(frozen=True, slots=True)
class SellEntireBalance:
    """Request to sell the whole balance of a `token` removed from the config."""

    token: str


@dataclass(frozen=True, slots=True)
class MoveMargin:
    """Request to deposit or withdraw margin, or to change a delegate."""

    action: AccountAction


@dataclass(frozen=True, slots=True)
class Deleverage:
    """Request to reduce all futures positions by the same share, or only that of the market
    `symbol` (empty: all), until the leverage is at most `leverage_bps`. Without a leverage the
    positions are closed.
    """

    leverage_bps: int | None = None
    symbol: str = ""


@dataclass(frozen=True, slots=True)
class OpenHedge:
    """Request to short `ratio_bps` of the amount by which `token` exceeds its target, instead of
    selling it.
    """

    token: str
    ratio_bps: int


@dataclass(frozen=True, slots=True)
class CloseHedge:
    """Request to close the hedge of a `token`."""

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
    | MoveMargin
    | Deleverage
    | OpenHedge
    | CloseHedge
)
"""Requests that lead to a plan."""
StepRequest = PlanRequest | ManualAction
