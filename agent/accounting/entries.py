"""Ledger entries of transactions and external transfers. In each entry the
postings of a token sum to zero.
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

QUANTA_PER_UNIT = 10**12
"""Quanta (grid steps) per numeraire base unit."""


def quantize(value: Fraction) -> Value:
    """Return a value rounded to the grid, half to even."""
    return Fraction(round(value * QUANTA_PER_UNIT), QUANTA_PER_UNIT)


def to_quanta(value: Value) -> int:
    """Return a value in whole quanta, rounded half to even, for fast sums over thousands of
    entries.
    """
    number, rest = divmod(value.numerator * QUANTA_PER_UNIT, value.denominator)
    return number if rest == 0 else round(value * QUANTA_PER_UNIT)


def from_quanta(number: int) -> Value:
    """Return the value of a number of quanta."""
    return Fraction(number, QUANTA_PER_UNIT)


def exact_sum(values: Iterable[Value]) -> Value:
    """Return the exact sum, much faster than by adding fractions if the values are on the grid."""
    number, rest = 0, Fraction(0)
    for value in values:
        times, off = divmod(QUANTA_PER_UNIT, value.denominator)
        if off:
            rest += value
        else:
            number += value.numerator * times
    return from_quanta(number) + rest


def prorated_value(value: Value, raw: int, of_raw: int) -> Value:
    """Return value · raw / of_raw, rounded down to the grid. The remainder, `value` minus the
    result, is exact.
    """
    return Fraction(floor_int(value * raw / of_raw * QUANTA_PER_UNIT), QUANTA_PER_UNIT)


def split_quanta(number: int, weights: list[int]) -> list[int]:
    """Split a number by non-negative weights into parts rounded down; equal parts if all weights
    are zero. The last part with a positive weight takes the remainder.
    """
    if len(weights) == 1:
        return [number]
    whole = sum(weights)
    if whole == 0:
        weights, whole = [1] * len(weights), len(weights)
    parts = [number * weight // whole for weight in weights]
    last = max(place for place, weight in enumerate(weights) if weight > 0)
    parts[last] += number - sum(parts)
    return parts


WALLET, LP, TRADING, MARGIN = "assets:wallet", "assets:lp", "trading", "assets:margin"
OPENING, DEPOSITS, WITHDRAWALS, UNEXPLAINED = (
    "equity:opening",
    "equity:deposits",
    "equity:withdrawals",
    "equity:unexplained",
)
UNDONE = "equity:undone"
"""Account of decreases that were fully restored: no loss, no deposit, lots unchanged."""
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
    """Reference prices of an entry's step by token; native coin has the price of its wrapped token
    `coin`.
    """

    by_token: Mapping[str, Price]
    coin: str

    def of(self, token: str) -> Price | None:
        """Return numeraire base units per base unit of a token; None without a price."""
        return self.by_token.get(self.coin if token == NATIVE else token)


@dataclass(frozen=True, slots=True)
class SettledTransaction:
    """Effect of a final transaction on the wallet: change by token in base units, excluding gas,
    and the gas paid.
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

    Amounts paid include the pool fees, in the input token of each leg; fees are posted separately.
    """
    book = EntryBuilder(prices)
    for token, raw in counted_moves(change.moved, counted).items():
        book.move(WALLET, TRADING, token, raw)
    for token, raw in sorted(fees.items()):
        book.move(FEES, TRADING, token, raw)
    traded = any(account != WALLET for account, _ in book.moves)
    return book.entry(change, kind if traded else EntryKind.GAS, counted)


def payout_entry(
    change: SettledTransaction, prices: EntryPrices, counted: Collection[str]
) -> Entry:
    """Return the entry of a payout to an address of the owner."""
    book = EntryBuilder(prices)
    for token, raw in counted_moves(change.moved, counted).items():
        book.move(WALLET, WITHDRAWALS, token, raw)
    return book.entry(change, EntryKind.PAYOUT, counted)


def provision_entry(
    change: SettledTransaction, prices: EntryPrices, counted: Collection[str], position: str
) -> Entry:
    """Return the entry of tokens moved into a liquidity position."""
    book = EntryBuilder(prices)
    for token, raw in counted_moves(change.moved, counted).items():
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
    """Return the entry of tokens withdrawn from a liquidity position with this `principal`.

    `share` is the fraction of the principal returned (0 for a collect). `fees` are income. The
    difference to the principal is an exchange by the pool, or income or a loss if it has the same
    sign in both tokens.
    """
    book = EntryBuilder(prices)
    moved = counted_moves(change.moved, counted)
    tokens = sorted({*moved, *(token for token in principal if token in counted)})
    rest = {}
    for token in tokens:
        earned = min(max(0, moved.get(token, 0)), fees.get(token, 0))
        back = floor_int(principal.get(token, 0) * share)
        book.move(WALLET, LP_INCOME, token, earned)
        book.move(WALLET, f"{LP}:{position}", token, back)
        rest[token] = moved.get(token, 0) - earned - back
    exchanged = min(rest.values(), default=0) < 0 < max(rest.values(), default=0)
    for token, raw in rest.items():
        account = LP_INCOME if raw > 0 else LP_LOSSES
        book.move(WALLET, TRADING if exchanged else account, token, raw)
    return book.entry(change, EntryKind.WITHDRAW if share else EntryKind.COLLECT, counted)


def external_entry(
    tx_hash: str,
    block: int,
    chain_s: int,
    moved: RawAmounts,
    prices: EntryPrices,
    counted: Collection[str],
) -> Entry:
    """Return the entry of a wallet transaction that is not in the journal, gas included. Tokens
    both sent and received make it a manual exchange.
    """
    changes = counted_moves(moved, counted)
    exchanged = min(changes.values(), default=0) < 0 < max(changes.values(), default=0)
    book = EntryBuilder(prices)
    for token, raw in changes.items():
        account = DEPOSITS if raw > 0 else WITHDRAWALS
        book.move(WALLET, TRADING if exchanged else account, token, raw)
    change = SettledTransaction(
        tx_hash, block, chain_s, tx_hash, "sent without this store", {}, 0, True
    )
    return book.entry(change, EntryKind.OUTSIDE, counted)


def transfer_entry(flow: ExternalTransfer) -> Entry:
    """Return the entry of an external transfer, posted by kind and valued when it was found."""
    kind, account = _TRANSFER_ACCOUNTS[flow.kind]
    value = None if flow.value is None else quantize(flow.value)
    postings = (
        Posting(WALLET, flow.token, flow.delta_raw, value),
        Posting(account, flow.token, -flow.delta_raw, _minus(value)),
    )
    return Entry(f"flow {flow.id}", kind, flow.block, flow.chain_s, "", "", postings)


def opening_entry(opening: LedgerOpening) -> Entry:
    """Return the entry of an opening balance."""
    account = f"{LP}:{opening.place}" if opening.place else WALLET
    postings = (
        Posting(account, opening.token, opening.raw, opening.value),
        Posting(OPENING, opening.token, -opening.raw, _minus(opening.value)),
    )
    name = f"opening {opening.place or 'wallet'} {opening.token}"
    return Entry(name, EntryKind.OPENING, opening.block, opening.chain_s, "", "", postings)


def unbalanced_tokens(entry: Entry) -> tuple[str, ...]:
    """Return the tokens whose postings do not sum to zero."""
    sums: dict[str, int] = {}
    for posting in entry.postings:
        sums[posting.token] = sums.get(posting.token, 0) + posting.raw
    return tuple(sorted(token for token, raw in sums.items() if raw))


def account_balances(entries: Sequence[Entry]) -> dict[tuple[str, str], int]:
    """Return base units by (account, token)."""
    balances: dict[tuple[str, str], int] = {}
    for entry in entries:
        for posting in entry.postings:
            key = (posting.account, posting.token)
            balances[key] = balances.get(key, 0) + posting.raw
    return balances


class EntryBuilder:
    """Builder of an entry with one posting per account and token."""

    def __init__(self, prices: EntryPrices) -> None:
        self.prices = prices
        self.moves: dict[tuple[str, str], int] = {}

    def move(self, into: str, out_of: str, token: str, raw: int) -> None:
        """Add `raw` base units to one account and subtract them from a second."""
        if raw:
            for account, sign in ((into, 1), (out_of, -1)):
                self.moves[account, token] = self.moves.get((account, token), 0) + sign * raw

    def entry(self, change: SettledTransaction, kind: EntryKind, counted: Collection[str]) -> Entry:
        """Return the entry, gas included."""
        if NATIVE in counted:
            self.move(GAS, WALLET, NATIVE, change.gas_wei)
        postings = []
        for (account, token), raw in self.moves.items():
            price = self.prices.of(token)
            if raw:
                value = None if price is None else quantize(raw * price)
                postings.append(Posting(account, token, raw, value))
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


def counted_moves(moved: RawAmounts, counted: Collection[str]) -> dict[str, int]:
    """Return the changes of counted tokens, base units, in a canonical order."""
    return {token: raw for token, raw in sorted(moved.items()) if token in counted and raw}


def _minus(value: Fraction | None) -> Fraction | None:
    return None if value is None else -value
