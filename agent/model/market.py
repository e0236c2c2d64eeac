"""Snapshot: the chain's state at one block, and its parts. Addresses are checksummed strings."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

from agent.model.liquidity import LpPosition
from agent.model.weights import TokenSupply
from agent.units import Price, Token

# --- Findings of the token screen, with description and remedy.


class TokenFinding(Enum):
    """Transfer behaviour of a token. Only the first two are tradable."""

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
        """True if the token is tradable."""
        return self in (TokenFinding.CLEAN, TokenFinding.NO_RETURN_VALUE)

    @property
    def words(self) -> str:
        """Description of the finding."""
        return _WORDS[self][0]

    @property
    def remedy(self) -> str:
        """Remedy for the owner."""
        return _WORDS[self][1]


_OUT = "remove it from the portfolio; its balance stays untouched"
_WAIT = "nothing; it is tried again before each plan, and traded when it moves again"
_WORDS = {
    TokenFinding.CLEAN: ("transfers the exact amount", ""),
    TokenFinding.NO_RETURN_VALUE: ("transfers the exact amount and returns nothing", ""),
    TokenFinding.FEE_ON_TRANSFER: ("keeps a part of each transfer", _OUT),
    TokenFinding.REBASING: (
        "its balances change by themselves",
        f"{_OUT}; many such tokens have a wrapped form that does not",
    ),
    TokenFinding.FALSE_RETURNING: ("answers a transfer with false or with nonsense", _OUT),
    TokenFinding.PAUSED: ("transfers are blocked", _WAIT),
    TokenFinding.BLOCKLISTED: (
        "blocks an address that must transfer it",
        "ask its issuer; it is tried again before each plan",
    ),
    TokenFinding.CALLBACK: ("calls others in the middle of a transfer", _OUT),
    TokenFinding.HONEYPOT: ("can be bought and not sold", _OUT),
    TokenFinding.UNREADABLE: ("does not return its balances", _OUT),
    TokenFinding.CODE_CHANGED: (
        "its code is another than trimtab trust pinned",
        "find out why, then: trimtab trust",
    ),
    TokenFinding.IMPLEMENTATION_CHANGED: (
        "its implementation is another than trimtab trust pinned",
        "find out why, then: trimtab trust",
    ),
    TokenFinding.UNKNOWN: (
        "could not be tried",
        'ask another endpoint, or switch the screen off by limits.token_screen = "off"',
    ),
}


@dataclass(frozen=True, slots=True)
class ScreenedToken:
    """Finding of one token; `detail` describes the measurement."""

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
    """Block of a snapshot. `base_fee_wei` is None on chains without EIP-1559."""

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


# --- Pools: the contract that every kind keeps. The kinds are in agent/amm, listed in
# agent/amm/__init__.py.


@dataclass(frozen=True, slots=True)
class SwapGas:
    """Gas of the swaps in one kind of pool, units.

    `swap` is that of one swap by router, `again` what each further one through the same pool saves.
    `moved` is for the pool's own price observation, `tick` and `stop` for each initialised tick
    crossed and each further stop. `first_writes` are the slots per token that the first trade
    writes.
    """

    swap: Mapping[str, int]
    again: int
    first_writes: int
    moved: int = 0
    tick: int = 0
    stop: int = 0


PoolT_co = TypeVar("PoolT_co", bound="Pool", covariant=True)


@dataclass(frozen=True, slots=True)
class SwapResult(Generic[PoolT_co]):
    """Result of a swap: amounts in base units, and the pool after it. `fee_raw` is the fee part of
    amount_in_raw.

    `amount_in_raw` and `amount_out_raw` are the amounts moved: a swap that meets its price limit
    fills in part. `ticks_crossed` counts initialised ticks; `steps` every stop at a tick, word
    border, limit or inside a range.
    """

    amount_in_raw: int
    amount_out_raw: int
    fee_raw: int
    after: PoolT_co
    ticks_crossed: int
    steps: int = 1


class PriceCurve(NamedTuple):
    """Marginal prices of one direction, and the liquidity between them, as floats.

    `roots` are square roots of token_out per token_in, descending; `depths[k]` is the liquidity L
    below roots[k]. From one root to the next a pool takes L·(1/s₁ − 1/s₀) net of fee and pays L·(s₀
    − s₁).
    """

    roots: list[float]
    depths: list[float]


class TickState(NamedTuple):
    """Square root of the price (Q64.96), tick, and spacing of the ticks of a pool whose liquidity
    is in ranges.
    """

    sqrt_price_x96: int
    tick: int
    spacing: int


class Pool(Protocol):
    """State of one pool at one block, with its contract's arithmetic: state in, state out, base
    units, the contract's rounding.

    Methods raise ConfigError for a token that is not the pool's, ContractRevert where the contract
    would revert, and BeyondKnownTicks where the state was not read far enough.
    """

    kind: ClassVar[str]
    """Key in POOL_KINDS."""
    forms: ClassVar[tuple[str, ...]]
    """Names of its curves, by which a back-test chooses one."""
    gas: ClassVar[SwapGas]
    paid_first: ClassVar[bool]
    """True if the pool is paid before it pays, false if in its callback."""
    keeps_observations: ClassVar[bool]
    """True if the pool records its own prices, for a time-weighted mean."""

    @classmethod
    def simulated(
        cls,
        form: str,
        address: str,
        tokens: tuple[Token, Token],
        price: Fraction,
        reserves: tuple[int, int],
        fee_pips: int,
    ) -> Self:
        """Return a pool over all prices at `price` token1 per token0, with these reserves."""

    @property
    def address(self) -> str:
        """Checksummed address."""

    @property
    def venue(self) -> str:
        """The config's name of where it trades."""

    @property
    def token0(self) -> str:
        """The token with the lower address."""

    @property
    def token1(self) -> str:
        """The other token."""

    @property
    def fee_pips(self) -> int:
        """Fee on what comes in, millionths."""

    @property
    def unwritten(self) -> tuple[bool, bool]:
        """True per token whose slots of a first trade are still zero."""

    @property
    def label(self) -> str:
        """Suffix of its pair in display names; empty for the most common kind."""

    @property
    def fault(self) -> str:
        """Property that no contract has and no method survives; empty if there is none."""

    @property
    def has_price(self) -> bool:
        """True if marginal_price is defined."""

    @property
    def is_empty(self) -> bool:
        """True if nothing can be traded."""

    def quote(self, token_in: str, amount_in_raw: int) -> int:
        """Return the output of `swap` without building the state after it."""

    def quoter(self, token_in: str) -> Callable[[int], int]:
        """Return `quote` of one direction for many amounts: the same results and errors, faster."""

    def swap(self, token_in: str, amount_in_raw: int) -> SwapResult[Self]:
        """Return an exact-input swap of up to amount_in_raw."""

    def price_terms(self, token_in: str) -> tuple[int, int]:
        """Return token_out per token_in for a vanishing trade, fee excluded, as an unreduced
        fraction.
        """

    def max_in(self, token_in: str, impact_bps: int) -> int:
        """Return the largest input after which the price move is at most impact_bps, within what
        was read and contract sizes.
        """

    def best_response(self, token_in: str, price: Fraction, impact_bps: int) -> int:
        """Return the largest input whose last unit pays at least `price` token_out after fee,
        within max_in; 0 if none does.
        """

    def runs_out(self, token_in: str, impact_bps: int) -> bool:
        """True if the state that was read ends before selling token_in has moved the price by
        impact_bps.
        """

    def curve(self, token_in: str, impact_bps: int) -> PriceCurve | None:
        """Return the float curve down to the impact bound; None if nothing can be traded that
        way.
        """

    def depth(self, token: str) -> int:
        """Return the base units of `token` that count as depth."""

    def spot_depth(self, token: str) -> int:
        """Return the virtual reserve of `token` at the price now, comparable between kinds; 0 if
        there is no price.
        """

    def recovered(self, start: Self, left: Fraction) -> Self:
        """Return the pool with its price back at that of `start` but for `left` of the way, on its
        own curve.

        The way is measured in square roots of prices; what is left is rounded away from the start.
        """

    @property
    def observed(self) -> int | None:
        """Value whose change makes the first swap of a block write a price observation; None if the
        kind writes none.
        """

    @property
    def observations(self) -> tuple[int, int] | None:
        """Number of observations now and next; None if unknown."""

    @property
    def mean_window_s(self) -> int | None:
        """Window of the time-weighted mean that was read; None if there is none."""

    def mean_price(self, token: str) -> Fraction:
        """Return base units of the other token per base unit of `token` over the window. Raises
        Refused without a mean.
        """

    def mean_depth(self, token: str) -> int:
        """Return the virtual reserve of `token` over the window."""

    @property
    def tick_state(self) -> TickState | None:
        """Position on the ticks, of a pool whose liquidity is in ranges of them; None for other
        kinds.
        """


@dataclass(frozen=True, slots=True)
class FeedRound:
    """Latest round of a price feed with the Chainlink AggregatorV3 interface; answer in
    10^-decimals of its quote (USD). `min_answer` and `max_answer` are the bounds at which the
    aggregator clips answers; None without bounds.
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
    """keccak256 of the runtime code at an address (EXTCODEHASH); zero for an address without
    code.
    """

    address: str
    hash: str


@dataclass(frozen=True, slots=True)
class QuarantinedItem:
    """An item that could not be read: excluded and named, never taken as zero."""

    item: str
    address: str
    why: str


@dataclass(frozen=True, slots=True)
class PastPrices:
    """Prices at an earlier block: its head, feed rounds and pools."""

    head: Head
    feeds: tuple[FeedRound, ...]
    pools: tuple[Pool, ...]


T = TypeVar("T")


class DerivedValues:
    """Cache of values derived from a frozen object's fields; not a field, so never stored, compared
    or copied.
    """

    __slots__ = ("_derived",)
    _derived: dict[Hashable, Any]

    def derived(self, key: Hashable, work_out: Callable[[], T]) -> T:
        """Return the value cached under `key`, computed at the first call.

        It must depend on `key` and the fields alone.
        """
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
    """All data of the chain that a step uses.

    `now_s` is the agent's clock at reading. `operators` are those whose endpoints answered byte for
    byte alike; `requests` is the number of HTTP requests. A token in neither `holdings` nor
    `quarantined` was not read. `positions` are the confirmed liquidity positions that could be
    read. `past` are the preceding blocks of the same chain, newest first, read only before the step
    acts. `supplies` are the supplies of tokens weighted by market cap; unreadable ones are missing.
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
    pools: tuple[Pool, ...]
    feeds: tuple[FeedRound, ...]
    code_hashes: tuple[CodeHash, ...]
    quarantined: tuple[QuarantinedItem, ...]
    operators: tuple[str, ...]
    requests: int
    positions: tuple[LpPosition, ...] = ()
    past: tuple[PastPrices, ...] = ()
    implementations: tuple[ProxyImplementation, ...] = ()
    supplies: tuple[TokenSupply, ...] = ()


# --- A past price, recorded or read from a file or chain.


@dataclass(frozen=True, slots=True)
class PricePoint:
    """Price of a token at chain time `at_s`: numeraire base units per token base unit."""

    token: str
    at_s: int
    price: Price
