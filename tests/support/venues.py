"""Every kind of pool that Rebalancer trades in, deployed on a local chain from the packages of their authors.

Uniswap V2 and V3 are the chain's own. PancakeSwap V3 and Uniswap V4 come as bytecode (GPL-2.0-or-later and BUSL-1.1; tests only, none of
it is in this repository), Slipstream as sources (tests/support/slipstream.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isqrt
from typing import Any

from eth_abi.abi import decode, encode
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from agent.artifacts import Artifact, npm_artifact
from agent.localchain import LocalChain
from agent.localchain.chain import V2_FACTORY_ARTIFACT, V2_PAIR_ARTIFACT, V3_FACTORY_ARTIFACT, V3_POOL_ARTIFACT
from agent.signing.calldata import selector
from agent.units import NATIVE
from tests.support.attacks import attack
from tests.support.programs import ProgramLeg, Row, RowKind
from tests.support.slipstream import slipstream_artifacts
from tests.support.worlds import read_view

PANCAKE = "@pancakeswap/v3-core/artifacts/contracts"
PANCAKE_FACTORY = f"{PANCAKE}/PancakeV3Factory.sol/PancakeV3Factory.json"
PANCAKE_POOL = f"{PANCAKE}/PancakeV3Pool.sol/PancakeV3Pool.json"
POOL_MANAGER = "@uniswap/v4-core/out/PoolManager.sol/PoolManager.json"
STATE_VIEW = "@uniswap/v4-periphery/foundry-out/StateView.sol/StateView.json"
V4_QUOTER = "@uniswap/v4-periphery/foundry-out/V4Quoter.sol/V4Quoter.json"
CLONE = "3d602d80600a3d3981f3363d3d373d3d3d363d73{}5af43d82803e903d91602b57fd5bf3"
"""Creation code of an EIP-1167 clone, around the implementation's address."""
ANSWERS_ITSELF = "600960" + "0c" + "60003960096000f3" + "3060005260206000f3"
"""Creation code of a contract that answers each call with its own address: a voter with a registry, as CLFactory asks for."""
ANSWERS_ZERO = "600a60" + "0c" + "600039600a6000f3" + "600060005260206000f3"
"""Creation code of one that answers with zero: an older factory without pools."""
LOWEST = 4295128740
HIGHEST = 1461446703485210103287273052203988822378723970341
"""Limits of a swap's price that are no limits: TickMath.MIN_SQRT_RATIO + 1 and MAX_SQRT_RATIO - 1."""
MAX_TICK = 887272
KEY = "(address,address,uint24,int24,address)"
PARAMS = "(bool,int256,uint160)"
RICH_ETHER = 10**24


class Venue(StrEnum):
    """The kinds of pools."""

    V2 = "uniswap_v2"
    V3 = "uniswap_v3"
    PANCAKE = "pancake_v3"
    SLIPSTREAM = "slipstream"
    V4 = "uniswap_v4"


CONCENTRATED = (Venue.V3, Venue.PANCAKE, Venue.SLIPSTREAM, Venue.V4)
"""Those with a callback."""
TIERS = {Venue.V2: (3_000, 0), Venue.V3: (3_000, 60), Venue.PANCAKE: (2_500, 50), Venue.SLIPSTREAM: (200, 200), Venue.V4: (3_000, 60)}
"""A usual tier of each kind and its tick spacing; Slipstream's tier is its tick spacing, of 0.3 %."""


@dataclass(frozen=True, slots=True)
class VenuePool:
    """A pool: its address, of V4 the PoolManager's; tokens in contract order; tier and spacing as programs name them."""

    venue: Venue
    row: Row
    address: str
    token0: str
    token1: str
    tier: int
    spacing: int
    hooks: str = NATIVE

    @property
    def key(self) -> tuple[str, str, int, int, str]:
        """V4's PoolKey."""
        return self.token0, self.token1, self.tier, self.spacing, self.hooks

    @property
    def pool_id(self) -> bytes:
        """V4's PoolId."""
        return keccak(encode(["address", "address", "uint24", "int24", "address"], self.key))

    def other(self, token: str) -> str:
        """Return the other token."""
        return self.token1 if token == self.token0 else self.token0

    def leg(self, token_in: str, amount_raw: int = 0, min_out_raw: int = 1, **changes: Any) -> ProgramLeg:
        """Return a leg of a program through this pool."""
        spacing = self.spacing if self.venue is Venue.V4 else 0
        return ProgramLeg(self.row, token_in, self.other(token_in), amount_raw, min_out_raw, self.tier, spacing, **changes)


@dataclass(frozen=True)
class Venues:
    """The deployed contracts: of V2 and V3 those of the chain, of Pancake factory and deployer, of V4 manager, quoter and view.

    The hands hold much of every token of the chain; they provide, quote and trade.
    """

    chain: LocalChain
    rows: dict[Venue, Row]
    factories: dict[Venue, str]
    pool_artifacts: dict[Venue, Artifact]
    manager: Any
    quoter: Any
    state_view: Any
    hand: Any
    manager_hand: Any

    def create(
        self,
        venue: Venue,
        token_a: str,
        token_b: str,
        sqrt_price_x96: int,
        tier: int | None = None,
        spacing: int | None = None,
        hooks: str = NATIVE,
    ) -> VenuePool:
        """Create a pool of two tokens, by address, at a square root of token1 per token0 (base units) times 2^96, without liquidity."""
        token0, token1 = sorted((token_a, token_b), key=lambda token: int(token, 16))
        tier = TIERS[venue][0] if tier is None else tier
        spacing = TIERS[venue][1] if spacing is None else spacing
        row = self.rows[venue] if hooks == NATIVE else Row(RowKind.POOL_V4, self.manager.address, bytes(12) + bytes.fromhex(hooks[2:]))
        address = str(self.manager.address)
        if venue is Venue.V4:
            self.chain.send(self.manager.functions.initialize((token0, token1, tier, spacing, hooks), sqrt_price_x96))
        else:
            address = self._create(venue, token0, token1, tier, sqrt_price_x96)
        return VenuePool(venue, row, address, token0, token1, tier, spacing, hooks)

    def _create(self, venue: Venue, token0: str, token1: str, tier: int, sqrt_price_x96: int) -> str:
        factory = self.contract(self.factories[venue], venue, factory=True)
        if venue is Venue.V2:
            self.chain.send(factory.functions.createPair(token0, token1))
            return str(factory.functions.getPair(token0, token1).call())
        price = (sqrt_price_x96,) if venue is Venue.SLIPSTREAM else ()
        self.chain.send(factory.functions.createPool(token0, token1, tier, *price))
        address = str(factory.functions.getPool(token0, token1, tier).call())
        if not price:
            self.chain.send(self.contract(address, venue).functions.initialize(sqrt_price_x96))
        return address

    def provide(self, pool: VenuePool, liquidity: int, sqrt_price_x96: int = 0, ticks: tuple[int, int] | None = None) -> None:
        """Add liquidity between two ticks, by default all; to a pair as much at a square root of its price times 2^96."""
        if pool.venue is Venue.V2:
            amounts = (liquidity * 2**96 // sqrt_price_x96, liquidity * sqrt_price_x96 // 2**96)
            for token, raw in zip((pool.token0, pool.token1), amounts, strict=True):
                self._run(token, selector("transfer(address,uint256)") + encode(["address", "uint256"], [pool.address, raw]))
            self._run(pool.address, selector("mint(address)") + encode(["address"], [self.hand.address]))
            return
        whole = MAX_TICK // pool.spacing * pool.spacing
        lower, upper = ticks or (-whole, whole)
        if pool.venue is Venue.V4:
            signature = f"modifyLiquidity({KEY},(int24,int24,int256,bytes32),bytes)"
            words = encode([KEY, "(int24,int24,int256,bytes32)", "bytes"], [pool.key, (lower, upper, liquidity, bytes(32)), b""])
            self._run_manager(pool, selector(signature) + words)
        else:
            words = encode(["address", "int24", "int24", "uint128", "bytes"], [self.hand.address, lower, upper, liquidity, b""])
            self._run(pool.address, selector("mint(address,int24,int24,uint128,bytes)") + words)

    def quote(self, pool: VenuePool, token_in: str, raw: int) -> int:
        """Return what the pool gives for `raw`, both in base units, by a simulated swap of the hand or by V4's own quoter."""
        zero_for_one = token_in == pool.token0
        if pool.venue is Venue.V4:
            return int(self.quoter.functions.quoteExactInputSingle((pool.key, zero_for_one, raw, b"")).call()[0])
        if pool.venue is Venue.V2:
            reserves = self.contract(pool.address, Venue.V2).functions.getReserves().call()[:2]
            reserve_in, reserve_out = reserves if zero_for_one else reversed(reserves)
            return int(raw * 997 * reserve_out // (reserve_in * 1000 + raw * 997))
        answer = read_view(self.chain.node, self.hand.functions.run(pool.address, self._swap(zero_for_one, raw)))[0]
        amounts = decode(["int256", "int256"], answer)
        return -int(amounts[1] if zero_for_one else amounts[0])

    def swap(self, pool: VenuePool, token_in: str, raw: int) -> None:
        """Sell `raw` base units of a token as the hand, at any price; not in a pair."""
        zero_for_one = token_in == pool.token0
        if pool.venue is Venue.V4:
            params = (zero_for_one, -raw, LOWEST if zero_for_one else HIGHEST)
            self._run_manager(pool, selector(f"swap({KEY},{PARAMS},bytes)") + encode([KEY, PARAMS, "bytes"], [pool.key, params, b""]))
        else:
            self._run(pool.address, self._swap(zero_for_one, raw))

    def sqrt_price_x96(self, pool: VenuePool) -> int:
        """Return the present square root of the price times 2^96; not of a pair."""
        if pool.venue is Venue.V4:
            return int(self.state_view.functions.getSlot0(pool.pool_id).call()[0])
        return int(self.contract(pool.address, pool.venue).functions.slot0().call()[0])

    def contract(self, address: str, venue: Venue, factory: bool = False) -> Any:
        """Return a pool's contract, or a factory's."""
        paths = {Venue.V2: V2_FACTORY_ARTIFACT, Venue.V3: V3_FACTORY_ARTIFACT, Venue.PANCAKE: PANCAKE_FACTORY}
        if not factory:
            return self.chain.contract(address, self.pool_artifacts[venue])
        return self.chain.contract(address, npm_artifact(paths[venue]) if venue in paths else slipstream_artifacts()["CLFactory"])

    def fund(self, symbols: Sequence[str]) -> None:
        """Give both hands much of these tokens."""
        for symbol in symbols:
            raw = self.chain.balance(symbol, self.chain.whale.address) // 4
            for hand in (self.hand, self.manager_hand):
                self.chain.send(self.chain.token_contract(symbol).functions.transfer(hand.address, raw))

    def _swap(self, zero_for_one: bool, raw: int) -> bytes:
        words = [self.hand.address, zero_for_one, raw, LOWEST if zero_for_one else HIGHEST, b""]
        return selector("swap(address,bool,int256,uint160,bytes)") + encode(["address", "bool", "int256", "uint160", "bytes"], words)

    def _run(self, target: str, data: bytes) -> None:
        self.chain.send(self.hand.functions.run(target, data))

    def _run_manager(self, pool: VenuePool, data: bytes) -> None:
        self.chain.send(self.manager_hand.functions.run(self.manager.address, pool.token0, pool.token1, data))


def deploy_venues(chain: LocalChain) -> Venues:
    """Deploy what the chain lacks of every kind, without pools, and fund the hands with the chain's tokens."""
    at = chain.addresses
    slipstream = slipstream_artifacts()
    pancake_pool = npm_artifact(PANCAKE_POOL)
    deployer = chain.deploy(attack("PancakeDeployer"), bytes.fromhex(pancake_pool.bytecode[2:]))
    implementation = chain.deploy(slipstream["CLPool"])
    voter, old_factory = (chain.deploy(Artifact([], code)) for code in (ANSWERS_ITSELF, ANSWERS_ZERO))
    artifacts = {Venue.V2: npm_artifact(V2_PAIR_ARTIFACT), Venue.V3: npm_artifact(V3_POOL_ARTIFACT), Venue.PANCAKE: pancake_pool}
    factories = {
        Venue.V2: at.v2_factory,
        Venue.V3: at.v3_factory,
        Venue.PANCAKE: chain.deploy(npm_artifact(PANCAKE_FACTORY), deployer),
        Venue.SLIPSTREAM: chain.deploy(slipstream["CLFactory"], voter, old_factory, implementation),
    }
    manager = chain.deploy(npm_artifact(POOL_MANAGER), chain.whale.address)
    clone_hash = keccak(hexstr=CLONE.format(implementation[2:].lower()))
    rows = {
        Venue.V2: Row(RowKind.PAIR_V2, at.v2_factory, keccak(hexstr=artifacts[Venue.V2].bytecode)),
        Venue.V3: Row(RowKind.POOL_V3, at.v3_factory, keccak(hexstr=artifacts[Venue.V3].bytecode)),
        Venue.PANCAKE: Row(RowKind.PANCAKE_V3, deployer, keccak(hexstr=pancake_pool.bytecode)),
        Venue.SLIPSTREAM: Row(RowKind.POOL_V3, factories[Venue.SLIPSTREAM], clone_hash),
        Venue.V4: Row(RowKind.POOL_V4, manager),
    }
    quoter, state_view = (chain.contract(chain.deploy(npm_artifact(path), manager), npm_artifact(path)) for path in (V4_QUOTER, STATE_VIEW))
    hand, manager_hand = (chain.contract(chain.deploy(attack(name)), attack(name)) for name in ("PoolHand", "ManagerHand"))
    venues = Venues(
        chain=chain,
        rows=rows,
        factories=factories,
        pool_artifacts={**artifacts, Venue.SLIPSTREAM: slipstream["CLPool"]},
        manager=chain.contract(manager, npm_artifact(POOL_MANAGER)),
        quoter=quoter,
        state_view=state_view,
        hand=hand,
        manager_hand=manager_hand,
    )
    chain.set_native(RICH_ETHER, str(to_checksum_address(manager_hand.address)))
    venues.fund(list(chain.tokens))
    return venues


def liquidity_for(raw0: int, sqrt_price_x96: int) -> int:
    """Return the liquidity of the whole range that holds about `raw0` of token0."""
    return raw0 * sqrt_price_x96 >> 96


def sqrt_x96(price: Any) -> int:
    """Return the square root of a price (Fraction, base units of token1 per token0) times 2^96, rounded down."""
    return isqrt(price.numerator * 2**192 // price.denominator)
