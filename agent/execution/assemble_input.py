"""Keeps the books of strategies beside the journal: brought up at each look, written down, their health judged once an hour."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

from agent import codec
from agent.chain.own_positions import find_strays
from agent.chain.rpc import Transport
from agent.errors import ConfigError, OperatorNeeded, Refused
from agent.execution.settlement import reviewed_s
from agent.execution.step_context import Eyes, Outcome, OutcomeKind
from agent.model import Allocation, Books, Draw, History, Intent, IntentKind, PricePoint, Rebalance, Stand, StepInput, Style, TaxStanding
from agent.model.strategies import SleeveBooks, SleeveState, Split, Strategy, UnitPoint
from agent.policy import decide as agreement
from agent.policy import effective_targets as wishes
from agent.policy import quarantine
from agent.policy import risk as measured
from agent.policy import targets as allocation
from agent.policy.cash_flows import balance_changes as aside
from agent.policy.cash_flows import balance_changes as flows
from agent.policy.cash_flows import withdrawals as outflow
from agent.policy.gradual_execution import MILLION
from agent.policy.strategies import accounting as sleeve_books
from agent.policy.strategies import accounting as sleeve_desk
from agent.policy.strategies import accounting as sleeve_keeping
from agent.policy.strategies import health as sleeve_health
from agent.policy.strategies import netting as sleeve_targets
from agent.policy.strategies import netting as sleeves
from agent.policy.strategies.accounting import Own
from agent.policy.triggers import market_events as lookback
from agent.ports import Grant, Journal
from agent.ports.storage import SleeveJournal
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


def strategies_seen(step: StepInput, store: Remembers, books: Books, owner_agrees: bool = False) -> StepInput:
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


# --- The step with all that the store remembers of the past: the same for a chain and for a simulated one.


class Memory(Remembers, Protocol):
    """The part of a store that a step is assembled from."""

    def books(self) -> Books:
        """What balances should be, and the newest flows."""
        ...

    def stands(self, head_block: int) -> tuple[Stand, ...]:
        """What the wallet should hold at that block by the ledger."""
        ...

    def prices(self, numeraire: str, since_s: int, until_s: int, every_s: int = ...) -> tuple[PricePoint, ...]:
        """Recorded prices in that numeraire, oldest first; of each `every_s` the last of each token."""
        ...


def remembered(step: StepInput, store: Memory, tax: Callable[[int], TaxStanding | None] | None = None) -> StepInput:
    """The step with recorded prices, chosen weights, what the books say, the year's tax, and what follows from them for the targets.

    What came unexplained above portfolio.max_live_value is left alone, and tokens whose balance stays unread are in quarantine. `tax`
    says by chain time how this year's gains stand.
    """
    now_s = step.snapshot.head.timestamp_s
    chosen = store.allocation()
    step = replace(step, history=replace(step.history, prices=_remembered_prices(step, store, chosen), allocation=chosen))
    books = store.books()
    step = agreement.agreed(step, books, store.stands(step.snapshot.head.number))
    if tax is not None:
        step = replace(step, history=replace(step.history, tax=tax(now_s)))
    free = aside.set_aside(outflow.set_aside(flows.seen(step, books)))  # before strategies: none of them holds it
    seen = wishes.wanted(strategies_seen(free, store, books))
    return quarantine.quarantine(seen, quarantine.silent(seen))


def _remembered_prices(step: StepInput, store: Memory, chosen: Allocation | None) -> tuple[PricePoint, ...]:
    """Recorded prices, as far back as this config looks; before what triggers see, one per interval of each choice that is due."""
    portfolio, split, now_s = step.portfolio, step.split, step.snapshot.head.timestamp_s
    numeraire, weights = portfolio.numeraire.address, portfolio.weights
    back_s = lookback.needed_s(portfolio, step.policy, split)
    needs = list(sleeve_targets.looks_back(split, chosen_last(split, store), portfolio, now_s))
    if weights is not None:
        needs.append((allocation.looks_back_s(portfolio, chosen, now_s), weights.step_s))
    needs.append(measured.needs(step.policy))
    until_s = now_s - back_s - bool(back_s)
    older = {
        point for choice_s, step_s in needs if choice_s > back_s for point in store.prices(numeraire, now_s - choice_s, until_s, step_s)
    }
    hourly = store.prices(numeraire, now_s - back_s, now_s) if back_s else ()
    return (*sorted(older, key=lambda point: (point.at_s, point.token)), *hourly)


# --- Looks through the wallet for liquidity of the wanted pairs that the store does not know: it would be provided a second time.


class StockMemory(Protocol):
    """The part of a store that remembers positions."""

    def positions_are_known(self) -> bool:
        """Whether the wallet was looked through."""
        ...

    def note_positions(self, names: Iterable[str], now_s: int) -> None:
        """Remembers positions that the owner has to decide on."""
        ...

    def history(self, chain_now_s: int) -> History:
        """With those that are undecided."""
        ...


def take_stock(step: StepInput, memory: StockMemory, line: Transport, manager: str | None) -> StepInput:
    """The step with the V3 positions of wanted pairs that the store does not know, once after it was new or adopted.

    A store restored from before a mint does not know it, and its target would mint once more. What strangers send later
    changes nothing (T11). Raises Retryable where the chain cannot be asked.
    """
    pairs = {(target.token0, target.token1) for target in step.portfolio.lp_targets if target.tick_spacing is not None}
    if manager is None or not pairs or memory.positions_are_known():
        return step
    head = step.snapshot.head
    at = {"blockHash": head.hash, "requireCanonical": True}
    found = find_strays(line, step.snapshot.owner, manager, (), step.portfolio.positions, at).found
    memory.note_positions([one.name for one in found if one.liquidity > 0 and one.tokens in pairs], head.timestamp_s)
    return replace(step, history=replace(step.history, undecided=memory.history(head.timestamp_s).undecided))


# --- What a step writes down of a correction over time: its begin, each round before anything of it is sent, its end.


SPREAD = (Style.ROUNDS, Style.TWAP)
"""Styles whose rounds are of random size."""


def drawn_ahead(eyes: Eyes, step: StepInput, journal: Journal) -> StepInput:
    """The step with the draw for a first round on disk: what is planned from it now is planned from it after a restart, too."""
    history = step.history
    if step.execution.pace.style not in SPREAD or history.campaign is not None or history.draw is not None:
        return step
    draw = _draw(eyes)
    journal.draw_ahead(draw)
    return replace(step, history=replace(history, draw=draw))


def looked(journal: Journal, outcome: Outcome) -> None:
    """Writes down what a look ended, and what it began that only waits for its price."""
    decided, under = outcome.decided, outcome.step_input.history.campaign
    if decided.ended and under is not None:
        journal.end_campaign(under.id, "ended", decided.ended, outcome.step_input.snapshot.head.timestamp_s)
    if decided.begins is not None and outcome.kind is OutcomeKind.HOLD:
        journal.begin_campaign(decided.begins)


def begun(eyes: Eyes, journal: Journal, outcome: Outcome) -> None:
    """Writes the round down that is about to be sent, with the draw for the one after it; a new campaign before its first round.

    Nothing where the plan is no round. A try at a round that was tried before is written beside it.
    """
    decided, under = outcome.decided, outcome.step_input.history.campaign
    at_s = outcome.step_input.snapshot.head.timestamp_s
    if decided.order:
        journal.begin_round(decided.order, 1, outcome.step_id, at_s, _draw(eyes))
        return
    if decided.begins is not None:
        number = 1 if decided.round is None else decided.round.number
        journal.begin_round(journal.begin_campaign(decided.begins), number, outcome.step_id, at_s, _draw(eyes))
    elif decided.round is not None and under is not None:
        journal.begin_round(under.id, decided.round.number, outcome.step_id, at_s, _draw(eyes))


def _draw(eyes: Eyes) -> Draw:
    return Draw(int(eyes.chance() * MILLION), int(eyes.chance() * MILLION))
