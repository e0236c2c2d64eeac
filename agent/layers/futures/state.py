"""State of futures and hedges in a step's input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from agent.model import (
    FuturesPlan,
    FuturesPolicy,
    FuturesReading,
    Hedge,
    LayerConfig,
    LayerProgress,
    LayerState,
    MarginAccount,
    Plan,
    Snapshot,
    StepInput,
)


@dataclass(frozen=True, slots=True)
class FuturesConfig(LayerConfig):
    """Targets and limits of futures in a step."""

    policy: FuturesPolicy | None = None
    """None: no futures."""
    unhedged_bps: tuple[tuple[str, int], ...] = ()
    """Targets by token, before the adjustment for open hedges; empty without a hedge."""


@dataclass(frozen=True, slots=True)
class FuturesState(LayerState):
    """The store's part of futures; values are in numeraire base units, of the last 24 h."""

    reduced_24h: Fraction = Fraction(0)
    """Notional closed by reductions, without emergencies."""
    topped_up_24h: Fraction = Fraction(0)
    """Collateral that the agent deposited into the margin account."""
    emergency_gas_wei: int = 0
    """Part of the gas of the last 24 h for positions closed ahead of liquidation."""
    emergency_s: int | None = None
    """Chain time of the newest position closed ahead of liquidation."""
    hedges: tuple[Hedge, ...] = ()
    """Hedges that replace sales, as of the newest order, including recently closed ones."""

    @property
    def emergency_gas_24h_wei(self) -> int:
        """Gas of positions closed ahead of liquidation, wei."""
        return self.emergency_gas_wei


@dataclass(frozen=True, slots=True)
class FuturesProgress(LayerProgress):
    """What this step has done with futures, and has found impossible, so far."""

    reduced_markets: tuple[str, ...] = ()
    """Markets in which this step has sent orders; a reduction requested by the owner sends at most
    one order per market.
    """
    reduction_goals: tuple[tuple[str, int], ...] = ()
    """Final sizes, by market, of this step's reduction; empty if none is in progress."""
    order_parts: tuple[tuple[str, int], ...] = ()
    """Divisors, by market, of reductions whose simulation reverted in this step."""
    held: str = ""
    """Reason why the layer sends nothing in this proposal: no order is possible, or guards refused
    its plan. Empty: it may send.
    """
    after_hedge: bool = False
    """True once this step has opened a hedge; its rebalance then continues regardless of bands."""

    @property
    def continues(self) -> str:
        """The rest of the rebalance that a hedge has begun."""
        return "the rest of the rebalance, alongside its hedge" if self.after_hedge else ""


def margin_account(snapshot: Snapshot) -> MarginAccount | None:
    """Return the margin account; None if there is none, or it is not known for certain."""
    return snapshot.layer(FuturesReading).account


def planned_futures(plan: Plan | None) -> FuturesPlan | None:
    """Return the plan's actions on futures; None without any."""
    layers = () if plan is None else plan.layers
    return next((part for part in layers if isinstance(part, FuturesPlan)), None)


def futures_policy(step: StepInput) -> FuturesPolicy | None:
    """Return the targets and limits of futures; None without futures."""
    return step.config(FuturesConfig).policy


def with_policy(step: StepInput, policy: FuturesPolicy | None) -> StepInput:
    """Return the step with these targets and limits of futures."""
    return step.with_config(replace(step.config(FuturesConfig), policy=policy))


def collateral_token(step: StepInput) -> str:
    """Return the address of the margin account's collateral; empty without futures."""
    policy = futures_policy(step)
    return "" if policy is None else policy.collateral


def futures_state(step: StepInput) -> FuturesState:
    """Return the store's part of futures."""
    return step.layer(FuturesState)


def futures_progress(step: StepInput) -> FuturesProgress:
    """Return what this step has done with futures."""
    return step.progress.layer(FuturesProgress)


def hold_futures(step: StepInput, why: str) -> StepInput:
    """Return the step in which the layer sends nothing in this proposal, for this reason."""
    return step.with_progress(replace(futures_progress(step), held=why))
