"""Performance of a period: returns, buy and hold, benchmark, costs, profit against holding, and a
hint on the rebalancing frequency.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from agent.accounting import entries as accounts
from agent.accounting.entries import GAS, exact_sum, quantize
from agent.accounting.futures import FuturesChange, FuturesProfit, futures_changes, sum_changes
from agent.accounting.money_weighted import MIN_ANNUALIZED_S, money_weighted_return
from agent.errors import ConfigError
from agent.model import Entry, EntryKind, Valuation
from agent.units import DAY_S, NATIVE, YEAR_S, Price, Value

_EXTERNAL_KINDS = (
    EntryKind.OPENING,
    EntryKind.DEPOSIT,
    EntryKind.WITHDRAWAL,
    EntryKind.GIFT,
    EntryKind.GAS_MONEY,
    EntryKind.PAYOUT,
    EntryKind.EXTERNAL,
)
"""Entry kinds caused neither by the market nor by the strategy."""


@dataclass(frozen=True, slots=True)
class ExternalCashFlow:
    """Value that entered (positive) or left the strategy: deposits, withdrawals, and the cost of
    manual swaps. `native_value` is the part in native coin.
    """

    block: int
    chain_s: int
    value: Value
    by_hand: bool
    native_value: Value = Fraction(0)


@dataclass(frozen=True, slots=True)
class ReturnPeriod:
    """Period between two valuations. `net_inflow` is that into the managed portfolio, at the end of
    the period; `gas_money_inflow` is its part from gas money: gas paid less refills.
    """

    start: Valuation
    end: Valuation
    net_inflow: Value
    gas_money_inflow: Value = Fraction(0)

    @property
    def growth_factor(self) -> Fraction | None:
        """Growth factor without the inflow; None if the start value is zero."""
        if self.start.managed_value <= 0:
            return None
        return (self.end.managed_value - self.net_inflow) / self.start.managed_value


def external_cash_flows(entries: Iterable[Entry]) -> tuple[ExternalCashFlow, ...]:
    """Return the flows not caused by the strategy: deposits, withdrawals, and the cost of manual
    swaps.

    An unexplained increase is a deposit; an unexplained decrease is a loss, not a flow.
    """
    cash_flows = []
    for entry in entries:
        if not (
            entry.kind in _EXTERNAL_KINDS or entry.by_hand or entry.kind is EntryKind.UNEXPLAINED
        ):
            continue
        account_prefixes = (
            ("assets:",) if entry.by_hand else ("assets:", GAS)
        )  # gas of a payment is a cost
        flow_value = _sum_postings(entry, account_prefixes)
        if entry.kind is not EntryKind.UNEXPLAINED or entry.by_hand or flow_value > 0:
            by_hand = entry.by_hand and not _is_payment(entry)
            native_value = _sum_postings(entry, account_prefixes, NATIVE)
            cash_flows.append(
                ExternalCashFlow(entry.block, entry.chain_s, flow_value, by_hand, native_value)
            )
    return tuple(cash_flows)


def _is_payment(entry: Entry) -> bool:
    """Return whether a transaction only paid or received, whoever sent it."""
    return entry.kind is EntryKind.PAYOUT or any(
        posting.account in (accounts.DEPOSITS, accounts.WITHDRAWALS) for posting in entry.postings
    )


def _sum_postings(
    entry: Entry, account_prefixes: tuple[str, ...], token: str | None = None
) -> Value:
    return exact_sum(
        posting.value
        for posting in entry.postings
        if posting.account.startswith(account_prefixes)
        and posting.value is not None
        and (token is None or posting.token == token)
    )


def return_periods(
    valuations: Sequence[Valuation], cash_flows: Iterable[ExternalCashFlow]
) -> tuple[ReturnPeriod, ...]:
    """Return the periods between consecutive valuations. A valuation includes the flows of its
    block.

    An increased reserve is an outflow of the managed portfolio, a decreased one an inflow, at end
    prices.
    """
    flows_by_block = sorted(cash_flows, key=lambda flow: flow.block)
    periods = []
    next_index = 0
    for start_valuation, end_valuation in pairwise(valuations):
        while (
            next_index < len(flows_by_block)
            and flows_by_block[next_index].block <= start_valuation.block
        ):
            next_index += 1
        inflow = native_inflow = Fraction(0)
        while (
            next_index < len(flows_by_block)
            and flows_by_block[next_index].block <= end_valuation.block
        ):
            inflow += flows_by_block[next_index].value
            native_inflow += flows_by_block[next_index].native_value
            next_index += 1
        reserved_raw_before = {
            holding.token: holding.reserved_raw for holding in start_valuation.holdings
        }
        from_gas_money = Fraction(0)
        for holding_after in end_valuation.holdings:
            released_value = (
                reserved_raw_before.pop(holding_after.token, 0) - holding_after.reserved_raw
            ) * holding_after.price
            inflow += released_value
            if holding_after.is_gas_money:
                from_gas_money += released_value + native_inflow
        periods.append(ReturnPeriod(start_valuation, end_valuation, inflow, from_gas_money))
    return tuple(periods)


def time_weighted_return(periods: Sequence[ReturnPeriod]) -> Fraction | None:
    """Return the product of (end - net_inflow) / start, less one (Global Investment Performance
    Standards, time-weighted rate of return).

    The result is exact: consecutive periods without flows cancel. Periods that start at zero are
    skipped; None if all are.
    """
    factor = Fraction(1)
    has_return = False
    segment_start: Value | None = None
    segment_end = Fraction(0)
    for period in periods:
        if period.start.managed_value <= 0:
            if segment_start:
                factor *= segment_end / segment_start
            segment_start = None
            continue
        if segment_start is None:
            segment_start = period.start.managed_value
        has_return = True
        segment_end = period.end.managed_value
        if period.net_inflow:
            factor *= (segment_end - period.net_inflow) / segment_start
            segment_start = segment_end if segment_end > 0 else None
    if segment_start:
        factor *= segment_end / segment_start
    return factor - 1 if has_return else None


def buy_at_targets(
    invested_value: Value,
    target_by_token: Mapping[str, int | Fraction],
    price_by_token: Mapping[str, Price],
    numeraire: str,
) -> dict[str, Fraction]:
    """Return the base units that `invested_value` buys at the targets without cost: how buy and
    hold invests cash. Tokens without a price are not bought; without any to buy it stays in the
    numeraire.
    """
    bought_targets = {
        token: Fraction(target)
        for token, target in target_by_token.items()
        if target and price_by_token[token] > 0
    }
    if not bought_targets:
        return {numeraire: invested_value}
    target_sum = sum(bought_targets.values(), Fraction(0))
    return {
        token: quantize(invested_value * target / target_sum / price_by_token[token])
        for token, target in bought_targets.items()
    }


@dataclass(frozen=True, slots=True)
class BuyAndHoldTokens:
    """The numeraire, which buys the basket where buy and hold begins before the first trade, and
    the wrapped token, whose target the native coin shares.
    """

    numeraire: str
    wrapped_native: str

    def basket(self, start_valuation: Valuation) -> dict[str, Fraction]:
        """Return the base units that buy and hold begins with: those of the valuation, and what its
        cash above target buys of the tokens below their targets, without cost. Margin is not spent.
        """
        raw_by_token = {
            holding.token: Fraction(holding.managed_raw) for holding in start_valuation.holdings
        }
        price_by_token = {holding.token: holding.price for holding in start_valuation.holdings}
        target_bps_by_token = {
            holding.token: holding.target_bps for holding in start_valuation.holdings
        }
        spot_value_by_token: dict[str, Value] = {}
        for holding in start_valuation.holdings:
            token = self.wrapped_native if holding.token == NATIVE else holding.token
            token_value = (holding.managed_raw - holding.margin_raw) * holding.price
            spot_value_by_token[token] = spot_value_by_token.get(token, Fraction(0)) + token_value
        total_value = sum(spot_value_by_token.values(), Fraction(0))
        total_bps = sum(target_bps_by_token.values())
        if not total_bps:
            return raw_by_token
        shortfall_by_token = {
            token: total_value * target_bps_by_token[token] / total_bps - spot_value_by_token[token]
            for token in spot_value_by_token
            if target_bps_by_token.get(token)
        }
        spare_cash = (
            spot_value_by_token.get(self.numeraire, Fraction(0))
            - total_value * target_bps_by_token.get(self.numeraire, 0) / total_bps
        )
        shortfall_by_token = {
            token: token_value
            for token, token_value in shortfall_by_token.items()
            if token_value > 0
        }
        if spare_cash <= 0 or not shortfall_by_token:
            return raw_by_token
        spent_value = min(spare_cash, sum(shortfall_by_token.values(), Fraction(0)))
        raw_by_token[self.numeraire] -= quantize(spent_value / price_by_token[self.numeraire])
        bought_raw_by_token = buy_at_targets(
            spent_value, shortfall_by_token, price_by_token, self.numeraire
        )
        for token, raw in bought_raw_by_token.items():
            raw_by_token[token] += raw
        return raw_by_token


class HoldPoint(NamedTuple):
    """Buy and hold at a valuation, before and after the deposit or withdrawal of its block."""

    valuation: Valuation
    value_before: Value
    value_after: Value


def hold_points(
    valuations: Sequence[Valuation],
    cash_flows: Iterable[ExternalCashFlow],
    tokens: BuyAndHoldTokens,
    shown_blocks: Collection[int] = (),
    *,
    has_traded: bool,
) -> Iterator[HoldPoint]:
    """Yield buy and hold from the first valuation: at each deposit and withdrawal, at the shown
    blocks, and at the last valuation.

    Unless the portfolio has traded before, its cash buys the basket at the first valuation. Each deposit buys at the
    targets and reference prices of its block, without cost; each withdrawal takes of every token the
    share that it took of the portfolio, so that neither is overdrawn (modified public market
    equivalent, Cambridge Associates). Gas money does not count.
    """
    first_valuation = valuations[0]
    raw_by_token = {
        holding.token: Fraction(holding.managed_raw) for holding in first_valuation.holdings
    }
    if not has_traded:
        raw_by_token = tokens.basket(first_valuation)
    price_by_token = {tokens.numeraire: Fraction(1)} | {
        holding.token: holding.price for holding in first_valuation.holdings
    }
    for period in return_periods(valuations, (flow for flow in cash_flows if not flow.by_hand)):
        price_by_token |= {
            holding.token: holding.price for holding in period.end.holdings
        }  # former tokens: last price
        deposited_value = period.net_inflow - period.gas_money_inflow
        is_shown = period.end is valuations[-1] or period.end.block in shown_blocks
        if not deposited_value and not is_shown:
            continue
        value_before = _basket_value(raw_by_token, price_by_token)
        if deposited_value > 0:
            target_bps_by_token = {
                holding.token: holding.target_bps for holding in period.end.holdings
            }
            for token, bought_raw in buy_at_targets(
                deposited_value, target_bps_by_token, price_by_token, tokens.numeraire
            ).items():
                raw_by_token[token] = raw_by_token.get(token, Fraction(0)) + bought_raw
        elif deposited_value < 0:
            kept_value = max(Fraction(0), period.end.managed_value)
            kept_share = kept_value / (kept_value - deposited_value)
            raw_by_token = {
                token: quantize(raw * kept_share) for token, raw in raw_by_token.items()
            }
        yield HoldPoint(period.end, value_before, _basket_value(raw_by_token, price_by_token))


def buy_and_hold(
    valuations: Sequence[Valuation],
    cash_flows: Iterable[ExternalCashFlow],
    tokens: BuyAndHoldTokens,
    *,
    has_traded: bool,
) -> tuple[Value, Fraction | None]:
    """Return (profit, time-weighted return) of buy and hold from the first valuation; see
    `hold_points`.
    """
    previous_value = valuations[0].managed_value
    growth_factor = Fraction(1)
    profit = Fraction(0)
    has_return = previous_value > 0
    for hold_point in hold_points(valuations, cash_flows, tokens, has_traded=has_traded):
        if previous_value > 0:
            growth_factor = quantize(growth_factor * hold_point.value_before / previous_value)
            has_return = True
        profit += hold_point.value_before - previous_value
        previous_value = hold_point.value_after
    return profit, growth_factor - 1 if has_return else None


def hold_values(
    entries: Sequence[Entry],
    valuations: Sequence[Valuation],
    opening_tokens: BuyAndHoldTokens,
    shown_blocks: Collection[int],
) -> dict[int, Value]:
    """Return the value of buy and hold from the first valuation, as in `performance`, at the shown
    blocks.
    """
    start_valuation = valuations[0]
    earlier_entries = entries[: bisect_right(entries, start_valuation.block, key=_block_of)]
    cash_flows = _later_cash_flows(entries, valuations)
    has_traded = any(map(_is_trade, earlier_entries))
    hold_curve = hold_points(
        valuations, cash_flows, opening_tokens, shown_blocks, has_traded=has_traded
    )
    return {start_valuation.block: start_valuation.managed_value} | {
        hold_point.valuation.block: hold_point.value_after for hold_point in hold_curve
    }


def managed_inflows(
    entries: Sequence[Entry], valuations: Sequence[Valuation]
) -> list[tuple[Valuation, Value]]:
    """Return what came into the managed portfolio, or left it (negative), by the valuation that found
    it: deposits, withdrawals, and what was set aside or released; no gas money and no swaps by hand.
    """
    cash_flows = (flow for flow in _later_cash_flows(entries, valuations) if not flow.by_hand)
    return [
        (period.end, inflow)
        for period in return_periods(valuations, cash_flows)
        if (inflow := period.net_inflow - period.gas_money_inflow)
    ]


def _later_cash_flows(
    entries: Sequence[Entry], valuations: Sequence[Valuation]
) -> tuple[ExternalCashFlow, ...]:
    """Return the external cash flows after the first valuation."""
    first_block = valuations[0].block
    margin_changes = futures_changes(
        entries[bisect_left(entries, first_block, key=_block_of) :], valuations
    )
    later_entries = entries[bisect_right(entries, first_block, key=_block_of) :]
    return _cash_flows(later_entries, valuations, margin_changes)


def _basket_value(raw_by_token: dict[str, Fraction], price_by_token: dict[str, Fraction]) -> Value:
    return sum((raw * price_by_token[token] for token, raw in raw_by_token.items()), Fraction(0))


MIN_REBALANCES = 5
MIN_DAYS = 28
"""Minimum number of rebalances and days for a hint on the rebalancing frequency."""
HIGH_COST_SHARE = Fraction(1, 2)
LOW_COST_SHARE = Fraction(1, 10)
"""Share of costs in the gain against holding before costs, above which costs are high, and below
which they are low.
"""


@dataclass(frozen=True, slots=True)
class PerformanceCosts:
    """Costs of the strategy's transactions: pool fees, impact (any other shortfall against the
    reference), and gas.
    """

    fees: Value
    impact: Value
    gas: Value

    @property
    def total(self) -> Value:
        """Sum of all costs."""
        return self.fees + self.impact + self.gas


@dataclass(frozen=True, slots=True)
class Performance:
    """Performance between the first and last valuation of a period. Values are in numeraire base
    units; returns are fractions, not annualised.

    With unchanged reserves: `start.managed + deposits - withdrawals + by_hand + from_gas_money +
    profit = end.managed`. `manual_effect` is the effect of manual swaps, which `profit` excludes.
    `gas_money_inflow` is gas paid by gas money less its refills. `against_holding` is profit
    without futures less the profit of buy and hold, after costs.
    `benchmark_return` is the return of one token. `futures_profit` is the part of the profit that
    the margin account made; None without one.
    """

    start: Valuation
    end: Valuation
    deposits: Value
    withdrawals: Value
    manual_effect: Value
    gas_money_inflow: Value
    profit: Value
    twr: Fraction | None
    mwr: float | None
    hold_profit: Value
    hold_return: Fraction | None
    benchmark_return: Fraction | None
    against_holding: Value
    rebalance_count: int
    manual_swap_count: int
    turnover: Value
    costs: PerformanceCosts
    periods: tuple[ReturnPeriod, ...]
    futures_profit: FuturesProfit | None = None

    @property
    def costs_year(self) -> Fraction | None:
        """Costs a year as a share of the mean value; None for less than MIN_ANNUALIZED_S, or
        without value.
        """
        value_seconds = exact_sum(
            period.start.managed_value * (period.end.chain_s - period.start.chain_s)
            for period in self.periods
        )
        if self.end.chain_s - self.start.chain_s < MIN_ANNUALIZED_S or value_seconds <= 0:
            return None
        return self.costs.total * YEAR_S / value_seconds

    @property
    def hint(self) -> str:
        """Hint on the rebalancing frequency, by fixed rules; empty without enough data."""
        days = (self.end.chain_s - self.start.chain_s) // DAY_S
        if self.rebalance_count < MIN_REBALANCES or days < MIN_DAYS:
            return ""
        gross_gain = self.against_holding + self.costs.total
        if gross_gain <= 0:
            return (
                "rebalancing gained nothing before costs, as in a trending market: wider bands or"
                " longer intervals cost less"
            )
        if self.costs.total > gross_gain * HIGH_COST_SHARE:
            return (
                "costs took more than half of the rebalancing gain: wider bands or longer intervals"
                " may keep more of it"
            )
        if self.costs.total < gross_gain * LOW_COST_SHARE:
            return (
                "costs took less than a tenth of the rebalancing gain: narrower bands or shorter"
                " intervals may gain more"
            )
        return ""


def performance(
    entries: Sequence[Entry],
    valuations: Sequence[Valuation],
    from_s: int,
    until_s: int,
    benchmark: str,
    opening_tokens: BuyAndHoldTokens,
) -> Performance | None:
    """Return the performance from the last valuation before `from_s`, else the first, to the last
    before `until_s`; None without two valuations. A period starts with the valuation with which the
    one before it ends.

    Entries and valuations are in chain order. Until the first trade, buy and hold buys the basket
    with its cash; later it begins with what the portfolio holds.
    """
    first_index = max(0, bisect_left(valuations, from_s, key=_valued_s) - 1)
    period_valuations = valuations[first_index : bisect_left(valuations, until_s, key=_valued_s)]
    if len(period_valuations) < 2:
        return None
    start_valuation = period_valuations[0]
    end_valuation = period_valuations[-1]
    period_entries = entries[
        bisect_right(entries, start_valuation.block, key=_block_of) : bisect_right(
            entries, end_valuation.block, key=_block_of
        )
    ]
    # Orders of an off-chain venue may be filled after the first valuation, in its block.
    margin_changes = futures_changes(
        entries[bisect_left(entries, start_valuation.block, key=_block_of) :], period_valuations
    )
    cash_flows = _cash_flows(period_entries, period_valuations, margin_changes)
    futures_profit = sum_changes(margin_changes) if margin_changes else None
    periods = return_periods(period_valuations, cash_flows)
    profit = (
        end_valuation.managed_value
        - start_valuation.managed_value
        - sum((period.net_inflow for period in periods), Fraction(0))
    )
    has_traded = any(
        map(_is_trade, entries[: bisect_right(entries, start_valuation.block, key=_block_of)])
    )
    hold_profit, hold_return = buy_and_hold(
        period_valuations, cash_flows, opening_tokens, has_traded=has_traded
    )
    manual_flows = [flow for flow in cash_flows if flow.by_hand]
    has_gas_money = any(holding.is_gas_money for holding in end_valuation.holdings)
    from_gas_money = sum((period.gas_money_inflow for period in periods), Fraction(0))
    if has_gas_money:  # gas of manual swaps is part of `manual_flows`
        from_gas_money -= sum((flow.native_value for flow in manual_flows), Fraction(0))
    agent_entries = [entry for entry in period_entries if not entry.by_hand]
    return Performance(
        start=start_valuation,
        end=end_valuation,
        deposits=_sum_of_flows(cash_flows, has_gas_money, of_deposits=True),
        withdrawals=-_sum_of_flows(cash_flows, has_gas_money, of_deposits=False),
        manual_effect=sum((flow.value for flow in manual_flows), Fraction(0)),
        gas_money_inflow=from_gas_money,
        profit=profit,
        twr=time_weighted_return(periods),
        mwr=money_weighted_return(
            start_valuation.chain_s,
            end_valuation.chain_s,
            start_valuation.managed_value,
            end_valuation.managed_value,
            [(period.end.chain_s, period.net_inflow) for period in periods],
        ),
        hold_profit=hold_profit,
        hold_return=hold_return,
        benchmark_return=_price_return(start_valuation, end_valuation, benchmark),
        against_holding=profit - hold_profit - (futures_profit.profit if futures_profit else 0),
        rebalance_count=sum(map(_is_trade, agent_entries)),
        manual_swap_count=sum(map(_is_manual_swap, period_entries)),
        turnover=exact_sum(map(turnover, agent_entries)),
        costs=performance_costs(agent_entries),
        periods=periods,
        futures_profit=futures_profit,
    )


def _cash_flows(
    entries: Sequence[Entry],
    valuations: Sequence[Valuation],
    margin_changes: Sequence[FuturesChange],
) -> tuple[ExternalCashFlow, ...]:
    """Return the external cash flows between the first and the last of the valuations."""
    return (
        *external_cash_flows(entries),
        *_asset_change_flows(entries, valuations),
        *_margin_transfer_flows(margin_changes),
    )


def _asset_change_flows(
    entries: Sequence[Entry], valuations: Sequence[Valuation]
) -> tuple[ExternalCashFlow, ...]:
    """Return the balances with which assets left or joined the portfolio by an edit, at the
    valuation that found it.

    An asset that left counts at its last price, less what was sold since. One that joined counts
    without what its first entry or a trade brought.
    """
    cash_flows = []
    for start_valuation, end_valuation in pairwise(valuations):
        holding_before_by_token = {holding.token: holding for holding in start_valuation.holdings}
        holding_after_by_token = {holding.token: holding for holding in end_valuation.holdings}
        signed_holdings = [
            (holding_before_by_token[token], -1)
            for token in holding_before_by_token.keys() - holding_after_by_token.keys()
        ]
        signed_holdings += [
            (holding_after_by_token[token], 1)
            for token in holding_after_by_token.keys() - holding_before_by_token.keys()
        ]
        if not signed_holdings:
            continue
        entries_between = entries[
            bisect_right(entries, start_valuation.block, key=_block_of) : bisect_right(
                entries, end_valuation.block, key=_block_of
            )
        ]
        for holding, sign in sorted(
            signed_holdings, key=lambda signed_holding: signed_holding[0].token
        ):
            posted_raw = sum(
                posting.raw
                for entry in entries_between
                for posting in entry.postings
                if posting.token == holding.token and posting.account.startswith("assets:")
            )
            moved_raw = (
                holding.managed_raw + posted_raw if sign < 0 else holding.total_raw - posted_raw
            )
            if moved_raw:
                cash_flows.append(
                    ExternalCashFlow(
                        end_valuation.block,
                        end_valuation.chain_s,
                        sign * moved_raw * holding.price,
                        False,
                    )
                )
    return tuple(cash_flows)


def _margin_transfer_flows(margin_changes: Sequence[FuturesChange]) -> tuple[ExternalCashFlow, ...]:
    """Return the transfers into the margin account that the agent did not make, at the valuation
    that found them.
    """
    return tuple(
        ExternalCashFlow(
            margin_change.end.block,
            margin_change.end.chain_s,
            margin_change.result.transferred_value,
            False,
        )
        for margin_change in margin_changes
        if margin_change.result.transferred_value
    )


def _valued_s(valuation: Valuation) -> int:
    return valuation.chain_s


def _block_of(entry: Entry) -> int:
    return entry.block


def performance_costs(entries: Sequence[Entry]) -> PerformanceCosts:
    """Return the costs: fees and impact of trades, gas of all entries."""
    trades = [entry for entry in entries if entry.kind is EntryKind.TRADE]
    return PerformanceCosts(
        _posted_value(trades, accounts.FEES),
        _posted_value(trades, accounts.TRADING),
        _posted_value(entries, accounts.GAS),
    )


def turnover(entry: Entry) -> Value:
    """Return half of the value exchanged by a trade, both sides, at reference prices."""
    if entry.kind is not EntryKind.TRADE:
        return Fraction(0)
    valued_postings = [(posting, posting.value) for posting in entry.postings if posting.value]
    gas_by_token = {
        posting.token: posting_value
        for posting, posting_value in valued_postings
        if posting.account == accounts.GAS
    }
    traded_values = [
        posting_value + gas_by_token.get(posting.token, 0)
        for posting, posting_value in valued_postings
        if posting.account == accounts.WALLET
    ]
    return exact_sum(abs(traded_value) for traded_value in traded_values) / 2


def _is_trade(entry: Entry) -> bool:
    return entry.kind is EntryKind.TRADE


def _is_manual_swap(entry: Entry) -> bool:
    """Return whether an entry is a swap by the owner, or an exchange by another program."""
    is_external_exchange = entry.kind is EntryKind.EXTERNAL and any(
        posting.account == accounts.TRADING for posting in entry.postings
    )
    return entry.by_hand and (_is_trade(entry) or is_external_exchange)


def _posted_value(entries: Sequence[Entry], account: str) -> Value:
    """Return the value posted to an account."""
    return exact_sum(
        posting.value
        for entry in entries
        for posting in entry.postings
        if posting.account == account and posting.value is not None
    )


def _sum_of_flows(
    cash_flows: Sequence[ExternalCashFlow], without_gas_money: bool, *, of_deposits: bool
) -> Value:
    """Return the sum of deposits or of withdrawals without gas money."""
    flow_values = [
        flow.value - flow.native_value if without_gas_money else flow.value
        for flow in cash_flows
        if not flow.by_hand
    ]
    return sum(
        (flow_value for flow_value in flow_values if (flow_value > 0) == of_deposits), Fraction(0)
    )


def _price_return(
    start_valuation: Valuation, end_valuation: Valuation, token: str
) -> Fraction | None:
    """Return the price return of one token; None if either valuation lacks it."""
    start_price, end_price = (
        {holding.token: holding.price for holding in valuation.holdings}.get(token)
        for valuation in (start_valuation, end_valuation)
    )
    return end_price / start_price - 1 if start_price and end_price else None


PERIOD_KINDS = ("day", "week", "month", "year", "all")


def calendar_periods(period_kind: str, from_s: int, until_s: int) -> tuple[tuple[int, int], ...]:
    """Return (first second, first second after) of each period that overlaps `from_s` to `until_s`;
    weeks begin on Monday. Raises ConfigError.
    """
    if period_kind not in PERIOD_KINDS:
        raise ConfigError(
            f"--period: {period_kind!r} is unknown", f"choose from {', '.join(PERIOD_KINDS)}"
        )
    if period_kind == "all":
        return ((from_s, until_s + 1),)
    periods = []
    period_start = _period_start(period_kind, datetime.fromtimestamp(from_s, UTC))
    while period_start.timestamp() <= until_s:
        next_start = _next_period_start(period_kind, period_start)
        periods.append((int(period_start.timestamp()), int(next_start.timestamp())))
        period_start = next_start
    return tuple(periods)


def year_start_s(at_s: int) -> int:
    """Return the first second of the year of a time."""
    return int(_period_start("year", datetime.fromtimestamp(at_s, UTC)).timestamp())


def _period_start(period_kind: str, time: datetime) -> datetime:
    day = time.replace(hour=0, minute=0, second=0, microsecond=0)
    match period_kind:
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
        case "year":
            return day.replace(month=1, day=1)
        case _:
            return day


def _next_period_start(period_kind: str, time: datetime) -> datetime:
    match period_kind:
        case "day":
            return time + timedelta(days=1)
        case "week":
            return time + timedelta(days=7)
        case "month":
            return time.replace(year=time.year + time.month // 12, month=time.month % 12 + 1)
        case _:
            return time.replace(year=time.year + 1)
