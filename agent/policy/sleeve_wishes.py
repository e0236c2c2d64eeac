"""What each strategy wants of its own books at this block: its share of the capital, whether it acts, and what it would hold then."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.errors import ConfigError
from agent.model import AssetDrift, Destination, Purchase, StepInput, Threshold, Zone
from agent.model.strategies import Health, Sleeve, SleeveState, Split, Strategy
from agent.policy import confirm, order_moves, sleeve_books, stuck, words
from agent.policy.bands import band
from agent.policy.drift import total, weigh
from agent.policy.goal import goal
from agent.policy.only import narrowed
from agent.policy.sleeve_books import Held, Prices
from agent.policy.triggers import Fired, Signal, fired
from agent.units import BPS, Value, largest_remainder

AT_ONCE = Threshold(0, None)
"""The band of a strategy that waits in the numeraire."""


@dataclass(frozen=True, slots=True)
class SleeveWish:
    """One strategy: share of the capital and what that should be, value once capital has moved, and whether it acts, with its reason.

    `wanted` are values by token that it wants to hold; while it does not act those that it holds. `by` is what its schedules are
    remembered by once they were reviewed.
    """

    name: str
    state: SleeveState
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
    def wishes(self) -> dict[str, Value]:
        """What it wants more (positive) or less of each token, numeraire base units."""
        held = {drift.token: drift.value for drift in self.drifts}
        return {token: value - held[token] for token, value in self.wanted}


def due_shares(split: Split, sleeves: Mapping[str, Sleeve]) -> dict[str, Fraction]:
    """Share of the capital that each strategy should have: those that are paused their floor, the others the rest in proportion."""
    paused = {one.name for one in split.strategies if sleeves[one.name].state.health is Health.PAUSED}
    if len(paused) == len(split.strategies):
        return {one.name: Fraction(one.share_bps, BPS) for one in split.strategies}
    floors = sum(one.floor_bps for one in split.strategies if one.name in paused)
    working = sum(one.share_bps for one in split.strategies if one.name not in paused)
    return {
        one.name: Fraction(one.floor_bps, BPS) if one.name in paused else Fraction(one.share_bps * (BPS - floors), working * BPS)
        for one in split.strategies
    }


def capital_signals(step: StepInput, held: Held, prices: Prices) -> frozenset[Signal]:
    """Which strategies' shares of the capital are beyond the band of the split, or above the floor of one that is paused."""
    split, books = step.split, step.history.sleeves
    if split is None or books is None:
        return frozenset()
    values, sleeves = sleeve_books.capital(held, prices), books.named
    whole, due = sum(values.values(), Fraction(0)), due_shares(split, books.named)
    found = set()
    for name, value in values.items() if whole > 0 else ():
        target_bps, share_bps = due[name] * BPS, value / whole * BPS
        low, high = band(split.band, round(target_bps))
        if sleeves[name].state.health is Health.PAUSED:
            low, high = Fraction(0), target_bps + 1
        if not low <= share_bps <= high:
            found.add(("too much capital" if share_bps > high else "too little capital", name))
    return frozenset(found)


def strategy_weights(step: StepInput, strategy: Strategy, state: SleeveState) -> dict[str, int]:
    """Weights of a strategy that count now, bps by token: all in the numeraire while it is paused.

    What orders keep out of the market waits in the numeraire; what is in quarantine, or cannot be sold, is left to the others in
    proportion.
    """
    numeraire, shut = step.portfolio.numeraire.address, stuck.kept(step)
    weights = {numeraire: BPS} if state.health is Health.PAUSED else dict(strategy.weights_bps)
    out = kept_out(step)
    weights = {
        asset.token.address: 0 if asset.token.address in out else weights.get(asset.token.address, 0) for asset in step.portfolio.assets
    }
    weights[numeraire] += BPS - sum(weights.values())
    left = [Fraction(0 if token in shut else bps) for token, bps in weights.items()]
    if sum(left) <= 0:
        return dict.fromkeys(weights, 0)
    return dict(zip(weights, largest_remainder(left), strict=True))


def kept_out(step: StepInput) -> set[str]:
    """Assets that strategies want and orders keep out: their target was taken to nothing after the strategies'."""
    if step.split is None:
        return set()
    numeraire, shut = step.portfolio.numeraire.address, stuck.kept(step)
    wanted = {token for one in step.split.strategies for token, bps in one.weights_bps if bps * one.share_bps >= BPS}
    return {
        asset.token.address
        for asset in step.portfolio.assets
        if asset.target_bps == 0 and asset.token.address in wanted - shut and asset.token.address != numeraire
    }


def wish(step: StepInput, strategy: Strategy, sleeve: Sleeve, held: Held, share: Fraction, due: Fraction, prices: Prices) -> SleeveWish:
    """What the strategy wants of `held`, the books of all once capital has moved."""
    drifts = standing(step, strategy, sleeve.state, held[strategy.name], prices)
    answer, buying = _answer(step, strategy, sleeve, drifts), _buying(step, sleeve)
    acts, reason, next_s = answer.fired, answer.reason, answer.next_s
    if buying and sleeve.state.health is not Health.PAUSED and total(drifts) > 0:
        strategy, acts, reason, next_s = replace(strategy, destination=Destination.TARGET), True, "its first purchase goes on", None
    elif acts and sleeve.state.health is not Health.PAUSED:
        rested_s = None if sleeve.last_rebalance_s is None else sleeve.last_rebalance_s + strategy.cooldown_s
        if rested_s is not None and step.snapshot.head.timestamp_s < rested_s:
            acts, reason, next_s = False, f"{reason}; but it rests until {words.moment(rested_s)}", rested_s
        elif not answer.by_time:
            not_yet = confirm.lacking(step, prices, lambda then, at: _signals(then, strategy, sleeve, held, at))
            acts, reason = not not_yet, f"{reason}; but {not_yet}" if not_yet else reason
    whole = total(drifts)
    values = [drift.value for drift in drifts]
    if acts and whole > 0:
        values = [part * whole for part in _shares(step, strategy, drifts, sleeve.state.health is Health.PAUSED)]
    wanted = tuple((drift.token, value) for drift, value in zip(drifts, values, strict=True))
    names = tuple(f"{strategy.name}: {name}" for name in answer.reviews)
    return SleeveWish(strategy.name, sleeve.state, whole, share, due, drifts, acts, reason, wanted, next_s, answer.due, names)


def _buying(step: StepInput, sleeve: Sleeve) -> bool:
    """Whether the strategy has begun a first purchase that goes on in parts: then no trigger is asked again, and nothing rests."""
    under = step.history.campaign
    if under is None or under.campaign.purchase is not Purchase.FIRST or sleeve.last_rebalance_s is None:
        return False
    return sleeve.last_rebalance_s >= under.campaign.began_s


def standing(step: StepInput, strategy: Strategy, state: SleeveState, held: Mapping[str, int], prices: Prices) -> tuple[AssetDrift, ...]:
    """Each asset of one strategy against its weights, by the band of its own trigger."""
    weights, shut = strategy_weights(step, strategy, state), stuck.kept(step)
    weights = _no_more_than_held(step, weights, held, prices)
    assets = [
        replace(a, target_bps=weights[a.token.address], max_bps=None, reserve_raw=a.reserve_raw if a.token.address in shut else 0)
        for a in step.portfolio.assets
    ]
    balances = {asset.token.address: held.get(asset.token.address, 0) for asset in assets}
    return weigh(assets, balances, prices, AT_ONCE if state.health is Health.PAUSED else strategy.trigger)


def _no_more_than_held(step: StepInput, weights: dict[str, int], held: Mapping[str, int], prices: Prices) -> dict[str, int]:
    """The weights, of what waits for its entry no more than the strategy has: nothing is bought, the rest waits in the numeraire."""
    numeraire, shut = step.portfolio.numeraire.address, stuck.kept(step)
    waiting = [token for token, bps in weights.items() if bps and token not in shut and order_moves.waits(step, token)]
    if not waiting or any(token not in prices for token in weights):
        return weights
    values = {token: held.get(token, 0) * prices[token] for token in weights if token not in shut}
    whole = sum(values.values(), Fraction(0))
    most = {token: min(weights[token], int(values[token] * BPS // whole)) if whole else 0 for token in waiting}
    freed = sum(weights[token] - bps for token, bps in most.items())
    return {**weights, **most, numeraire: weights[numeraire] + freed}


def _answer(step: StepInput, strategy: Strategy, sleeve: Sleeve, drifts: tuple[AssetDrift, ...]) -> Fired:
    if total(drifts) == 0:
        return Fired(False, "it has no capital", None)
    if sleeve.state.health is Health.PAUSED:
        away = any(drift.value > 0 and drift.target_bps == 0 for drift in drifts)
        return Fired(away, f"paused: it waits in {step.portfolio.numeraire.label}", None)
    if isinstance(strategy.trigger, Zone):
        raise ConfigError(f"strategies.{strategy.name}.trigger: a zone is for a whole portfolio", "use another trigger")
    prefix = f"{strategy.name}: "
    reviews = tuple((name.removeprefix(prefix), at_s) for name, at_s in step.history.reviews if name.startswith(prefix))
    history = replace(step.history, last_rebalance_s=sleeve.last_rebalance_s, last_review_s=None, reviews=reviews)
    return fired(strategy.trigger, drifts, step.snapshot.head.timestamp_s, history, step.policy.jitter_bps)


def _signals(step: StepInput, strategy: Strategy, sleeve: Sleeve, held: Held, prices: Prices) -> frozenset[Signal]:
    return frozenset(_answer(step, strategy, sleeve, standing(step, strategy, sleeve.state, held[strategy.name], prices)).signals)


def _shares(step: StepInput, strategy: Strategy, drifts: tuple[AssetDrift, ...], paused: bool) -> list[Fraction]:
    """The nearest shares that the goal allows, summing to one: what is short or over goes to where the goal leaves room."""
    if paused:
        return [Fraction(drift.target_bps, BPS) for drift in drifts]
    wanted = narrowed(drifts, goal(drifts, strategy.destination), step.policy.only, step.portfolio.numeraire.address)
    shares = [min(max(drift.share, one.low), one.high) for drift, one in zip(drifts, wanted.weights, strict=True)]
    gap = 1 - sum(shares, Fraction(0))
    rooms = [(one.high if gap > 0 else one.low) - share for share, one in zip(shares, wanted.weights, strict=True)]
    whole = sum(rooms, Fraction(0))
    if gap == 0 or whole * gap <= 0:
        return [drift.share for drift in drifts] if gap else shares
    return [share + room * min(Fraction(1), gap / whole) for share, room in zip(shares, rooms, strict=True)]
