"""Snapshot: the chain's state read at one block, and its parts. Addresses are checksummed strings."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from agent.model.liquidity import LpPosition
from agent.model.weights import TokenSupply
from agent.units import Price

# --- Findings of the token screen, with description and remedy.


class TokenFinding(Enum):
    """Transfer behaviour of a token. Only the first two may be traded."""

    CLEAN = "clean"
    NO_RETURN_VALUE = "no_return_value"
    FEE_ON_TRANSFER = "fee_on_transfer"
    REBASING = "rebasing"
    FALSE_RETURNING = "false_returning"
    PAUSED = "paused"
    BLOCKLISTED = "blocklisted"
    CALLBACK = "callback"
    HONEYPOT = "honeypot"
    UNREADABLE = "unreadable"
    CODE_CHANGED = "code_changed"
    IMPLEMENTATION_CHANGED = "implementation_changed"
    UNKNOWN = "unknown"

    @property
    def accepted(self) -> bool:
        """True if such a token may be traded."""
        return self in (TokenFinding.CLEAN, TokenFinding.NO_RETURN_VALUE)

    @property
    def words(self) -> str:
        """Description of the finding."""
        return _WORDS[self][0]

    @property
    def remedy(self) -> str:
        """Remedy for the owner."""
        return _WORDS[self][1]


_OUT = "take it out of the portfolio; what the wallet holds of it stays untouched"
_WAIT = "nothing; it is tried again before each plan, and traded when it moves again"
_WORDS = {
    TokenFinding.CLEAN: ("moves what it is told to", ""),
    TokenFinding.NO_RETURN_VALUE: ("moves what it is told to and returns nothing", ""),
    TokenFinding.FEE_ON_TRANSFER: ("keeps a part of each transfer", _OUT),
    TokenFinding.REBASING: ("its balances change by themselves", f"{_OUT}; many such tokens have a wrapped form that does not"),
    TokenFinding.FALSE_RETURNING: ("answers a transfer with false or with nonsense", _OUT),
    TokenFinding.PAUSED: ("moves for nobody now", _WAIT),
    TokenFinding.BLOCKLISTED: ("shuts somebody out who has to move it", "ask its issuer; it is tried again before each plan"),
    TokenFinding.CALLBACK: ("calls others in the middle of a transfer", _OUT),
    TokenFinding.HONEYPOT: ("can be bought and not sold", _OUT),
    TokenFinding.UNREADABLE: ("does not tell its balances", _OUT),
    TokenFinding.CODE_CHANGED: ("its code is another than trimtab trust pinned", "find out why, then: trimtab trust"),
    TokenFinding.IMPLEMENTATION_CHANGED: ("its implementation is another than trimtab trust pinned", "find out why, then: trimtab trust"),
    TokenFinding.UNKNOWN: ("could not be tried", 'ask another endpoint, or switch the screen off by limits.token_screen = "off"'),
}


@dataclass(frozen=True, slots=True)
class ScreenedToken:
    """One token's finding; `detail` describes the measurement."""

    token: str
    finding: TokenFinding
    detail: str = ""

    @property
    def why(self) -> str:
        """Description of the finding, with the measurement."""
        return f"{self.finding.words} ({self.detail})" if self.detail else self.finding.words


@dataclass(frozen=True, slots=True)
class ProxyImplementation:
    """Implementation address of a proxy token at the snapshot's block."""

    token: str
    address: str


@dataclass(frozen=True, slots=True)
class Head:
    """The block that everything in a snapshot was read at. `base_fee_wei` is None on chains without EIP-1559."""

    chain_id: int
    number: int
    hash: str
    timestamp_s: int
    base_fee_wei: int | None


@dataclass(frozen=True, slots=True)
class Holding:
    """Balance of the wallet in one token, base units."""

    token: str
    raw: int


@dataclass(frozen=True, slots=True)
class Allowance:
    """Allowance of `spender` over the wallet's `token`, base units."""

    token: str
    spender: str
    raw: int


@dataclass(frozen=True, slots=True)
class V2Pool:
    """State of a Uniswap V2 pair; reserves in base units of token0 and token1. `venue` is the config's name.

    `unwritten` is true per price accumulator that is still zero: the first trade to write it costs more gas.
    """

    address: str
    venue: str
    token0: str
    token1: str
    reserve0: int
    reserve1: int
    fee_pips: int = 3000
    unwritten: tuple[bool, bool] = field(default=(False, False), compare=False)


@dataclass(frozen=True, slots=True)
class TickLiquidity:
    """An initialised tick: liquidity added when price crosses it upwards."""

    index: int
    liquidity_net: int


@dataclass(frozen=True, slots=True)
class V3Pool:
    """State of a Uniswap V3 pool.

    `ticks` holds every initialised tick with known_from_tick <= index <= known_to_tick, ascending; a quote that leaves this window
    is refused. `twap_tick` is the time-weighted mean tick over `twap_window_s` (None if the pool's observations do not reach back),
    `twap_liquidity` the harmonic mean in-range liquidity of the same window (OracleLibrary.consult). `observations` are the current
    and the next number of price observations (slot0.observationCardinality and -Next). `unwritten` is true per token of (token0,
    token1) whose fee growth is still zero: a trade that writes it costs more gas.
    """

    address: str
    venue: str
    token0: str
    token1: str
    fee_pips: int
    tick_spacing: int
    sqrt_price_x96: int
    tick: int
    liquidity: int
    ticks: tuple[TickLiquidity, ...]
    known_from_tick: int
    known_to_tick: int
    twap_tick: int | None = None
    twap_liquidity: int | None = None
    twap_window_s: int | None = None
    observations: tuple[int, int] | None = field(default=None, compare=False)
    unwritten: tuple[bool, bool] = field(default=(False, False), compare=False)


PoolState = V2Pool | V3Pool


@dataclass(frozen=True, slots=True)
class FeedRound:
    """Latest round of a price feed with the Chainlink AggregatorV3 interface; answer in 10^-decimals of its quote (USD).

    `min_answer` and `max_answer` are the bounds at which its aggregator clips answers; None if it has none.
    """

    feed: str
    decimals: int
    round_id: int
    answer: int
    started_at_s: int
    updated_at_s: int
    answered_in_round: int
    min_answer: int | None = None
    max_answer: int | None = None


@dataclass(frozen=True, slots=True)
class CodeHash:
    """keccak256 of the runtime code at an address (EXTCODEHASH); zero for an address without code."""

    address: str
    hash: str


@dataclass(frozen=True, slots=True)
class QuarantinedItem:
    """An item that could not be read: it is left out and named, never taken for zero."""

    item: str
    address: str
    why: str


@dataclass(frozen=True, slots=True)
class PastPrices:
    """Prices at an earlier block: its head, feed rounds and pools."""

    head: Head
    feeds: tuple[FeedRound, ...]
    pools: tuple[PoolState, ...]


T = TypeVar("T")


class DerivedValues:
    """Values worked out once from a frozen object's fields and kept beside them: not a field, so never stored, compared or copied."""

    __slots__ = ("_derived",)
    _derived: dict[Hashable, Any]

    def derived(self, key: Hashable, work_out: Callable[[], T]) -> T:
        """The value kept under `key`, worked out at the first call. It must follow from `key` and the fields alone."""
        try:
            kept = self._derived
        except AttributeError:
            kept = {}
            object.__setattr__(self, "_derived", kept)
        if key not in kept:
            kept[key] = work_out()
        value: T = kept[key]
        return value


@dataclass(frozen=True, slots=True)
class Snapshot(DerivedValues):
    """Everything one step knows of the chain. `now_s` is the agent's clock when it was read.

    `operators` are the operators whose endpoints answered byte for byte alike; `requests` is the number of HTTP requests of the
    reading. A token in neither `holdings` nor `quarantined` was not read. `positions` are the confirmed liquidity positions that
    could be read. `past` are the preceding blocks of the same chain, newest first; they are read only before the step acts.
    `supplies` are the supplies of tokens weighted by market cap; one that could not be read is missing.
    """

    head: Head
    now_s: int
    owner: str
    native_wei: int
    nonce_latest: int
    nonce_pending: int
    priority_fee_wei: int
    gas_price_wei: int
    holdings: tuple[Holding, ...]
    allowances: tuple[Allowance, ...]
    pools: tuple[PoolState, ...]
    feeds: tuple[FeedRound, ...]
    code_hashes: tuple[CodeHash, ...]
    quarantined: tuple[QuarantinedItem, ...]
    operators: tuple[str, ...]
    requests: int
    positions: tuple[LpPosition, ...] = ()
    past: tuple[PastPrices, ...] = ()
    implementations: tuple[ProxyImplementation, ...] = ()
    supplies: tuple[TokenSupply, ...] = ()


# --- A past price, as recorded or read from a file or a chain.


@dataclass(frozen=True, slots=True)
class PricePoint:
    """Value of one token at chain time `at_s`: numeraire base units per token base unit."""

    token: str
    at_s: int
    price: Price
