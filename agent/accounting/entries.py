"""Journal entries of transactions and external transfers, with postings that balance token by
token.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from agent.model import (
    Entry,
    EntryKind,
    ExternalTransfer,
    ExternalTransferKind,
    LedgerOpening,
    Posting,
)
from agent.units import NATIVE, Price, Value, floor_int

# --- One fixed grid for ledger values keeps sums of any number of entries exact and small.


QUANTA_PER_UNIT = 10**12
"""Grid parts per numeraire base unit (10^12)."""


def quantize(value: Fraction) -> Value:
    """Round a value to the grid, half to even."""
    return Fraction(round(value * QUANTA_PER_UNIT), QUANTA_PER_UNIT)


def to_quanta(value: Value) -> int:
    """Return the value in whole quanta, rounded half to even; sums over thousands of entries use
    these integers.
    """
    number, rest = divmod(value.numerator * QUANTA_PER_UNIT, value.denominator)
    return number if rest == 0 else round(value * QUANTA_PER_UNIT)


def from_quanta(number: int) -> Value:
    """Return the value of an integer number of quanta."""
    return Fraction(number, QUANTA_PER_UNIT)


def exact_sum(values: Iterable[Value]) -> Value:
    """Return the exact sum; for values on the grid much faster than adding fractions."""
    number, rest = 0, Fraction(0)
    for value in values:
        times, off = divmod(QUANTA_PER_UNIT, value.denominator)
        if off:
            rest += value
        else:
            number += value.numerator * times
    return from_quanta(number) + rest


def prorated_value(value: Value, raw: int, of_raw: int) -> Value:
    """Return value · raw / of_raw, rounded down to the grid; subtract it from `value` for the exact
    remainder.
    """
    return Fraction(floor_int(value * raw / of_raw * QUANTA_PER_UNIT), QUANTA_PER_UNIT)


def split_quanta(number: int, weights: list[int]) -> list[int]:
    """Split into parts by non-negative weights, each rounded down; equal parts if all weights are
    zero. The last part with a positive weight takes the remainder.
    """
    if len(weights) == 1:
        return [number]
    whole = sum(weights)
    if whole == 0:
        weights, whole = [1] * len(weights), len(weights)
    found = [number * weight // whole for weight in weights]
    last = max(place for place, weight in enumerate(weights) if weight > 0)
    found[last] += number - sum(found)
    return found


WALLET, LP, TRADING = "assets:wallet", "assets:lp", "trading"
OPENING, DEPOSITS, WITHDRAWALS, UNEXPLAINED = (
    "equity:opening",
    "equity:deposits",
    "equity:withdrawals",
    "equity:unexplained",
)
UNDONE = "equity:undone"
"""Account of a decrease that was fully restored: neither a loss nor a deposit, lots unchanged."""
GIFTS, REBASES, LP_INCOME = "income:gifts", "income:rebases", "income:lp"
GAS, FEES, LOSSES, LP_LOSSES = "expenses:gas", "expenses:fees", "expenses:losses", "expenses:lp"
RawAmounts = Mapping[str, int]

_TRANSFER_ACCOUNTS: dict[ExternalTransferKind | None, tuple[EntryKind, str]] = {
    None: (EntryKind.UNEXPLAINED, UNEXPLAINED),
    ExternalTransferKind.DEPOSIT: (EntryKind.DEPOSIT, DEPOSITS),
    ExternalTransferKind.ACCEPTED: (EntryKind.DEPOSIT, DEPOSITS),
    ExternalTransferKind.GAS_MONEY: (EntryKind.GAS_MONEY, DEPOSITS),
    ExternalTransferKind.WITHDRAWAL: (EntryKind.WITHDRAWAL, WITHDRAWALS),
    ExternalTransferKind.GIFT: (EntryKind.GIFT, GIFTS),
    ExternalTransferKind.LOSS: (EntryKind.LOSS, LOSSES),
    ExternalTransferKind.REBASE: (EntryKind.REBASE, REBASES),
    ExternalTransferKind.UNDONE: (EntryKind.UNDONE, UNDONE),
}


@dataclass(frozen=True, slots=True)
class EntryPrices:
    """Reference prices of an entry's step by token; the native coin has the price of its wrapped
    token.
    """

    by_token: Mapping[str, Price]
    coin: str

    def of(self, token: str) -> Price | None:
        """Numeraire base units per base unit; None if there was no price."""
        return self.by_token.get(self.coin if token == NATIVE else token)


@dataclass(frozen=True, slots=True)
class SettledTransaction:
    """Effect of a final transaction: base units by token in the wallet without its gas, and pool
    fees paid by token.
    """

    id: str
    block: int
    chain_s: int
    tx_hash: str
    note: str
    moved: RawAmounts
    gas_wei: int
    by_hand: bool = False


def trade_entry(
    change: SettledTransaction,
    prices: EntryPrices,
    counted: Collection[str],
    fees: RawAmounts,
    kind: EntryKind = EntryKind.TRADE,
) -> Entry:
    """Return the entry of a trade, an unwrapping, or a transaction that only paid gas.

    Pool fees are included in the amounts paid, in the input token of each leg. They are posted
    separately.
    """
    book = _EntryBuilder(prices)
    for token, raw in _counted(change.moved, counted).items():
        book.move(WALLET, TRADING, token, raw)
    for token, raw in sorted(fees.items()):
        book.move(FEES, TRADING, token, raw)
    traded = any(account != WALLET for account, _ in book.found)
    return book.entry(change, kind if traded else EntryKind.GAS, counted)


def payout_entry(
    change: SettledTransaction, prices: EntryPrices, counted: Collection[str]
) -> Entry:
    """Return the entry of a payment from the wallet to an address of the owner."""
    book = _EntryBuilder(prices)
    for token, raw in _counted(change.moved, counted).items():
        book.move(WALLET, WITHDRAWALS, token, raw)
    return book.entry(change, EntryKind.PAYOUT, counted)


def provision_entry(
    change: SettledTransaction, prices: EntryPrices, counted: Collection[str], position: str
) -> Entry:
    """Return the entry of tokens moved into a liquidity position."""
    book = _EntryBuilder(prices)
    for token, raw in _counted(change.moved, counted).items():
        book.move(WALLET, f"{LP}:{position}", token, raw)
    return book.entry(change, EntryKind.PROVIDE, counted)


def withdrawal_entry(
    change: SettledTransaction,
    prices: EntryPrices,
    counted: Collection[str],
    position: str,
    principal: RawAmounts,
    share: Fraction,
    fees: RawAmounts,
) -> Entry:
    """Return the entry of tokens withdrawn from a position with that `principal`.

    `share` is the fraction of the principal returned, `fees` are income, and the rest was exchanged
    by the pool. If the rest is a gain or loss in both tokens, it is booked as income or a loss. A
    collect has share 0.
    """
    book = _EntryBuilder(prices)
    moved = _counted(change.moved, counted)
    tokens = sorted({*moved, *(token for token in principal if token in counted)})
    rest = {}
    for token in tokens:
        earned = min(max(0, moved.get(token, 0)), fees.get(token, 0))
        back = floor_int(principal.get(token, 0) * share)
        book.move(WALLET, LP_INCOME, token, earned)
        book.move(WALLET, f"{LP}:{position}", token, back)
        rest[token] = moved.get(token, 0) - earned - back
    for token, raw in rest.items():
        mixed = any(other < 0 for other in rest.values()) and any(
            other > 0 for other in rest.values()
        )
        book.move(WALLET, TRADING if mixed else LP_INCOME if raw > 0 else LP_LOSSES, token, raw)
    return book.entry(change, EntryKind.WITHDRAW if share else EntryKind.COLLECT, counted)


def external_entry(
    tx_hash: str,
    block: int,
    chain_s: int,
    moved: RawAmounts,
    prices: EntryPrices,
    counted: Collection[str],
) -> Entry:
    """Return the entry of a wallet transaction sent outside this store; two-way transfers are a
    manual exchange, gas included.
    """
    found = _counted(moved, counted)
    both = any(raw > 0 for raw in found.values()) and any(raw < 0 for raw in found.values())
    book = _EntryBuilder(prices)
    for token, raw in found.items():
        book.move(WALLET, TRADING if both else DEPOSITS if raw > 0 else WITHDRAWALS, token, raw)
    change = SettledTransaction(
        tx_hash, block, chain_s, tx_hash, "sent without this store", {}, 0, True
    )
    return book.entry(change, EntryKind.OUTSIDE, counted)


def transfer_entry(flow: ExternalTransfer) -> Entry:
    """Return the entry of an external transfer, by its status, at its value when found."""
    kind, account = _TRANSFER_ACCOUNTS[flow.kind]
    value = None if flow.value is None else quantize(flow.value)
    postings = (
        Posting(WALLET, flow.token, flow.delta_raw, value),
        Posting(account, flow.token, -flow.delta_raw, _minus(value)),
    )
    return Entry(f"flow {flow.id}", kind, flow.block, flow.chain_s, "", "", postings)


def opening_entry(opening: LedgerOpening) -> Entry:
    """Return the entry of a place's opening balance."""
    account = f"{LP}:{opening.place}" if opening.place else WALLET
    postings = (
        Posting(account, opening.token, opening.raw, opening.value),
        Posting(OPENING, opening.token, -opening.raw, _minus(opening.value)),
    )
    name = f"opening {opening.place or 'wallet'} {opening.token}"
    return Entry(name, EntryKind.OPENING, opening.block, opening.chain_s, "", "", postings)


def unbalanced_tokens(entry: Entry) -> tuple[str, ...]:
    """Return tokens whose postings do not sum to zero; none in a consistent ledger."""
    sums: dict[str, int] = {}
    for posting in entry.postings:
        sums[posting.token] = sums.get(posting.token, 0) + posting.raw
    return tuple(sorted(token for token, raw in sums.items() if raw))


def account_balances(entries: Sequence[Entry]) -> dict[tuple[str, str], int]:
    """Base units by (account, token)."""
    found: dict[tuple[str, str], int] = {}
    for entry in entries:
        for posting in entry.postings:
            key = (posting.account, posting.token)
            found[key] = found.get(key, 0) + posting.raw
    return found


class _EntryBuilder:
    """Builder of one entry, with one posting per account and token."""

    def __init__(self, prices: EntryPrices) -> None:
        self.prices = prices
        self.found: dict[tuple[str, str], int] = {}

    def move(self, into: str, out_of: str, token: str, raw: int) -> None:
        """Credit one account with `raw` base units and debit the other."""
        if raw:
            for account, sign in ((into, 1), (out_of, -1)):
                self.found[account, token] = self.found.get((account, token), 0) + sign * raw

    def entry(self, change: SettledTransaction, kind: EntryKind, counted: Collection[str]) -> Entry:
        """Return the entry, with gas paid in native coin."""
        if NATIVE in counted:
            self.move(GAS, WALLET, NATIVE, change.gas_wei)
        postings = []
        for (account, token), raw in self.found.items():
            price = self.prices.of(token)
            if raw:
                postings.append(
                    Posting(account, token, raw, None if price is None else quantize(raw * price))
                )
        return Entry(
            change.id,
            kind,
            change.block,
            change.chain_s,
            change.tx_hash,
            change.note,
            tuple(postings),
            change.by_hand,
        )


def _counted(moved: RawAmounts, counted: Collection[str]) -> dict[str, int]:
    return {token: raw for token, raw in sorted(moved.items()) if token in counted and raw}


def _minus(value: Fraction | None) -> Fraction | None:
    return None if value is None else -value
