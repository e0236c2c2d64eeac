"""Increases that count as deposits by themselves, within limits.deposit_auto, and the limits while
they are new.

Anyone can send coins, so an increase of this kind may be a gift: for a day it is managed, but in no
base of the limits on trades and losses, and not in that of limits.deposit_auto.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.model import CashFlows, ExternalTransfer, ExternalTransferKind, Limits, StepInput
from agent.policy import native_coin
from agent.units import BPS, NATIVE, Price, Value, floor_int

CONFIRMING_BLOCKS = 2
"""Blocks above the one in which an increase was found, at which it must still be there."""
MAX_AUTOMATIC_DEPOSITS = 8
"""Largest number in 24 h, so that dust does not push them out of the bounded list of accepted
deposits, which the limits read.
"""
MAX_OPEN_FLOWS = 16
"""Largest number of unexplained changes beside which an increase is accepted; with more of them
their list may not be complete.
"""


def automatic_deposits_value(cash_flows: CashFlows) -> Value:
    """Return the value of the last day's automatic deposits when they were found, in numeraire base
    units.
    """
    return _sum_values(_automatic_deposits(cash_flows))


def bound_limits(step: StepInput, total_value: Value) -> Limits:
    """Return limits on turnover that permit no more than without the last day's automatic deposits;
    in shares of `total_value`, which includes them. The limits on losses, which bind exits, are
    reduced for other plans alone.
    """
    deposits_value = automatic_deposits_value(step.history.cash_flows)
    if not deposits_value or total_value <= 0:
        return step.limits
    earlier_share = max(Fraction(0), 1 - deposits_value / total_value)

    def bounded(limit_bps: int | None) -> int | None:
        return None if limit_bps is None else floor_int(limit_bps * earlier_share)

    return replace(
        step.limits,
        turnover_bps=bounded(step.limits.turnover_bps),
        daily_turnover_bps=bounded(step.limits.daily_turnover_bps),
    )


def with_automatic_deposits(
    step: StepInput,
    recorded_flows: Sequence[ExternalTransfer],
    new_flows: Sequence[ExternalTransfer],
    prices: Mapping[str, Price],
    total_value: Value,
) -> list[ExternalTransfer]:
    """Return the recorded open flows, with those that block purchases as automatic deposits where
    they qualify: increases of an asset that does not rebase, still there after CONFIRMING_BLOCKS,
    together with those of the last day within limits.deposit_auto of what else the portfolio holds.

    While a decrease is unexplained none qualifies: a swap by hand is no deposit. `total_value` is
    the known value with all increases.
    """
    limit_bps = step.limits.deposit_auto_bps
    open_flows = [*recorded_flows, *new_flows]
    if (
        limit_bps is None
        or len(open_flows) > MAX_OPEN_FLOWS
        or any(flow.delta_raw < 0 for flow in open_flows)
    ):
        return [*recorded_flows]
    qualifying_tokens = _qualifying_tokens(step) - {flow.token for flow in new_flows}
    day_deposits = _earlier_deposits(step, recorded_flows)
    deposits_value = _sum_values(day_deposits)
    values = [_current_value(step, prices, flow) for flow in recorded_flows]
    new_values = [_current_value(step, prices, flow) for flow in new_flows]
    base_value = total_value - sum((*values, *new_values), Fraction(0)) - deposits_value
    judged_flows = []
    for flow, value in zip(recorded_flows, values, strict=True):
        is_deposit = (
            flow.blocks_trading
            and flow.token in qualifying_tokens
            and step.snapshot.head.number >= flow.block + CONFIRMING_BLOCKS
            and len(day_deposits) < MAX_AUTOMATIC_DEPOSITS
            and value > 0
            and (deposits_value + value) * BPS <= limit_bps * base_value
        )
        if is_deposit:
            deposit = replace(flow, kind=ExternalTransferKind.AUTOMATIC)
            day_deposits.append(deposit)
            deposits_value += value
            judged_flows.append(deposit)
        else:
            judged_flows.append(flow)
    return judged_flows


def earlier_deposits_value(step: StepInput, recorded_flows: Iterable[ExternalTransfer]) -> Value:
    """Return the value of the last day's automatic deposits that are none of the recorded open
    flows.
    """
    return _sum_values(_earlier_deposits(step, recorded_flows))


def _earlier_deposits(
    step: StepInput, recorded_flows: Iterable[ExternalTransfer]
) -> list[ExternalTransfer]:
    # the history of a step whose flows were judged before has the deposits among them too
    recorded_ids = {flow.id for flow in recorded_flows}
    return [
        deposit
        for deposit in _automatic_deposits(step.history.cash_flows)
        if deposit.id not in recorded_ids
    ]


def _qualifying_tokens(step: StepInput) -> set[str]:
    """Return the assets whose balances do not change by themselves, native coin by its own name."""
    tokens = {asset.token.address for asset in step.portfolio.assets if not asset.max_rebase_bps}
    return tokens | ({NATIVE} if native_coin.has_native_asset(step.portfolio) else set())


def _sum_values(flows: Iterable[ExternalTransfer]) -> Value:
    return sum((flow.value or Fraction(0) for flow in flows), Fraction(0))


def _automatic_deposits(cash_flows: CashFlows) -> list[ExternalTransfer]:
    return [
        deposit
        for deposit in cash_flows.accepted_deposits
        if deposit.kind is ExternalTransferKind.AUTOMATIC
    ]


def _current_value(step: StepInput, prices: Mapping[str, Price], flow: ExternalTransfer) -> Value:
    """Return the value of an increase, at the higher of its price when found and now; 0 without a
    price now, with which it is not judged.
    """
    price = prices.get(step.portfolio.pricing_token(flow.token))
    if price is None or flow.value is None:
        return Fraction(0)
    return max(flow.value, flow.delta_raw * price)
