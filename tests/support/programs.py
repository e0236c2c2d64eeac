"""Programs of Rebalancer: rows, legs and conditions as values, and their packed form (contracts/src/Rebalancer.sol)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction

from eth_abi.abi import encode as abi_encode

from agent.signing.calldata import REBALANCE
from agent.units import NATIVE

NEVER_S = 2**40 - 1
"""The last deadline that fits, Unix seconds."""
NO_FLOOR = -(2**120)
"""A value floor that nothing falls below, numeraire base units."""


class RowKind(IntEnum):
    """What a row's maker makes, and so how its pools are called and which callback they make."""

    PAIR_V2 = 0
    POOL_V3 = 1
    PANCAKE_V3 = 2
    POOL_V4 = 3
    WRAPPED = 4


class Flow(IntEnum):
    """Where a leg's tokens come from, or go."""

    WALLET = 0
    HERE = 1
    PAIR = 2


@dataclass(frozen=True, slots=True)
class Row:
    """A factory, deployer, PoolManager or wrapped native coin.

    `word` is the hash of the pools' init code, of a clone's where pools are clones; for V4 the hooks' address.
    """

    kind: RowKind
    maker: str
    word: bytes = bytes(32)

    def encode(self) -> bytes:
        return bytes([self.kind]) + bytes.fromhex(self.maker[2:]) + self.word


@dataclass(frozen=True, slots=True)
class ProgramLeg:
    """One swap or conversion. `amount_raw` counts for legs from the wallet alone; `tier` is the fee in millionths, for Slipstream the
    tick spacing. A leg to a pair names that pair's other token and row.
    """

    row: Row
    token_in: str
    token_out: str
    amount_raw: int = 0
    min_out_raw: int = 1
    tier: int = 0
    spacing: int = 0
    source: Flow = Flow.WALLET
    sink: Flow = Flow.WALLET
    next_token: str | None = None
    next_row: Row | None = None

    def encode(self, tokens: Sequence[str], rows: Sequence[Row]) -> bytes:
        places = [
            rows.index(self.row),
            tokens.index(self.token_in),
            tokens.index(self.token_out),
            0 if self.next_token is None else tokens.index(self.next_token),
            0 if self.next_row is None else rows.index(self.next_row),
        ]
        head = bytes([self.source | self.sink << 2, *places]) + self.tier.to_bytes(3, "big") + self.spacing.to_bytes(3, "big")
        return head + self.amount_raw.to_bytes(16, "big") + self.min_out_raw.to_bytes(16, "big")


@dataclass(frozen=True, slots=True)
class Condition:
    """Of a watched token: numeraire base units per base unit, and the least change of the wallet's balance, base units."""

    price: Fraction
    bound_raw: int

    def encode(self) -> bytes:
        return int(self.price * 2**128).to_bytes(24, "big") + self.bound_raw.to_bytes(16, "big", signed=True)


@dataclass(frozen=True, slots=True)
class Program:
    """A whole call: legs in order, conditions by watched token, the wallet's least change of value in numeraire base units."""

    legs: Sequence[ProgramLeg]
    conditions: Mapping[str, Condition]
    deadline_s: int = NEVER_S
    floor_raw: int = NO_FLOOR

    def encode(self) -> bytes:
        """Return the packed program: watched tokens first, then those of the legs, each once."""
        traded = [token for leg in self.legs for token in (leg.token_in, leg.token_out, leg.next_token) if token is not None]
        tokens = list(dict.fromkeys([*self.conditions, *traded]))
        rows = list(dict.fromkeys(row for leg in self.legs for row in (leg.row, leg.next_row) if row is not None))
        counts = bytes([len(self.conditions), len(tokens), len(rows)])
        parts = [self.deadline_s.to_bytes(5, "big"), counts, self.floor_raw.to_bytes(16, "big", signed=True)]
        parts += [bytes.fromhex(token[2:]) for token in tokens]
        parts += [condition.encode() for condition in self.conditions.values()]
        parts += [row.encode() for row in rows]
        return b"".join([*parts, *(leg.encode(tokens, rows) for leg in self.legs)])

    @property
    def calldata(self) -> str:
        """0x-hex calldata of `rebalance(bytes)`."""
        return rebalance_calldata(self.encode())

    @property
    def native_wei(self) -> int:
        """Native coin to send along: what legs take from the wallet."""
        return sum(leg.amount_raw for leg in self.legs if leg.token_in == NATIVE and leg.source is Flow.WALLET)


def rebalance_calldata(program: bytes) -> str:
    """Return 0x-hex calldata of `rebalance(bytes)` with any bytes as program."""
    return "0x" + (REBALANCE + abi_encode(["bytes"], [program])).hex()
