"""What the guards ask of a plan of futures actions."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from agent.errors import Refused
from agent.layers.futures.policy.exposure import quote_per_numeraire
from agent.layers.futures.policy.plans import emergency_gas_per_day_wei
from agent.layers.futures.policy.targets import DEPOSIT_TRIGGERS, FuturesTrigger
from agent.layers.futures.state import futures_policy, margin_account, planned_futures
from agent.margin import account as margin
from agent.margin.state import is_reduction
from agent.model import (
    AccountAction,
    AdjustFutures,
    DelegateChange,
    FuturesPlan,
    FuturesPolicy,
    FuturesReading,
    LayerGuardAnswers,
    MarginAccount,
    MarginDeposit,
    Plan,
    StepInput,
)
from agent.units import Value


@dataclass(frozen=True)
class FuturesCase(LayerGuardAnswers):
    """A plan of futures actions with its step."""

    step: StepInput
    plan: Plan
    futures_plan: FuturesPlan

    exemption_text = "not applied to a reduction of futures"

    def known_futures(self) -> tuple[FuturesPlan, FuturesPolicy, MarginAccount]:
        """Return orders, policy and account. Raises Refused if the account or a market is unknown."""
        policy = futures_policy(self.step)
        account = margin_account(self.step.snapshot)
        if policy is None or account is None:
            raise Refused(
                self.step.snapshot.layer(FuturesReading).unknown_reason
                or "no margin account is configured"
            )
        known_markets = {market.market for market in account.markets}
        for action in (*self.futures_plan.orders, *self.futures_plan.resting_actions):
            if action.market not in known_markets:
                raise Refused(f"market {action.market} is not in the snapshot")
        return self.futures_plan, policy, account

    def cost(self) -> Value:
        """Return the orders' fees and the distances of their fills from the index, filled at the
        mark. Raises Refused as `known_futures`.
        """
        return self._order_cost(at_bound=False)

    def worst_cost(self) -> Value:
        """Return the same with each order filled at its bound."""
        return self._order_cost(at_bound=True)

    def _order_cost(self, *, at_bound: bool) -> Value:
        if not self.futures_plan.orders:
            return Fraction(0)
        layer_plan, _, account = self.known_futures()
        cost = Fraction(0)
        for order in layer_plan.orders:
            market = account.market(order.market)
            index_value = abs(order.size_raw) * market.index
            fill_value = (
                Fraction(order.bound_raw) if at_bound else abs(order.size_raw) * market.mark
            )
            slippage_value = (
                fill_value - index_value if order.size_raw > 0 else index_value - fill_value
            )
            cost += max(Fraction(0), slippage_value) + fill_value * market.fee_ppm / margin.PPM
        return cost / quote_per_numeraire(self.step.snapshot, self.step.portfolio)

    def needs_no_gas(self) -> bool:
        """True at an off-chain venue, whose orders are no transactions."""
        account = margin_account(self.step.snapshot)
        return account is not None and not account.is_on_chain

    def ends_hedges(self) -> bool:
        """True if the plan only buys back open hedges; their closing cost was counted when they
        were opened.
        """
        layer_plan = self.futures_plan
        policy = futures_policy(self.step)
        if policy is None or layer_plan.account_actions or not layer_plan.orders:
            return False
        return all(
            0 < order.size_raw <= -policy.hedge_size_raw(order.market)
            for order in layer_plan.orders
        )

    def ends_delegate(self) -> bool:
        """True if the plan only revokes a delegate."""
        return all(
            isinstance(action, DelegateChange) and not action.is_allowed
            for action in self.futures_plan.actions or (None,)  # without actions: False
        )

    def only_reduces(self) -> bool:
        """True if the plan only deposits margin, revokes a delegate, or sends orders that each make
        a position smaller.
        """
        plan = self.plan
        account = margin_account(self.step.snapshot)
        if plan.legs or plan.layer_actions:
            return False
        if self.ends_delegate():
            return True
        orders = self.futures_plan.orders
        account_actions = self.futures_plan.account_actions
        if account is None or not all(map(_lowers_risk, account_actions)):
            return False
        ordered_markets = {order.market for order in orders}
        return (
            bool(self.futures_plan.actions)
            and len(ordered_markets) == len(orders)
            and all(order.is_reduce_only and is_reduction(account, order) for order in orders)
        )

    def needs_no_spot_price(self) -> bool:
        """True for reductions and deposits that a limit requires, except those that `spot_multiple`
        requires; False for deposits of the owner and for hedges.
        """
        layer_plan = self.futures_plan
        decision = self.plan.decision
        by_owner = isinstance(decision, AdjustFutures) and decision.by_owner
        return (
            (
                not layer_plan.account_actions
                or self.ends_delegate()
                or (layer_plan.trigger in DEPOSIT_TRIGGERS and not by_owner)
            )
            and layer_plan.trigger != FuturesTrigger.SPOT_MULTIPLE.value
            and self.only_reduces()
        )

    def layer_gas_budget(self) -> tuple[int | None, int] | None:
        """Return the daily gas limit of emergencies and its use, wei; None outside of them."""
        policy = futures_policy(self.step)
        if policy is None or not self.plan.is_emergency:
            return None
        limit_wei = emergency_gas_per_day_wei(policy.limits, self.step.limits)
        return limit_wei, self.step.history.emergency_gas_24h_wei


def _lowers_risk(action: AccountAction) -> bool:
    return isinstance(action, MarginDeposit) or (
        isinstance(action, DelegateChange) and not action.is_allowed
    )


def build_futures_case(step: StepInput, plan: Plan) -> FuturesCase | None:
    """Return the case of a plan of futures actions; None for any other plan."""
    layer_plan = planned_futures(plan)
    return None if layer_plan is None else FuturesCase(step, plan, layer_plan)
