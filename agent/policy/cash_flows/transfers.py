"""Goals of the owner's transfers: raise a shortfall from the most overweight assets, and invest
deposits in underweight ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.layers.questions import unknown_value_reason
from agent.model import (
    Asset,
    AssetDrift,
    Budgets,
    CashFlows,
    ExternalTransfer,
    Goal,
    GoalWeight,
    Limits,
    Payment,
    PendingPayment,
    Portfolio,
    Snapshot,
    StepInput,
    Verdict,
    WithdrawalProgress,
)
from agent.policy import native_coin
from agent.policy.cash_flows import balance_changes, cash_limit
from agent.policy.cash_flows.cash_limit import (
    restore_excluded,
    rises_after_sales,
    unexplained_rises,
)
from agent.policy.drift import (
    compute_drifts,
    investable_total,
    portfolio_total,
)
from agent.reference import ReferencePrices, reference_prices
from agent.units import (
    BPS,
    NATIVE,
    UINT256_MAX,
    Price,
    Value,
    decimal_text,
    floor_int,
    format_time,
    value_text,
)

# --- Remainder of limits.payout_per_day, and reserves for open claims.


def token_price(portfolio: Portfolio, references: ReferencePrices, token: str) -> Price | None:
    """Return a token's reference price, numeraire base units per base unit; native coin has the
    price of its wrapped token.
    """
    price = references.prices.get(portfolio.held_as(token))
    if price is None or price.price <= 0:
        return None
    return price.price


def payout_allowance_left(limits: Limits, budgets: Budgets) -> Value | None:
    """Return the remainder of limits.payout_per_day for the last 24 h of chain time, numeraire base
    units; None if the limit is off.
    """
    limit = limits.payout_per_day
    if limit is None:
        return None
    return max(Fraction(0), limit - budgets.outflow_24h)


def max_payout_raw(step: StepInput, token: str) -> int:
    """Return the remainder of limits.payout_per_day in base units of `token`, rounded down; 0
    without a price, or while the last 24 h are unknown.
    """
    room, price = (
        payout_allowance_left(step.limits, step.history.budgets),
        token_price(step.portfolio, reference_prices(step), token),
    )
    if room is None:
        return UINT256_MAX
    if price is None or step.history.budgets.unknown:
        return 0
    return floor_int(room / price)


def reserve_withdrawals(step: StepInput) -> StepInput:
    """Return the step with open withdrawals reserved in their assets, so that targets do not use
    them.
    """
    return _reserved(step, step.history.cash_flows.claims)


def reserve_claims(step: StepInput, more: tuple[PendingPayment, ...]) -> StepInput:
    """Return the step with additional claims reserved that are not stored yet."""
    history = replace(
        step.history,
        cash_flows=replace(
            step.history.cash_flows, claims=(*step.history.cash_flows.claims, *more)
        ),
    )
    return _reserved(replace(step, history=history), more)


def reserve_pending_deposits(step: StepInput) -> StepInput:
    """Return the step with a reserve for increases that block purchases, so that a withdrawal takes
    only earlier money.

    Money excluded above portfolio.max_live_value is available to a withdrawal. An increase is
    reserved up to the asset's balance above its configured reserve; claims do not reduce that
    bound.
    """
    step = cash_limit.restore_excluded(step)
    came: dict[str, int] = {}
    for flow in step.history.cash_flows.unexplained:
        if flow.holds and flow.delta_raw > 0:
            if flow.token == NATIVE:
                token = step.portfolio.wrapped_native
            else:
                token = flow.token
            came[token] = came.get(token, 0) + flow.delta_raw
    if not came:
        return step
    balances = native_coin.held_balances(step)

    def kept(asset: Asset) -> Asset:
        token = asset.token.address
        claimed = sum(
            claim.payment.raw
            for claim in step.history.cash_flows.claims
            if claim.payment.token == token
        )
        there = balances.get(token, 0) - native_coin.reserved_raw(step.limits, asset) + claimed
        return replace(
            asset, reserve_raw=asset.reserve_raw + max(0, min(came.get(token, 0), there))
        )

    return replace(
        step, portfolio=replace(step.portfolio, assets=tuple(map(kept, step.portfolio.assets)))
    )


def _reserved(step: StepInput, claims: tuple[PendingPayment, ...]) -> StepInput:
    if not claims:
        return step
    kept: dict[str, int] = {}
    for claim in claims:
        kept[claim.payment.token] = kept.get(claim.payment.token, 0) + claim.payment.raw
    assets = tuple(
        replace(asset, reserve_raw=asset.reserve_raw + kept.get(asset.token.address, 0))
        for asset in step.portfolio.assets
    )
    return replace(step, portfolio=replace(step.portfolio, assets=assets))


def shortfall_raw(
    portfolio: Portfolio, limits: Limits, balances: Mapping[str, int], token: str
) -> int:
    """Return the base units by which an asset's balance is below its reserve and claims; 0 if it
    covers them.
    """
    asset = next((member for member in portfolio.assets if member.token.address == token), None)
    if asset is None:
        return 0
    return max(
        0,
        native_coin.reserved_raw(limits, asset) - balances.get(token, 0),
    )


def open_withdrawal_reason(step: StepInput) -> str:
    """Return why an open withdrawal blocks trading: its shortfall, and the command; empty if every
    claim is covered.
    """
    for claim in step.history.cash_flows.claims:
        short = shortfall_raw(
            step.portfolio, step.limits, native_coin.held_balances(step), claim.payment.token
        )
        label = step.portfolio.token(claim.payment.token).label
        if (parts := claim.parts) is not None and is_auto_resumed(step.snapshot, parts):
            if short:
                lacks = f"{format_payment(step.portfolio, Payment(claim.payment.token, short))} {label} missing"
            else:
                lacks = "fully raised, ready to pay"
            number = (
                counted(
                    step.portfolio,
                    step.limits,
                    native_coin.held_balances(step),
                    parts,
                    claim.payment.token,
                ).done
                + 1
            )
            message = (
                f"part {number} of about {max(parts.count, number)} next at"
                f" {format_time(parts.next_s)} by"
            )
            return (
                f"withdrawal {claim.request}: {lacks}; {message if short else 'the next cycle of'}"
                f" trimtab run --send; trimtab withdraw --release {claim.request} cancels it"
            )
        if short > 0:
            lacks = f"{format_payment(step.portfolio, Payment(claim.payment.token, short))} {label}"
            if not claim.request:  # planned, not stored
                return f"this withdrawal is short of {lacks}"
            return (
                f"withdrawal {claim.request} is short of {lacks}: trimtab withdraw --resume"
                f" {claim.request} continues it, --release {claim.request} cancels it"
            )
    return ""


def is_auto_resumed(snapshot: Snapshot, parts: WithdrawalProgress) -> bool:
    """True while `trimtab run` continues a withdrawal in parts; after that the owner has to resume
    it.
    """
    return snapshot.head.timestamp_s < parts.until_s


def next_part_s(snapshot: Snapshot, claims: Sequence[PendingPayment]) -> int | None:
    """Return the chain time from which a run continues an open withdrawal in parts; None if there
    is none.
    """
    return next(
        (
            claim.parts.next_s
            for claim in claims
            if claim.parts is not None and is_auto_resumed(snapshot, claim.parts)
        ),
        None,
    )


def parts_done(step: StepInput, token: str) -> int:
    """Return the number of parts raised of the withdrawal that needs `token`."""
    open_parts = (
        claim.parts
        for claim in step.history.cash_flows.claims
        if claim.payment.token == token and claim.parts is not None
    )
    return next(
        (
            counted(step.portfolio, step.limits, native_coin.held_balances(step), parts, token).done
            for parts in open_parts
        ),
        0,
    )


def counted(
    portfolio: Portfolio,
    limits: Limits,
    balances: Mapping[str, int],
    parts: WithdrawalProgress,
    token: str,
) -> WithdrawalProgress:
    """Return the progress with the current part done if the shortfall of `token` has shrunk since
    the part began.

    A process that is killed before it records the part leaves this state.
    """
    if shortfall_raw(portfolio, limits, balances, token) >= parts.lacked_raw:
        return parts
    return replace(parts, done=parts.done + 1, lacked_raw=0)


def format_payment(portfolio: Portfolio, payment: Payment) -> str:
    """Format a payment's amount in whole coins."""
    return decimal_text(payment.raw, portfolio.token(payment.token).decimals)


OFF_BPS = 100
"""Basis points assumed for limits.plan_cost or limits.slippage if one is off."""


def goal_to_raise(step: StepInput, token: str) -> Goal:
    """Return the goal that raises the shortfall of `token` for a claim.

    It sells the shortfall plus at most limits.plan_cost and limits.slippage on it: first the asset
    furthest above its target of the remaining portfolio, then the next. As few assets as possible
    are sold, and none below its target before all others are at theirs. Raises Refused if
    everything else is worth less than the shortfall.
    """
    drifts, price = _drifts(step), token_price(step.portfolio, reference_prices(step), token)
    if price is None:
        raise Refused(
            f"{step.portfolio.token(token).label} has no reference price",
            remedy="give the asset a feed",
        )
    need = (
        shortfall_raw(step.portfolio, step.limits, native_coin.held_balances(step), token) * price
    )
    others = [drift for drift in drifts if drift.token != token]
    free = {other.token: other.investable_raw * other.price for other in others}
    if need > (there := sum(free.values(), Fraction(0))):
        raise insufficient_balance(
            step.portfolio, step.limits, step.history.cash_flows, need, there
        )
    gross = _gross(step.limits, need, there)
    left = investable_total(drifts) - need
    over = {
        asset_drift.token: min(
            free[asset_drift.token],
            max(Fraction(0), asset_drift.value - left * Fraction(asset_drift.target_bps, BPS)),
        )
        for asset_drift in others
    }
    sold = _taken(over, gross, step.limits.min_trade or Fraction(0), free)
    rest = gross - sum(sold.values(), Fraction(0))
    if rest > 0:  # every asset is at or below its target, so take the remainder in proportion
        room = {name: free[name] - sold.get(name, Fraction(0)) for name in free}
        whole = sum(room.values(), Fraction(0))
        sold = {
            name: sold.get(name, Fraction(0)) + (rest * room[name] / whole if whole else 0)
            for name in free
        }
    return _moved(
        drifts,
        {name: -value for name, value in sold.items()} | {token: sum(sold.values(), Fraction(0))},
    )


def gross_sale_value(step: StepInput, token: str) -> Value:
    """Return the maximum sold for the shortfall of `token`, in numeraire base units; exempt from
    the turnover limits.
    """
    price = token_price(step.portfolio, reference_prices(step), token) or Fraction(0)
    there = sum(
        (drift.investable_raw * drift.price for drift in _drifts(step) if drift.token != token),
        Fraction(0),
    )
    return _gross(
        step.limits,
        shortfall_raw(step.portfolio, step.limits, native_coin.held_balances(step), token) * price,
        there,
    )


def _gross(limits: Limits, need: Value, there: Value) -> Value:
    return min(there, max(need * (1 + _margin(limits)), limits.min_trade or Fraction(0)))


def goal_to_invest(step: StepInput, came: Mapping[str, int]) -> Goal:
    """Return the goal that invests `came` (base units by asset) in the underweight assets; nothing
    else is sold.

    Only the part of a deposited asset above its own target is sold, and only that part bears the
    cost of the swaps. If the shortfalls are smaller, the remainder stays. Raises Refused while the
    total is unknown.
    """
    if why := unknown_value_reason(step):
        raise Refused(why, remedy="see trimtab status; invest once it is known")
    drifts = _drifts(step)
    whole = investable_total(drifts)
    missing = {
        drift.token: Fraction(drift.target_bps, BPS) * whole - drift.value for drift in drifts
    }
    spare = {
        asset_drift.token: min(
            came[asset_drift.token] * asset_drift.price,
            asset_drift.investable_raw * asset_drift.price,
            -missing[asset_drift.token],
        )
        for asset_drift in drifts
        if came.get(asset_drift.token, 0) > 0 and missing[asset_drift.token] < 0
    }
    short = {name: value for name, value in missing.items() if value > 0}
    moved = min(sum(spare.values(), Fraction(0)), sum(short.values(), Fraction(0)))
    if moved <= 0:
        return _moved(drifts, {})
    out, into = moved / sum(spare.values(), Fraction(0)), moved / sum(short.values(), Fraction(0))
    goal = _moved(
        drifts,
        {name: -value * out for name, value in spare.items()}
        | {name: value * into for name, value in short.items()},
    )
    most = tuple(
        (drift.token, min(came[drift.token], drift.investable_raw))
        for drift in drifts
        if drift.token in spare
    )
    return replace(
        goal,
        unsold=tuple(drift.token for drift in drifts if drift.token not in spare),
        sell_at_most=most,
    )


def insufficient_balance(
    portfolio: Portfolio,
    limits: Limits,
    cash_flows: CashFlows,
    asked: Value,
    there: Value,
    own: Value | None = None,
) -> Refused:
    """Return the refusal with the shortfall and any withheld unexplained deposits. `own` is the
    value that needs no sale, in addition to `asked` and `there`; None names no sales.
    """
    numeraire, kept = portfolio.numeraire, own or Fraction(0)
    needed, available, short, sold = (
        f"{value_text(value, numeraire.decimals, 2)} {numeraire.label}"
        for value in (asked + kept, there + kept, asked - there, there)
    )
    sales = "" if own is None else f", {sold} of it only by sales, before their costs"
    return Refused(
        f"insufficient balance: short by {short}; the value available for it is {available}{sales}",
        (Verdict("holdings", needed, available, False),),
        "withdraw less; reserves, gas money and positions in pools are not "
        f"sold{'; ' * bool(halted := balance_changes.halt_reason(portfolio, limits, cash_flows))}{halted}",
    )


def free_raw(step: StepInput) -> dict[str, int]:
    """Return the base units of each asset outside of reserves, gas money and positions, in the
    portfolio's order.
    """
    return {drift.token: drift.investable_raw for drift in _drifts(step)}


def proportional_amounts(step: StepInput, value: Value) -> dict[str, int]:
    """Return the same fraction of every free asset, together worth `value` at reference prices,
    each rounded down to a base unit.

    Raises Refused if the free assets are worth less.
    """
    free = {drift.token: (drift.investable_raw, drift.price) for drift in _drifts(step)}
    there = sum((raw * price for raw, price in free.values()), Fraction(0))
    if value > there:
        raise insufficient_balance(
            step.portfolio, step.limits, step.history.cash_flows, value, there
        )
    return {
        name: part
        for name, (raw, _) in free.items()
        if (part := floor_int(raw * value / there)) > 0
    }


def _taken(
    over: Mapping[str, Value], gross: Value, least: Value, free: Mapping[str, Value]
) -> dict[str, Value]:
    """Return the value to sell of each asset, from the largest surplus to the smallest, until
    `gross` is reached; the last sale is at least `least` if that much is free.
    """
    sold: dict[str, Value] = {}
    for name in sorted(over, key=lambda one: over[one], reverse=True):
        missing = gross - sum(sold.values(), Fraction(0))
        if missing <= 0 or over[name] <= 0:
            break
        part = min(over[name], missing)
        sold[name] = part if part >= least else min(least, free[name])
    return sold


def _moved(drifts: tuple[AssetDrift, ...], changes: Mapping[str, Value]) -> Goal:
    whole = investable_total(drifts)
    shares = [
        (
            drift.token,
            (drift.value + changes.get(drift.token, Fraction(0))) / whole if whole else Fraction(0),
        )
        for drift in drifts
    ]
    return Goal(tuple(GoalWeight(token, share, share) for token, share in shares))


def _margin(limits: Limits) -> Fraction:
    return Fraction(
        sum(OFF_BPS if bps is None else bps for bps in (limits.plan_cost_bps, limits.slippage_bps)),
        BPS,
    )


def _drifts(step: StepInput) -> tuple[AssetDrift, ...]:
    prices = reference_prices(step).by_token
    lacking = [
        asset.token.label for asset in step.portfolio.assets if asset.token.address not in prices
    ]
    if lacking:
        raise Refused(f"{', '.join(lacking)}: no reference price", remedy="see trimtab doctor")
    return compute_drifts(step, prices)


def investable_deposits(
    step: StepInput, came: Sequence[ExternalTransfer]
) -> tuple[ExternalTransfer, ...]:
    """Return the increases, given oldest first, that fit below portfolio.max_live_value.

    Each counts as a whole, in this order, so that a later deposit takes no room from an earlier
    one. Raises Refused if none fits.
    """
    limit, whole = step.limits.max_live_value, restore_excluded(step)
    if limit is None or not came:
        return tuple(came)
    prices = reference_prices(whole).by_token
    try:
        standing = compute_drifts(whole, prices)
    except Refused:
        return tuple(came)  # if unknown, planning reports the refusal
    free = {drift.token: drift.investable_raw for drift in standing}
    risen = rises_after_sales(
        native_coin.held_balances(whole),
        whole.portfolio,
        unexplained_rises(whole.portfolio, whole.history.cash_flows),
        prices,
    )
    rose = sum(
        (
            min(free.get(token, 0), max(0, raw)) * prices[token]
            for token, raw in risen.items()
            if token in free
        ),
        Fraction(0),
    )
    managed_value = portfolio_total(whole, standing) - rose
    room, taken = limit - managed_value, list[ExternalTransfer]()
    for flow in came:
        if (value := _value(whole.portfolio, flow, prices)) <= room:
            taken.append(flow)
            room -= value
    if not taken:
        numeraire = step.portfolio.numeraire
        managed, most = (
            f"{value_text(bound, numeraire.decimals, 2)} {numeraire.label}"
            for bound in (managed_value, limit)
        )
        smallest = min(_value(whole.portfolio, flow, prices) for flow in came)
        came_words = f"{value_text(smallest, numeraire.decimals, 2)} {numeraire.label}"
        raise Refused(
            f"{came_words} invested on top of {managed} would exceed portfolio.max_live_value of"
            f" {most}",
            (
                Verdict(
                    "max_live_value", f"{managed} and {came_words} more", f"at most {most}", False
                ),
            ),
            "raise it with trimtab edit --set portfolio.max_live_value=AMOUNT, or send less",
        )
    return tuple(taken)


def _value(portfolio: Portfolio, flow: ExternalTransfer, prices: Mapping[str, Price]) -> Fraction:
    return flow.delta_raw * prices[portfolio.held_as(flow.token)]
