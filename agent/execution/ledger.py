"""Keeps the double-entry ledger: an entry for each transaction that is final, openings of what came into the books, values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from agent.books import entries as book
from agent.books.entries import Change, Prices
from agent.books.grain import grained
from agent.errors import Refused
from agent.execution.booking import own_step
from agent.execution.settle import realised
from agent.lp import exact, own
from agent.model import (
    Collect,
    Entry,
    EntryKind,
    Held,
    Intent,
    IntentKind,
    LpAction,
    LpV2Position,
    LpV3Position,
    Plan,
    Provide,
    Rebalance,
    StepInput,
    Valuation,
    Withdraw,
)
from agent.policy import coin, flows, liquidity
from agent.ports import Grant, Journal
from agent.reference import reference_prices
from agent.units import NATIVE, PIPS

Principal = Callable[[str], Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Audited:
    """What was entered for a transaction, and what its receipt and step say now."""

    intent: Intent
    entered: Entry | None
    derived: Entry

    @property
    def differs(self) -> bool:
        """Whether something else was entered."""
        return self.entered is not None and self.entered != self.derived


def keep(journal: Journal, step: StepInput, force: bool = False) -> None:
    """Enters what has become final, opens what is new, and writes down what all is worth: at most once an hour, and after each
    change of a balance that was not the market's, or where it is forced.
    """
    for intent in journal.unentered():
        journal.enter(intent, entry_of(journal, intent, step, journal.counted(intent.id), journal.principal))
    prices = prices_of(step)
    found = valuation(step, prices)
    if found is None:
        return
    portfolio = step.portfolio
    journal.name_tokens([*(asset.token for asset in portfolio.assets), *portfolio.hubs], portfolio.numeraire, portfolio.wrapped_native)
    places = _places(step, prices)
    opened: tuple[tuple[str, str], ...] = ()
    if not journal.has_places(places):
        opened = journal.open_places(step.snapshot, places)
        if not journal.has_places(places):  # what is not in the books yet must not look like a profit
            return
    known, books = journal.valued_block(), journal.books()
    moved = [*(change.block for change in books.own), *(flow.block for flow in books.flows)]
    journal.value(found, force or bool(opened) or any(known < block <= found.block for block in moved))


def audited(journal: Journal, present: StepInput) -> tuple[Audited, ...]:
    """Every entry of the book beside what is derived anew from journal and receipts, in the order of the chain."""
    written = {entry.id: entry for entry in journal.entered()}
    found: list[Audited] = []
    before = [entry for entry in journal.ledger() if entry.kind is EntryKind.OPENING]

    def principal(position: str) -> dict[str, int]:
        sums = book.balances([*before, *(one.derived for one in found)])
        return {token: raw for (account, token), raw in sums.items() if account == f"{book.LP}:{position}"}

    for intent in journal.enterable():
        found.append(Audited(intent, written.get(intent.id), entry_of(journal, intent, present, journal.counted(intent.id), principal)))
    return tuple(found)


def entry_of(journal: Journal, intent: Intent, present: StepInput, counted: frozenset[str], principal: Principal) -> Entry:
    """The entry of a final transaction at the reference prices of its own step; of `present` where that cannot be read any more.

    `principal` says what was put into a position and not taken out before it.
    """
    receipt = intent.receipt
    if receipt is None:
        raise ValueError(f"intent {intent.id} has no receipt to enter")
    basis, grant, owner = own_step(journal, intent) or present, journal.grant(intent.id), present.snapshot.owner
    prices, coin = prices_of(basis), basis.portfolio.wrapped_native
    moved = dict(receipt.net(owner)) if receipt.status == 1 else {}
    if wei := intent.coins(owner, coin):
        moved[NATIVE] = moved.get(NATIVE, 0) + wei
    chain_s = basis.snapshot.head.timestamp_s
    by_hand = journal.by_hand(intent.id) if grant.plan is None else _by_hand(grant.plan)
    change = Change(intent.id, receipt.block_number, chain_s, receipt.tx_hash, intent.note, moved, receipt.gas_cost_wei, by_hand)
    if intent.kind is IntentKind.LIQUIDITY and grant.action is not None and receipt.status == 1:
        return _liquidity(change, grant.action, intent, owner, prices, counted, principal)
    if intent.kind is IntentKind.PAYOUT:
        return book.payout(change, prices, counted)
    kind = EntryKind.WRAP if intent.kind is IntentKind.UNWRAP else EntryKind.TRADE
    return book.exchange(change, prices, counted, _fees(grant, intent, counted), kind)


def valuation(step: StepInput, prices: Prices) -> Valuation | None:
    """What all that the books hold is worth at the step's block; None while a balance, a price or a position of it is unknown."""
    sure, targets = flows.balances_of(step.snapshot), {asset.token.address: asset.target_bps for asset in step.portfolio.assets}
    unknown = [token for token in targets if token not in sure or prices.of(token) is None]
    if unknown:
        return None
    try:
        in_positions = exact.look_through([position for _, position in liquidity.counted(step)], prices.by_token)
    except Refused:
        return None
    reserved = _reserved(step, sure)
    held = []
    for token in (*targets, NATIVE):
        price = prices.of(token) or Fraction(0)
        held.append(Held(token, sure[token], in_positions.get(token, 0), price, targets.get(token, 0), reserved.get(token, 0)))
    value = sum(((one.wallet_raw + one.lp_raw) * one.price for one in held), Fraction(0))
    return Valuation(step.snapshot.head.number, step.snapshot.head.timestamp_s, grained(value), tuple(held))


def _reserved(step: StepInput, balances: Mapping[str, int]) -> dict[str, int]:
    """Base units in the wallet that are not managed: reserves, and the native coin unless it is an asset. What the native asset keeps
    is kept in native coin first.
    """
    found = {asset.token.address: min(balances[asset.token.address], asset.reserve_raw) for asset in step.portfolio.assets}
    native = next((asset for asset in step.portfolio.assets if asset.native), None)
    if native is None:
        return found | {NATIVE: balances[NATIVE]}
    kept, token = coin.kept_raw(step, native), native.token.address
    return found | {NATIVE: min(balances[NATIVE], kept), token: min(balances[token], max(0, kept - balances[NATIVE]))}


def _places(step: StepInput, prices: Prices) -> dict[tuple[str, str], tuple[int, Fraction | None]]:
    """What the wallet and each position hold of every asset and of the native coin, with its value."""
    sure = flows.balances_of(step.snapshot)
    found = {("", token): sure[token] for token in (*(asset.token.address for asset in step.portfolio.assets), NATIVE)}
    for _, position in liquidity.counted(step):
        if isinstance(position, LpV2Position | LpV3Position):
            price0, price1 = prices.of(position.token0), prices.of(position.token1)
            for token, raw in zip(
                (position.token0, position.token1), exact.held(position, price0 or Fraction(1), price1 or Fraction(1)), strict=True
            ):
                found[position.name, token] = raw
    priced = {}
    for (place, token), raw in found.items():
        price = prices.of(token)
        priced[place, token] = (raw, None if price is None else grained(raw * price))
    return priced


def _liquidity(
    change: Change, action: LpAction, intent: Intent, owner: str, prices: Prices, counted: frozenset[str], principal: Principal
) -> Entry:
    tokens, receipt = (action.token0, action.token1), intent.receipt
    match action:
        case Collect():
            return book.taken_out(change, prices, counted, action.name, {}, Fraction(0), dict(change.moved))
        case Withdraw():
            share = Fraction(action.liquidity, action.held) if action.held > 0 else Fraction(1)
            fees = dict(zip(tokens, action.fees_raw, strict=True))
            return book.taken_out(change, prices, counted, action.name, principal(action.name), min(share, Fraction(1)), fees)
        case Provide():
            done = None if receipt is None else own.move(action, receipt, owner)
            return book.provided(change, prices, counted, action.name if done is None else done.name)


def _fees(grant: Grant, intent: Intent, counted: frozenset[str]) -> dict[str, int]:
    """Pool fees of each leg by the token that it took, base units rounded up; amounts by the receipt, else as planned."""
    if grant.plan is None or intent.receipt is None or intent.receipt.status != 1 or not counted:
        return {}
    found: dict[str, int] = {}
    for leg, done in zip(grant.plan.legs, realised(grant.plan, intent.receipt), strict=True):
        raw = leg.amount_in_raw if done.amount_in_raw is None else done.amount_in_raw
        found[leg.token_in] = found.get(leg.token_in, 0) - (-raw * leg.fee_pips // PIPS)
    return {token: raw for token, raw in found.items() if raw}


def _by_hand(plan: Plan) -> bool:
    return isinstance(plan.decision, Rebalance) and plan.decision.by_hand


def prices_of(step: StepInput) -> Prices:
    """Reference prices of a step, as entries are valued by."""
    return Prices({token: found.price for token, found in reference_prices(step).prices.items()}, step.portfolio.wrapped_native)
