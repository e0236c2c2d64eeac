"""What the strategies over one wallet want together: capital between them, wishes crossed inside, and one goal for the market."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from agent.amm import pools as amm
from agent.model import Goal, GoalWeight, StepInput
from agent.model.strategies import Split
from agent.policy import confirm, sleeve_books
from agent.policy.schedules import earliest
from agent.policy.sleeve_books import Held, Netted, Values
from agent.policy.sleeve_wishes import SleeveWish, capital_signals, due_shares, wish
from agent.policy.triggers import Fired
from agent.reference import reference_prices
from agent.units import PIPS, Price, Value, value_text


@dataclass(frozen=True, slots=True)
class SleevesView:
    """All strategies at one block. `moved` is (payer, receiver, value) of capital that goes from one to another, in kind, inside.

    `netted` says per token what is crossed inside and what the market sees; `goal` are the wanted shares of the whole. `saved` is
    what the market would have charged at least for what is crossed: the fee of the cheapest pool of each token.
    """

    wishes: tuple[SleeveWish, ...]
    moved: tuple[tuple[str, str, Value], ...]
    netted: tuple[Netted, ...]
    goal: Goal
    answer: Fired
    saved: Value

    @property
    def crossed(self) -> Value:
        """Value that changes hands inside, each exchange counted once: half of all that is crossed."""
        return sum((one.crossed for one in self.netted), Fraction(0)) / 2


def fault(step: StepInput) -> str:
    """Why the strategies cannot be told apart now; empty where they can, or where there are none."""
    if step.split is None:
        return ""
    if step.portfolio.positions or step.portfolio.lp_targets:
        return "the books of strategies do not count liquidity positions; leave either out"
    books = step.history.sleeves
    return "the books of the strategies are not there" if books is None else books.fault or books.unchosen


def view(step: StepInput, prices: Mapping[str, Price]) -> SleevesView:
    """What every strategy wants, and what that comes to. Only where `fault` finds nothing. Raises Refused for unknown balances."""
    split, books = step.split, step.history.sleeves
    if split is None or books is None:
        raise ValueError("there are no strategies")
    held: Held = {sleeve.name: dict(sleeve.holdings) for sleeve in books.sleeves}
    before = sleeve_books.capital(held, prices)
    moved, asked = _capital_moved(step, split, held, prices)
    whole = sum(before.values(), Fraction(0))
    due, named = due_shares(split, books.named), books.named
    found = tuple(
        wish(step, one, named[one.name], held, before[one.name] / whole if whole else Fraction(0), due[one.name], prices)
        for one in split.strategies
    )
    tokens = [asset.token.address for asset in step.portfolio.assets]
    netted = sleeve_books.netted({one.name: one.wishes for one in found}, tokens)
    total = sum((one.capital for one in found), Fraction(0))
    wanted = {token: sum((dict(one.wanted)[token] for one in found), Fraction(0)) for token in tokens}
    shares = [wanted[token] / total if total else Fraction(0) for token in tokens]
    goal = Goal(tuple(GoalWeight(token, share, share) for token, share in zip(tokens, shares, strict=True)))
    saved = sum((one.crossed * _cheapest_pips(step, one.token) for one in netted), Fraction(0)) / PIPS / 2
    return SleevesView(found, moved, netted, goal, _answer(step, found, moved, asked, netted, saved), saved)


def wished(step: StepInput) -> tuple[Values, Held]:
    """What each strategy wanted more or less of at a step, and the books once capital had moved; nothing where that is unknown."""
    books = step.history.sleeves
    if step.split is None or books is None or fault(step):
        return {}, {}
    prices = {token: found.price for token, found in reference_prices(step).prices.items()}
    held: Held = {sleeve.name: dict(sleeve.holdings) for sleeve in books.sleeves}
    _capital_moved(step, step.split, held, prices)
    return {one.name: one.wishes for one in view(step, prices).wishes}, held


def _capital_moved(
    step: StepInput, split: Split, held: Held, prices: Mapping[str, Price]
) -> tuple[tuple[tuple[str, str, Value], ...], str]:
    """Restores the split in place where a share of the capital is beyond its band, in the blocks before too; and says so."""
    books = step.history.sleeves
    signals = capital_signals(step, held, prices)
    if not signals or books is None:
        return (), ""
    not_yet = confirm.lacking(step, prices, lambda then, at: capital_signals(then, held, at))
    named = "; ".join(f"{name} has {what}" for what, name in sorted(signals))
    if not_yet:
        return (), f"{named}, but {not_yet}"
    due, whole = due_shares(split, books.named), sum(sleeve_books.capital(held, prices).values(), Fraction(0))
    paid = sleeve_books.evened(held, {name: share * whole for name, share in due.items()}, prices)
    return tuple((giver, receiver, value) for (giver, receiver), value in paid.items() if value > 0), named


def _cheapest_pips(step: StepInput, token: str) -> int:
    return min((amm.fee_pips(pool) for pool in step.snapshot.pools if token in (pool.token0, pool.token1)), default=0)


def _answer(
    step: StepInput,
    found: tuple[SleeveWish, ...],
    moved: tuple[tuple[str, str, Value], ...],
    asked: str,
    netted: tuple[Netted, ...],
    saved: Value,
) -> Fired:
    """All answers as one: it fires when a strategy acts, or when capital has to move inside."""
    acting = [one for one in found if one.acts]
    told = [f"{one.name} acts ({one.reason})" for one in acting]
    told += [f"{asked}: the split is restored inside ({_moves(step, moved)})" if moved else asked] if asked else []
    if not acting:
        told += [f"no strategy acts: {'; '.join(f'{one.name}: {one.reason}' for one in found)}"]
    if any(one.crossed for one in netted):
        told.append(f"{crossed_words(step, netted)} and saves at least {_money(step, saved)} of pool fees")
    looks = [one.next_s for one in found]
    due = [one for one in found if one.due]
    return Fired(
        bool(acting or moved),
        "; ".join(told),
        None if None in looks else earliest(*looks),
        bool(due),
        tuple(name for one in due for name in one.by),
    )


def crossed_words(step: StepInput, netted: tuple[Netted, ...]) -> str:
    """What is crossed inside, token by token."""
    parts = [f"{_money(step, one.crossed)} of {step.portfolio.token(one.token).label}" for one in netted if one.crossed]
    return f"{', '.join(parts)} is exchanged between strategies, never in the market,"


def _moves(step: StepInput, moved: tuple[tuple[str, str, Value], ...]) -> str:
    return ", ".join(f"{giver} gives {receiver} {_money(step, value)}" for giver, receiver, value in moved)


def _money(step: StepInput, value: Value) -> str:
    numeraire = step.portfolio.numeraire
    return f"{value_text(value, numeraire.decimals, 2)} {numeraire.label}"
