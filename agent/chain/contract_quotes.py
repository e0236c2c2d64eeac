"""What the venues' own contracts say that each leg's pool pays: Router02.getAmountsOut and QuoterV2, by eth_call at the block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.chain.abi import GET_PAIR, GET_POOL, abi_encode, address_call, word
from agent.chain.rpc import Transport
from agent.chain.second_quote import V2_FEE_PIPS, NoSecondQuote, Quoter, UniswapPython, V2Contracts, V3Contracts, named
from agent.chain.wire import hex_data, octets, only
from agent.model import Leg

GET_AMOUNTS_OUT = bytes.fromhex("d06ca61f")
QUOTE_EXACT_INPUT_SINGLE = bytes.fromhex("c6a5026a")
_AMOUNTS_OF_TWO = (32, 2)
"""Where getAmountsOut's list for a path of two tokens begins, and how long it is."""


class ContractQuotes:
    """Quoter that asks the venue's contracts themselves, over a transport whose answers enough operators give alike."""

    def __init__(self, transport: Transport, venues: Sequence[V2Contracts | V3Contracts]) -> None:
        self._transport = transport
        self._venues = {venue.venue: venue for venue in venues}

    def quote(self, leg: Leg, amount_in_raw: int, block_hash: str) -> int:
        """See Quoter. The venue's factory has to name the leg's pool, in the same request."""
        return named(lambda: self._quote(leg, amount_in_raw, block_hash))

    def _quote(self, leg: Leg, amount_in_raw: int, block_hash: str) -> int:
        match self._venues.get(leg.venue):
            case None:
                raise NoSecondQuote(f"venue {leg.venue} has no addresses for a second quote")
            case V2Contracts() as venue:
                if leg.fee_pips != V2_FEE_PIPS:
                    raise NoSecondQuote("Router02 knows V2 pools with a fee of 0.3 % only")
                find = address_call(GET_PAIR, leg.token_in, leg.token_out)
                ask = GET_AMOUNTS_OUT + abi_encode(["uint256", "address[]"], [amount_in_raw, [leg.token_in, leg.token_out]])
                pool, paid = self._ask(venue.factory, find, venue.router, ask, block_hash)
                self._require_pool(leg, pool)
                start, count, _, out_raw = _words(paid, 4)
                if (start, count) != _AMOUNTS_OF_TWO:
                    raise NoSecondQuote("Router02 answered with something else than two amounts")
                return out_raw
            case V3Contracts() as venue:
                find = address_call(GET_POOL, leg.token_in, leg.token_out) + word(leg.fee_pips)
                terms = (leg.token_in, leg.token_out, amount_in_raw, leg.fee_pips, 0)
                ask = QUOTE_EXACT_INPUT_SINGLE + abi_encode(["(address,address,uint256,uint24,uint160)"], [terms])
                pool, paid = self._ask(venue.factory, find, venue.quoter_v2, ask, block_hash)
                self._require_pool(leg, pool)
                return _words(paid, 4)[0]

    def _ask(self, factory: str, find: bytes, desk: str, ask: bytes, block_hash: str) -> tuple[object, object]:
        at_block = {"blockHash": block_hash, "requireCanonical": True}
        calls = [("eth_call", [{"to": to, "data": hex_data(data)}, at_block]) for to, data in ((factory, find), (desk, ask))]
        pool, paid = (only(self._transport.name, "eth_call", said) for said in self._transport.batch(calls))
        return pool, paid

    def _require_pool(self, leg: Leg, found: object) -> None:
        if _words(found, 1)[0] != int(leg.pool, 16):
            raise NoSecondQuote("the venue's factory names another pool for this pair and fee")


@dataclass(frozen=True, slots=True)
class Unanimous:
    """Quoter of several, by name, that answers only what all of them say, to the base unit: each asks exact contracts at one block."""

    quoters: tuple[tuple[str, Quoter], ...]

    def quote(self, leg: Leg, amount_in_raw: int, block_hash: str) -> int:
        """See Quoter."""
        said = {name: quoter.quote(leg, amount_in_raw, block_hash) for name, quoter in self.quoters}
        if len(set(said.values())) != 1:
            raise NoSecondQuote("second quotes differ: " + ", ".join(f"{name} {out_raw}" for name, out_raw in said.items()))
        return next(iter(said.values()))


def opinions(transport: Transport, venues: Sequence[V2Contracts | V3Contracts]) -> Unanimous:
    """The venues' contracts and, where uniswap-python is installed, that library, which decodes and routes by code of its own."""
    quoters: list[tuple[str, Quoter]] = [("the venue's contracts", ContractQuotes(transport, venues))]
    if UniswapPython.installed():
        quoters.append(("uniswap-python", UniswapPython(transport, venues)))
    return Unanimous(tuple(quoters))


def _words(answer: object, count: int) -> list[int]:
    """So many ABI words as unsigned integers; longer and shorter answers are refused."""
    raw = octets(answer, "a quote", 32 * count)
    return [int.from_bytes(raw[at : at + 32], "big") for at in range(0, len(raw), 32)]
