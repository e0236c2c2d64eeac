"""The store's part of a decision's input, and what that is assembled from. Values are in numeraire
base units; `_24h` means the last 24 h of chain time.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from agent.model.layers import Execution, LayerState
from agent.model.ledger import (
    CashMemory,
    CashState,
    ExpectedBalances,
    ExternalTransfer,
    LedgerBalance,
)
from agent.model.market import PricePoint, ScreenedToken
from agent.model.parts import LayerPart, T, part_of
from agent.model.portfolio import (
    ConditionalOrder,
    ExitFailures,
    NavPerShare,
    TokenRefusal,
)
from agent.model.purchases import PurchaseProgress
from agent.model.transactions import PendingPayment
from agent.model.weights import Allocation


@dataclass(frozen=True, slots=True)
class Reviews:
    """Reviews of the policy's schedules, and its rebalances."""

    last_rebalance_s: int | None
    """Chain time of the newest successful swap that the policy's trigger started."""
    last_review_s: int | None
    """Chain time of the newest review of a schedule."""
    by_schedule: tuple[tuple[str, int], ...] = ()
    """Chain time of the last run of each schedule, by its name in policy/triggers/schedules.py."""
    delay_ppm: int = 0
    """Random delay of the next review, in millionths of the longest; drawn at the last review."""

    @property
    def last_evaluation_s(self) -> int | None:
        """The later of the last rebalance and the last review, Unix seconds; None without
        either.
        """
        times_s = (self.last_rebalance_s, self.last_review_s)
        return max((at_s for at_s in times_s if at_s is not None), default=None)


@dataclass(frozen=True, slots=True)
class Budgets:
    """Use of the limits."""

    turnover_24h: Fraction
    loss_24h: Fraction
    """Losses of transactions and unexplained decreases."""
    gas_24h_wei: int
    loss_total: Fraction = Fraction(0)
    """Loss since the store was created."""
    outflow_24h: Fraction = Fraction(0)
    """Payouts."""
    decrease_24h: Fraction = Fraction(0)
    """Part of `loss_24h` from balance decreases without a transaction of the agent."""
    decrease_total: Fraction = Fraction(0)
    """Part of `loss_total` from such decreases."""
    non_trade_loss_24h: Fraction = Fraction(0)
    """Part of `loss_24h` from the gas of transactions other than trades: reverts, approvals,
    cancels.
    """
    reverted_loss_total: Fraction = Fraction(0)
    """Part of `loss_total` from the gas of reverts."""
    unknown_reason: str = ""
    """Reason why the last 24 h are unknown; daily limits then refuse. Empty: known."""
    unpriced_falls_reason: str = ""
    """Part of `unknown_reason` from balance decreases without a price; exits ignore them."""
    turnover_frees_s: int | None = None
    """Chain time at which the oldest trade of `turnover_24h` counts no longer; None: unknown, or no
    trade.
    """


@dataclass(frozen=True, slots=True)
class Failures:
    """Failed transactions and refused exits."""

    reverts_in_row: int
    """Consecutive reverts since the last successful swap, or since the owner resumed."""
    approval_cycles_in_row: int = 0
    """Consecutive cycles that only approved, counted as `reverts_in_row`."""
    is_stopped: bool = False
    """True after too many failures since the owner resumed, even if exits have succeeded since."""
    failed_exits: tuple[ExitFailures, ...] = ()
    """Failures of each exit, newest first."""
    submission_refusals: tuple[TokenRefusal, ...] = ()
    """Exits that were refused at submission."""
    ignored_approvals: tuple[TokenRefusal, ...] = ()
    """Tokens whose approvals had no effect in a plan that was no exit."""


@dataclass(frozen=True, slots=True)
class CashFlows:
    """Deposits, withdrawals, purchases, and unexplained balance changes."""

    unexplained_transfers: tuple[ExternalTransfer, ...] = ()
    """Unexplained balance changes."""
    accepted_deposits: tuple[ExternalTransfer, ...] = ()
    """Unexplained increases accepted as deposits in the last 24 h."""
    unexplained_increases_raw: tuple[tuple[str, int], ...] = ()
    """Unexplained increases, base units by token."""
    first_increase_s: int | None = None
    """Chain time of the first increase that blocked purchases in the current window
    (ACCEPTANCE_WINDOW_S of policy/cash_flows/balance_changes.py); None once the owner has explained
    the last that blocked them.
    """
    excluded_increases_raw: tuple[tuple[str, int], ...] = ()
    """Part of `unexplained_increases_raw` that was excluded because the value exceeded
    portfolio.max_live_value; it remains excluded even if the price falls.
    """
    newly_invested_raw: tuple[tuple[str, int], ...] = ()
    """Base units by token that the owner invests with this step."""
    purchase: PurchaseProgress | None = None
    """Active purchase in parts."""
    pending_payments: tuple[PendingPayment, ...] = ()
    """Unpaid payments of open withdrawals."""
    cash: CashState | None = None
    """Account of portfolio.use_cash; None: the agent uses all of the numeraire."""

    def reserved_payments(self, next_nonce: int) -> tuple[PendingPayment, ...]:
        """Return the unpaid payments whose amounts are in the wallet at `next_nonce`: all but those
        that may be mined, because it is past their nonce.
        """
        return tuple(
            claim
            for claim in self.pending_payments
            if claim.open_nonce is None or claim.open_nonce >= next_nonce
        )


@dataclass(frozen=True, slots=True)
class OrderStates:
    """Conditional orders."""

    states: tuple[ConditionalOrder, ...] = ()
    """States of the conditional orders."""
    version: int = 0
    """Number of writes of `states`."""
    nav_per_share: NavPerShare | None = None
    """Last NAV per share; None: not needed."""


NO_CASH_FLOWS = CashFlows()
NO_ORDERS = OrderStates()


def execution_under_way(
    purchase: PurchaseProgress | None, layers: tuple[LayerState, ...]
) -> Execution | None:
    """Return the execution under way over several steps: the purchase, or that of a layer."""
    if purchase is not None:
        return purchase
    return next((layer.execution for layer in layers if layer.execution is not None), None)


@dataclass(frozen=True, slots=True)
class History:
    """The store's part of a decision's input."""

    reviews: Reviews
    budgets: Budgets
    failures: Failures
    started_s: int | None
    """Time of the first recorded step; None if there is none."""
    cash_flows: CashFlows = NO_CASH_FLOWS
    orders: OrderStates = NO_ORDERS
    layers: tuple[LayerState, ...] = ()
    """States of the layers; a layer without one is off."""
    stop_reason: str = ""
    """Reason why trading is stopped on request of the owner; empty: not stopped."""
    ledger_mismatch: str = ""
    """Disagreement of ledger and chain; empty: none."""
    depegged_tokens: tuple[str, ...] = ()
    """Stablecoins that left their peg and have not returned."""
    unread_since_s_by_token: tuple[tuple[str, int], ...] = ()
    """Assets with unreadable balances, each with the chain time of the first failed read."""
    prices: tuple[PricePoint, ...] = ()
    """Recorded prices, oldest first, as far back as allocators and market events need them."""
    allocation: Allocation | None = None
    """Last allocation."""
    allocation_fault: str = ""
    """Reason why no allocation is valid."""
    price_fault: str = ""
    """Why past prices could not be read from the chain; empty if they were, or none are missing."""
    demanded_tip_wei: int = 0
    """Tip that nodes demanded when they last refused a lower one, in the last 24 h; 0: none."""

    @property
    def emergency_gas_24h_wei(self) -> int:
        """Part of `gas_24h_wei` for emergencies of the layers."""
        return sum(layer.emergency_gas_24h_wei for layer in self.layers)

    @property
    def execution(self) -> Execution | None:
        """Execution under way over several steps: a purchase, or that of a layer."""
        return execution_under_way(self.cash_flows.purchase, self.layers)

    def layer(self, part_type: type[T]) -> T:
        """Return the state of a layer."""
        return part_of(self.layers, part_type)


NEW_STORE_HISTORY = History(
    Reviews(None, None), Budgets(Fraction(0), Fraction(0), 0), Failures(0), None
)
"""History of a new store."""


@dataclass(frozen=True, slots=True)
class StepMemory:
    """The store's data at a step's block, except the budgets in its history. `allocation_by_owner`
    are the newest allocations of the parts that divide the wallet, by owner; `untradable_tokens`
    are tokens to quarantine. `layers` are what the layers read: states join the step's history, the
    rest is for their own use.
    """

    prices: tuple[PricePoint, ...]
    allocation: Allocation | None
    balances: ExpectedBalances
    ledger_balances: tuple[LedgerBalance, ...]
    allocation_by_owner: tuple[tuple[str, Allocation], ...] = ()
    untradable_tokens: tuple[ScreenedToken, ...] = ()
    cash: CashMemory | None = None
    layers: tuple[LayerPart, ...] = ()

    def layer(self, part_type: type[T]) -> T:
        """Return what a layer read."""
        return part_of(self.layers, part_type)
