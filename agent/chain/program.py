"""Says what a program of the Rebalancer means: a strict reader of its packed bytes, apart from whatever packed them.

Layout: contracts/src/Rebalancer.sol. Only one encoding of a program is understood: fields that play no part are zero, no
token is listed twice or for nothing, no byte is left over.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from agent.chain.words import address_of

LEG_BYTES = 39


class Venue(Enum):
    """What a leg trades in: a V2 pair, a V3 pool, or the contract that wraps the native coin."""

    V2 = 0
    V3 = 1
    NATIVE = 2


class Place(Enum):
    """From where a leg is paid and where it pays to: the caller, the Rebalancer (all it has), or the next leg's V2 pair."""

    WALLET = 0
    HERE = 1
    PAIR = 2


@dataclass(frozen=True, slots=True)
class Watched:
    """A token whose balance in the wallet is checked: it changes by `bound_raw` or more, and counts at its price.

    `price_x128` is numeraire base units per token base unit, times 2^128. A negative bound is the most that is spent.
    """

    token: str
    price_x128: int
    bound_raw: int


@dataclass(frozen=True, slots=True)
class ProgramLeg:
    """One swap, amounts in base units. `amount_raw` is 0 unless the wallet pays; `pair_with` is set when the sink is a pair.

    The pool is the one that the venue's factory made for both tokens and the fee, whatever address a plan names.
    """

    venue: Venue
    source: Place
    sink: Place
    token_in: str
    token_out: str
    pair_with: str | None
    fee_pips: int
    amount_raw: int
    least_raw: int


@dataclass(frozen=True, slots=True)
class Rebalance:
    """Rebalancer.rebalance(program): all or nothing, not after `deadline_s` (Unix seconds of the block).

    The watched balances' changes times their prices sum up to `floor_raw` numeraire base units or more.
    """

    deadline_s: int
    floor_raw: int
    watched: tuple[Watched, ...]
    further: tuple[str, ...]
    legs: tuple[ProgramLeg, ...]


class _Bytes:
    """Big-endian fields, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, length: int, signed: bool = False) -> int:
        part = self._data[self._at : self._at + length]
        if len(part) != length:
            raise ValueError("the program ends too early")
        self._at += length
        return int.from_bytes(part, "big", signed=signed)

    def address(self) -> str:
        return address_of(self.take(20))

    @property
    def left(self) -> int:
        return len(self._data) - self._at


def read(data: bytes) -> Rebalance:
    """The program in `data`. Raises ValueError naming what is wrong."""
    source = _Bytes(data)
    deadline_s, watched_count, count = source.take(5), source.take(1), source.take(1)
    floor_raw = source.take(16, signed=True)
    if watched_count > count:
        raise ValueError("the program watches more tokens than it lists")
    tokens = tuple(source.address() for _ in range(count))
    watched = tuple(Watched(token, source.take(24), source.take(16, signed=True)) for token in tokens[:watched_count])
    if len(set(tokens)) != len(tokens):
        raise ValueError("the program lists a token twice")
    if source.left == 0 or source.left % LEG_BYTES:
        raise ValueError("the program's legs are not whole")
    legs = tuple(_leg(source, tokens) for _ in range(source.left // LEG_BYTES))
    if unused := set(tokens) - {token for leg in legs for token in (leg.token_in, leg.token_out, leg.pair_with)}:
        raise ValueError(f"the program lists {', '.join(sorted(unused))} and does not trade it")
    return Rebalance(deadline_s, floor_raw, watched, tokens[watched_count:], legs)


def _leg(source: _Bytes, tokens: tuple[str, ...]) -> ProgramLeg:
    kind, number_in, number_out, number_next = (source.take(1) for _ in range(4))
    fee_pips, amount_raw, least_raw = source.take(3), source.take(16), source.take(16)
    if kind >> 6 or 3 in (kind & 3, kind >> 2 & 3, kind >> 4 & 3):
        raise ValueError(f"a leg of kind {kind} is not known")
    venue, paid_from, paid_to = Venue(kind & 3), Place(kind >> 2 & 3), Place(kind >> 4 & 3)
    if max(number_in, number_out, number_next) >= len(tokens):
        raise ValueError("a leg names a token that is not listed")
    if number_next and paid_to is not Place.PAIR:
        raise ValueError("a leg names a next token without paying to its pair")
    if amount_raw and paid_from is not Place.WALLET:
        raise ValueError("a leg names an amount that the wallet does not pay")
    pair_with = tokens[number_next] if paid_to is Place.PAIR else None
    return ProgramLeg(venue, paid_from, paid_to, tokens[number_in], tokens[number_out], pair_with, fee_pips, amount_raw, least_raw)
