"""Effects of orders on targets and decision: triggered exits are sold for the numeraire, and assets
are not bought before their entry.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.layers import questions
from agent.model import (
    PORTFOLIO_SUBJECT,
    Asset,
    AssetDrift,
    ConditionalOrder,
    EffectiveTargets,
    Goal,
    GoalWeight,
    History,
    Limits,
    OrderKind,
    OrderStage,
    OrderStates,
    Portfolio,
    Rebalance,
    Snapshot,
    StepInput,
    WeightReallocation,
)
from agent.policy import failures, minimum, native_coin
from agent.policy.drift import drifts_if_known, investable_total
from agent.policy.orders import conditional as conditional_orders
from agent.policy.orders.conditional import (
    advance_orders,
    armed_order,
    dust_value,
    fired_exit_order,
    format_order_price,
    is_nav_known,
    nav_per_share_at,
    order_name,
    order_subject,
    orders_by_key,
    require_valid_level,
    trigger_price,
    unconfirmed_orders,
    waits_for_entry,
    was_filled_when_armed,
)
from agent.reference import ReferencePrices, price_fault, reference_prices
from agent.units import BPS, Price, Value, decimal_text, format_time, largest_remainder

MAX_SHARE_FACTOR = Fraction(10, 9)
"""Factor by which the shares of unsold assets may change in an exit, because its cost reduces the
total.
"""


def apply_orders(step: StepInput) -> StepInput:
    """Return the step with every order updated to this block, and with the resulting targets."""
    return apply_order_targets(advance_orders(step))


def apply_order_targets(step: StepInput) -> StepInput:
    """Return the step with targets after orders: zero for exited assets, at most the current share
    for assets awaiting entry.
    """
    order_states = step.history.orders.states
    if not order_states:
        return step
    numeraire = step.portfolio.numeraire.address
    assets = [asset for asset in step.effective_assets if asset.token.address != numeraire]
    exited_tokens = [
        asset.token.address
        for asset in assets
        if fired_exit_order(order_states, asset.token.address) is not None
    ]
    prices = reference_prices(step).price_by_token
    drifts = drifts_if_known(step, prices)
    kept_bps_by_token = {
        asset.token.address: _kept_target_bps(asset, drifts)
        for asset in assets
        if asset.token.address not in exited_tokens
        and conditional_orders.is_entry_pending(step.history, asset.token.address)
    }
    notes = (
        *(_exited_text(step, token) for token in exited_tokens),
        *(_waiting_text(step.portfolio, step.history.orders, token) for token in kept_bps_by_token),
        *_order_notes(step),
    )
    if not exited_tokens and not kept_bps_by_token:
        if notes:
            return replace(
                step, targets=replace(step.targets, reasons=(*step.targets.reasons, *notes))
            )
        return step
    dust_tokens = {
        drift.token
        for drift in drifts
        if drift.token in exited_tokens
        and drift.investable_raw * drift.price < dust_value(step.limits, drifts)
    }
    dust_tokens |= {
        token
        for token, kept_bps in kept_bps_by_token.items()
        if investable_total(drifts) * kept_bps
        < _min_target_value(step.snapshot, step.portfolio, step.limits, prices) * BPS
    }

    target_bps_by_token = _redistributed_targets(
        step.portfolio,
        step.effective_assets,
        dict.fromkeys(exited_tokens, 0)
        | {
            token: 0 if token in dust_tokens else kept_bps
            for token, kept_bps in kept_bps_by_token.items()
        },
    )

    def with_reserve(asset: Asset) -> Asset:
        if asset.token.address not in dust_tokens:
            return asset
        return replace(
            asset,
            reserve_raw=native_coin.full_reserve_raw(
                native_coin.held_balances(step), step.limits, asset
            ),
        )

    portfolio = replace(step.portfolio, assets=tuple(map(with_reserve, step.portfolio.assets)))
    for layer in questions.LAYERS:
        portfolio = layer.without_targets(portfolio, exited_tokens)
    return replace(
        step,
        portfolio=portfolio,
        targets=replace(
            step.targets,
            effective_bps=tuple(target_bps_by_token.items()),
            reasons=(*step.targets.reasons, *notes),
        ),
    )


def price_contradictions(
    portfolio: Portfolio, orders: OrderStates, references: ReferencePrices
) -> list[str]:
    """Return the orders that contradict current prices; each blocks all trading except exits until
    the owner resolves it.
    """
    orders_config = portfolio.orders
    order_by_key = orders_by_key(orders.states)
    contradictions = []
    entry_by_token = {
        order.token: order
        for order in orders.states
        if order.kind is OrderKind.ENTRY and order.stage is not OrderStage.OFF
    }
    for terms in orders_config.terms:
        order = order_by_key.get((terms.token, terms.kind))
        price = price_of_subject(orders, references, terms.token)
        if order is None or price is None:
            continue
        entry = entry_by_token.get(terms.token)
        new_order = replace(order, terms=terms)
        if order.stage is OrderStage.WAITING and not waits_for_entry(terms.kind, entry):
            new_order = armed_order(new_order, price, 0, entry)
        elif order.terms == terms or order.stage is not OrderStage.ARMED:
            continue
        try:
            require_valid_level(new_order, price, orders_config)
        except Refused as refusal:
            level_text = format_order_price(portfolio, terms.token, trigger_price(new_order))
            price_text = format_order_price(portfolio, terms.token, price)
            option = terms.kind.value.replace("_", "-")
            contradictions.append(
                f"{order_name(portfolio, terms)} at {level_text} contradicts the price of {price_text}:"
                f" {refusal.message}; nothing but exits is traded until it is changed: trimtab orders set"
                f" {_order_argument(portfolio, order)} --{option} LEVEL, or off"
            )
    return contradictions


def triggered_exit(step: StepInput, drifts: Sequence[AssetDrift]) -> Rebalance | None:
    """Return the sale of triggered orders, regardless of trigger and cooldown; None if nothing in
    the wallet is left to sell.

    It sells only the wallet's balance of the first of `exit_tokens`, for the numeraire. The others
    follow, each in its own transaction; then what layers free is sold too.
    """
    if not (sold_tokens := exit_tokens(step, drifts)):
        return None
    fired_orders = _fired_exits_of(step.history, {PORTFOLIO_SUBJECT, sold_tokens[0]})
    return Rebalance(
        _fired_text(step.portfolio, fired_orders) + _later_exits_text(step.portfolio, sold_tokens),
        exit_goal(step.portfolio, drifts, sold_tokens[0]),
        is_exit=True,
        title=" and ".join(_fired_title(step.portfolio, order) for order in fired_orders),
    )


def fired_reason(portfolio: Portfolio, history: History, sold_tokens: Collection[str]) -> str:
    """Return the text of the triggered orders of these tokens."""
    return _fired_text(portfolio, _fired_exits_of(history, sold_tokens))


def leaving_tokens(
    portfolio: Portfolio, history: History, targets: EffectiveTargets, drifts: Sequence[AssetDrift]
) -> list[str]:
    """Return the tokens that triggered orders sell, whether or not the wallet has any."""
    fired_orders = _fired_exits(history)
    return [drift.token for drift in drifts if _is_leaving(portfolio, targets, drift, fired_orders)]


def exit_price_fault(step: StepInput, *tokens: str) -> str:
    """Return why an exit of these tokens must not act on its prices, theirs and the numeraire's;
    empty if it may. Sources that disagree on the native coin only misjudge the cost of gas, which
    has limits in that coin.
    """
    price_tokens = {*tokens, step.portfolio.numeraire.address}
    return price_fault(step, reference_prices(step), price_tokens)


def exit_tokens(step: StepInput, drifts: Sequence[AssetDrift]) -> tuple[str, ...]:
    """Return the tokens that triggered orders sell from the wallet, the next one first, without
    blocked exits and those with contradictory prices.
    """
    fired_orders = _fired_exits(step.history)
    min_value = dust_value(step.limits, drifts)
    leaving_drifts = [
        drift for drift in drifts if _is_leaving(step.portfolio, step.targets, drift, fired_orders)
    ]
    leaving_drifts = sort_exits(
        step.history,
        [drift for drift in leaving_drifts if not exit_price_fault(step, drift.token)],
    )
    return tuple(
        drift.token
        for drift in leaving_drifts
        if 0 < drift.investable_raw * drift.price >= min_value
    )


def kept_for_gas_reason(step: StepInput, token: str) -> str:
    """Return why next to nothing of a native asset can be sold: the gas of a step keeps the rest.
    Empty for other assets, and if enough can be sold.
    """
    asset = step.portfolio.asset(token)
    price = reference_prices(step).price_by_token.get(token)
    if not asset.includes_native or price is None:
        return ""
    sellable_raw = native_coin.unwrappable_raw(
        step.snapshot, step.portfolio
    ) + native_coin.wrappable_wei(step.snapshot, step.portfolio, step.limits)
    drifts = drifts_if_known(step, reference_prices(step).price_by_token)
    if sellable_raw * price >= dust_value(step.limits, drifts):
        return ""
    gas_price_wei = native_coin.worst_gas_price_wei(step.snapshot, step.limits)
    return (
        "what is left of it is kept for gas, which may cost"
        f" {decimal_text(gas_price_wei, 9)} gwei now"
    )


def sort_exits(history: History, leaving_drifts: Sequence[AssetDrift]) -> list[AssetDrift]:
    """Sort assets that are sold completely, each in its own transaction. Exits with the fewest
    failures of their own go first (refusals at submission plus reverts), then in the portfolio's
    order, so that no token can delay another's exit.
    """
    refusal_count_by_token = {
        refusal.token: refusal.refusal_count for refusal in history.failures.submission_refusals
    }

    def failure_count(drift: AssetDrift) -> int:
        revert_count = failures.exit_failures(history, drift.token).revert_count
        return refusal_count_by_token.get(drift.token, 0) + revert_count

    return sorted(leaving_drifts, key=failure_count)


def _later_exits_text(portfolio: Portfolio, tokens: Sequence[str]) -> str:
    """Return the note on the exits after the first; empty if there are none."""
    if len(tokens) == 1:
        return ""
    first_label, *other_labels = (order_subject(portfolio, token) for token in tokens)
    return f"; {first_label} is sold first, then {', '.join(other_labels)}, each in its own transaction"


def _fired_exits(history: History) -> list[ConditionalOrder]:
    return [
        order
        for order in history.orders.states
        if order.is_exit and order.stage is OrderStage.FIRED
    ]


def _fired_exits_of(history: History, sold_tokens: Collection[str]) -> list[ConditionalOrder]:
    return [order for order in _fired_exits(history) if order.token in sold_tokens]


def exit_goal(portfolio: Portfolio, drifts: Sequence[AssetDrift], token: str) -> Goal:
    """Return the goal without this token, except in liquidity; others keep their shares, the
    numeraire takes the rest.
    """
    shares = {drift.token: drift.share for drift in drifts}
    shares[token] = next(
        drift.locked_raw * drift.price for drift in drifts if drift.token == token
    ) / investable_total(drifts)
    numeraire_share = 1 - sum(
        (
            share
            for other_token, share in shares.items()
            if other_token != portfolio.numeraire.address
        ),
        Fraction(0),
    )
    share_ranges = {
        other_token: (share / MAX_SHARE_FACTOR, min(Fraction(1), share * MAX_SHARE_FACTOR))
        for other_token, share in shares.items()
    }
    share_ranges |= {
        token: (shares[token], shares[token]),
        portfolio.numeraire.address: (numeraire_share, numeraire_share),
    }
    return Goal(
        tuple(
            GoalWeight(other_token, low_share, high_share)
            for other_token, (low_share, high_share) in share_ranges.items()
        )
    )


def _is_leaving(
    portfolio: Portfolio,
    targets: EffectiveTargets,
    drift: AssetDrift,
    fired_orders: Sequence[ConditionalOrder],
) -> bool:
    """True if a triggered order sells the asset. A quarantined token is not sold until it is
    released.
    """
    numeraire = portfolio.numeraire.address
    if drift.token == numeraire or drift.token in {
        screened_token.token for screened_token in targets.quarantined_tokens
    }:
        return False
    return any(order.token in (drift.token, PORTFOLIO_SUBJECT) for order in fired_orders)


def _kept_target_bps(asset: Asset, drifts: Sequence[AssetDrift]) -> int:
    """Return the target that an asset keeps: at most its current share, rounded down, so that none
    is bought.
    """
    share = next(
        (drift.share for drift in drifts if drift.token == asset.token.address), Fraction(0)
    )
    return min(asset.target_bps, share * BPS // 1)


def _redistributed_targets(
    portfolio: Portfolio, assets: Sequence[Asset], fixed_bps: Mapping[str, int]
) -> dict[str, int]:
    """Return targets in bps by token: `fixed_bps` as given, and the remainder distributed as
    configured.
    """
    numeraire = portfolio.numeraire.address
    target_bps_by_token = {asset.token.address: asset.target_bps for asset in assets}
    free_bps = BPS - sum(fixed_bps.values())
    other_bps = {
        token: target_bps
        for token, target_bps in target_bps_by_token.items()
        if token not in fixed_bps
    }
    if portfolio.orders.reallocation is WeightReallocation.CASH or sum(other_bps.values()) == 0:
        other_assets_bps = sum(
            target_bps for token, target_bps in other_bps.items() if token != numeraire
        )
        return {**target_bps_by_token, **fixed_bps, numeraire: free_bps - other_assets_bps}
    redistributed_bps = dict(
        zip(
            other_bps,
            largest_remainder(
                [Fraction(target_bps) for target_bps in other_bps.values()], free_bps
            ),
            strict=True,
        )
    )
    max_bps_by_token = {
        asset.token.address: asset.max_bps
        for asset in portfolio.assets
        if asset.max_bps is not None
    }
    capped_bps = {
        token: min(target_bps, max_bps_by_token.get(token, target_bps))
        for token, target_bps in redistributed_bps.items()
        if token != numeraire
    }
    return {
        **target_bps_by_token,
        **fixed_bps,
        **capped_bps,
        numeraire: free_bps - sum(capped_bps.values()),
    }


def _min_target_value(
    snapshot: Snapshot, portfolio: Portfolio, limits: Limits, prices: Mapping[str, Price]
) -> Value:
    """Return the minimum value of a target, in numeraire base units; below it the portfolio counts
    as too small.
    """
    if limits.min_trade is None:
        return Fraction(0)
    native_price = prices.get(portfolio.wrapped_native)
    if native_price is None:
        return limits.min_trade
    gas_value = minimum.leg_gas_value(snapshot, native_price) * minimum.GAS_MULTIPLE
    return max(limits.min_trade, gas_value)


def price_of_subject(
    orders: OrderStates, references: ReferencePrices, subject: str
) -> Price | None:
    """Return the reference price of a token, the NAV per share of the portfolio; None if unknown."""
    nav_record = orders.nav_per_share
    if subject != PORTFOLIO_SUBJECT:
        return _reference_price(references, subject)
    if nav_record is None or not is_nav_known(nav_record, references.price_by_token):
        return None
    return nav_per_share_at(nav_record, references.price_by_token)


def _reference_price(references: ReferencePrices, token: str) -> Price | None:
    if token in references.reference_by_token:
        return references.reference_by_token[token].price
    return None


def _fired_text(portfolio: Portfolio, fired_orders: Iterable[ConditionalOrder]) -> str:
    """Return what fired, what it sells, and how it is armed again."""
    texts = []
    for order in fired_orders:
        sold_text = "everything" if order.token == PORTFOLIO_SUBJECT else "all of it"
        texts.append(
            f"{_fired_title(portfolio, order)}: {sold_text} is sold for {portfolio.numeraire.label} and"
            f" stays out of the market until trimtab orders arm {_order_argument(portfolio, order)}"
        )
    return "; ".join(texts)


def _fired_title(portfolio: Portfolio, order: ConditionalOrder) -> str:
    fired_price_text = format_order_price(portfolio, order.token, order.event_price)
    trigger_price_text = format_order_price(portfolio, order.token, trigger_price(order))
    return (
        f"{order_name(portfolio, order)} at {trigger_price_text} fired at {fired_price_text}"
        f" ({format_time(order.since_s)})"
    )


def _order_argument(portfolio: Portfolio, order: ConditionalOrder) -> str:
    """Return the argument of `trimtab orders arm` and `set` for an order."""
    if order.token == PORTFOLIO_SUBJECT:
        return "portfolio"
    return order_subject(portfolio, order.token)


def _exited_text(step: StepInput, token: str) -> str:
    portfolio = step.portfolio
    order = fired_exit_order(step.history.orders.states, token)
    if order is None:
        return ""
    subject = order_subject(portfolio, token)
    name = order_name(portfolio, order)
    if order.stage is not OrderStage.FIRED:
        exited_text = f"{subject} has been out since {format_time(order.since_s)}: {name} is done"
    elif order.since_s == step.snapshot.head.timestamp_s:
        exited_text = f"{subject} is to be sold: {name} is reached at this block"
    else:
        exited_text = f"{subject} is to be sold: {name} fired at {format_time(order.since_s)}"
    return f"{exited_text}; trimtab orders arm {_order_argument(portfolio, order)} readmits it"


def _waiting_text(portfolio: Portfolio, orders: OrderStates, token: str) -> str:
    entry = orders_by_key(orders.states)[token, OrderKind.ENTRY]
    return (
        f"{order_subject(portfolio, token)} is bought only at or below its entry of "
        f"{format_order_price(portfolio, token, trigger_price(entry))}"
    )


def unconfirmed_notes(
    step: StepInput, *, exits_only: bool = False, subjects: Collection[str] | None = None
) -> list[str]:
    """Return notes on orders that would change at current prices without confirmation;
    `exits_only` restricts them to exits that would fire, `subjects` to those of some tokens or of
    the portfolio.
    """
    portfolio = step.portfolio
    order_by_key = orders_by_key(step.history.orders.states)
    changing_orders = [
        order
        for order in unconfirmed_orders(step)
        if order.key in order_by_key
        and order.stage is not order_by_key[order.key].stage
        and (not exits_only or (order.is_exit and order.stage is OrderStage.FIRED))
        and (subjects is None or order.token in subjects)
    ]
    block_count = step.policy.confirm_blocks
    return [
        f"{order_name(portfolio, order)} would be {order.stage.value}, but the preceding"
        f" {block_count} blocks do not confirm it"
        for order in changing_orders
    ]


def _order_notes(step: StepInput) -> list[str]:
    """Return notes on unconfirmed orders, and on entries that delayed no purchase."""
    portfolio = step.portfolio
    notes = unconfirmed_notes(step)
    for order in step.history.orders.states:
        if order.stage is OrderStage.FIRED and was_filled_when_armed(order):
            entry_price = format_order_price(portfolio, order.token, trigger_price(order))
            why = "was not below the price when it was armed: it delayed no purchase"
            if order.since_s == step.snapshot.head.timestamp_s:  # perhaps not stored yet
                why = "is not below the price: it delays no purchase"
            notes.append(f"{order_name(portfolio, order)} at {entry_price} {why}")
    return notes
