"""Goals of the owner's transfers: raise a shortfall from the most overweight assets, and invest
deposits in underweight ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.layers.questions import sale_taxes, unknown_value_reason
from agent.model import (
    Asset,
    AssetDrift,
    Budgets,
    CashFlows,
    Destination,
    ExternalTransfer,
    Goal,
    GoalWeight,
    Limits,
    NoTradeZone,
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
    increases_after_sales,
    restore_excluded_amounts,
    unexplained_increases,
)
from agent.policy.drift import (
    compute_drifts,
    investable_total,
    portfolio_total,
    rebalance_goal,
)
from agent.policy.triggers.exchange_costs import PricedMarket
from agent.policy.triggers.no_trade_zone import ZoneView, evaluate_zone
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
)


def token_price(portfolio: Portfolio, references: ReferencePrices, token: str) -> Price | None:
    """Return a token's reference price, numeraire base units per base unit; native coin has the
    price of its wrapped token.
    """
    reference_price = references.reference_by_token.get(portfolio.pricing_token(token))
    if reference_price is None or reference_price.price <= 0:
        return None
    return reference_price.price


def payout_allowance_left(limits: Limits, budgets: Budgets) -> Value | None:
    """Return the remainder of limits.payout_per_day for the last 24 h of chain time, numeraire base
    units; None if the limit is off.
    """
    daily_limit_value = limits.payout_per_day
    if daily_limit_value is None:
        return None
    return max(Fraction(0), daily_limit_value - budgets.outflow_24h)


def max_payout_raw(step: StepInput, token: str) -> int:
    """Return the remainder of limits.payout_per_day in base units of `token`, rounded down; 0
    without a price, or while the last 24 h are unknown.
    """
    allowance_value = payout_allowance_left(step.limits, step.history.budgets)
    price = token_price(step.portfolio, reference_prices(step), token)
    if allowance_value is None:
        return UINT256_MAX
    if price is None or step.history.budgets.unknown_reason:
        return 0
    return floor_int(allowance_value / price)


def reserve_withdrawals(step: StepInput) -> StepInput:
    """Return the step with open withdrawals reserved in their assets, so that targets do not use
    them; one that may be mined is not.
    """
    next_nonce = step.snapshot.nonce_latest
    return _with_reserves(step, step.history.cash_flows.reserved_payments(next_nonce))


def reserve_claims(step: StepInput, new_claims: tuple[PendingPayment, ...]) -> StepInput:
    """Return the step with additional claims reserved that are not stored yet."""
    history = replace(
        step.history,
        cash_flows=replace(
            step.history.cash_flows,
            pending_payments=(*step.history.cash_flows.pending_payments, *new_claims),
        ),
    )
    return _with_reserves(replace(step, history=history), new_claims)


def reserve_pending_deposits(step: StepInput) -> StepInput:
    """Return the step with a reserve for increases that block purchases, so that a withdrawal takes
    only earlier money.

    Money excluded above portfolio.max_live_value is available to a withdrawal. An increase is
    reserved up to the asset's balance above its configured reserve; claims do not reduce that
    bound. What portfolio.use_cash leaves alone is reserved already.
    """
    step = cash_limit.restore_excluded_amounts(step)
    pending_raw: dict[str, int] = {}
    for flow in step.history.cash_flows.unexplained_transfers:
        if flow.blocks_trading and flow.delta_raw > 0:
            if flow.token == NATIVE:
                token = step.portfolio.wrapped_native
            else:
                token = flow.token
            pending_raw[token] = pending_raw.get(token, 0) + flow.delta_raw
    pending_raw = cash_limit.without_unused_cash(step.history.cash_flows, pending_raw)
    if not pending_raw:
        return step
    balances_raw = native_coin.held_balances(step)

    def with_reserve(asset: Asset) -> Asset:
        token = asset.token.address
        claimed_raw = sum(
            claim.payment.raw
            for claim in step.history.cash_flows.reserved_payments(step.snapshot.nonce_latest)
            if claim.payment.token == token
        )
        unreserved_raw = (
            balances_raw.get(token, 0) - native_coin.reserved_raw(step.limits, asset) + claimed_raw
        )
        return replace(
            asset,
            reserve_raw=asset.reserve_raw + max(0, min(pending_raw.get(token, 0), unreserved_raw)),
        )

    return replace(
        step,
        portfolio=replace(step.portfolio, assets=tuple(map(with_reserve, step.portfolio.assets))),
    )


def _with_reserves(step: StepInput, claims: tuple[PendingPayment, ...]) -> StepInput:
    if not claims:
        return step
    claimed_raw: dict[str, int] = {}
    for claim in claims:
        claimed_raw[claim.payment.token] = (
            claimed_raw.get(claim.payment.token, 0) + claim.payment.raw
        )
    assets = tuple(
        replace(asset, reserve_raw=asset.reserve_raw + claimed_raw.get(asset.token.address, 0))
        for asset in step.portfolio.assets
    )
    return replace(step, portfolio=replace(step.portfolio, assets=assets))


def shortfall_raw(
    portfolio: Portfolio, limits: Limits, balances_raw: Mapping[str, int], token: str
) -> int:
    """Return the base units by which an asset's balance is below its reserve and claims; 0 if it
    covers them.
    """
    asset = portfolio.find_asset(token)
    if asset is None:
        return 0
    return max(
        0,
        native_coin.reserved_raw(limits, asset) - balances_raw.get(token, 0),
    )


def open_withdrawal_reason(step: StepInput) -> str:
    """Return why an open withdrawal blocks trading: a payment that may be mined, or a shortfall, and
    the command; empty if every claim is covered.
    """
    if reason := unbooked_payment_reason(step):
        return reason
    for claim in step.history.cash_flows.pending_payments:
        short_raw = shortfall_raw(
            step.portfolio, step.limits, native_coin.held_balances(step), claim.payment.token
        )
        label = step.portfolio.token(claim.payment.token).label
        if (progress := claim.progress) is not None and is_auto_resumed(step.snapshot, progress):
            if short_raw:
                shortfall_text = f"{format_payment(step.portfolio, Payment(claim.payment.token, short_raw))} {label} missing"
            else:
                shortfall_text = "fully raised, ready to pay"
            part_number = (
                current_progress(
                    step.portfolio,
                    step.limits,
                    native_coin.held_balances(step),
                    progress,
                    claim.payment.token,
                ).parts_done
                + 1
            )
            part_text = (
                f"part {part_number} of about {max(progress.part_count, part_number)} next at"
                f" {format_time(progress.next_s)} by"
            )
            return (
                f"withdrawal {claim.request_id}: {shortfall_text}; {part_text if short_raw else 'the next cycle of'}"
                f" trimtab run --send; trimtab withdraw --release {claim.request_id} cancels it"
            )
        if short_raw > 0:
            shortfall_text = (
                f"{format_payment(step.portfolio, Payment(claim.payment.token, short_raw))} {label}"
            )
            if not claim.request_id:  # planned, not stored
                return f"this withdrawal is short of {shortfall_text}"
            return (
                f"withdrawal {claim.request_id} is short of {shortfall_text}: trimtab withdraw --resume"
                f" {claim.request_id} continues it, --release {claim.request_id} cancels it"
            )
    return ""


def unbooked_payment_reason(step: StepInput) -> str:
    """Return which payment may be mined without a recorded outcome, and the command that looks; empty
    without one.
    """
    cash_flows = step.history.cash_flows
    reserved_payments = cash_flows.reserved_payments(step.snapshot.nonce_latest)
    for claim in cash_flows.pending_payments:
        if claim not in reserved_payments:
            label = step.portfolio.token(claim.payment.token).label
            return (
                f"withdrawal {claim.request_id}: {format_payment(step.portfolio, claim.payment)} {label}"
                f" may be paid and is not booked yet: trimtab withdraw --resume {claim.request_id} books"
                " it"
            )
    return ""


def is_auto_resumed(snapshot: Snapshot, progress: WithdrawalProgress) -> bool:
    """True while `trimtab run` continues a withdrawal in parts; after that the owner has to resume
    it.
    """
    return snapshot.head.timestamp_s < progress.until_s


def next_part_s(snapshot: Snapshot, claims: Sequence[PendingPayment]) -> int | None:
    """Return the chain time from which a run continues an open withdrawal in parts; None if there
    is none.
    """
    return next(
        (
            claim.progress.next_s
            for claim in claims
            if claim.progress is not None and is_auto_resumed(snapshot, claim.progress)
        ),
        None,
    )


def parts_done(step: StepInput, token: str) -> int:
    """Return the number of parts raised of the withdrawal that needs `token`."""
    open_progresses = (
        claim.progress
        for claim in step.history.cash_flows.pending_payments
        if claim.payment.token == token and claim.progress is not None
    )
    return next(
        (
            current_progress(
                step.portfolio, step.limits, native_coin.held_balances(step), progress, token
            ).parts_done
            for progress in open_progresses
        ),
        0,
    )


def current_progress(
    portfolio: Portfolio,
    limits: Limits,
    balances_raw: Mapping[str, int],
    progress: WithdrawalProgress,
    token: str,
) -> WithdrawalProgress:
    """Return the progress with the current part done if the shortfall of `token` has shrunk since
    the part began.

    A process that is killed before it records the part leaves this state.
    """
    if shortfall_raw(portfolio, limits, balances_raw, token) >= progress.shortfall_raw:
        return progress
    return replace(progress, parts_done=progress.parts_done + 1, shortfall_raw=0)


def format_payment(portfolio: Portfolio, payment: Payment) -> str:
    """Format a payment's amount in whole coins."""
    return decimal_text(payment.raw, portfolio.token(payment.token).decimals)


ASSUMED_LIMIT_BPS = 100
"""Basis points assumed for limits.plan_cost or limits.slippage if one is off."""


def goal_to_raise_shortfall(step: StepInput, token: str) -> Goal:
    """Return the goal that raises the shortfall of `token` for a claim.

    It sells the shortfall plus at most limits.plan_cost and limits.slippage on it: first the asset
    furthest above its target of the remaining portfolio, then the next. As few assets as possible
    are sold, and none below its target before all others are at theirs. Raises Refused if
    everything else is worth less than the shortfall.
    """
    drifts = priced_drifts(step)
    price = token_price(step.portfolio, reference_prices(step), token)
    if price is None:
        raise Refused(
            f"{step.portfolio.token(token).label} has no reference price",
            remedy="give the asset a feed",
        )
    needed_value = (
        shortfall_raw(step.portfolio, step.limits, native_coin.held_balances(step), token) * price
    )
    other_drifts = [drift for drift in drifts if drift.token != token]
    free_values = {
        other_drift.token: other_drift.investable_raw * other_drift.price
        for other_drift in other_drifts
    }
    if needed_value > (available_value := sum(free_values.values(), Fraction(0))):
        raise insufficient_balance_refusal(
            step.portfolio, step.limits, step.history.cash_flows, needed_value, available_value
        )
    gross_value = _gross_value(step.limits, needed_value, available_value)
    value_after = investable_total(drifts) - needed_value
    surplus_values = {
        drift.token: min(
            free_values[drift.token],
            max(Fraction(0), drift.value - value_after * Fraction(drift.target_bps, BPS)),
        )
        for drift in other_drifts
    }
    sold_values = _sale_values(
        surplus_values, gross_value, step.limits.min_trade or Fraction(0), free_values
    )
    remainder_value = gross_value - sum(sold_values.values(), Fraction(0))
    if (
        remainder_value > 0
    ):  # every asset is at or below its target, so take the remainder in proportion
        unsold_values = {
            sold_token: free_values[sold_token] - sold_values.get(sold_token, Fraction(0))
            for sold_token in free_values
        }
        total_unsold = sum(unsold_values.values(), Fraction(0))
        sold_values = {
            sold_token: sold_values.get(sold_token, Fraction(0))
            + (remainder_value * unsold_values[sold_token] / total_unsold if total_unsold else 0)
            for sold_token in free_values
        }
    return _goal_after(
        drifts,
        {sold_token: -sale_value for sold_token, sale_value in sold_values.items()}
        | {token: sum(sold_values.values(), Fraction(0))},
    )


def gross_sale_value(step: StepInput, token: str) -> Value:
    """Return the maximum sold for the shortfall of `token`, in numeraire base units; exempt from
    the turnover limits.
    """
    price = token_price(step.portfolio, reference_prices(step), token) or Fraction(0)
    available_value = sum(
        (
            drift.investable_raw * drift.price
            for drift in priced_drifts(step)
            if drift.token != token
        ),
        Fraction(0),
    )
    return _gross_value(
        step.limits,
        shortfall_raw(step.portfolio, step.limits, native_coin.held_balances(step), token) * price,
        available_value,
    )


def _gross_value(limits: Limits, needed_value: Value, available_value: Value) -> Value:
    return min(
        available_value,
        max(needed_value * (1 + _cost_margin(limits)), limits.min_trade or Fraction(0)),
    )


def kept_deposit_reason(step: StepInput, deposits: Mapping[str, int]) -> str:
    """Return why deposits (base units by asset) stay in the assets that were deposited: all of these
    are at or below their targets. Empty if another asset is to be bought with a deposit.
    """
    deposited_drifts = [drift for drift in priced_drifts(step) if deposits.get(drift.token, 0) > 0]
    if any(drift.weight_bps > drift.target_bps for drift in deposited_drifts):
        return ""
    weight_texts = [
        f"{step.portfolio.token(drift.token).label} is at {drift.weight_bps / 100:.2f} % of"
        f" {drift.target_bps / 100:.2f} %"
        for drift in deposited_drifts
    ]
    return (
        f"{', '.join(weight_texts)}, so the deposit stays in it; trimtab rebalance trades what else is"
        " off target"
    )


def goal_to_invest(step: StepInput, deposits: Mapping[str, int]) -> Goal:
    """Return the goal that invests `deposits` (base units by asset) in the underweight assets;
    nothing else is sold.

    Only the part of a deposited asset above its own target is sold, and only that part bears the
    cost of the swaps. If the shortfalls are smaller, the remainder stays. Raises Refused while the
    total is unknown.
    """
    if unknown_reason := unknown_value_reason(step):
        raise Refused(unknown_reason, remedy="see trimtab status; invest once it is known")
    drifts = priced_drifts(step)
    total_value = investable_total(drifts)
    value_gaps = {
        drift.token: Fraction(drift.target_bps, BPS) * total_value - drift.value for drift in drifts
    }
    spare_values = {
        drift.token: min(
            deposits[drift.token] * drift.price,
            drift.investable_raw * drift.price,
            -value_gaps[drift.token],
        )
        for drift in drifts
        if deposits.get(drift.token, 0) > 0 and value_gaps[drift.token] < 0
    }
    shortfall_values = {token: value for token, value in value_gaps.items() if value > 0}
    moved_value = min(
        sum(spare_values.values(), Fraction(0)), sum(shortfall_values.values(), Fraction(0))
    )
    if moved_value <= 0:
        return _goal_after(drifts, {})
    sold_fraction = moved_value / sum(spare_values.values(), Fraction(0))
    filled_fraction = moved_value / sum(shortfall_values.values(), Fraction(0))
    goal = _goal_after(
        drifts,
        {token: -value * sold_fraction for token, value in spare_values.items()}
        | {token: value * filled_fraction for token, value in shortfall_values.items()},
    )
    max_sales = tuple(
        (drift.token, min(deposits[drift.token], drift.investable_raw))
        for drift in drifts
        if drift.token in spare_values
    )
    return replace(
        goal,
        never_sold=tuple(drift.token for drift in drifts if drift.token not in spare_values),
        max_sold_raw_by_token=max_sales,
    )


def weighed_goal_to_invest(
    step: StepInput, prices: Mapping[str, Price], deposits: Mapping[str, int]
) -> tuple[Goal, ZoneView, tuple[AssetDrift, ...]]:
    """Return the goal that moves `deposits` (base units by asset) towards the targets as far as the
    trigger's risk is worth the cost, the trigger's view, and the drifts with its ranges; nothing
    else is sold. Raises Refused while the total is unknown.
    """
    if unknown_reason := unknown_value_reason(step):
        raise Refused(unknown_reason, remedy="see trimtab status; invest once it is known")
    trigger = step.policy.trigger
    if not isinstance(trigger, NoTradeZone):
        raise ValueError("the trigger weighs no risk")
    drifts = priced_drifts(step)
    zone, ranged_drifts = evaluate_zone(
        PricedMarket.of_step(step, prices), trigger.risk, drifts, sale_taxes(step, prices)
    )
    goal = replace(
        rebalance_goal(drifts, Destination.ZONE),
        risk=zone.risk,
        never_sold=tuple(drift.token for drift in drifts if not deposits.get(drift.token)),
        max_sold_raw_by_token=tuple(
            (drift.token, min(deposits[drift.token], drift.investable_raw))
            for drift in drifts
            if deposits.get(drift.token)
        ),
    )
    return goal, zone, ranged_drifts


def insufficient_balance_refusal(
    portfolio: Portfolio,
    limits: Limits,
    cash_flows: CashFlows,
    requested_value: Value,
    available_value: Value,
    value_without_sale: Value | None = None,
) -> Refused:
    """Return the refusal with the shortfall and any withheld unexplained deposits.
    `value_without_sale` is the part of the request that is held already and needs no sale; it is
    added to both amounts. With None the message does not mention sales.
    """
    numeraire = portfolio.numeraire
    held_value = value_without_sale or Fraction(0)
    needed_text, available_text, shortfall_text, sold_text = (
        numeraire.money_text(shown_value)
        for shown_value in (
            requested_value + held_value,
            available_value + held_value,
            requested_value - available_value,
            available_value,
        )
    )
    sales_text = (
        ""
        if value_without_sale is None
        else f", {sold_text} of it only by sales, before their costs"
    )
    return Refused(
        f"insufficient balance: short by {shortfall_text}; the value available for it is {available_text}{sales_text}",
        (Verdict("holdings", needed_text, available_text, False),),
        "withdraw less; reserves, gas money and positions in pools are not "
        f"sold{'; ' * bool(halt_text := balance_changes.halt_reason(portfolio, limits, cash_flows))}{halt_text}",
    )


def investable_balances(step: StepInput) -> dict[str, int]:
    """Return the base units of each asset outside of reserves, gas money and positions, in the
    portfolio's order.
    """
    return {drift.token: drift.investable_raw for drift in priced_drifts(step)}


def proportional_amounts(step: StepInput, value: Value) -> dict[str, int]:
    """Return the same fraction of every free asset, together worth `value` at reference prices,
    each rounded down to a base unit.

    Raises Refused if the free assets are worth less.
    """
    raw_and_price_by_token = {
        drift.token: (drift.investable_raw, drift.price) for drift in priced_drifts(step)
    }
    available_value = sum(
        (raw * price for raw, price in raw_and_price_by_token.values()), Fraction(0)
    )
    if value > available_value:
        raise insufficient_balance_refusal(
            step.portfolio, step.limits, step.history.cash_flows, value, available_value
        )
    return {
        token: part_raw
        for token, (raw, _) in raw_and_price_by_token.items()
        if (part_raw := floor_int(raw * value / available_value)) > 0
    }


def _sale_values(
    surplus_values: Mapping[str, Value],
    gross_value: Value,
    min_value: Value,
    free_values: Mapping[str, Value],
) -> dict[str, Value]:
    """Return the value to sell of each asset, from the largest surplus to the smallest, until
    `gross_value` is reached; the last sale is at least `min_value` if that much is free.
    """
    sold_values: dict[str, Value] = {}
    for sold_token in sorted(surplus_values, key=lambda token: surplus_values[token], reverse=True):
        shortfall_value = gross_value - sum(sold_values.values(), Fraction(0))
        if shortfall_value <= 0 or surplus_values[sold_token] <= 0:
            break
        sale_value = min(surplus_values[sold_token], shortfall_value)
        sold_values[sold_token] = (
            sale_value if sale_value >= min_value else min(min_value, free_values[sold_token])
        )
    return sold_values


def _goal_after(drifts: tuple[AssetDrift, ...], value_changes: Mapping[str, Value]) -> Goal:
    total_value = investable_total(drifts)
    shares = [
        (
            drift.token,
            (drift.value + value_changes.get(drift.token, Fraction(0))) / total_value
            if total_value
            else Fraction(0),
        )
        for drift in drifts
    ]
    return Goal(tuple(GoalWeight(token, share, share) for token, share in shares))


def _cost_margin(limits: Limits) -> Fraction:
    return Fraction(
        sum(
            ASSUMED_LIMIT_BPS if limit_bps is None else limit_bps
            for limit_bps in (limits.plan_cost_bps, limits.slippage_bps)
        ),
        BPS,
    )


def priced_drifts(step: StepInput) -> tuple[AssetDrift, ...]:
    """Return the drifts of all assets. Raises Refused if one has no reference price."""
    prices = reference_prices(step).price_by_token
    unpriced_labels = [
        asset.token.label for asset in step.portfolio.assets if asset.token.address not in prices
    ]
    if unpriced_labels:
        raise Refused(
            f"{', '.join(unpriced_labels)}: no reference price", remedy="see trimtab doctor"
        )
    return compute_drifts(step, prices)


def investable_deposits(
    step: StepInput, deposits: Sequence[ExternalTransfer]
) -> tuple[ExternalTransfer, ...]:
    """Return the increases, given oldest first, that fit below portfolio.max_live_value.

    Each counts as a whole, in this order, so that a later deposit takes no room from an earlier
    one. Raises Refused if none fits.
    """
    max_live_value = step.limits.max_live_value
    restored_step = restore_excluded_amounts(step)
    if max_live_value is None or not deposits:
        return tuple(deposits)
    prices = reference_prices(restored_step).price_by_token
    try:
        drifts = compute_drifts(restored_step, prices)
    except Refused:
        return tuple(deposits)  # if unknown, planning reports the refusal
    investable_raw = {drift.token: drift.investable_raw for drift in drifts}
    increases_raw = increases_after_sales(
        native_coin.held_balances(restored_step),
        restored_step.portfolio,
        unexplained_increases(restored_step.portfolio, restored_step.history.cash_flows),
        prices,
    )
    increases_value = sum(
        (
            min(investable_raw.get(token, 0), max(0, raw)) * prices[token]
            for token, raw in increases_raw.items()
            if token in investable_raw
        ),
        Fraction(0),
    )
    managed_value = portfolio_total(restored_step, drifts) - increases_value
    room_value = max_live_value - managed_value
    fitting_deposits = list[ExternalTransfer]()
    for flow in deposits:
        if (flow_value := _flow_value(restored_step.portfolio, flow, prices)) <= room_value:
            fitting_deposits.append(flow)
            room_value -= flow_value
    if not fitting_deposits:
        numeraire = step.portfolio.numeraire
        managed_text, limit_text = (
            numeraire.money_text(shown_value) for shown_value in (managed_value, max_live_value)
        )
        smallest_value = min(
            _flow_value(restored_step.portfolio, flow, prices) for flow in deposits
        )
        deposit_text = numeraire.money_text(smallest_value)
        raise Refused(
            f"{deposit_text} invested on top of {managed_text} would exceed portfolio.max_live_value of"
            f" {limit_text}",
            (
                Verdict(
                    "max_live_value",
                    f"{managed_text} and {deposit_text} more",
                    f"at most {limit_text}",
                    False,
                ),
            ),
            "raise it with trimtab edit --set portfolio.max_live_value=AMOUNT, or send less",
        )
    return tuple(fitting_deposits)


def _flow_value(
    portfolio: Portfolio, flow: ExternalTransfer, prices: Mapping[str, Price]
) -> Fraction:
    return flow.delta_raw * prices[portfolio.pricing_token(flow.token)]
