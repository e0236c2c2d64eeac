"""Daily budget of futures reductions, which bounds the loss from repeated pushes of a mark (T12)."""

from __future__ import annotations

from fractions import Fraction

from agent.margin import account as margin
from agent.model import StepInput
from agent.policy.futures.decide import quote_per_numeraire, stale_markets
from agent.policy.futures.targets import REDUCING, triggered
from agent.units import BPS

LEAST_PART = Fraction(1, 100)
"""Share of the budget below which the rest counts as used, so that no order is too small for its
gas.
"""


def required_by_index(step: StepInput, spot_value: Fraction | None) -> bool:
    """Return True if the account breaches a limit with every mark set to its index. A stale index
    is replaced by the mark if that is better for the account. An unknown spot value (None, else in
    quote base units) requires no reduction.
    """
    account, policy = step.snapshot.futures, step.futures
    if account is None or policy is None:
        return False
    at_index = margin.at_index(account, stale_markets(step))
    return bool(set(triggered(at_index, policy, spot_value)) & set(REDUCING))


def left_to_reduce(step: StepInput, spot_value: Fraction | None) -> Fraction | None:
    """Return the notional at the index, in quote base units, that reductions may still close within
    24 h; None if the budget does not bound them: it is off, the index requires the reduction, or
    the last 24 h are unknown, which the guard judges. Less than LEAST_PART of the budget is zero.
    """
    account, policy = step.snapshot.futures, step.futures
    if account is None or policy is None or not policy.limits.reduction_per_day_bps:
        return None
    if step.history.unknown or required_by_index(step, spot_value):
        return None
    value = max(0, margin.account_value_raw(account))
    most = Fraction(value * policy.limits.reduction_per_day_bps, BPS)
    left = most - step.history.reduced_24h * quote_per_numeraire(step)
    return left if left > most * LEAST_PART else Fraction(0)
