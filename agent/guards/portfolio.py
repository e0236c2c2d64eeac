"""Guards on the portfolio: cost, turnover, loss, size, gas, tax, liquidity, weight; and on
payouts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from agent.accounting.tax_lots import planned_gains
from agent.errors import Refused
from agent.guards.case import (
    OFF,
    Guard,
    GuardCase,
    GuardMeasurement,
    MissingData,
    format_bps,
    format_gwei,
    format_money,
    format_native,
    format_ratio,
    limited,
)
from agent.model import Payout, Provide, Rebalance, StepInput, TopUp, Verdict
from agent.policy import native_coin
from agent.policy.cash_flows import purchase, withdrawals
from agent.policy.cash_flows.balance_changes import DAY_S
from agent.policy.liquidity import valuation
from agent.policy.liquidity.book import LiquidityExposure
from agent.units import BPS, NATIVE, Value, decimal_text, value_text


def plan_cost(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return fees, impact, skew and gas, recomputed, per unit of value moved.

    A plan that moves nothing costs nothing, but it may refill gas money, bounded by
    limits.gas_price and limits.gas_per_day. Liquidity actions exchange nothing: their cost is the
    gas, and the overpayment of liquidity in a pool off the reference, per unit of value provided,
    withdrawn or collected.
    """
    if case.plan.actions:
        return _action_cost(case, limit_bps)
    turnover, cost = case.turnover(), case.cost()
    if isinstance(case.plan.decision, TopUp):
        return GuardMeasurement(
            f"{format_money(cost, case.numeraire)} of gas, nothing moved", turnover == 0
        )
    if turnover == 0:
        return GuardMeasurement(format_money(cost, case.numeraire), cost <= 0)
    return GuardMeasurement(
        f"{format_ratio(cost / turnover)} ({format_money(cost, case.numeraire)})",
        cost * BPS <= limit_bps * turnover,
    )


def turnover(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Value moved by this plan over the investable total. What an exit sells for the numeraire is
    not held back by it.
    """
    moved = case.counted_turnover()
    if moved == 0 and case.plan.exits and not case.apart():
        return GuardMeasurement("an exit into the numeraire", True)
    return _beside(case, _share(case, moved, limit_bps), limit_bps)


def daily_turnover(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return the turnover of the last 24 h of chain time plus this plan's, over the investable
    total. An exit that buys only the numeraire passes at any earlier turnover, known or not.
    """
    moved = case.counted_turnover()
    if moved == 0 and case.plan.exits:
        return _beside(case, GuardMeasurement("an exit into the numeraire", True), limit_bps)
    case.require_known_day()
    return _beside(case, _share(case, case.step.history.turnover_24h + moved, limit_bps), limit_bps)


def _beside(case: GuardCase, measured: GuardMeasurement, limit_bps: int) -> GuardMeasurement:
    """Add the exempt turnover of a purchase or withdrawal and its limit to the measurement."""
    most = case.apart()
    if most == 0:
        return measured
    name = (
        "withdrawal"
        if case.plan.exits
        else "first rebalance"
        if purchase.is_first_purchase(case.step)
        else "purchase"
    )
    moved, most_text = (
        format_money(value, case.numeraire) for value in (case.exempt_turnover(), most)
    )
    return replace(
        measured,
        text=f"{moved} of the {name}; besides {measured.text}",
        limit=f"{most_text}; besides {format_bps(limit_bps)}",
    )


def daily_loss(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return the loss of the last 24 h of chain time plus the worst case of this plan, over the
    investable total (T6, T21).

    The worst case is the loss if every swap pays only its minimum, gas included. An exit counts its
    predicted cost, since it must not wait for an improbable worst case. It answers only for losses
    by trades: not for decreases without a transaction of the agent, nor for gas that exchanged
    nothing, which limits.gas_per_day bounds. A predicted gain does not offset losses. Refuses while
    the last 24 h are unknown.
    """
    case.require_known_day()
    history, leaves = case.step.history, case.is_sell_only() or case.is_exit()
    lost = _held_against(case, history.loss_24h, history.fell_24h, history.wasted_24h_wei)
    cost = max(case.cost() if leaves else case.worst_cost(), Fraction(0))
    return _loss_share(case, lost + cost, limit_bps)


def total_loss(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return the loss since the store began plus this plan's cost, over the investable total: small
    daily losses add up. An exit does not count decreases and the gas of reverts, as in daily_loss.
    """
    history = case.step.history
    lost = _held_against(case, history.loss_total, history.fell_total, history.wasted_wei)
    return _loss_share(case, lost + max(case.cost(), Fraction(0)), limit_bps)


def _held_against(case: GuardCase, lost: Fraction, fell: Fraction, wasted_wei: int) -> Fraction:
    """Return the part of a loss that this plan answers for: all of it, of an exit only trade
    losses. Raises MissingData.
    """
    if not case.is_risk_reducing():
        return lost
    return max(
        Fraction(0), lost - fell - wasted_wei * case.price(case.step.portfolio.wrapped_native)
    )


def balance_jump(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Return unexplained balance changes of the last 24 h of chain time, over the investable total.

    A change above the limit when found refuses until the owner explains it, or an increase is
    accepted. An increase without a price counts once priced: no plan relies on it. Exits always
    pass.
    """
    if case.is_risk_reducing():
        return GuardMeasurement("an exit is not held back", True)
    since_s = case.step.snapshot.head.timestamp_s - DAY_S
    opened = [flow for flow in case.step.history.flows if flow.halts or flow.chain_s > since_s]
    if not opened:
        return GuardMeasurement("every balance is explained", True)
    if any(flow.value is None and flow.delta_raw < 0 for flow in opened):
        raise MissingData("a balance changed and its token has no reference price")
    measured = _share(
        case,
        sum((abs(flow.value) for flow in opened if flow.value is not None), Fraction(0)),
        limit_bps,
    )
    return replace(measured, passed=measured.passed and not any(flow.halts for flow in opened))


def min_trade(case: GuardCase, limit: Fraction) -> GuardMeasurement:
    """Return the smallest net trade: the plan's sale or purchase of one token, all legs together,
    in value at reference prices. For liquidity actions it is the smallest action; one required by a
    liquidity limit may be smaller.
    """
    if case.plan.actions:
        return _smallest_action(case, limit)
    case.runs()
    sizes = [
        (raw * case.price(token), token)
        for side in (case.replay.sold, case.replay.bought)
        for token, raw in side.items()
    ]
    if not sizes:
        return GuardMeasurement("no trade", True)
    smallest, token = min(sizes)
    return GuardMeasurement(
        f"{format_money(smallest, case.numeraire)} of {case.label(token)}", smallest >= limit
    )


def max_live_value(case: GuardCase, limit: Fraction) -> GuardMeasurement:
    """Return the value that the agent manages: all investable balances. An exit lowers the value at
    risk, so no gift may block it.
    """
    total = case.total()
    if case.is_risk_reducing():
        return GuardMeasurement(f"{format_money(total, case.numeraire)}, an exit", True)
    return GuardMeasurement(format_money(total, case.numeraire), total <= limit)


def _action_cost(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    moved, cost = sum((run.value for run in case.actions()), Fraction(0)), case.cost()
    message = format_money(cost, case.numeraire)
    if case.is_exit():
        return GuardMeasurement(
            f"{message} of gas: liquidity above its limit goes at any cost", True
        )
    if moved == 0:
        return GuardMeasurement(message, cost <= 0)
    return GuardMeasurement(
        f"{format_ratio(cost / moved)} ({message})", cost * BPS <= limit_bps * moved
    )


def _smallest_action(case: GuardCase, limit: Fraction) -> GuardMeasurement:
    smallest, name = min((run.value, run.action.name) for run in case.actions())
    message = f"{format_money(smallest, case.numeraire)} of {name}"
    if case.is_exit():
        return GuardMeasurement(f"{message}: not applied to liquidity above its limit", True)
    return GuardMeasurement(message, smallest >= limit)


def _loss_share(case: GuardCase, value: Fraction, limit_bps: int) -> GuardMeasurement:
    """Measure a loss against the total, of an exit with blocked exits: one that waits takes none of
    another one's limit.
    """
    blocked = case.blocked_value() if case.is_risk_reducing() else Fraction(0)
    return _share(case, value, limit_bps, blocked)


def _share(
    case: GuardCase, value: Fraction, limit_bps: int, besides: Fraction = Fraction(0)
) -> GuardMeasurement:
    total = case.total() + besides
    if total == 0:
        return GuardMeasurement(f"{format_money(value, case.numeraire)} of nothing", value == 0)
    return GuardMeasurement(
        f"{format_ratio(value / total)} ({format_money(value, case.numeraire)})",
        value * BPS <= limit_bps * total,
    )


# --- Guards on gas money: its price, what a day may burn, what must stay in the wallet.


def gas_price(case: GuardCase, limit_wei: int) -> GuardMeasurement:
    """Gas price now; the transaction's fee cap is held to the same limit when it is sent."""
    price = case.gas_price_wei()
    return GuardMeasurement(format_gwei(price), price <= limit_wei)


def gas_per_day(case: GuardCase, limit_wei: int) -> GuardMeasurement:
    """Return the gas money of the last 24 h of chain time plus the most that this plan may burn."""
    case.require_known_day()
    total = case.step.history.gas_24h_wei + case.worst_gas_wei()
    return GuardMeasurement(format_native(total), total <= limit_wei)


def native_floor(case: GuardCase, limit_wei: int) -> GuardMeasurement:
    """Return the native coin left when this plan burns the most it may, net of wrapping and
    unwrapping. A plan that only refills passes if it can pay its own gas and unwraps more than
    that: below the floor nothing else can.
    """
    had_wei, gas_wei = case.step.snapshot.native_wei, case.worst_gas_wei()
    turned_wei = case.replay.moved.get(NATIVE, 0)
    left_wei = had_wei + turned_wei - gas_wei
    if isinstance(case.plan.decision, TopUp):
        return GuardMeasurement(
            f"{format_native(left_wei)} after unwrapping {format_native(turned_wei)}",
            gas_wei <= had_wei and gas_wei < turned_wei,
        )
    return GuardMeasurement(format_native(left_wei), left_wei >= limit_wei)


# --- Guard on the taxable gain of a plan, by the lots of the ledger and all that is mined or on its
# way.


def year_limit(case: GuardCase, limit: Value) -> GuardMeasurement:
    """Return the taxable gain of this plan at its predicted amounts plus the year's realised gain,
    net of losses. A plan without a gain passes, as do exits and manual requests. Gas counts as
    predicted.
    """
    tax, plan, decision = case.step.history.tax, case.plan, case.plan.decision
    if tax is None or not plan.legs or not isinstance(decision, Rebalance):
        return GuardMeasurement("no gain", True)
    at_s, coin = case.step.snapshot.head.timestamp_s, case.step.portfolio.wrapped_native
    found = planned_gains(plan, tax, case.prices, case.numeraire.address, coin, at_s)
    gain = sum((one.gain for one in found), Fraction(0))
    free = " (not held back)" if decision.by_hand or case.is_sell_only() else ""
    words = f"{_money(case, gain)} with {_money(case, tax.realised)} realised this year{free}"
    return GuardMeasurement(words, bool(free) or gain <= max(limit - tax.realised, Fraction(0)))


def format_year_limit(limit: Value, currency: str, label: str, decimals: int) -> str:
    """The limit in the reporting currency."""
    return f"{value_text(limit, decimals)} {currency or label} a year"


def _money(case: GuardCase, value: Value) -> str:
    tax = case.step.history.tax
    return (
        f"{value_text(value, case.numeraire.decimals)}"
        f" {(tax.currency if tax else '') or case.numeraire.label}"
    )


# --- Guards on liquidity positions: expected loss and weight after the plan.
# A plan that only withdraws may leave a limit exceeded if it reduces the excess.


NONE = GuardMeasurement("no liquidity position", True)


def impermanent_loss(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Mean impermanent loss of all confirmed positions over their horizon, over the portfolio after
    the plan.

    Prices are references, so that a pushed pool has no effect (T3). Swaps do not change the
    positions' amounts.
    """
    if case.plan.actions:
        before, after = case.loads()
        return _after(case, limit_bps, before, after, (before.loss, after.loss), "expected")
    if not case.step.portfolio.positions:
        return NONE
    try:
        lost = valuation.expected_loss(case.step, case.prices)
    except Refused as why:
        raise MissingData(why.message) from None
    return _liquidity_share(case, lost, limit_bps, "expected")


def lp_max_weight(case: GuardCase, limit_bps: int) -> GuardMeasurement:
    """Value of all confirmed positions over the portfolio after the plan."""
    if case.plan.actions:
        before, after = case.loads()
        return _after(case, limit_bps, before, after, (before.weight, after.weight), "in positions")
    if not case.step.portfolio.positions:
        return NONE
    return _liquidity_share(case, case.lp_value(), limit_bps, "in positions")


def _liquidity_share(
    case: GuardCase, value: Fraction, limit_bps: int, what: str
) -> GuardMeasurement:
    left = case.total() - max(Fraction(0), case.trading_cost())
    if left <= 0:
        return GuardMeasurement(
            f"{format_money(value, case.numeraire)} {what} of nothing", value == 0
        )
    return GuardMeasurement(
        f"{format_ratio(value / left)} ({format_money(value, case.numeraire)} {what})",
        value * BPS <= limit_bps * left,
    )


def _after(
    case: GuardCase,
    limit_bps: int,
    before: LiquidityExposure,
    after: LiquidityExposure,
    sums: tuple[Fraction, Fraction],
    what: str,
) -> GuardMeasurement:
    """Return the sum after the actions; above the limit it passes only if the plan only lowers
    it.
    """
    if min(before.total, after.total) <= 0:
        return GuardMeasurement(
            f"{format_money(sums[1], case.numeraire)} {what} of nothing", sums[1] == 0
        )
    was, will = sums[0] / before.total, sums[1] / after.total
    message = f"{format_ratio(will)} ({format_money(sums[1], case.numeraire)} {what})"
    if will * BPS <= limit_bps:
        return GuardMeasurement(message, True)
    lowers = will < was and not any(isinstance(action, Provide) for action in case.plan.actions)
    return GuardMeasurement(
        f"{message}, lowered from {format_ratio(was)}" if lowers else message, lowers
    )


# --- Guards on payouts: confirmed address, daily cap, balance, kill switch.


PAYOUT_REMEDIES = {
    "kill_switch": "trimtab resume, once you know why it was paused",
    "payout_address": (
        "add it to wallet.payout_addresses (trimtab edit), then confirm it: trimtab trust"
    ),
    "payout_per_day": (
        "pay less, wait until earlier payouts are 24 h old, or raise limits.payout_per_day"
    ),
    "balance": "withdraw less: trimtab status shows the balances",
}
"""Remedy for the owner by guard."""


def judge_payout_permission(
    step: StepInput, payouts: Sequence[Payout], confirmed: Sequence[str], paused: bool = False
) -> tuple[Verdict, ...]:
    """Judge a group of payments before the first; each balance is judged at its payment."""
    return (
        Verdict("kill_switch", "paused" if paused else "off", "not paused", not paused),
        _address(payouts, confirmed),
        _cap(step, payouts),
    )


def judge_payout(step: StepInput, payout: Payout, confirmed: Sequence[str]) -> tuple[Verdict, ...]:
    """Return the verdict of every guard on one payment, passed ones too. The kill switch is read
    again at sending.
    """
    return (*judge_payout_permission(step, (payout,), confirmed), _balance(step, payout))


def require_payout_allowed(verdicts: Sequence[Verdict]) -> None:
    """Raise Refused, with all verdicts, if one of them failed."""
    refusing = [verdict for verdict in verdicts if not verdict.passed]
    if refusing:
        message = "; ".join(f"{v.guard} measured {v.measured}, limit {v.limit}" for v in refusing)
        raise Refused(
            f"refused by {message}",
            verdicts,
            "; ".join(f"{v.guard}: {PAYOUT_REMEDIES[v.guard]}" for v in refusing),
        )


def payout_remedies(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """Return the owner's remedy for each failed limit."""
    return tuple(PAYOUT_REMEDIES[verdict.guard] for verdict in verdicts if not verdict.passed)


def _address(payouts: Sequence[Payout], confirmed: Sequence[str]) -> Verdict:
    strange = sorted({payout.to for payout in payouts} - set(confirmed))
    limit = "a confirmed payout address"
    return Verdict("payout_address", ", ".join(strange) or "confirmed", limit, not strange)


def _cap(step: StepInput, payouts: Sequence[Payout]) -> Verdict:
    limit, numeraire = step.limits.payout_per_day, step.portfolio.numeraire
    if limit is None:
        return Verdict("payout_per_day", "not measured", OFF, True)
    if step.history.unknown:
        return Verdict(
            "payout_per_day",
            f"unknown: {step.history.unknown}",
            format_money(limit, numeraire),
            False,
        )
    total = step.history.outflow_24h
    for payout in payouts:
        price = withdrawals.token_price(step, payout.token)
        if price is None:
            return Verdict(
                "payout_per_day",
                f"unknown: no reference price of {payout.token}",
                format_money(limit, numeraire),
                False,
            )
        total += payout.raw * price
    return Verdict(
        "payout_per_day",
        f"{format_money(total, numeraire)} in 24 h",
        format_money(limit, numeraire),
        total <= limit,
    )


def _balance(step: StepInput, payout: Payout) -> Verdict:
    """Judge the payment against the balance without gas floor and reserves; the reserve of this
    request counts.
    """
    token = step.portfolio.token(payout.token)
    if payout.token == NATIVE:
        there = step.snapshot.native_wei - native_coin.floor_wei(step)
    else:
        asset = next(
            (one for one in step.portfolio.assets if one.token.address == payout.token), None
        )
        own = sum(
            c.payment.raw
            for c in step.history.claims
            if (c.request, c.payment.token) == (payout.request, payout.token)
        )
        held = {holding.token: holding.raw for holding in step.snapshot.holdings}.get(
            payout.token, 0
        )
        there = 0 if asset is None else held - max(0, asset.reserve_raw - own)
    shown = decimal_text(max(0, there), token.decimals)
    return Verdict(
        "balance",
        f"{decimal_text(payout.raw, token.decimals)} {token.label}",
        f"{shown} {token.label}",
        payout.raw <= there,
    )


# --- Guard on a single asset's weight: a purchase must not end above its maximum.


def max_weight(case: GuardCase, most: Mapping[str, int]) -> GuardMeasurement:
    """Return the largest weight after the plan of an asset it buys, in whole bps, against the
    limits `most` by token. Assets sold, or raised by price alone, are not judged: selling is always
    allowed. Nor is an exit, or the numeraire from a manual swap. Liquidity actions exchange
    nothing.
    """
    if case.is_sell_only():
        return GuardMeasurement("an exit", True)
    if not case.plan.legs:
        return GuardMeasurement("nothing is exchanged", True)
    case.runs()
    decision, cash = case.plan.decision, case.numeraire.address
    free = {cash} if isinstance(decision, Rebalance) and decision.by_hand else set()
    bought = [token for token in most if token not in free and case.replay.delta(token) > 0]
    if not bought:
        return GuardMeasurement("nothing is bought that has one", True)
    values = _weight_after(case)
    whole = sum(values.values(), Fraction(0))
    if whole <= 0:
        return GuardMeasurement("nothing is left", False)
    beyond = {token: values[token] / whole * BPS // 1 - most[token] for token in bought}
    worst = max(bought, key=lambda token: beyond[token])
    return GuardMeasurement(
        f"{case.label(worst)} at {format_ratio(values[worst] / whole)}", beyond[worst] <= 0
    )


def _weight_after(case: GuardCase) -> dict[str, Fraction]:
    """Return the value of each asset after the plan by token, liquidity positions included. Raises
    MissingData.
    """
    try:
        in_positions = valuation.holdings(case.step, case.prices)
    except Refused as why:
        raise MissingData(why.message) from None
    found = {}
    for asset in case.step.portfolio.assets:
        token = asset.token.address
        raw = case.investable(asset) + case.replay.delta(token) + in_positions.get(token, 0)
        found[token] = raw * case.price(token)
    return found


# --- The rows of this file's guards.


def _year_limit(step: StepInput) -> Fraction | None:
    """Return the year's limit on gains; None without [tax], or if it sets none."""
    return None if step.history.tax is None else step.history.tax.year_limit


def _year_limit_text(limit: Fraction, step: StepInput) -> str:
    numeraire, known = step.portfolio.numeraire, step.history.tax
    return format_year_limit(
        limit, "" if known is None else known.currency, numeraire.label, numeraire.decimals
    )


def _max_weights(step: StepInput) -> dict[str, int] | None:
    """Return the maximum weight of each asset, bps by token; off without any."""
    return {
        asset.token.address: asset.max_bps
        for asset in step.portfolio.assets
        if asset.max_bps is not None
    } or None


def _max_weights_text(limit: dict[str, int], step: StepInput) -> str:
    return ", ".join(
        f"{step.portfolio.token(token).label} {format_bps(most)}" for token, most in limit.items()
    )


PLAN_GUARDS: tuple[Guard[Any], ...] = (
    limited(
        "plan_cost",
        lambda limits: limits.plan_cost_bps,
        plan_cost,
        "wait for cheaper gas or deeper pools, trade less, or raise limits.plan_cost",
        judges_market=True,
    ),
    limited(
        "turnover",
        lambda limits: limits.turnover_bps,
        turnover,
        "trade in slices with destination = 'halfway', or raise limits.turnover",
    ),
    limited(
        "daily_turnover",
        lambda limits: limits.daily_turnover_bps,
        daily_turnover,
        "wait until older trades are 24 h old, or raise limits.daily_turnover",
    ),
    limited(
        "daily_loss",
        lambda limits: limits.daily_loss_bps,
        daily_loss,
        "wait until losses (trimtab history) are 24 h old, trade less, lower limits.slippage, or"
        " raise limits.daily_loss",
    ),
    limited(
        "total_loss",
        lambda limits: limits.total_loss_bps,
        total_loss,
        "find out what lost money since the start (trimtab pnl, trimtab history), then raise"
        " limits.total_loss or stop",
    ),
    limited(
        "balance_jump",
        lambda limits: limits.balance_jump_bps,
        balance_jump,
        "say what came or went: trimtab flows, then trimtab flows confirm; a rise is accepted after"
        " limits.balance_jump_wait",
    ),
    Guard(
        "year_limit",
        _year_limit,
        _year_limit_text,
        year_limit,
        "sell less of the assets with gains, wait for the new year, or raise tax.year_limit",
    ),
    Guard(
        "max_weight",
        _max_weights,
        _max_weights_text,
        max_weight,
        "buy less of it, or raise limits.max_weight",
    ),
    limited(
        "min_trade",
        lambda limits: limits.min_trade,
        min_trade,
        "wait for more drift, or lower limits.min_trade",
        judges_market=True,
    ),
    Guard(
        "max_live_value",
        lambda s: s.limits.max_live_value,
        lambda limit, step: format_money(limit, step.portfolio.numeraire),
        max_live_value,
        "take value out of the wallet, or raise portfolio.max_live_value",
    ),
    limited(
        "impermanent_loss",
        lambda limits: limits.impermanent_loss_bps,
        impermanent_loss,
        "take liquidity out until the expected loss fits (trimtab lp), or raise"
        " limits.impermanent_loss",
    ),
    limited(
        "lp_max_weight",
        lambda limits: limits.lp_max_weight_bps,
        lp_max_weight,
        "take liquidity out until its share fits (trimtab lp), or raise limits.lp_max_weight",
    ),
)
"""In the order of their verdicts."""
GAS_GUARDS: tuple[Guard[Any], ...] = (
    limited(
        "gas_price",
        lambda limits: limits.gas_price_wei,
        gas_price,
        "wait for cheaper gas, or raise limits.gas_price",
    ),
    limited(
        "gas_per_day",
        lambda limits: limits.gas_per_day_wei,
        gas_per_day,
        "wait until older transactions are 24 h old, or raise limits.gas_per_day",
    ),
    limited(
        "native_floor",
        lambda limits: limits.native_floor_wei,
        native_floor,
        "send native coin to the wallet, or lower limits.native_floor",
    ),
)
"""In the order of their verdicts, after all others."""
