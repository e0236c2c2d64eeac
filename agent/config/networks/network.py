"""What a network is made of: its chain, tokens, price feeds and the venues deployed on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from agent.amm.venue_kinds import VenueKind

ORDERED_BY_SEQUENCER = "the sequencer orders; there is no public mempool"
"""Submission on a chain whose transactions only its sequencer sees before their block."""


@dataclass(frozen=True, slots=True)
class NetworkToken:
    """A token. `priced_as` names its feed in Network.feeds, None for none: a wrapped coin may be
    priced as its underlying coin, whose feed does not reflect a depeg. Plans may route through
    hubs.
    """

    symbol: str
    address: str
    decimals: int
    priced_as: str | None = None
    is_hub: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueDeployment:
    """Contracts of a venue. None: the venue has no such contract, or its address is not certain.

    `router` is SwapRouter02 of Uniswap V3, SmartRouter of PancakeSwap V3, SwapRouter of Slipstream,
    and Universal Router 2.0 of Uniswap V4. `quoter` is QuoterV2, or V4Quoter; `quoter_v1` is the
    first Quoter of V3. `fee_pips` is the fee of all pools, `fee_tiers` those of pools, in
    millionths; Slipstream's pools differ by `tick_spacings`, and their fees change. Pool addresses
    derive from `deployer`, None if that is the factory, and `init_code_hash`, the keccak of a
    pool's creation code. `needs_rebalancer` is True if SwapRouter02 of the chain is older than the
    venue.
    """

    kind: VenueKind
    name: str
    factory: str | None = None
    deployer: str | None = None
    router: str | None = None
    quoter: str | None = None
    quoter_v1: str | None = None
    position_manager: str | None = None
    pool_manager: str | None = None
    state_view: str | None = None
    permit2: str | None = None
    init_code_hash: str | None = None
    fee_pips: int | None = None
    fee_tiers: tuple[int, ...] = ()
    tick_spacings: tuple[int, ...] = ()
    needs_rebalancer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TypicalFees:
    """Fees for estimates without the chain: `gas_prices_wei` of a unit of gas on quiet, ordinary
    and busy days, the usual `priority_fee_wei` included; `data_fee_wei` of a swap of one leg;
    `native_usd`, dollars per native coin. docs/networks.md has sources and dates.
    """

    gas_prices_wei: tuple[int, int, int]
    priority_fee_wei: int
    data_fee_wei: int = 0
    native_usd: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A chain, with the values that a new config takes from it.

    `block_ms` is the time between blocks, in milliseconds. A transaction is final once its block is
    at or below the block of tag `finality`. `gas_per_day`, `native_floor` and `native_top_up` are
    the limits of a new config in native coin, for some hundred swaps. `fees` are estimates.
    `private_endpoint` is the URL of a free one, None if none is known. `is_sequenced` is True if
    only the sequencer sees transactions before their block. `feeds` are Chainlink's USD proxies by
    coin; `sequencer_feed` is its uptime feed.
    """

    name: str
    chain_id: int
    title: str
    native_symbol: str
    wrapped_native: str
    block_ms: int
    finality: Literal["safe", "finalized"]
    base_fee_ceiling_gwei: int
    gas_per_day: str
    native_floor: str
    native_top_up: str
    fees: TypicalFees
    private_endpoint: str | None = None
    is_sequenced: bool = False
    explorer: str
    sequencer_feed: str | None = None
    feeds: Mapping[str, str]
    tokens: tuple[NetworkToken, ...]
    venues: tuple[VenueDeployment, ...]

    def feed_of(self, token: NetworkToken) -> str | None:
        """Return the Chainlink proxy that prices the token in dollars, None if there is none."""
        return None if token.priced_as is None else self.feeds[token.priced_as]
