"""Strategies over one wallet for pure tests: a split in short arguments, and steps whose books are brought up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.model import Destination, ExternalTransfer, Intent, StepInput, Threshold, Trigger
from agent.model.strategies import (
    STRATEGY_UNITS,
    CapitalSplit,
    Strategy,
    StrategyBooking,
    StrategyBookingKind,
    StrategyBooks,
    StrategyHealthRule,
    StrategyLedger,
    StrategyState,
)
from agent.policy.strategies import accounting, netting
from agent.policy.strategies.netting import combine_strategy_targets
from tests.support.builders import raw, threshold, token

DAY_S = 86_400
RULE = StrategyHealthRule(limit_milli=500, recover_milli=800, window_s=30 * DAY_S, period_s=30 * DAY_S, recover_s=10 * DAY_S)


def strategy(
    name: str,
    share_bps: int,
    weights_bps: Mapping[str, int],
    trigger: Trigger | None = None,
    destination: Destination = Destination.TARGET,
    cooldown_s: int = 0,
    floor_bps: int = 0,
    health: StrategyHealthRule | None = None,
) -> Strategy:
    """One strategy with weights by symbol; the template's band unless another trigger is given."""
    weights = tuple((token(symbol).address, bps) for symbol, bps in weights_bps.items())
    return Strategy(name, share_bps, weights, trigger or threshold(), destination, cooldown_s, floor_bps, health)


def split(*strategies: Strategy, absolute_bps: int | None = None, relative_bps: int | None = 2_000) -> CapitalSplit:
    """Several; the split itself is restored beyond 20 % of a share unless told otherwise."""
    return CapitalSplit(strategies, Threshold(absolute_bps, relative_bps))


def none_own(_: Intent) -> StepInput | None:
    """No trade is known to be the strategies' own."""
    return None


def brought_up(
    step: StepInput,
    ledger: StrategyLedger | None = None,
    fresh: Sequence[ExternalTransfer] = (),
    own: accounting.IntentStep = none_own,
) -> StepInput:
    """The step with its books in its history and the targets of all strategies together."""
    found = accounting.update_books(step, ledger or StrategyLedger(), own, netting.strategy_adjustments, fresh)
    return combine_strategy_targets(replace(step, history=replace(step.history, sleeves=found)))


def books_of(step: StepInput) -> StrategyBooks:
    """The books in a step."""
    assert step.history.sleeves is not None
    return step.history.sleeves


def written(ledger: StrategyLedger, step: StepInput) -> StrategyLedger:
    """The ledger once what the step found is written down."""
    return replace(ledger, bookings=(*ledger.bookings, *books_of(step).pending), turn=ledger.turn + 1)


def opening(holdings: Mapping[str, Mapping[str, Fraction | int | str]], block: int = 1) -> StrategyLedger:
    """Books that hold so many whole coins by strategy and symbol; each got a million units for a numeraire coin's base unit."""
    changes: list[tuple[str, str, int]] = []
    for name, coins in holdings.items():
        changes += [(name, token(symbol).address, raw(amount, token(symbol))) for symbol, amount in coins.items()]
        changes.append((name, STRATEGY_UNITS, 10**18))
    return StrategyLedger((StrategyBooking("open", StrategyBookingKind.OPEN, block, 1, tuple(changes)),))


def of(step: StepInput, name: str, symbol: str) -> Fraction:
    """Whole coins that a strategy holds."""
    one = token(symbol)
    return Fraction(books_of(step).named[name].raw(one.address), 10**one.decimals)


def with_state(step: StepInput, state: StrategyState) -> StepInput:
    """The step with another state of one strategy."""
    books = books_of(step)
    changed = tuple(replace(one, state=state) if one.name == state.name else one for one in books.sleeves)
    return replace(step, history=replace(step.history, sleeves=replace(books, sleeves=changed)))


def sums_to_the_wallet(step: StepInput) -> bool:
    """Whether strategies and what is set aside come to each balance, to the base unit, by the bookings alone."""
    assert step.history.sleeves is not None
    held = {holding.token: holding.raw for holding in step.snapshot.holdings}
    aside = {one.token.address: min(held[one.token.address], one.reserve_raw) for one in step.portfolio.assets}
    return all(sum(one.raw(address) for one in books_of(step).sleeves) + aside[address] == held[address] for address in aside)


def balances(step: StepInput, **coins: Fraction | int | str) -> StepInput:
    """The step with other balances of some tokens, whole coins by symbol."""
    other = {token(symbol).address: raw(amount, token(symbol)) for symbol, amount in coins.items()}
    holdings = tuple(replace(one, raw=other.get(one.token, one.raw)) for one in step.snapshot.holdings)
    return replace(step, snapshot=replace(step.snapshot, holdings=holdings))
