"""Futures of a step: account, limits, exposure in addition to the spot portfolio, and plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from agent.layers.futures.planning.plans import plan_and_hold_reason
from agent.layers.futures.policy.exposure import (
    PriceExposure,
    exposures,
    is_delegate_wallet,
    spot_value_raw,
    uncertain_spot_reason,
)
from agent.layers.futures.state import futures_policy, margin_account
from agent.margin.state import LimitCheck, limit_checks, margin_state

if TYPE_CHECKING:
    from agent.model import AssetDrift, FuturesPlan, FuturesPolicy, MarginAccount, StepInput


@dataclass(frozen=True, slots=True)
class FuturesReport:
    """Futures of a step. `account` is None if unknown, and then there is no plan. `spot_value_raw`
    (quote base units) is None if unknown.
    """

    step: StepInput
    policy: FuturesPolicy
    account: MarginAccount | None
    spot_value_raw: Fraction | None
    limit_checks: tuple[LimitCheck, ...]
    exposures: tuple[PriceExposure, ...]
    plan: FuturesPlan | None
    hold_reason: str = ""
    """Reason why the agent sends none of the plan's orders now."""


def futures_report(step: StepInput, drifts: Sequence[AssetDrift]) -> FuturesReport | None:
    """Return the futures of a step together with its spot portfolio; None without futures."""
    policy = futures_policy(step)
    return None if policy is None else build_futures_report(step, policy, drifts)


def build_futures_report(
    step: StepInput, policy: FuturesPolicy, drifts: Sequence[AssetDrift]
) -> FuturesReport:
    """Return the futures report. Its plan includes the deposits that the step may make, and orders
    that await a confirmation.
    """
    account = margin_account(step.snapshot)
    if account is None:
        return FuturesReport(step, policy, None, None, (), (), None)
    spot_raw = None if uncertain_spot_reason(step) else spot_value_raw(account, policy, drifts)
    account_state = margin_state(account, policy.limits, policy.leverage_bps)
    plan, hold_reason = plan_and_hold_reason(step, policy, drifts, spot_raw)
    return FuturesReport(
        step,
        policy,
        account,
        spot_raw,
        tuple(limit_checks(account_state, policy.limits, spot_raw)),
        ()
        if is_delegate_wallet(step.snapshot, futures_policy(step))
        else exposures(account, policy, drifts),
        plan,
        hold_reason,
    )
