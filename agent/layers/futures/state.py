"""State of futures and hedges in a step's input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.model import (
    AssetDrift,
    FuturesPlan,
    FuturesPolicy,
    FuturesReading,
    Hedge,
    HedgeComparison,
    LayerConfig,
    LayerCycle,
    LayerProgress,
    LayerState,
    MarginAccount,
    Plan,
    Snapshot,
    StaleReadKind,
    StepEnd,
    StepInput,
)


@dataclass(frozen=True, slots=True)
class FuturesConfig(LayerConfig):
    """Targets and limits of futures in a step."""

    policy: FuturesPolicy | None = None
    """None: no futures."""
    targets_before_hedges_bps: tuple[tuple[str, int], ...] = ()
    """Targets by token, before the adjustment for open hedges; empty without a hedge."""

    def target_before_hedges_bps(self, drift: AssetDrift) -> int:
        """Return an asset's target before the adjustment for open hedges."""
        return dict(self.targets_before_hedges_bps).get(drift.token, drift.target_bps)

    @property
    def acts_beside_spot(self) -> bool:
        """See LayerConfig."""
        return self.policy is not None

    def planned_deposit(self, plan: Plan) -> tuple[str, int, str] | None:
        """See LayerConfig."""
        layer_plan = planned_futures(plan)
        if layer_plan is None or self.policy is None:
            return None
        return self.policy.collateral, layer_plan.top_up_raw, self.policy.vault


@dataclass(frozen=True, slots=True)
class FuturesState(LayerState):
    """The store's part of futures; values are in numeraire base units, of the last 24 h."""

    reduced_notional_24h: Fraction = Fraction(0)
    """Notional closed by reductions, without emergencies."""
    top_up_value_24h: Fraction = Fraction(0)
    """Collateral that the agent deposited into the margin account."""
    emergency_gas_wei: int = 0
    """Gas of the last 24 h for positions closed ahead of liquidation, wei."""
    last_emergency_s: int | None = None
    """Chain time of the newest position closed ahead of liquidation."""
    hedges: tuple[Hedge, ...] = ()
    """Hedges that replace sales, as of the newest order, including recently closed ones."""
    set_goals: tuple[tuple[str, int], ...] = ()
    """Sizes, by market, at which the set of orders ends to which the newest order belongs."""

    @property
    def emergency_gas_24h_wei(self) -> int:
        """See LayerState."""
        return self.emergency_gas_wei


@dataclass(frozen=True, slots=True)
class FuturesProgress(LayerProgress):
    """What this cycle has done with futures before this step, and what it found impossible."""

    reduced_markets: tuple[str, ...] = ()
    """Markets in which this cycle has sent orders; a reduction requested by the owner sends at most
    one order per market.
    """
    reduction_goals: tuple[tuple[str, int], ...] = ()
    """Final sizes, by market, of this cycle's reduction; empty if none is in progress."""
    order_divisors: tuple[tuple[str, int], ...] = ()
    """Divisors, by market, of reductions whose simulation reverted in this cycle."""
    hold_reason: str = ""
    """Reason why the layer sends nothing in this proposal: no order is possible, or guards refused
    its plan. Empty: it may send.
    """
    has_opened_hedge: bool = False
    """True once this cycle has opened a hedge; its rebalance then continues regardless of bands."""

    @property
    def continue_reason(self) -> str:
        """The rest of the rebalance that a hedge has begun."""
        return "the rest of the rebalance, alongside its hedge" if self.has_opened_hedge else ""


@dataclass(frozen=True, slots=True)
class FuturesCycle(LayerCycle):
    """What a cycle has done with futures, and has found impossible there."""

    action_count: int = 0
    """Actions sent."""
    reverted_count: int = 0
    """Those of them that reverted."""
    has_reduced: bool = False
    """True after a deposit or a reduction: the rest of the cycle opens nothing, so freed margin is
    neither used nor withdrawn at once.
    """
    reduced_markets: tuple[str, ...] = ()
    """Markets of sent reductions."""
    reduction_goals: tuple[tuple[str, int], ...] = ()
    """Sizes at which a reduction to a limit ends, by market."""
    order_divisors: tuple[tuple[str, int], ...] = ()
    """Divisors of reductions that the venue refused, by market."""
    hedge_comparisons: tuple[HedgeComparison, ...] = ()
    """For each opened hedge, the comparison of its cost with that of a sale; the rebalance
    continues after them.
    """
    refused_s_by_market: tuple[tuple[str, int], ...] = ()
    """Chain time per market whose reduction or hedge was refused before sending, or whose reduction
    reverted; a refused deposit has the key MARGIN_PLACE.
    """
    refused_action_notes: tuple[StepEnd, ...] = ()
    """Notes on the steps whose orders, hedges or deposits were refused or reverted."""
    ended_order_notes: tuple[tuple[str, str], ...] = ()
    """Note on each resting order that this cycle cancelled, or tried to, by client order id."""
    hold_reason: str = ""
    """Reason why the rest of the cycle sends no action, if the agent's key may not trade."""

    @property
    def refusal_time_by_exit(self) -> Mapping[str, int]:
        """Refused and reverted reductions, hedges and deposits."""
        return dict(self.refused_s_by_market)

    def with_progress(self, step: StepInput) -> StepInput:
        """Return the step with what was reduced and refused."""
        hold_reason = self.hold_reason or futures_progress(step).hold_reason
        return step.with_progress(
            FuturesProgress(
                self.reduced_markets,
                self.reduction_goals,
                self.order_divisors,
                hold_reason,
                bool(self.hedge_comparisons),
            )
        )

    def postpones(self, plan: Plan) -> bool:
        """True if the plan opens positions after a reduction or a deposit."""
        layer_plan = planned_futures(plan)
        return self.has_reduced and layer_plan is not None and not layer_plan.is_reducing

    def notes(self) -> list[str]:
        """Return a note on the actions done."""
        if not (done_count := self.action_count - self.reverted_count):
            return []
        return [
            "1 futures action done" if done_count == 1 else f"{done_count} futures actions done"
        ]


def margin_account(snapshot: Snapshot) -> MarginAccount | None:
    """Return the margin account; None if there is none, or it is not known for certain."""
    return snapshot.layer(FuturesReading).account


def unknown_books_reason(snapshot: Snapshot) -> str:
    """Return why transfers or funding payments of the margin account may be missing; empty if none
    are.
    """
    return snapshot.layer(FuturesReading).stale_reason(
        StaleReadKind.TRANSFERS, StaleReadKind.FUNDING
    )


def planned_futures(plan: Plan | None) -> FuturesPlan | None:
    """Return the plan's actions on futures; None without any."""
    layers = () if plan is None else plan.layers
    return next((layer_plan for layer_plan in layers if isinstance(layer_plan, FuturesPlan)), None)


def futures_policy(step: StepInput) -> FuturesPolicy | None:
    """Return the targets and limits of futures; None without futures."""
    return step.config(FuturesConfig).policy


def with_policy(step: StepInput, policy: FuturesPolicy | None) -> StepInput:
    """Return the step with these targets and limits of futures."""
    return step.with_config(replace(step.config(FuturesConfig), policy=policy))


def collateral_token(policy: FuturesPolicy | None) -> str:
    """Return the address of the margin account's collateral; empty without futures."""
    return "" if policy is None else policy.collateral


def futures_state(step: StepInput) -> FuturesState:
    """Return the store's part of futures."""
    return step.layer(FuturesState)


def futures_progress(step: StepInput) -> FuturesProgress:
    """Return what this cycle has done with futures before this step."""
    return step.progress.layer(FuturesProgress)


def hold_futures(step: StepInput, why: str) -> StepInput:
    """Return the step in which the layer sends nothing in this proposal, for this reason."""
    return step.with_progress(replace(futures_progress(step), hold_reason=why))
