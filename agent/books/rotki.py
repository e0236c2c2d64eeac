"""The ledger as rotki's generic trades and generic events, in the columns, words and number formats that rotki reads.

Sources: rotki's documentation, "rotki Generic Import" (docs.rotki.com, usage guide, import data), and its importers
rotkehlchen/data_import/importers/rotki_trades.py and rotki_events.py with data_import/utils.py, of 21 August 2026: columns are read by
name, a location that it does not know becomes "external" unasked, a fee and its currency may both be empty, and a trade whose
location, time, assets and amounts are those of another is passed over as a duplicate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction

from agent.books import entries as book
from agent.model import Entry
from agent.units import NATIVE, decimal_text, floor_int

TRADE_COLUMNS = (
    "Location", "Spend Currency", "Receive Currency", "Receive Amount", "Spend Amount", "Fee", "Fee Currency", "Description", "Timestamp",
)  # fmt: skip
EVENT_COLUMNS = ("Type", "Location", "Currency", "Amount", "Fee", "Fee Currency", "Description", "Timestamp")
TRADED_AT, MOVED_AT = "uniswap", "blockchain"
"""Of rotki's supported locations: where swaps took place, and everything else."""
ETHER_CHAINS = frozenset({1, 10, 8_453, 42_161, 59_144, 534_352})
"""Chains whose native coin is ether, which rotki calls ETH."""
_EVENTS = {
    book.OPENED: ("Deposit", "Deposit"),
    book.DEPOSITS: ("Deposit", "Withdrawal"),
    book.WITHDRAWALS: ("Deposit", "Withdrawal"),
    book.UNEXPLAINED: ("Deposit", "Withdrawal"),
    book.GIFTS: ("Income", "Loss"),
    book.REBASES: ("Income", "Loss"),
    book.LP_INCOME: ("Income", "Loss"),
    book.LOSSES: ("Income", "Loss"),
    book.LP_LOSSES: ("Income", "Loss"),
}
"""By account: the event for what came to the wallet, and for what went."""
Row = tuple[str, ...]
Decimals = Callable[[str], int]


class Assets:
    """Names of assets as rotki knows them: CAIP-19 for tokens of an EVM chain, a name of its own for the native coin."""

    def __init__(self, chain_id: int, native: str, decimals: Decimals) -> None:
        self.chain_id, self.native, self._decimals = chain_id, native, decimals

    def name(self, token: str) -> str:
        """eip155:1/erc20:0x…, or the native coin's."""
        return self.native if token == NATIVE else f"eip155:{self.chain_id}/erc20:{token}"

    def amount(self, token: str, raw: int) -> str:
        """Whole coins as a plain decimal, without sign."""
        return decimal_text(abs(raw), 18 if token == NATIVE else self._decimals(token))


def trades(entries: Iterable[Entry], assets: Assets) -> Iterator[Row]:
    """One row per pair of tokens that an entry exchanged; its gas is the fee of the first. Amounts of all rows, with what `events`
    has of exchanges, sum to the wei. Rows alike are a millisecond apart, or rotki would take the second for a duplicate.
    """
    seen: set[Row] = set()
    for entry in entries:
        fee_raw = _gas(entry)
        for (spent, spent_raw), (received, received_raw) in _pairs(entry)[0]:
            fee = (assets.amount(NATIVE, fee_raw), assets.name(NATIVE)) if fee_raw else ("", "")
            amounts = (
                assets.name(spent), assets.name(received), assets.amount(received, received_raw), assets.amount(spent, spent_raw),
            )  # fmt: skip
            at_ms = entry.chain_s * 1_000
            while (*amounts, str(at_ms)) in seen:
                at_ms += 1
            seen.add((*amounts, str(at_ms)))
            yield (TRADED_AT, *amounts, *fee, _told(entry), str(at_ms))
            fee_raw = 0


def events(entries: Iterable[Entry], assets: Assets) -> Iterator[Row]:
    """What came and went without an exchange, and gas that belongs to none. What lies in a liquidity position is still the owner's."""
    for entry in entries:
        pairs, dust = _pairs(entry)
        fee_raw = 0 if pairs else _gas(entry)
        moved = [
            (_EVENTS[one.account][0 if one.raw < 0 else 1], one.token, one.raw)
            for one in entry.postings
            if one.account in _EVENTS and one.raw
        ]
        for word, token, raw in (*moved, *((("Income" if raw > 0 else "Loss"), token, raw) for token, raw in dust)):
            fee = (assets.amount(NATIVE, fee_raw), assets.name(NATIVE)) if fee_raw else ("", "")
            yield (word, MOVED_AT, assets.name(token), assets.amount(token, raw), *fee, _told(entry), _milliseconds(entry))
            fee_raw = 0
        if fee_raw:
            yield ("Spend", MOVED_AT, assets.name(NATIVE), assets.amount(NATIVE, fee_raw), "", "", _told(entry), _milliseconds(entry))


Side = tuple[str, int]
"""A token and base units of it."""


def _pairs(entry: Entry) -> tuple[list[tuple[Side, Side]], list[Side]]:
    """Given and got, cut along their shares of either side's value, so that n and m tokens make at most n + m - 1 pairs; and with its
    sign what finds no base unit of the other side. A piece whose other side is less than a base unit goes with a neighbour of its
    token: no row has an amount of zero.
    """
    net: dict[str, int] = {}
    worth: dict[str, Fraction] = {}
    for posting in entry.postings:
        if posting.account in (book.TRADING, book.FEES):
            net[posting.token] = net.get(posting.token, 0) - posting.raw
            worth[posting.token] = worth.get(posting.token, Fraction(0)) - (posting.value or Fraction(0))
    gave, got = ([(token, raw) for token, raw in net.items() if raw * sign > 0] for sign in (-1, 1))
    if not gave or not got:
        return [], []
    pieces = list(_pieces(gave, got, worth))
    whole = {(given, taken): [raw_in, raw_out] for given, taken, raw_in, raw_out in pieces if raw_in and raw_out}
    dust = []
    for given, taken, raw_in, raw_out in pieces:
        if bool(raw_in) == bool(raw_out):
            continue
        side, token, raw = (0, given, raw_in) if raw_in else (1, taken, raw_out)
        home = next((amounts for pair, amounts in whole.items() if pair[side] == token), None)
        if home is None:
            dust.append((token, raw if side else -raw))
        else:
            home[side] += raw
    return [((given, raw_in), (taken, raw_out)) for (given, taken), (raw_in, raw_out) in whole.items()], dust


def _pieces(gave: list[Side], got: list[Side], worth: dict[str, Fraction]) -> Iterator[tuple[str, str, int, int]]:
    """(given, got, base units given, base units got) of each piece; the units of either side sum to all of it."""
    ends_in, ends_out = (_ends(side, worth) for side in (gave, got))
    at_in = at_out = done_in = done_out = 0
    while at_in < len(gave) and at_out < len(got):
        end = min(ends_in[at_in], ends_out[at_out])
        raw_in = _cut(gave, ends_in, at_in, end) - done_in
        raw_out = _cut(got, ends_out, at_out, end) - done_out
        yield gave[at_in][0], got[at_out][0], raw_in, raw_out
        done_in, done_out = done_in + raw_in, done_out + raw_out
        if end == ends_in[at_in]:
            at_in, done_in = at_in + 1, 0
        if end == ends_out[at_out]:
            at_out, done_out = at_out + 1, 0


def _ends(side: list[tuple[str, int]], worth: dict[str, Fraction]) -> list[Fraction]:
    """Where each token's stretch of [0, 1] ends, by value; alike where nothing has a price."""
    values = [abs(worth[token]) for token, _ in side]
    whole = sum(values, Fraction(0))
    values, whole = (values, whole) if whole and all(values) else ([Fraction(1)] * len(side), Fraction(len(side)))
    total, found = Fraction(0), []
    for value in values:
        total += value
        found.append(total / whole)
    return found


def _cut(side: list[tuple[str, int]], ends: list[Fraction], at: int, end: Fraction) -> int:
    """Base units of the token up to `end`, all of them at its own end."""
    first = ends[at - 1] if at else Fraction(0)
    raw = abs(side[at][1])
    return raw if end == ends[at] else floor_int(raw * (end - first) / (ends[at] - first))


def _gas(entry: Entry) -> int:
    return sum(one.raw for one in entry.postings if one.account == book.GAS)


def _told(entry: Entry) -> str:
    hand = " by hand" if entry.by_hand else ""
    return f"trimtab {entry.kind.value}{hand} {entry.tx_hash or entry.id}"


def _milliseconds(entry: Entry) -> str:
    return str(entry.chain_s * 1_000)
