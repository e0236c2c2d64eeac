"""Whether the futures layer acts at a block: a reduction that a limit demands, or the way to the
targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from agent.model import AdjustFutures, AssetDrift, StepInput
from agent.policy import failures
from agent.policy.futures.targets import REDUCING, emergency_orders, triggered, unknown_prices
from agent.units import Value, format_time


def futures_need(step: StepInput, drifts: Sequence[AssetDrift]) -> AdjustFutures | None:
    """Return what the futures layer asks for at this block; None without futures, if every weight
    and limit is kept, and while account or prices are unknown (`futures_note` says so).
    """
    account, policy = step.snapshot.futures, step.futures
    if account is None or policy is None or futures_fault(step):
        return None
    if emergency_orders(account, policy):
        return AdjustFutures("futures: liquidation is near", is_reducing=True)
    fired = triggered(account, policy, spot_value_in_quote(step, drifts))
    if not fired:
        return None
    if fired[0] in REDUCING:
        return AdjustFutures(f"futures: {fired[0].value} is above its limit", is_reducing=True)
    return AdjustFutures("futures: a weight of the notional has left its band", is_reducing=False)


def futures_fault(step: StepInput) -> str:
    """Return why no order of the futures layer is possible at this block; empty if one is."""
    if step.futures is None:
        return ""
    if step.snapshot.futures is None:
        return step.snapshot.futures_unknown or "the margin account was not read"
    return unknown_prices(step.snapshot.futures, step.futures, step.snapshot.head.timestamp_s)


def futures_note(step: StepInput) -> str:
    """Return the note on a futures layer that cannot act; empty if it can, or without one."""
    fault = futures_fault(step)
    return fault and f"futures: no order, {fault}"


def spot_value_in_quote(step: StepInput, drifts: Sequence[AssetDrift]) -> Value:
    """Return the spot portfolio's value in base units of the futures quote. The numeraire counts as
    one quote coin, as both are dollars.
    """
    value = sum((drift.value for drift in drifts), Fraction(0))
    return value * quote_per_numeraire(step)


def quote_per_numeraire(step: StepInput) -> Fraction:
    """Return base units of the futures quote per numeraire base unit."""
    account = step.snapshot.futures
    decimals = 18 if account is None else account.quote.decimals
    return Fraction(10**decimals, 10**step.portfolio.numeraire.decimals)


def backing_off(step: StepInput, market: str) -> str:
    """Return why a market waits after failed reductions; empty if it does not."""
    failed = failures.exit_failures(step.history, market)
    again_s = failures.retry_at_s(failed)
    if failures.retry_wait_s(failed) == 0 or step.snapshot.head.timestamp_s >= again_s:
        return ""
    return f"its orders failed or were refused; tried again at {format_time(again_s)}"
