"""Brings the books of strategies up to a block: opens them, shares out trades, deposits and withdrawals, and proves the sum.

The books of all strategies and of what is set aside (reserves, native coin for gas) are the wallet's balances, to the base unit.
Whatever changed a balance is a transaction of ours or a flow that was written down; if a single unit is left over, nothing is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction

from agent.model import Flow, Intent, IntentKind, StepInput
from agent.model.strategies import Booking, BookingKind, Health, Sleeve, SleeveBooks, SleeveLedger, SleeveState, Split
from agent.policy import sleeve_books, sleeve_desk
from agent.policy.sleeve_books import Held, Values
from agent.policy.sleeve_desk import Desk
from agent.reference import reference_prices
from agent.units import BPS, NATIVE, decimal_text

UNWRITTEN = "flow that is not written down"
REMEDY = "see it and take it over with trimtab strategies apply"
Wishes = Callable[[StepInput], tuple[Values, Held]]
"""What strategies wanted at a step (values by strategy and token), and their books once capital had moved between them."""
Own = Callable[[Intent], StepInput | None]
"""The step that a trade carried out; None where it was none of the strategies', or cannot be told."""
_OWNERS = (IntentKind.PAYOUT, IntentKind.UNWRAP, IntentKind.LIQUIDITY)
"""Transactions that trade nothing: what they move goes into, or comes out of, what is set aside."""
_CARRIED = (BookingKind.TRADE, BookingKind.CROSS)


def brought_up(step: StepInput, ledger: SleeveLedger, own: Own, wishes: Wishes, fresh: Sequence[Flow] = ()) -> SleeveBooks:
    """The books at the step's block; `fresh` are flows that are not written down yet. `step` is from before any quarantine."""
    split, balances = step.split, sleeve_desk.wallet(step)
    if split is None:
        return SleeveBooks(())
    desk = sleeve_desk.opened(step, split, ledger)
    if balances is None or desk is None:
        return SleeveBooks((), "balances or prices of the assets are not all known", turn=ledger.turn)
    aside = sleeve_desk.kept(step, balances)
    if not ledger.bookings:
        _open(desk, split, {token: raw - aside[token] for token, raw in balances.items()}, aside)
        return _told(desk, split, ledger, "")
    for source, kind, changes, intent in _events(step, ledger, fresh):
        if kind is BookingKind.FLOW:
            _flow(desk, source, changes, ledger.flows_to)
        elif intent is not None and intent.kind in _OWNERS:
            desk.book(source, BookingKind.FLOW, sleeve_books.copied(desk.held), changes)
        else:
            _trade(desk, source, changes, None if intent is None else own(intent), wishes)
    fault = _mismatch(desk, balances) or _other_names(desk, split)
    if not fault:
        _set_aside(desk, aside, ledger.turn)
    return _told(desk, split, ledger, fault)


def changed(step: StepInput, ledger: SleeveLedger, own: Own, wishes: Wishes, fresh: Sequence[Flow] = ()) -> SleeveBooks:
    """The same with the owner's word that the wallet as it is belongs to the strategies of the config.

    What nothing explains is shared like a flow. Strategies that are no more are closed, new ones opened, and where that changes
    the split every one gets its share: in kind, at reference prices, without a trade.
    """
    found, split, balances = brought_up(step, ledger, own, wishes, fresh), step.split, sleeve_desk.wallet(step)
    desk = None if split is None else sleeve_desk.opened(step, split, ledger)
    if split is None or balances is None or desk is None or not found.fault:
        return found
    for booking in found.pending:
        desk.replay(booking)
    desk.done = list(found.pending)
    before, aside = sleeve_books.copied(desk.held), sleeve_desk.kept(step, balances)
    after = before
    for token in desk.tokens:
        after = sleeve_books.flowed(after, token, balances[token] - aside[token] - desk.total(token), desk.prices)
    names = [one.name for one in split.strategies]
    if set(names) != set(before):
        after = _resplit(after, split, desk)
    desk.held = before | {name: {} for name in names if name not in before}
    desk.units = {name: desk.units.get(name, 0) for name in desk.held}
    moved = {token: aside[token] - desk.aside.get(token, 0) for token in desk.tokens}
    desk.book(f"change {step.snapshot.head.number} {ledger.turn}", BookingKind.CHANGE, after, moved)
    desk.held = {name: desk.held[name] for name in names}
    return _told(desk, split, ledger, "")


def crossing(step: StepInput, step_id: str, wishes: Wishes) -> Booking | None:
    """What a step did to the books without any trade: capital moved, and opposite wishes crossed; None when it did nothing."""
    books, split = step.history.sleeves, step.split
    if books is None or books.fault or split is None:
        return None
    tokens = tuple(asset.token.address for asset in step.portfolio.assets)
    prices = {token: found.price for token, found in reference_prices(step).prices.items()}
    held = {sleeve.name: dict(sleeve.holdings) for sleeve in books.sleeves}
    desk = Desk(step, prices, tokens, held, {sleeve.name: sleeve.units for sleeve in books.sleeves}, {}, [])
    wished, base = wishes(step)
    after, _ = sleeve_books.settled(base, wished, {}, prices, tokens)
    desk.book(f"cross {step_id}", BookingKind.CROSS, after, {}, base, _acted(wished))
    return desk.done[0] if desk.done[0].changes else None


def _resplit(held: Held, split: Split, desk: Desk) -> Held:
    """Everybody gets its share of the whole, and who is no more nothing."""
    names = [one.name for one in split.strategies]
    after: Held = {name: held.get(name, {}) for name in dict.fromkeys((*names, *held))}
    whole = sum(sleeve_books.capital(after, desk.prices).values(), Fraction(0))
    due = dict.fromkeys(after, Fraction(0)) | {one.name: whole * one.share_bps / BPS for one in split.strategies}
    sleeve_books.evened(after, due, desk.prices)
    for name in after.keys() - set(names):  # base units that no whole payment could move
        for token, raw in after[name].items():
            after[names[0]][token] = after[names[0]].get(token, 0) + raw
        after[name] = dict.fromkeys(after[name], 0)
    return after


def _open(desk: Desk, split: Split, free: Mapping[str, int], aside: Mapping[str, int]) -> None:
    shares = {one.name: Fraction(one.share_bps) for one in split.strategies}
    held: Held = {name: {} for name in shares}
    for token, raw in free.items():
        for name, part in sleeve_books.shared(raw, shares).items():
            held[name][token] = part
    desk.held, desk.units = {name: {} for name in shares}, dict.fromkeys(shares, 0)
    desk.book("open", BookingKind.OPEN, held, aside)


def _events(step: StepInput, ledger: SleeveLedger, fresh: Iterable[Flow]) -> list[tuple[str, BookingKind, dict[str, int], Intent | None]]:
    """What happened to the assets since, oldest first: (source, kind, base units by token, transaction)."""
    native = {asset.token.address for asset in step.portfolio.assets if asset.native}
    assets = {asset.token.address for asset in step.portfolio.assets}
    owner, wrapped, head = step.snapshot.owner, step.portfolio.wrapped_native, step.snapshot.head.number

    def of_assets(changes: Iterable[tuple[str, int]]) -> dict[str, int]:
        found: dict[str, int] = {}
        for token, raw in changes:
            named = wrapped if token == NATIVE and wrapped in native else token
            if named in assets:
                found[named] = found.get(named, 0) + raw
        return found

    events: list[tuple[int, str, BookingKind, dict[str, int], Intent | None]] = []
    for intent in ledger.intents:
        if intent.receipt is not None and intent.receipt.block_number <= head:
            changes = of_assets(intent.changes(owner, wrapped).items())
            events.append((intent.receipt.block_number, intent.id, BookingKind.TRADE, changes, intent))
    for tx_hash, block, moved in ledger.earlier:
        if block <= head:
            events.append((block, tx_hash, BookingKind.FLOW, of_assets(moved), None))
    for number, flow in enumerate((*ledger.flows, *fresh)):
        source = f"flow {flow.id}" if flow.id else f"{UNWRITTEN} {number}"
        events.append((flow.block, source, BookingKind.FLOW, of_assets([(flow.token, flow.delta_raw)]), None))
    return [event[1:] for event in sorted(events, key=lambda event: event[0])]


def _within(desk: Desk, changes: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """What strategies bear of changes, and what of what was set aside: what goes beyond all that they hold."""
    inside = {token: max(raw, -desk.total(token)) for token, raw in changes.items()}
    return inside, {token: raw - inside[token] for token, raw in changes.items()}


def _flow(desk: Desk, source: str, changes: Mapping[str, int], flows_to: str | None) -> None:
    inside, aside = _within(desk, changes)
    after = sleeve_books.copied(desk.held)
    for token, raw in inside.items():
        after = sleeve_books.flowed(after, token, raw, desk.prices, flows_to)
    desk.book(source, BookingKind.FLOW, after, aside)


def _trade(desk: Desk, source: str, changes: Mapping[str, int], own: StepInput | None, wishes: Wishes) -> None:
    """Shares a transaction out by the wishes of its own step, at the prices of then; by capital where they are not known."""
    inside, aside = _within(desk, changes)
    wished: Values = {}
    base, prices = desk.held, desk.prices
    if own is not None:
        known = {token: found.price for token, found in reference_prices(own).prices.items()}
        wanted, moved = wishes(own)
        if known.keys() >= set(desk.tokens) and moved.keys() == desk.held.keys():
            wished, prices = wanted, known
            base = moved if _same(desk, moved) else desk.held  # else something else has happened to the books since
    after, costs = sleeve_books.settled(base, wished, inside, prices, desk.tokens)
    desk.book(source, BookingKind.TRADE, after, aside, base, _acted(wished), costs)


def _same(desk: Desk, moved: Held) -> bool:
    return all(sum(tokens.get(token, 0) for tokens in moved.values()) == desk.total(token) for token in desk.tokens)


def _acted(wished: Values) -> tuple[str, ...]:
    return tuple(name for name, wish in wished.items() if any(wish.values()))


def _mismatch(desk: Desk, balances: Mapping[str, int]) -> str:
    """Which balance the books do not come to; empty when they come to all."""
    wrong = []
    for token in desk.tokens:
        booked = desk.aside.get(token, 0) + desk.total(token)
        if booked != balances[token]:
            named = desk.step.portfolio.token(token)
            told = (decimal_text(raw, named.decimals) for raw in (booked, balances[token]))
            wrong.append(f"{named.label}: {' against '.join(told)} in the wallet")
    return f"the books of the strategies do not come to the wallet's balances ({'; '.join(wrong)}); {REMEDY}" if wrong else ""


def _other_names(desk: Desk, split: Split) -> str:
    names = {one.name for one in split.strategies}
    if names == set(desk.held):
        return ""
    gone, new = ", ".join(sorted(set(desk.held) - names)), ", ".join(sorted(names - set(desk.held)))
    what = [f"{gone} is to be closed"] * bool(gone) + [f"{new} is to be opened"] * bool(new)
    return f"the strategies of the config are others than those of the books ({'; '.join(what)}); {REMEDY}"


def _set_aside(desk: Desk, wanted: Mapping[str, int], turn: int) -> None:
    """Reserves and the floor for gas first: what they lack comes from all strategies, what they no longer need goes to all."""
    after, moved = sleeve_books.copied(desk.held), {}
    for token in desk.tokens:
        if raw := wanted[token] - desk.aside.get(token, 0):
            after, moved[token] = sleeve_books.flowed(after, token, -raw, desk.prices), raw
    if moved:
        desk.book(f"aside {desk.step.snapshot.head.number} {turn}", BookingKind.ASIDE, after, moved)


def _told(desk: Desk, split: Split, ledger: SleeveLedger, fault: str) -> SleeveBooks:
    states = {state.name: state for state in ledger.states}
    now_s = desk.step.snapshot.head.timestamp_s
    bookings = (*ledger.bookings, *desk.done)
    sleeves = []
    for name in (one.name for one in split.strategies if one.name in desk.held):
        acted = [one.at_s for one in bookings if one.kind in _CARRIED and name in one.acted]
        costs = sum((cost for one in bookings for who, cost in one.costs if who == name), Fraction(0))
        holdings = tuple((token, desk.held[name].get(token, 0)) for token in desk.tokens)
        state = states.get(name) or SleeveState(name, Health.ACTIVE, now_s)
        sleeves.append(Sleeve(name, holdings, desk.units[name], state, max(acted, default=None), costs))
    return SleeveBooks(tuple(sleeves), fault, tuple(desk.done), ledger.turn)
