"""Snapshot: the chain's state at one block, and its parts. Addresses are checksummed strings."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

from agent.model.liquidity import LpPosition
from agent.model.parts import LayerReading, part_of, with_part
from agent.model.parts import T as Part
from agent.model.rollups import DATA_FEE_ITEM, MAX_FEE_RISE, DataFeeQuote
from agent.model.weights import TokenSupply
from agent.units import Price, Token, mul_div_up

# --- Findings of the token screen.


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
    APPROVAL_IGNORED = "approval_ignored"
    UNREADABLE = "unreadable"
    CODE_CHANGED = "code_changed"
    IMPLEMENTATION_CHANGED = "implementation_changed"
    CODE_UNREAD = "code_unread"
    UNKNOWN = "unknown"

    @property
    def is_tradable(self) -> bool:
        """True if the token is tradable."""
        return self in (TokenFinding.CLEAN, TokenFinding.NO_RETURN_VALUE)

    @property
    def description(self) -> str:
        """Description of the finding."""
        return _DESCRIPTION_AND_REMEDY[self][0]

    @property
    def remedy(self) -> str:
        """Remedy for the owner."""
        return _DESCRIPTION_AND_REMEDY[self][1]


_REMOVE_ASSET = "remove it from the portfolio; its balance stays untouched"
_WAIT_FOR_TRANSFERS = (
    "none; the token is tested again before each plan, and traded once transfers work"
)
_DESCRIPTION_AND_REMEDY = {
    TokenFinding.CLEAN: ("transfers the exact amount", ""),
    TokenFinding.NO_RETURN_VALUE: ("transfers the exact amount and returns no value", ""),
    TokenFinding.FEE_ON_TRANSFER: ("keeps a part of each transfer", _REMOVE_ASSET),
    TokenFinding.REBASING: (
        "its balances change without transfers",
        f"{_REMOVE_ASSET}; many such tokens have a wrapped form without rebases",
    ),
    TokenFinding.FALSE_RETURNING: ("a transfer returns false or garbage", _REMOVE_ASSET),
    TokenFinding.PAUSED: ("transfers are blocked", _WAIT_FOR_TRANSFERS),
    TokenFinding.BLOCKLISTED: (
        "blocks an address that needs to transfer it",
        "ask its issuer; the token is tested again before each plan",
    ),
    TokenFinding.CALLBACK: ("calls other contracts during a transfer", _REMOVE_ASSET),
    TokenFinding.HONEYPOT: ("can be bought but not sold", _REMOVE_ASSET),
    TokenFinding.APPROVAL_IGNORED: (
        "its approvals have no effect",
        "inspect its approve function; trimtab resume tries it again at once",
    ),
    TokenFinding.UNREADABLE: ("does not return its balances", _REMOVE_ASSET),
    TokenFinding.CODE_CHANGED: (
        "its code differs from the pinned code",
        "find out why, then run trimtab trust",
    ),
    TokenFinding.IMPLEMENTATION_CHANGED: (
        "its implementation differs from the pinned one",
        "find out why, then run trimtab trust",
    ),
    TokenFinding.CODE_UNREAD: (
        "the code behind it was not read",
        "check the endpoints with trimtab doctor; it is read again before each plan",
    ),
    TokenFinding.UNKNOWN: (
        "could not be tested",
        'trust another pool of it, or switch the screen off: limits.token_screen = "off"',
    ),
}


class ScreenSubject(Enum):
    """What a finding of the token screen is about."""

    TOKEN = "token"  # noqa: S105  # a word, no password
    POOL = "pool"
    SPENDER = "spender"
    WALLET = "wallet"


@dataclass(frozen=True, slots=True)
class FailedPool:
    """A pool, by the contract that holds its tokens, that failed the test of a token which moves
    elsewhere.
    """

    pool: str
    why: str


@dataclass(frozen=True, slots=True)
class ScreenedToken:
    """Finding of one token; `detail` describes the measurement, `subject` is what failed it.
    `failed_pools` are pools that must not be used although the token is tradable.
    """

    token: str
    finding: TokenFinding
    detail: str = ""
    subject: ScreenSubject = ScreenSubject.TOKEN
    failed_pools: tuple[FailedPool, ...] = ()

    @property
    def why(self) -> str:
        """Description of the finding, with the measurement."""
        return (
            f"{self.finding.description} ({self.detail})"
            if self.detail
            else self.finding.description
        )


@dataclass(frozen=True, slots=True)
class ProxyImplementation:
    """Implementation address of a proxy at the snapshot's block, zero if it was not read. The proxy,
    a token or a contract of the futures venue, has the address `proxy`.
    """

    proxy: str
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


# --- Pools: the protocol that every kind implements. agent/amm/__init__.py lists the kinds.


class SwapStyle(Enum):
    """How a swap is paid: before it pays the output, as a V2 pair; in its callback, as a V3 pool,
    or in that of PancakeSwap; at the end of an unlocking, to V4's PoolManager; or wrapping of the
    native coin. The value is the kind of a row in a Rebalancer's program.
    """

    V2 = 0
    V3 = 1
    PANCAKE_V3 = 2
    V4 = 3
    NATIVE = 4


SPACING_SHIFT = 24
"""A tier of Uniswap V4 is the fee, and the tick spacing shifted by these bits."""


@dataclass(frozen=True, slots=True)
class PoolMaker:
    """Creator of a venue's pools, from which their addresses follow (EIP-1014): a factory or its
    deployer, with the hash of the pools' init code, or of a clone's where pools are clones, 0x-hex.
    For Uniswap V4 it is the PoolManager, with the word of the pools' hooks, zeros without hooks;
    for wrapping it is the wrapped native coin, with a word of zeros.
    """

    style: SwapStyle
    address: str
    init_code_hash: str = "0x" + "00" * 32


@dataclass(frozen=True, slots=True)
class VenueKeys:
    """Keys of a deployment in the config, beside its kind, label and factory: those that it
    needs, and those that it may have.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SwapGas:
    """Gas units of a swap in one kind of pool.

    `swap_units_by_router` is the gas of one swap, by kind of router; `repeat_saving` is the saving
    of each further swap in the same pool. `observation_gas` is the gas of a price observation,
    `tick_gas` of each initialised tick crossed, `stop_gas` of each further stop.
    `first_write_slots` is the number of storage slots per token that the first trade writes.
    """

    swap_units_by_router: Mapping[str, int]
    repeat_saving: int
    first_write_slots: int
    observation_gas: int = 0
    tick_gas: int = 0
    stop_gas: int = 0


PoolT_co = TypeVar("PoolT_co", bound="Pool", covariant=True)


@dataclass(frozen=True, slots=True)
class SwapResult(Generic[PoolT_co]):
    """Result of a swap: amounts in base units, and the state `pool_after` it. `fee_raw` is part of
    amount_in_raw. A swap that reaches its price limit fills partly, and the amounts are those
    exchanged. `ticks_crossed` counts initialised ticks, `stop_count` all stops: at a tick, a bitmap
    word border, the limit, or inside a range.
    """

    amount_in_raw: int
    amount_out_raw: int
    fee_raw: int
    pool_after: PoolT_co
    ticks_crossed: int
    stop_count: int = 1


class PriceCurve(NamedTuple):
    """Marginal prices in one direction and the liquidity between them, as floats.

    `roots` are square roots of token_out per token_in, descending; `liquidities[k]` is the
    liquidity L below roots[k]. Between roots s₀ > s₁ the pool takes L·(1/s₁ − 1/s₀) net of fee and
    pays L·(s₀ − s₁).
    """

    roots: list[float]
    liquidities: list[float]


class TickState(NamedTuple):
    """Square root of the price (Q64.96), tick and tick spacing of a pool with liquidity in
    ranges.
    """

    sqrt_price_x96: int
    tick: int
    spacing: int


@dataclass(frozen=True, slots=True)
class TickMean:
    """Mean of a pool's price observations over the last `window_s` seconds
    (OracleLibrary.consult): time-weighted tick, rounded towards minus infinity, and harmonic mean
    of the liquidity in range.
    """

    window_s: int
    tick: int
    liquidity: int


class IdlePoolFee(NamedTuple):
    """Fee that a pool will have, in millionths of the input, if nobody trades in it for so long."""

    pips: int
    after_s: int


class Pool(Protocol):
    """State of one pool at one block, with the arithmetic and rounding of its contract, in base
    units.

    Methods return new states. They raise ConfigError for a token that the pool does not trade,
    ContractRevert if the contract would revert, and BeyondKnownTicks if more ticks have to be read.
    """

    kind: ClassVar[str]
    """Key in POOL_KINDS."""
    curve_names: ClassVar[tuple[str, ...]]
    """Names of its curves in the settings of a backtest."""
    gas: ClassVar[SwapGas]
    venue_keys: ClassVar[VenueKeys]
    style: ClassVar[SwapStyle]
    """How a swap is paid."""
    revert_messages: ClassVar[Mapping[str, str]]
    """What the revert reasons of its contracts mean."""
    keeps_observations: ClassVar[bool]
    """True if the pool records price observations for a TWAP."""
    trades_native: ClassVar[bool]
    """True if the contract's pool has native coin where this state has the wrapped token."""

    @classmethod
    def simulated(
        cls,
        address: str,
        tokens: tuple[Token, Token],
        price: Fraction,
        reserves: tuple[int, int],
        fee_pips: int,
    ) -> Self:
        """Return a simulated full-range pool at `price` token1 per token0, with these reserves."""

    @property
    def address(self) -> str:
        """Checksummed address; of Uniswap V4 the PoolId, 32 bytes, 0x-hex."""

    @property
    def contract(self) -> str:
        """Checksummed address of the contract that holds its state and its tokens."""

    @property
    def venue(self) -> str:
        """Name of its venue in the config."""

    @property
    def token0(self) -> str:
        """The token with the lower address; wrapped coin if `trades_native`."""

    @property
    def token1(self) -> str:
        """The other token."""

    @property
    def fee_pips(self) -> int:
        """Fee on the input, in millionths; of Uniswap V4 without the protocol's."""

    def fee_for(self, token_in: str) -> int:
        """Return the whole fee on an input of token_in, in millionths."""

    @property
    def tier(self) -> int:
        """What tells the pools of two tokens apart for a transport: the fee, the tick spacing, or
        of Uniswap V4 both (SPACING_SHIFT).
        """

    @property
    def idle_fee(self) -> IdlePoolFee | None:
        """Fee to which the pool's falls while nobody trades; None if it does not."""

    @property
    def fee_gas(self) -> int:
        """Gas units that deciding the fee adds to those of a swap in its kind."""

    @property
    def unwritten_slots(self) -> tuple[bool, bool]:
        """True for each token whose first-trade storage slots are still zero."""

    def __hash__(self) -> int:
        """Hash of the state: a pool is a value, and what follows from it is kept by it."""

    @property
    def label(self) -> str:
        """Suffix of the pair in display names; empty for the default kind."""

    @property
    def fault(self) -> str:
        """Reason why this state is impossible and unusable; empty for a valid state."""

    @property
    def has_price(self) -> bool:
        """True if marginal_price is defined."""

    @property
    def is_empty(self) -> bool:
        """True if the pool cannot trade."""

    def quote(self, token_in: str, amount_in_raw: int) -> int:
        """Return the output of `swap` without building the next state."""

    def quoter(self, token_in: str) -> Callable[[int], int]:
        """Return a fast `quote` for one direction, with the same results and errors."""

    def swap(self, token_in: str, amount_in_raw: int) -> SwapResult[Self]:
        """Return the result of an exact-input swap of up to amount_in_raw."""

    def price_terms(self, token_in: str) -> tuple[int, int]:
        """Return the marginal price, token_out per token_in without fee, as an unreduced
        fraction.
        """

    def max_in(self, token_in: str, impact_bps: int) -> int:
        """Return the largest input that moves the price by at most impact_bps, within the known
        ticks and the contract's number sizes.
        """

    def best_amount_in(self, token_in: str, price: Fraction, impact_bps: int) -> int:
        """Return the largest input whose last unit pays at least `price` token_out after fee,
        within max_in; 0 if there is none.
        """

    def exceeds_known_ticks(self, token_in: str, impact_bps: int) -> bool:
        """True if the known ticks end before a sale of token_in has moved the price by
        impact_bps.
        """

    def curve(self, token_in: str, impact_bps: int) -> PriceCurve | None:
        """Return the curve up to the impact bound; None if nothing can be traded in that
        direction.
        """

    def depth(self, token: str) -> int:
        """Return the base units of `token` that count as depth (limits.pool_min_value)."""

    def spot_depth(self, token: str) -> int:
        """Return the virtual reserve of `token` at the current price, comparable between kinds; 0
        without a price.
        """

    def partly_recovered(self, start: Self, remaining_share: Fraction) -> Self:
        """Return the pool with its price moved back along its curve towards that of `start`, so
        that the share `remaining_share` of the distance remains.

        The distance is measured in square roots of prices and rounded away from the start.
        """

    @property
    def observation_key(self) -> int | None:
        """Value whose first change within a block makes a swap write a price observation; None for
        kinds without observations.
        """

    @property
    def observation_counts(self) -> tuple[int, int] | None:
        """Current and next number of observation slots; None if unknown."""

    @property
    def mean_window_s(self) -> int | None:
        """Window of the TWAP that was read; None if none was."""

    def mean_price(self, token: str) -> Fraction:
        """Return the TWAP: base units of the other token per base unit of `token`. Raises Refused
        without one.
        """

    def mean_depth(self, token: str) -> int:
        """Return the mean virtual reserve of `token` over the window."""

    def over_short_window(self) -> Self:
        """Return the pool with its TWAP over reference.short_window in place of the longer one;
        without a TWAP if none was read.
        """

    @property
    def tick_state(self) -> TickState | None:
        """Tick state of a pool with liquidity in ranges; None for other kinds."""


@dataclass(frozen=True, slots=True)
class FeedRound:
    """Latest round of a Chainlink AggregatorV3 price feed; `answer` is in 10^-decimals USD.
    `min_answer` and `max_answer` are the bounds to which the aggregator clips answers (None: no
    bounds).
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


NO_CODE_HASH = "0x" + "0" * 64
"""EXTCODEHASH of an address without an account."""
EMPTY_CODE_HASH = "0xc5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
"""keccak256 of no code: EXTCODEHASH of an account that exists without code."""


def has_no_code(code_hash: str) -> bool:
    """Return whether an address with this hash has no code."""
    return code_hash.lower() in (NO_CODE_HASH, EMPTY_CODE_HASH)


@dataclass(frozen=True, slots=True)
class CodeHash:
    """keccak256 of the runtime code at an address (EXTCODEHASH); zero for an address without
    code.
    """

    address: str
    hash: str


ALLOWANCE_ITEM = "allowance of "
"""Beginning of the name of an allowance among the items of a snapshot."""


@dataclass(frozen=True, slots=True)
class UnreadableItem:
    """An item that was not read, or a pool that failed the token screen: it is reported and
    excluded, never treated as zero.
    """

    subject: str
    address: str
    why: str

    @property
    def is_allowance(self) -> bool:
        """True if it is an allowance of the wallet."""
        return self.subject.startswith(ALLOWANCE_ITEM)


@dataclass(frozen=True, slots=True)
class PastPrices:
    """Head, feed rounds and pools at an earlier block."""

    head: Head
    feeds: tuple[FeedRound, ...]
    pools: tuple[Pool, ...]


T = TypeVar("T")


class DerivedValueCache:
    """Base of frozen objects that cache values derived from their fields. The cache is not stored,
    compared or copied.
    """

    __slots__ = ("_derived",)
    _derived: dict[Hashable, Any]

    def cached_value(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return the value cached under `key`, computed at the first call.

        `compute` must depend on `key` and the fields alone.
        """
        try:
            cache = self._derived
        except AttributeError:
            cache = {}
            object.__setattr__(self, "_derived", cache)
        if key not in cache:
            cache[key] = compute()
        derived_value: T = cache[key]
        return derived_value


MAX_BLOCK_LEAD_S = 30
"""Largest accepted lead of a block's timestamp over the agent's clock, in seconds; consensus allows
a few.
"""


@dataclass(frozen=True, slots=True)
class Snapshot(DerivedValueCache):
    """All chain data of a step.

    `now_s` is the agent's clock at the time of reading. `operators` are the operators with equal
    answers, byte for byte; `http_request_count` is the number of HTTP requests. A token in neither
    `holdings` nor `unreadable_items` was not read. `positions` are the readable confirmed liquidity
    positions. `past_prices` are preceding blocks of the same chain, newest first, read if a step
    has to confirm prices. `supplies` are the readable supplies of tokens weighted by market cap.
    `data_fee` are the fees of transactions beyond their gas (None: none, or unread). `layers` is
    what was read for the layers.
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
    unreadable_items: tuple[UnreadableItem, ...]
    operators: tuple[str, ...]
    http_request_count: int
    positions: tuple[LpPosition, ...] = ()
    past_prices: tuple[PastPrices, ...] = ()
    implementations: tuple[ProxyImplementation, ...] = ()
    supplies: tuple[TokenSupply, ...] = ()
    data_fee: DataFeeQuote | None = None
    layers: tuple[LayerReading, ...] = ()

    def layer(self, part_type: type[Part]) -> Part:
        """Return what was read for a layer."""
        return part_of(self.layers, part_type)

    def with_layer(self, reading: LayerReading) -> Snapshot:
        """Return the snapshot with this reading for a layer."""
        return replace(self, layers=with_part(self.layers, reading))

    @property
    def trusted_time_s(self) -> int:
        """Chain time in Unix seconds, at most MAX_BLOCK_LEAD_S ahead of the agent's clock: a header
        from the future neither fixes a choice nor delays a review (T6).
        """
        return min(self.head.timestamp_s, self.now_s + MAX_BLOCK_LEAD_S)

    @property
    def data_fee_unknown_reason(self) -> str:
        """Reason why the data fee is unknown; empty if it is known, or the chain has none."""
        fee_items = (
            unreadable_item
            for unreadable_item in self.unreadable_items
            if unreadable_item.subject == DATA_FEE_ITEM
        )
        return next((fee_item.why for fee_item in fee_items), "")

    def max_fee_beyond_gas_wei(self, gas: int, *calldata_bytes: int) -> int:
        """Return the most that transactions of these sizes pay beyond their gas now; `gas` is that
        of all. Zero if it was not read: sends check `data_fee_unknown_reason`.
        """
        return (
            0
            if self.data_fee is None
            else self.data_fee.max_fee_beyond_gas_wei(gas, *calldata_bytes)
        )

    def expected_fee_beyond_gas_wei(self, gas: int, *calldata_bytes: int) -> int:
        """Return what transactions of these sizes are expected to pay beyond their gas now; `gas`
        is that of all. Zero if it was not read.
        """
        return (
            0
            if self.data_fee is None
            else self.data_fee.expected_fee_beyond_gas_wei(gas, *calldata_bytes)
        )

    def max_data_gas(self, calldata_bytes: int) -> int:
        """Return the most gas by which the data fee of a transaction may raise a node's estimate,
        rounded up; zero where the fee is charged beside the gas.
        """
        gas_price_wei = self.head.base_fee_wei or self.gas_price_wei
        if self.data_fee is None or not self.data_fee.is_charged_as_gas or gas_price_wei <= 0:
            return 0
        data_fee_wei = self.data_fee.max_data_fee_wei(calldata_bytes)
        return mul_div_up(MAX_FEE_RISE, data_fee_wei, gas_price_wei)

    @property
    def current_gas_price_wei(self) -> int:
        """Price of gas now: base fee plus priority fee, or the node's gas price on chains without
        EIP-1559.
        """
        base_fee_wei = self.head.base_fee_wei
        return self.gas_price_wei if base_fee_wei is None else base_fee_wei + self.priority_fee_wei


# --- Price records.


@dataclass(frozen=True, slots=True)
class PricePoint:
    """Price of a token at chain time `at_s`: numeraire base units per token base unit."""

    token: str
    at_s: int
    price: Price
