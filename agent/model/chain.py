"""What was read from the chain at one block: the Snapshot and its parts. Addresses are checksummed strings."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.model.positions import LpPosition
from agent.model.screening import Implementation
from agent.model.weights import Supply


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
    """What `spender` may take of the wallet's `token`, base units."""

    token: str
    spender: str
    raw: int


@dataclass(frozen=True, slots=True)
class V2Pool:
    """State of a Uniswap V2 pair; reserves in base units of token0 and token1. `venue` is the config's name.

    `unwritten` says whether the price accumulators are still zero: a trade then costs more gas, and trades all the same.
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

    `ticks` holds every initialised tick with known_from_tick <= index <= known_to_tick, ascending; beyond that window
    nothing is known, and a quote that leaves it refuses. `twap_tick` is the time-weighted mean tick over
    `twap_window_s` (None where the pool's observations do not reach back), `twap_liquidity` the harmonic mean
    in-range liquidity of the same window (OracleLibrary.consult). `observations` are how many price observations it keeps
    and how many it is to keep (slot0.observationCardinality and -Next). `unwritten` says whether the fee growth of
    (token0, token1) is still zero: a trade that writes it costs more gas.
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

    `min_answer` and `max_answer` are the bounds that its aggregator cuts answers off at; None where it names none.
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
    """keccak256 of the runtime code at an address (EXTCODEHASH); zero where there is no code."""

    address: str
    hash: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An item that could not be read: it is left out and named, never taken for zero."""

    item: str
    address: str
    why: str


@dataclass(frozen=True, slots=True)
class PastPrices:
    """What an earlier block says of prices: its head, the feeds' rounds and the pools, as they were then."""

    head: Head
    feeds: tuple[FeedRound, ...]
    pools: tuple[PoolState, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything one step knows of the chain. `now_s` is the agent's clock when it was read.

    `operators` are the operators whose endpoints answered byte for byte alike; `requests` is the number of HTTP
    requests that reading took. A token that is neither in `holdings` nor in `quarantined` was not asked for. `positions`
    are the liquidity positions that the owner confirmed, as far as they could be read. `past` are the blocks just before,
    newest first, of the same chain; they are read only when something is about to be done. `supplies` are coins that exist of the
    tokens whose weight goes by it; one that could not be read is not there.
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
    quarantined: tuple[Quarantined, ...]
    operators: tuple[str, ...]
    requests: int
    positions: tuple[LpPosition, ...] = ()
    past: tuple[PastPrices, ...] = ()
    implementations: tuple[Implementation, ...] = ()
    supplies: tuple[Supply, ...] = ()
