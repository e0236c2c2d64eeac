"""Strategy adjustments at this block, their internal netting, and one goal for the market."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.errors import ConfigError
from agent.layers.questions import outside_raw
from agent.layers.strategies.policy import capital
from agent.layers.strategies.policy.capital import (
    NettedToken,
    Prices,
    StrategyHoldings,
    StrategyValues,
    target_capital_shares,
)
from agent.layers.strategies.policy.faults import strategies_fault
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
    Snapshot,
    StepInput,
    Threshold,
)
from agent.policy.drift import band, drifts_from_balances, investable_total, rebalance_goal
from agent.policy.one_sided import restrict_to_side
from agent.policy.orders import blocked_exits
from agent.policy.orders import conditional as conditional_orders
from agent.policy.triggers import price_confirmation
from agent.policy.triggers.bands import Signal, TriggerResult
from agent.policy.triggers.rules import evaluate_trigger
from agent.policy.triggers.schedules import earliest
from agent.reference import reference_prices
from agent.units import BPS, PIPS, Price, Value, format_time, largest_remainder, value_text

ZERO_BAND = Threshold(0, None)
"""Band of a strategy that is held in the numeraire."""


@dataclass(frozen=True, slots=True)
class StrategyAdjustment:
    """A strategy's decision: its capital after transfers between strategies, its current and target
    share, whether it acts, and the reason. `wanted` is the target value of each token, or the
    current value if the strategy does not act. `by` are the names of its reviewed schedules in the
    store.
    """

    name: str
    state: StrategyState
    capital: Value
    share: Fraction
    due_share: Fraction
    drifts: tuple[AssetDrift, ...]
    acts: bool
    reason: str
    wanted: tuple[tuple[str, Value], ...]
    next_s: int | None
    due: bool
    by: tuple[str, ...]

    @property
    def adjustments(self) -> dict[str, Value]:
        """Value to buy (positive) or sell of each token, numeraire base units."""
        held = {drift.token: drift.value for drift in self.drifts}
        return {token: value - held[token] for token, value in self.wanted}


def capital_signals(
    split: CapitalSplit, state: StrategiesState, held: StrategyHoldings, prices: Prices
) -> frozenset[Signal]:
    """Return the strategies whose capital is beyond the split's band, or above the floor of a
    paused one.
    """
    books = state.books
    if books is None:
        return frozenset()
    values, by_name = capital.strategy_capital(held, prices), books.named
    whole, due = sum(values.values(), Fraction(0)), target_capital_shares(split, books.named)
    beyond = set()
    for name, value in values.items() if whole > 0 else ():
        target_bps, share_bps = due[name] * BPS, value / whole * BPS
        low, high = band(split.band, round(target_bps))
        if by_name[name].state.health is StrategyHealth.PAUSED:
            low, high = Fraction(0), target_bps + 1
        if not low <= share_bps <= high:
            beyond.add(("too much capital" if share_bps > high else "too little capital", name))
    return frozenset(beyond)


def strategy_weights(step: StepInput, strategy: Strategy, state: StrategyState) -> dict[str, int]:
    """Return the current target weights of a strategy, bps by token: all in the numeraire while it
    is paused. Weights excluded by orders go to the numeraire; weights of quarantined or unsellable
    tokens are shared by the other tokens in proportion.
    """
    numeraire, shut = (
        step.portfolio.numeraire.address,
        blocked_exits.excluded_tokens(step.targets, step.blocked_exits),
    )
    if state.health is StrategyHealth.PAUSED:
        weights = {numeraire: BPS}
    else:
        weights = dict(strategy.weights_bps)
    out = tokens_excluded_by_orders(step)
    weights = {
        asset.token.address: weights.get(asset.token.address, 0) for asset in step.portfolio.assets
    }
    weights |= dict.fromkeys(weights.keys() & out, 0)
    weights[numeraire] += BPS - sum(weights.values())
    tradable = weights | dict.fromkeys(weights.keys() & shut, 0)
    if sum(tradable.values()) <= 0:
        return dict.fromkeys(weights, 0)
    shares = largest_remainder([Fraction(bps) for bps in tradable.values()])
    return dict(zip(weights, shares, strict=True))


def tokens_excluded_by_orders(step: StepInput) -> set[str]:
    """Return the assets that have a weight in a strategy, but a target of zero because of an
    order.
    """
    strategies = step.config(CapitalSplit).strategies
    if not strategies:
        return set()
    numeraire, shut = (
        step.portfolio.numeraire.address,
        blocked_exits.excluded_tokens(step.targets, step.blocked_exits),
    )
    targeted = {
        token
        for strategy in strategies
        for token, bps in strategy.weights_bps
        if bps * strategy.share_bps >= BPS
    }
    return {
        asset.token.address
        for asset in step.effective_assets
        if asset.target_bps == 0
        and asset.token.address in targeted - shut
        and asset.token.address != numeraire
    }


def strategy_adjustment(
    step: StepInput,
    strategy: Strategy,
    book: StrategyBook,
    held: StrategyHoldings,
    share: Fraction,
    due: Fraction,
    prices: Prices,
) -> StrategyAdjustment:
    """Return the strategy's adjustment; `held` are the accounts of all strategies after capital
    transfers.
    """
    drifts = strategy_drifts(step, strategy, book.state, held[strategy.name], prices)
    answer, buying = _answer(step, strategy, book, drifts), _buying(step.history, book)
    acts, reason, next_s = answer.fired, answer.reason, answer.next_s
    if buying and book.state.health is not StrategyHealth.PAUSED and investable_total(drifts) > 0:
        strategy = replace(strategy, destination=Destination.TARGET)
        acts = True
        reason = "its first purchase continues"
        next_s = None
    elif acts and book.state.health is not StrategyHealth.PAUSED:
        if book.last_rebalance_s is None:
            rested_s = None
        else:
            rested_s = book.last_rebalance_s + strategy.cooldown_s
        if rested_s is not None and step.snapshot.head.timestamp_s < rested_s:
            acts = False
            reason = f"{reason}; but its cooldown lasts until {format_time(rested_s)}"
            next_s = rested_s
        elif not answer.by_time and (
            not_yet := price_confirmation.unconfirmed_reason(
                step, prices, lambda then, at: _signals(then, strategy, book, held, at)
            )
        ):
            acts, reason = False, f"{reason}; but {not_yet}"
    whole = investable_total(drifts)
    values = [drift.value for drift in drifts]
    if acts and whole > 0:
        values = [
            part * whole
            for part in _shares(
                step.portfolio,
                step.policy,
                strategy,
                drifts,
                book.state.health is StrategyHealth.PAUSED,
            )
        ]
    wanted_values = tuple((drift.token, value) for drift, value in zip(drifts, values, strict=True))
    names = tuple(f"{strategy.name}: {name}" for name in answer.reviews)
    return StrategyAdjustment(
        strategy.name,
        book.state,
        whole,
        share,
        due,
        drifts,
        acts,
        reason,
        wanted_values,
        next_s,
        answer.due,
        names,
    )


def _buying(history: History, book: StrategyBook) -> bool:
    """True during the strategy's first purchase in parts, which needs no trigger and has no
    cooldown.
    """
    active, last_s = history.cash_flows.purchase, book.last_rebalance_s
    if active is None or active.terms.kind is not PurchaseKind.FIRST or last_s is None:
        return False
    return last_s >= active.terms.began_s


def strategy_drifts(
    step: StepInput,
    strategy: Strategy,
    state: StrategyState,
    held: Mapping[str, int],
    prices: Prices,
) -> tuple[AssetDrift, ...]:
    """Return the drift of each asset of one strategy from its weights, by the band of its own
    trigger.
    """
    weights, shut = (
        strategy_weights(step, strategy, state),
        blocked_exits.excluded_tokens(step.targets, step.blocked_exits),
    )
    weights = _no_more_than_held(step, weights, held, prices)
    assets = []
    for asset in step.portfolio.assets:
        token = asset.token.address
        reserve_raw = asset.reserve_raw if token in shut else 0
        assets.append(
            replace(asset, target_bps=weights[token], max_bps=None, reserve_raw=reserve_raw)
        )
    balances = {asset.token.address: held.get(asset.token.address, 0) for asset in assets}
    trigger = ZERO_BAND if state.health is StrategyHealth.PAUSED else strategy.trigger
    return drifts_from_balances(assets, balances, prices, trigger)


def _no_more_than_held(
    step: StepInput, weights: dict[str, int], held: Mapping[str, int], prices: Prices
) -> dict[str, int]:
    """Return the weights with assets awaiting their entry capped at their holdings; the rest goes
    to the numeraire.
    """
    numeraire, shut = (
        step.portfolio.numeraire.address,
        blocked_exits.excluded_tokens(step.targets, step.blocked_exits),
    )
    waiting = [
        token
        for token, bps in weights.items()
        if bps and token not in shut and conditional_orders.is_entry_pending(step.history, token)
    ]
    if not waiting or any(token not in prices for token in weights):
        return weights
    values = {token: held.get(token, 0) * prices[token] for token in weights if token not in shut}
    whole = sum(values.values(), Fraction(0))
    most = dict.fromkeys(waiting, 0)
    if whole:
        most = {token: min(weights[token], int(values[token] * BPS // whole)) for token in waiting}
    freed = sum(weights[token] - bps for token, bps in most.items())
    return {**weights, **most, numeraire: weights[numeraire] + freed}


def _answer(
    step: StepInput, strategy: Strategy, book: StrategyBook, drifts: tuple[AssetDrift, ...]
) -> TriggerResult:
    if investable_total(drifts) == 0:
        return TriggerResult(False, "it has no capital", None)
    if book.state.health is StrategyHealth.PAUSED:
        away = any(drift.value > 0 and drift.target_bps == 0 for drift in drifts)
        return TriggerResult(away, f"paused: held in {step.portfolio.numeraire.label}", None)
    if isinstance(strategy.trigger, NoTradeZone):
        raise ConfigError(
            f"strategies.{strategy.name}.trigger: a zone is for a whole portfolio",
            "use another trigger",
        )
    prefix = f"{strategy.name}: "
    reviews = tuple(
        (name.removeprefix(prefix), at_s)
        for name, at_s in step.history.reviews.by_schedule
        if name.startswith(prefix)
    )
    history = replace(
        step.history,
        reviews=replace(
            step.history.reviews,
            last_rebalance_s=book.last_rebalance_s,
            last_review_s=None,
            by_schedule=reviews,
        ),
    )
    return evaluate_trigger(
        strategy.trigger, drifts, step.snapshot.head.timestamp_s, history, step.policy.jitter_bps
    )


def _signals(
    step: StepInput, strategy: Strategy, book: StrategyBook, held: StrategyHoldings, prices: Prices
) -> frozenset[Signal]:
    return frozenset(
        _answer(
            step,
            strategy,
            book,
            strategy_drifts(step, strategy, book.state, held[strategy.name], prices),
        ).signals
    )


def _shares(
    portfolio: Portfolio,
    policy: Policy,
    strategy: Strategy,
    drifts: tuple[AssetDrift, ...],
    paused: bool,
) -> list[Fraction]:
    """Return the nearest shares within the goal that sum to one; a gap is filled in proportion to
    the room within the goal's ranges.
    """
    if paused:
        return [Fraction(drift.target_bps, BPS) for drift in drifts]
    goal = restrict_to_side(
        drifts,
        rebalance_goal(drifts, strategy.destination),
        policy.only,
        portfolio.numeraire.address,
    )
    shares = [
        min(max(drift.share, goal_weight.low), goal_weight.high)
        for drift, goal_weight in zip(drifts, goal.weights, strict=True)
    ]
    gap = 1 - sum(shares, Fraction(0))
    if gap == 0:
        return shares
    edges = [weight.high if gap > 0 else weight.low for weight in goal.weights]
    rooms = [edge - share for share, edge in zip(shares, edges, strict=True)]
    whole = sum(rooms, Fraction(0))
    if whole * gap <= 0:
        return [drift.share for drift in drifts]
    return [
        share + room * min(Fraction(1), gap / whole)
        for share, room in zip(shares, rooms, strict=True)
    ]


# --- Joint result of the strategies: capital moved between them, internal netting, and one goal for
# the market.


@dataclass(frozen=True, slots=True)
class NettingResult:
    """The decisions of all strategies at one block, netted.

    `moved` is the capital transferred between strategies in kind: (payer, receiver, value).
    `netted` has, by token, the value netted internally and the value left for the market; `goal`
    has the combined target shares of the whole portfolio, including the margin, which no strategy
    owns. `saved` are the fees that the netted value would have paid in the cheapest pool of each
    token.
    """

    adjustments: tuple[StrategyAdjustment, ...]
    moved: tuple[tuple[str, str, Value], ...]
    netted: tuple[NettedToken, ...]
    goal: Goal
    answer: TriggerResult
    saved: Value

    @property
    def crossed(self) -> Value:
        """Value netted internally, each exchange counted once."""
        return sum((token.crossed for token in self.netted), Fraction(0)) / 2


def net_strategies(step: StepInput, prices: Mapping[str, Price]) -> NettingResult:
    """Return every strategy's adjustment and the netted result. Requires an empty
    `strategies_fault`. Raises Refused for unknown balances.
    """
    split, books = step.config(CapitalSplit), step.layer(StrategiesState).books
    if books is None:
        raise ValueError("there are no strategies")
    holdings: StrategyHoldings = {book.name: dict(book.holdings) for book in books.strategies}
    before = capital.strategy_capital(holdings, prices)
    moved, note = _capital_moved(step, split, holdings, prices)
    whole = sum(before.values(), Fraction(0))
    due, named = target_capital_shares(split, books.named), books.named
    adjustments = tuple(
        strategy_adjustment(
            step,
            strategy,
            named[strategy.name],
            holdings,
            before[strategy.name] / whole if whole else Fraction(0),
            due[strategy.name],
            prices,
        )
        for strategy in split.strategies
    )
    tokens = [asset.token.address for asset in step.portfolio.assets]
    netted = capital.net_adjustments(
        {adjustment.name: adjustment.adjustments for adjustment in adjustments}, tokens
    )
    outside = {token: raw * prices[token] for token, raw in outside_raw(step, prices).items()}
    total = sum(
        (adjustment.capital for adjustment in adjustments), sum(outside.values(), Fraction(0))
    )
    shares = [Fraction(0)] * len(tokens)
    if total:
        values = [
            sum(
                (dict(adjustment.wanted)[token] for adjustment in adjustments),
                outside.get(token, Fraction(0)),
            )
            for token in tokens
        ]
        shares = [value / total for value in values]
    goal = Goal(
        tuple(GoalWeight(token, share, share) for token, share in zip(tokens, shares, strict=True))
    )
    saved = (
        sum(
            (
                netted_token.crossed * _cheapest_pips(step.snapshot, netted_token.token)
                for netted_token in netted
            ),
            Fraction(0),
        )
        / PIPS
        / 2
    )
    return NettingResult(
        adjustments,
        moved,
        netted,
        goal,
        _strategies_result(step.portfolio, adjustments, moved, note, netted, saved),
        saved,
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
    split, books = step.config(CapitalSplit), step.layer(StrategiesState).books
    if books is None or strategies_fault(step):
        return {}, {}
    prices = reference_prices(step).by_token
    holdings: StrategyHoldings = {book.name: dict(book.holdings) for book in books.strategies}
    _capital_moved(step, split, holdings, prices)
    return {
        adjustment.name: adjustment.adjustments
        for adjustment in net_strategies(step, prices).adjustments
    }, holdings


def _capital_moved(
    step: StepInput, split: CapitalSplit, held: StrategyHoldings, prices: Mapping[str, Price]
) -> tuple[tuple[tuple[str, str, Value], ...], str]:
    """Restore the split in place if a share of the capital is beyond its band now and at the
    preceding blocks; return the transfers and the note.
    """
    books = step.layer(StrategiesState).books
    signals = capital_signals(step.config(CapitalSplit), step.layer(StrategiesState), held, prices)
    if not signals or books is None:
        return (), ""
    not_yet = price_confirmation.unconfirmed_reason(
        step,
        prices,
        lambda then, at: capital_signals(
            then.config(CapitalSplit), then.layer(StrategiesState), held, at
        ),
    )
    named = "; ".join(f"{name} has {what}" for what, name in sorted(signals))
    if not_yet:
        return (), f"{named}, but {not_yet}"
    due = target_capital_shares(split, books.named)
    whole = sum(capital.strategy_capital(held, prices).values(), Fraction(0))
    paid = capital.restore_capital_shares(
        held, {name: share * whole for name, share in due.items()}, prices
    )
    return (
        tuple((giver, receiver, value) for (giver, receiver), value in paid.items() if value > 0),
        named,
    )


def _cheapest_pips(snapshot: Snapshot, token: str) -> int:
    return min(
        (pool.fee_pips for pool in snapshot.pools if token in (pool.token0, pool.token1)),
        default=0,
    )


def _strategies_result(
    portfolio: Portfolio,
    found: tuple[StrategyAdjustment, ...],
    moved: tuple[tuple[str, str, Value], ...],
    asked: str,
    netted: tuple[NettedToken, ...],
    saved: Value,
) -> TriggerResult:
    """Return the combined result: it fires if a strategy acts, or if capital moves between
    strategies.
    """
    acting = [adjustment for adjustment in found if adjustment.acts]
    notes = [f"{adjustment.name} acts ({adjustment.reason})" for adjustment in acting]
    if moved:
        notes.append(f"{asked}: the split is restored internally ({_moves(portfolio, moved)})")
    elif asked:
        notes.append(asked)
    if not acting:
        notes += [
            f"no strategy acts: {'; '.join(f'{adjustment.name}: {adjustment.reason}' for adjustment in found)}"
        ]
    if any(token.crossed for token in netted):
        notes.append(
            f"{format_netting(portfolio, netted)} and saves at least {_money(portfolio, saved)} of pool fees"
        )
    review_times = [adjustment.next_s for adjustment in found]
    due = [adjustment for adjustment in found if adjustment.due]
    return TriggerResult(
        bool(acting or moved),
        "; ".join(notes),
        None if None in review_times else earliest(*review_times),
        bool(due),
        tuple(name for adjustment in due for name in adjustment.by),
    )


def format_netting(portfolio: Portfolio, netted: tuple[NettedToken, ...]) -> str:
    """Format the internally netted value by token."""
    parts = [
        f"{_money(portfolio, token.crossed)} of {portfolio.token(token.token).label}"
        for token in netted
        if token.crossed
    ]
    return f"{', '.join(parts)} is exchanged between strategies, never in the market,"


def _moves(portfolio: Portfolio, moved: tuple[tuple[str, str, Value], ...]) -> str:
    return ", ".join(
        f"{giver} gives {receiver} {_money(portfolio, value)}" for giver, receiver, value in moved
    )


def _money(portfolio: Portfolio, value: Value) -> str:
    numeraire = portfolio.numeraire
    return f"{value_text(value, numeraire.decimals, 2)} {numeraire.label}"
