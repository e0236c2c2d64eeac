"""Strategy adjustments at this block, their internal netting, and one goal for the market."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.layers.questions import raw_outside_wallet
from agent.layers.strategies.policy import capital
from agent.layers.strategies.policy.capital import (
    NettedToken,
    Prices,
    StrategyHoldings,
    StrategyValues,
    current_weights,
    target_capital_shares,
)
from agent.layers.strategies.policy.faults import strategies_fault
from agent.layers.strategies.policy.rule import shares_at_edges
from agent.layers.strategies.state import (
    CapitalSplit,
    StrategiesState,
    Strategy,
    StrategyBook,
    StrategyHealth,
    StrategyState,
)
from agent.model import (
    AssetDrift,
    Destination,
    Goal,
    GoalWeight,
    History,
    NoTradeZone,
    Policy,
    Portfolio,
    PurchaseKind,
    StepInput,
    Threshold,
)
from agent.policy.drift import band, drifts_from_balances, investable_total, rebalance_goal
from agent.policy.minimum import lowest_fee_pips
from agent.policy.one_sided import restrict_to_side
from agent.policy.orders import blocked_exits
from agent.policy.orders import conditional as conditional_orders
from agent.policy.triggers import bands, price_confirmation
from agent.policy.triggers.bands import PriceSignal, TriggerResult
from agent.policy.triggers.exchange_costs import PricedMarket
from agent.policy.triggers.no_trade_zone import ZoneView, evaluate_zone, zone_result
from agent.policy.triggers.rules import evaluate_trigger
from agent.policy.triggers.schedules import earliest
from agent.reference import reference_prices
from agent.units import (
    BPS,
    PIPS,
    Price,
    Value,
    format_duration,
    format_time,
    largest_remainder,
)

ZERO_BAND = Threshold(0, None)
"""Band of a strategy that is held in the numeraire."""
NO_CAPITAL = TriggerResult(False, "it has no capital", None)


@dataclass(frozen=True, slots=True)
class StrategyAdjustment:
    """A strategy's decision: its capital after transfers between strategies, its current and target
    share, whether it acts, and the reason. `target_values` is the target value of each token, or
    the current value if the strategy does not act. `due_schedules` are the names of its reviewed
    schedules in the store.
    """

    name: str
    state: StrategyState
    capital: Value
    share: Fraction
    target_share: Fraction
    drifts: tuple[AssetDrift, ...]
    acts: bool
    reason: str
    target_values: tuple[tuple[str, Value], ...]
    next_s: int | None
    is_review_due: bool
    due_schedules: tuple[str, ...]

    @property
    def values_to_trade(self) -> dict[str, Value]:
        """Value to buy (positive) or sell of each token, numeraire base units."""
        current_value_by_token = {drift.token: drift.value for drift in self.drifts}
        return {
            token: target_value - current_value_by_token[token]
            for token, target_value in self.target_values
        }


def capital_signals(
    split: CapitalSplit, state: StrategiesState, holdings: StrategyHoldings, prices: Prices
) -> frozenset[PriceSignal]:
    """Return the strategies whose capital is beyond the split's band, or above the floor of a
    paused one.
    """
    books = state.books
    if books is None:
        return frozenset()
    capital_by_name = capital.strategy_capital(holdings, prices)
    book_by_name = books.by_name
    total_capital = sum(capital_by_name.values(), Fraction(0))
    target_shares = target_capital_shares(split, books.by_name)
    signals = set()
    for name, capital_value in capital_by_name.items() if total_capital > 0 else ():
        target_bps = target_shares[name] * BPS
        share_bps = capital_value / total_capital * BPS
        low_bps, high_bps = band(split.band, round(target_bps))
        if book_by_name[name].state.health is StrategyHealth.PAUSED:
            low_bps = Fraction(0)
            high_bps = target_bps + 1
        if not low_bps <= share_bps <= high_bps:
            signals.add(
                ("too much capital" if share_bps > high_bps else "too little capital", name)
            )
    return frozenset(signals)


def strategy_weights(step: StepInput, strategy: Strategy, state: StrategyState) -> dict[str, int]:
    """Return the current target weights of a strategy, bps by token: all in the numeraire while it
    is paused. Weights excluded by orders go to the numeraire; weights of quarantined or unsellable
    tokens are shared by the other tokens in proportion.
    """
    numeraire = step.portfolio.numeraire.address
    excluded_tokens = blocked_exits.excluded_tokens(step.targets, step.blocked_exits)
    bps_by_token = current_weights(strategy, state, numeraire)
    order_excluded_tokens = tokens_excluded_by_orders(step)
    bps_by_token = {
        asset.token.address: bps_by_token.get(asset.token.address, 0)
        for asset in step.portfolio.assets
    }
    bps_by_token |= dict.fromkeys(bps_by_token.keys() & order_excluded_tokens, 0)
    bps_by_token[numeraire] += BPS - sum(bps_by_token.values())
    tradable_bps_by_token = bps_by_token | dict.fromkeys(bps_by_token.keys() & excluded_tokens, 0)
    if sum(tradable_bps_by_token.values()) <= 0:
        return dict.fromkeys(bps_by_token, 0)
    rounded_bps = largest_remainder([Fraction(bps) for bps in tradable_bps_by_token.values()])
    return dict(zip(bps_by_token, rounded_bps, strict=True))


def tokens_excluded_by_orders(step: StepInput) -> set[str]:
    """Return the assets that have a weight in a strategy, but a target of zero because of an
    order.
    """
    strategies = step.config(CapitalSplit).strategies
    if not strategies:
        return set()
    numeraire = step.portfolio.numeraire.address
    excluded_tokens = blocked_exits.excluded_tokens(step.targets, step.blocked_exits)
    strategy_tokens = {
        token
        for strategy in strategies
        for token, bps in strategy.weights_bps
        if bps * strategy.share_bps >= BPS
    }
    return {
        asset.token.address
        for asset in step.effective_assets
        if asset.target_bps == 0
        and asset.token.address in strategy_tokens - excluded_tokens
        and asset.token.address != numeraire
    }


def strategy_adjustment(
    step: StepInput,
    strategy: Strategy,
    book: StrategyBook,
    holdings: StrategyHoldings,
    share: Fraction,
    target_share: Fraction,
    prices: Prices,
) -> StrategyAdjustment:
    """Return the strategy's adjustment; `holdings` are the accounts of all strategies after capital
    transfers.
    """
    drifts, zone = strategy_drifts(step, strategy, book.state, holdings[strategy.name], prices)
    trigger_result = _trigger_result(step, strategy, book, drifts, zone)
    is_first_purchase = _is_first_purchase(step.history, book)
    is_paused = book.state.health is StrategyHealth.PAUSED
    if is_first_purchase and not is_paused and investable_total(drifts) > 0:
        strategy = replace(strategy, destination=Destination.TARGET)
        trigger_result = replace(
            trigger_result, fired=True, reason="its first purchase continues", next_s=None
        )
    elif trigger_result.fired and not is_paused:
        trigger_result = _confirmed_or_wait(step, strategy, book, holdings, prices, trigger_result)
    total_value = investable_total(drifts)
    token_values = [drift.value for drift in drifts]
    if trigger_result.fired and total_value > 0:
        token_values = [
            asset_share * total_value
            for asset_share in (
                _target_shares(
                    step.portfolio,
                    step.policy,
                    strategy,
                    drifts,
                    is_paused,
                )
                if zone is None or is_first_purchase or book.last_rebalance_s is None
                else shares_at_edges(zone, drifts, step.policy.trade_side)
            )
        ]
    target_values = tuple(
        (drift.token, token_value) for drift, token_value in zip(drifts, token_values, strict=True)
    )
    schedule_names = tuple(f"{strategy.name}: {name}" for name in trigger_result.due_schedules)
    return StrategyAdjustment(
        strategy.name,
        book.state,
        total_value,
        share,
        target_share,
        drifts,
        trigger_result.fired,
        trigger_result.reason,
        target_values,
        trigger_result.next_s,
        trigger_result.is_review_due,
        schedule_names,
    )


def _confirmed_or_wait(
    step: StepInput,
    strategy: Strategy,
    book: StrategyBook,
    holdings: StrategyHoldings,
    prices: Prices,
    trigger_result: TriggerResult,
) -> TriggerResult:
    """Return the result of a fired trigger, or a wait within the cooldown or for the preceding
    blocks, of which the review stays due.
    """
    cooldown_end_s = None
    if book.last_rebalance_s is not None:
        cooldown_end_s = book.last_rebalance_s + strategy.cooldown_s
    if cooldown_end_s is not None and step.snapshot.head.timestamp_s < cooldown_end_s:
        reason = (
            f"{trigger_result.reason}; but it rebalances not before {format_time(cooldown_end_s)}"
            f" (cooldown {format_duration(strategy.cooldown_s)})"
        )
        return TriggerResult(False, reason, cooldown_end_s)
    if trigger_result.needs_no_confirmation:
        return trigger_result
    wait_reason = price_confirmation.unconfirmed_reason(
        step,
        prices,
        lambda past_step, past_prices: _price_signals(
            past_step, strategy, book, holdings, past_prices
        ),
    )
    if wait_reason:
        return TriggerResult(False, f"{trigger_result.reason}; but {wait_reason}", None)
    return trigger_result


def _is_first_purchase(history: History, book: StrategyBook) -> bool:
    """True during the strategy's first purchase in parts, which needs no trigger and has no
    cooldown.
    """
    purchase = history.cash_flows.purchase
    last_rebalance_s = book.last_rebalance_s
    if (
        purchase is None
        or purchase.terms.kind is not PurchaseKind.FIRST
        or last_rebalance_s is None
    ):
        return False
    return last_rebalance_s >= purchase.terms.began_s


def strategy_drifts(
    step: StepInput,
    strategy: Strategy,
    state: StrategyState,
    holdings: Mapping[str, int],
    prices: Prices,
) -> tuple[tuple[AssetDrift, ...], ZoneView | None]:
    """Return the drift of each asset of one strategy from its weights, by the band of its own
    trigger, and the view of its tracking rule; None without one or without capital.
    """
    bps_by_token = strategy_weights(step, strategy, state)
    excluded_tokens = blocked_exits.excluded_tokens(step.targets, step.blocked_exits)
    bps_by_token = _capped_at_holdings(step, bps_by_token, holdings, prices)
    assets = []
    for asset in step.portfolio.assets:
        token = asset.token.address
        reserve_raw = asset.reserve_raw if token in excluded_tokens else 0
        assets.append(
            replace(asset, target_bps=bps_by_token[token], max_bps=None, reserve_raw=reserve_raw)
        )
    balance_by_token = {
        asset.token.address: holdings.get(asset.token.address, 0) for asset in assets
    }
    trigger = ZERO_BAND if state.health is StrategyHealth.PAUSED else strategy.trigger
    drifts = drifts_from_balances(assets, balance_by_token, prices, trigger)
    if not isinstance(trigger, NoTradeZone) or investable_total(drifts) == 0:
        return drifts, None
    zone, drifts = evaluate_zone(PricedMarket.of_step(step, prices), trigger.risk, drifts)
    return drifts, zone


def _capped_at_holdings(
    step: StepInput, bps_by_token: dict[str, int], holdings: Mapping[str, int], prices: Prices
) -> dict[str, int]:
    """Return the weights with assets awaiting their entry capped at their holdings; the rest goes
    to the numeraire.
    """
    numeraire = step.portfolio.numeraire.address
    excluded_tokens = blocked_exits.excluded_tokens(step.targets, step.blocked_exits)
    pending_tokens = [
        token
        for token, bps in bps_by_token.items()
        if bps
        and token not in excluded_tokens
        and conditional_orders.is_entry_pending(step.history, token)
    ]
    if not pending_tokens or any(token not in prices for token in bps_by_token):
        return bps_by_token
    value_by_token = {
        token: holdings.get(token, 0) * prices[token]
        for token in bps_by_token
        if token not in excluded_tokens
    }
    total_value = sum(value_by_token.values(), Fraction(0))
    capped_bps_by_token = dict.fromkeys(pending_tokens, 0)
    if total_value:
        capped_bps_by_token = {
            token: min(bps_by_token[token], int(value_by_token[token] * BPS // total_value))
            for token in pending_tokens
        }
    freed_bps = sum(bps_by_token[token] - bps for token, bps in capped_bps_by_token.items())
    return {**bps_by_token, **capped_bps_by_token, numeraire: bps_by_token[numeraire] + freed_bps}


def _trigger_result(
    step: StepInput,
    strategy: Strategy,
    book: StrategyBook,
    drifts: tuple[AssetDrift, ...],
    zone: ZoneView | None,
) -> TriggerResult:
    if investable_total(drifts) == 0:
        return NO_CAPITAL
    if book.state.health is StrategyHealth.PAUSED:
        must_sell = any(drift.value > 0 and drift.target_bps == 0 for drift in drifts)
        return TriggerResult(must_sell, f"paused: held in {step.portfolio.numeraire.label}", None)
    if isinstance(strategy.trigger, NoTradeZone):
        return NO_CAPITAL if zone is None else zone_result(zone, drifts)
    name_prefix = f"{strategy.name}: "
    review_times = tuple(
        (name.removeprefix(name_prefix), at_s)
        for name, at_s in step.history.reviews.by_schedule
        if name.startswith(name_prefix)
    )
    history = replace(
        step.history,
        reviews=replace(
            step.history.reviews,
            last_rebalance_s=book.last_rebalance_s,
            last_review_s=None,
            by_schedule=review_times,
        ),
    )
    return evaluate_trigger(
        strategy.trigger,
        drifts,
        step.snapshot.head.timestamp_s,
        history,
        step.policy.jitter_bps,
        step.portfolio.numeraire.address,
    )


def _price_signals(
    step: StepInput,
    strategy: Strategy,
    book: StrategyBook,
    holdings: StrategyHoldings,
    prices: Prices,
) -> frozenset[PriceSignal]:
    drifts, zone = strategy_drifts(step, strategy, book.state, holdings[strategy.name], prices)
    trigger_result = _trigger_result(step, strategy, book, drifts, zone)
    return bands.signals_of_side(trigger_result.signals, step.policy.trade_side)


def _target_shares(
    portfolio: Portfolio,
    policy: Policy,
    strategy: Strategy,
    drifts: tuple[AssetDrift, ...],
    is_paused: bool,
) -> list[Fraction]:
    """Return the nearest shares within the goal that sum to one; a gap is filled in proportion to
    the room within the goal's ranges. A paused strategy is sold like an exit, whatever policy.only
    says.
    """
    if is_paused:
        return [Fraction(drift.target_bps, BPS) for drift in drifts]
    goal = restrict_to_side(
        drifts,
        rebalance_goal(drifts, strategy.destination),
        policy.trade_side,
        portfolio.numeraire.address,
    )
    clamped_shares = [
        min(max(drift.share, goal_weight.low), goal_weight.high)
        for drift, goal_weight in zip(drifts, goal.weights, strict=True)
    ]
    share_gap = 1 - sum(clamped_shares, Fraction(0))
    if share_gap == 0:
        return clamped_shares
    bound_shares = [
        asset_goal.high if share_gap > 0 else asset_goal.low for asset_goal in goal.weights
    ]
    distances = [
        bound_share - share for share, bound_share in zip(clamped_shares, bound_shares, strict=True)
    ]
    total_distance = sum(distances, Fraction(0))
    if total_distance * share_gap <= 0:
        return [drift.share for drift in drifts]
    return [
        share + distance * min(Fraction(1), share_gap / total_distance)
        for share, distance in zip(clamped_shares, distances, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class NettingResult:
    """The decisions of all strategies at one block, netted.

    `transfers` is the capital transferred between strategies in kind: (payer, receiver, value).
    `netted_tokens` has, by token, the value netted internally and the value left for the market;
    `goal` has the combined target shares of the whole portfolio, including the margin, which no
    strategy owns. `saved_fees` are the fees that the netted value would have paid in the cheapest
    pool of each token. `holdings` are the books after the transfers.
    """

    adjustments: tuple[StrategyAdjustment, ...]
    transfers: tuple[tuple[str, str, Value], ...]
    netted_tokens: tuple[NettedToken, ...]
    goal: Goal
    trigger_result: TriggerResult
    saved_fees: Value
    holdings: StrategyHoldings

    @property
    def crossed_value(self) -> Value:
        """Value netted internally, each exchange counted once."""
        return (
            sum((netted_token.crossed_value for netted_token in self.netted_tokens), Fraction(0))
            / 2
        )


def net_strategies(step: StepInput, prices: Mapping[str, Price]) -> NettingResult:
    """Return every strategy's adjustment and the netted result. Requires an empty
    `strategies_fault`. Raises Refused for unknown balances.
    """
    split = step.config(CapitalSplit)
    books = step.layer(StrategiesState).books
    if books is None:
        raise ValueError("there are no strategies")
    holdings: StrategyHoldings = {book.name: dict(book.holdings) for book in books.strategy_books}
    capital_before = capital.strategy_capital(holdings, prices)
    transfers, capital_note = _transfer_capital(step, split, holdings, prices)
    total_capital = sum(capital_before.values(), Fraction(0))
    target_shares = target_capital_shares(split, books.by_name)
    books_by_name = books.by_name
    adjustments = tuple(
        strategy_adjustment(
            step,
            strategy,
            books_by_name[strategy.name],
            holdings,
            capital_before[strategy.name] / total_capital if total_capital else Fraction(0),
            target_shares[strategy.name],
            prices,
        )
        for strategy in split.strategies
    )
    tokens = [asset.token.address for asset in step.portfolio.assets]
    netted_tokens = capital.net_adjustments(
        {adjustment.name: adjustment.values_to_trade for adjustment in adjustments}, tokens
    )
    values_outside_wallet = {
        token: raw * prices[token] for token, raw in raw_outside_wallet(step, prices).items()
    }
    total_value = sum(
        (adjustment.capital for adjustment in adjustments),
        sum(values_outside_wallet.values(), Fraction(0)),
    )
    goal_shares = [Fraction(0)] * len(tokens)
    if total_value:
        target_values = [
            sum(
                (dict(adjustment.target_values)[token] for adjustment in adjustments),
                values_outside_wallet.get(token, Fraction(0)),
            )
            for token in tokens
        ]
        goal_shares = [target_value / total_value for target_value in target_values]
    goal = Goal(
        tuple(
            GoalWeight(token, goal_share, goal_share)
            for token, goal_share in zip(tokens, goal_shares, strict=True)
        )
    )
    saved_fees = (
        sum(
            (
                netted_token.crossed_value
                * (lowest_fee_pips(step.snapshot.pools, netted_token.token) or 0)
                for netted_token in netted_tokens
            ),
            Fraction(0),
        )
        / PIPS
        / 2
    )
    return NettingResult(
        adjustments,
        transfers,
        netted_tokens,
        goal,
        _strategies_result(
            step.portfolio, adjustments, transfers, capital_note, netted_tokens, saved_fees
        ),
        saved_fees,
        holdings,
    )


def combined_goal(step: StepInput, prices: Mapping[str, Price]) -> Goal | None:
    """Return the combined goal of all strategies; None without strategies."""
    if not step.config(CapitalSplit).strategies:
        return None
    return net_strategies(step, prices).goal


def strategy_adjustments(step: StepInput) -> tuple[StrategyValues, StrategyHoldings]:
    """Return each strategy's adjustments at a step, and the books after capital moved; empty if
    they are unknown.
    """
    if step.layer(StrategiesState).books is None or strategies_fault(step):
        return {}, {}
    netting_result = net_strategies(step, reference_prices(step).price_by_token)
    return {
        adjustment.name: adjustment.values_to_trade for adjustment in netting_result.adjustments
    }, netting_result.holdings


def _transfer_capital(
    step: StepInput, split: CapitalSplit, holdings: StrategyHoldings, prices: Mapping[str, Price]
) -> tuple[tuple[tuple[str, str, Value], ...], str]:
    """Restore the split in place if a share of the capital is beyond its band now and at the
    preceding blocks; return the transfers and the note.
    """
    books = step.layer(StrategiesState).books
    signals = capital_signals(
        step.config(CapitalSplit), step.layer(StrategiesState), holdings, prices
    )
    if not signals or books is None:
        return (), ""
    wait_reason = price_confirmation.unconfirmed_reason(
        step,
        prices,
        lambda past_step, past_prices: capital_signals(
            past_step.config(CapitalSplit), past_step.layer(StrategiesState), holdings, past_prices
        ),
    )
    note = "; ".join(f"{name} has {deviation}" for deviation, name in sorted(signals))
    if wait_reason:
        return (), f"{note}, but {wait_reason}"
    target_shares = target_capital_shares(split, books.by_name)
    total_capital = sum(capital.strategy_capital(holdings, prices).values(), Fraction(0))
    payments = capital.restore_capital_shares(
        holdings, {name: share * total_capital for name, share in target_shares.items()}, prices
    )
    return (
        tuple(
            (giver, receiver, paid_value)
            for (giver, receiver), paid_value in payments.items()
            if paid_value > 0
        ),
        note,
    )


def _strategies_result(
    portfolio: Portfolio,
    adjustments: tuple[StrategyAdjustment, ...],
    transfers: tuple[tuple[str, str, Value], ...],
    capital_note: str,
    netted_tokens: tuple[NettedToken, ...],
    saved_fees: Value,
) -> TriggerResult:
    """Return the combined result: it fires if a strategy acts, or if capital moves between
    strategies.
    """
    acting_strategies = [adjustment for adjustment in adjustments if adjustment.acts]
    notes = [f"{adjustment.name} acts ({adjustment.reason})" for adjustment in acting_strategies]
    if transfers:
        notes.append(
            f"{capital_note}: the split is restored internally ({_transfers_text(portfolio, transfers)})"
        )
    elif capital_note:
        notes.append(capital_note)
    if not acting_strategies:
        notes += [
            f"no strategy acts: {'; '.join(f'{adjustment.name}: {adjustment.reason}' for adjustment in adjustments)}"
        ]
    if any(netted_token.crossed_value for netted_token in netted_tokens):
        notes.append(
            f"{format_netting(portfolio, netted_tokens)} and saves at least {portfolio.numeraire.money_text(saved_fees)} of pool fees"
        )
    next_evaluations_s = [adjustment.next_s for adjustment in adjustments]
    due_adjustments = [adjustment for adjustment in adjustments if adjustment.is_review_due]
    return TriggerResult(
        bool(acting_strategies or transfers),
        "; ".join(notes),
        None if None in next_evaluations_s else earliest(*next_evaluations_s),
        bool(due_adjustments),
        tuple(name for adjustment in due_adjustments for name in adjustment.due_schedules),
    )


def format_netting(portfolio: Portfolio, netted_tokens: tuple[NettedToken, ...]) -> str:
    """Format the internally netted value by token."""
    netted_texts = [
        f"{portfolio.numeraire.money_text(netted_token.crossed_value)} of {portfolio.token(netted_token.token).label}"
        for netted_token in netted_tokens
        if netted_token.crossed_value
    ]
    return f"{', '.join(netted_texts)} is exchanged between strategies, never in the market,"


def _transfers_text(portfolio: Portfolio, transfers: tuple[tuple[str, str, Value], ...]) -> str:
    return ", ".join(
        f"{giver} gives {receiver} {portfolio.numeraire.money_text(transferred_value)}"
        for giver, receiver, transferred_value in transfers
    )
