"""Keeps the books of strategies beside the journal: brought up at each look, written down, their health judged once an hour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from agent import codec
from agent.errors import ConfigError, OperatorNeeded, Refused
from agent.execution.booking import reviewed_s
from agent.execution.outcome import Outcome, OutcomeKind
from agent.model import Allocation, Books, Intent, IntentKind, Rebalance, StepInput
from agent.model.strategies import SleeveBooks, SleeveState, Split, Strategy, UnitPoint
from agent.policy import flows, sleeve_books, sleeve_desk, sleeve_health, sleeve_keeping, sleeves
from agent.policy.sleeve_keeping import Own
from agent.ports import Grant, Journal
from agent.ports.sleeves import SleeveJournal
from agent.reference import reference_prices
from agent.units import Price

HOUR_S = 3_600
DAY_S = 86_400


class Remembers(SleeveJournal, Protocol):
    """What bringing up the books asks of the store."""

    def grant(self, intent_id: str) -> Grant:
        """The grant an intent was written down with."""
        ...

    def step_input(self, step_id: str) -> str | None:
        """What a step decided from, as JSON."""
        ...

    def allocation(self, owner: str = "") -> Allocation | None:
        """The weights chosen last for a strategy."""
        ...


def seen(step: StepInput, store: Remembers, books: Books, owner_agrees: bool = False) -> StepInput:
    """The step with the books of strategies at its block, before any quarantine; the same where there is one strategy alone.

    Where the `owner_agrees` books that are others than the wallet or the config are made to agree.
    """
    if step.split is None:
        return step
    fresh = flows.unexplained(step, books)
    bring = sleeve_keeping.changed if owner_agrees else sleeve_keeping.brought_up
    found = bring(step, store.sleeve_ledger(), _own(store), sleeves.wished, fresh)
    choices = chosen_last(step.split, store)
    return replace(step, history=replace(step.history, sleeves=replace(found, choices=tuple(choices.items()))))


def chosen_last(split: Split | None, store: Remembers) -> dict[str, Allocation]:
    """The weights that allocators chose last, by strategy."""
    named = [one.name for one in (() if split is None else split.strategies) if one.allocator is not None]
    found = {name: store.allocation(name) for name in named}
    return {name: chosen for name, chosen in found.items() if chosen is not None}


def keep_sleeves(journal: Journal, step: StepInput) -> None:
    """Writes down what a look found of the books, and once an hour what units are worth and how healthy each strategy is.

    Where another process was faster nothing is written: the next look finds it again.
    """
    books = step.history.sleeves
    if step.split is None or books is None or (not books.sleeves and not books.pending):
        return
    if any(booking.source.startswith(sleeve_keeping.UNWRITTEN) for booking in books.pending):
        return
    if books.pending and not journal.note_sleeves(books.pending, books.turn):
        return
    for name, chosen in books.choices:
        if chosen != journal.allocation(name):
            journal.note_allocation(chosen, name)
    if not books.fault:
        _note_units(journal, step, books)


def cross_inside(journal: Journal, outcome: Outcome) -> None:
    """Where a step had nothing for the market, what strategies exchange among themselves is done in their books alone."""
    books = outcome.step_input.history.sleeves
    if outcome.kind is not OutcomeKind.HOLD or not outcome.decided.crosses or books is None:
        return
    booking = sleeve_keeping.crossing(outcome.step_input, outcome.step_id, sleeves.wished)
    if booking is not None:  # of exactly these books: where somebody wrote since, the next look does it
        journal.note_sleeves((booking,), books.turn + bool(books.pending))


def _own(store: Remembers) -> Own:
    """The step of a swap that carried out the strategies' own goal; else None.

    None for what its owner or limits.max_weight alone asked for, an exit, and a step that cannot be read.
    """

    def own(intent: Intent) -> StepInput | None:
        if intent.kind is not IntentKind.SWAP:
            return None
        try:
            plan, text = store.grant(intent.id).plan, store.step_input(intent.step_id)
            step = None if text is None else codec.loads(StepInput, text)
            decision = None if plan is None else plan.decision
            if step is None or not isinstance(decision, Rebalance) or not decision.by_trigger or sleeves.fault(step):
                return None
            if step.split is None:
                return None
            return step if sleeves.view(step, _prices(step)).answer.fired else None
        except (ConfigError, OperatorNeeded, Refused, KeyError):
            return None

    return own


def _note_units(journal: Journal, step: StepInput, books: SleeveBooks) -> None:
    now_s, prices = reviewed_s(step.snapshot), _prices(step)
    strategies = {one.name: one for one in step.split.strategies} if step.split is not None else {}
    states, points = [], {}
    for sleeve in books.sleeves:
        if sleeve.state.noted_s is not None and sleeve.state.noted_s // HOUR_S >= now_s // HOUR_S:
            continue
        unit = sleeve_desk.unit_value(sleeve_books.worth(dict(sleeve.holdings), prices), sleeve.units)
        noted = sleeve_health.noted(sleeve.state, strategies[sleeve.name], unit, prices, now_s)
        point = UnitPoint(now_s, noted.unit, noted.index)
        states.append(_judged(noted, strategies[sleeve.name], point, journal.unit_points))
        points[sleeve.name] = point
    if states:
        journal.note_units(states, points)


def _judged(state: SleeveState, strategy: Strategy, point: UnitPoint, points: Callable[[str, int], tuple[UnitPoint, ...]]) -> SleeveState:
    rule = strategy.health
    if rule is None:
        return state
    past = points(state.name, point.at_s - rule.window_s - 2 * DAY_S)
    return sleeve_health.judged(state, rule, sleeve_health.sharpe_milli((*past, point), rule.window_s, point.at_s), point.at_s)


def _prices(step: StepInput) -> dict[str, Price]:
    return {token: found.price for token, found in reference_prices(step).prices.items()}
