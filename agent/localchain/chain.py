"""Embedded chain with its market: tokens, pools, positions and feeds, moved to new prices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from web3.contract.contract import Contract

from agent.amm.lp.positions import sqrt_price_x96
from agent.amm.v2 import get_amount_out
from agent.amm.v3.pool import SPACING_BY_FEE_PIPS
from agent.amm.venue_kinds import VenueKind
from agent.artifacts import npm_artifact, own_artifact
from agent.localchain.config import (
    ASSET_TEMPLATE,
    CONFIG_MARKER,
    CONFIG_TEMPLATE,
    IN_PROCESS_URL,
    LIMITS_TEXT,
)
from agent.localchain.contracts import (
    FAR_FUTURE_S,
    TX_GAS,
    ChainSnapshot,
    LocalContracts,
    LocalPool,
    SpotContractAddresses,
)
from agent.localchain.nodes import BLOCK_GAS, LocalNode, call_data, read_views
from agent.localchain.perpetuals import LocalPerps
from agent.localchain.world import (
    WALLET_INDEX,
    LiquidityRange,
    LocalWorld,
    TokenKind,
    position_amounts,
    range_ticks,
    v2_input_to_reach,
    v2_pool_name,
    v3_pool_name,
)
from agent.units import BPS, UINT256_MAX, Token
from agent.venues.kinds import uniswap_v2, uniswap_v3

FEED_DECIMALS = 8
TWAP_WINDOW_S = 1_800
WHALE_USD = 10**9
"""USD value of each token that the whale receives when it is deployed."""
OBSERVATION_COUNT = 64
"""Price observations per V3 pool: enough for a TWAP of 30 minutes across many trades."""
MINTS_PER_TX = 40
TWAP_MARGIN_S = 60
POSITION_MANAGER_ARTIFACT = "@uniswap/v3-periphery/artifacts/contracts/NonfungiblePositionManager.sol/NonfungiblePositionManager.json"
SWAP_ROUTER_02_ARTIFACT = (
    "@uniswap/swap-router-contracts/artifacts/contracts/SwapRouter02.sol/SwapRouter02.json"
)
V2_FACTORY_ARTIFACT = uniswap_v2.FACTORY_ARTIFACT
V2_PAIR_ARTIFACT = uniswap_v2.PAIR_ARTIFACT
V2_ROUTER_ARTIFACT = uniswap_v2.ROUTER_ARTIFACT
V3_FACTORY_ARTIFACT = uniswap_v3.FACTORY_ARTIFACT
V3_POOL_ARTIFACT = uniswap_v3.POOL_ARTIFACT


class LocalChain(LocalContracts):
    """An embedded chain with all contracts deployed, and its market: pools, positions and feeds at
    the current prices, and swaps to new ones.
    """

    def __init__(self, node: LocalNode, world: LocalWorld) -> None:
        super().__init__(node)
        self.world = world
        self.addresses: SpotContractAddresses  # set by deploy before the chain is returned
        self.perps: LocalPerps | None = None
        """Perpetual futures beside the tokens, if they are deployed."""

    @property
    def address_by_pool(self) -> dict[str, str]:
        """Pool addresses by name, such as "v3 WETH/USDC 500"."""
        return {name: pool.address for name, pool in self.deployed_world.pool_by_name.items()}

    @property
    def feed_addresses(self) -> Mapping[str, str]:
        """USD price feeds by symbol."""
        return self.deployed_world.feed_addresses

    def pool_price(self, symbol0: str, symbol1: str) -> Fraction:
        """Return base units of token1 per base unit of token0 at the current USD prices; tokens by
        symbol.
        """
        token0 = self.tokens[symbol0]
        token1 = self.tokens[symbol1]
        prices_usd = self.deployed_world.prices_usd
        return (
            prices_usd[symbol0]
            / prices_usd[symbol1]
            * Fraction(10) ** (token1.decimals - token0.decimals)
        )

    def approve_protocol(self, symbols: Iterable[str]) -> None:
        """Approve the protocol contracts for the whale's tokens."""
        addresses = self.addresses
        for symbol in symbols:
            for spender in (
                addresses.v2_router,
                addresses.swap_router_02,
                addresses.position_manager,
                addresses.pool_minter,
            ):
                self.send(self.token_contract(symbol).functions.approve(spender, UINT256_MAX))

    def warp(self, elapsed_s: int, refresh_feeds: bool = True) -> None:
        """Mine a block `elapsed_s` later; feeds then get a new round at their current price."""
        self.node.mine_at(self.now_s() + elapsed_s)
        if refresh_feeds:
            self.refresh_feeds()

    def refresh_feeds(self, symbols: Iterable[str] | None = None) -> None:
        """Write a complete round at the current price and time to these feeds (default: all), in
        one transaction.
        """
        selected_symbols = list(self.feed_addresses if symbols is None else symbols)
        prices_usd = self.deployed_world.prices_usd
        if not selected_symbols:
            return
        if self.perps is not None:
            for symbol in filter(self.perps.markets.__contains__, selected_symbols):
                self.perps.set_index(symbol, prices_usd[symbol])
        prices_raw = [round(prices_usd[symbol] * 10**FEED_DECIMALS) for symbol in selected_symbols]
        push_all_rounds = self.feed_contract(selected_symbols[0]).functions.pushAll
        self.send(
            push_all_rounds(
                [self.feed_addresses[symbol] for symbol in selected_symbols], prices_raw
            )
        )

    def feed_contract(self, symbol: str) -> Contract:
        """Return the price feed of a token; any account may write its rounds."""
        return self.contract(self.feed_addresses[symbol], own_artifact("PriceFeed"))

    def snapshot(self) -> ChainSnapshot:
        """Save the chain and what is deployed on it."""
        return ChainSnapshot(self.node.snapshot(), self.deployed_world)

    def revert(self, chain_snapshot: ChainSnapshot) -> None:
        """Revert to a snapshot; each snapshot can be used once."""
        self.node.revert(chain_snapshot.node_snapshot)
        self.deployed_world = chain_snapshot.deployed_world

    def add_token(
        self,
        symbol: str,
        decimals: int,
        price_usd: Fraction | int,
        kind: TokenKind = TokenKind.STANDARD,
    ) -> Token:
        """Deploy a token with a feed at that price. The whale receives WHALE_USD worth of it and
        approves the protocol.
        """
        if symbol in self.tokens:
            raise ValueError(f"{symbol} is already on this chain")
        is_wrapped = kind is TokenKind.WRAPPED_NATIVE
        token_address = (
            self.addresses.weth
            if is_wrapped
            else self.deploy(own_artifact(kind.value), symbol, symbol, decimals)
        )
        feed_address = self.deploy(own_artifact("PriceFeed"), f"{symbol} / USD", FEED_DECIMALS)
        token = Token(token_address, symbol, decimals)
        deployed_world = self.deployed_world
        self.deployed_world = replace(
            self.deployed_world,
            tokens={**deployed_world.tokens, symbol: token},
            kinds={**deployed_world.kinds, symbol: kind},
            prices_usd={**deployed_world.prices_usd, symbol: Fraction(price_usd)},
            feed_addresses={**deployed_world.feed_addresses, symbol: feed_address},
        )
        whale_raw = int(WHALE_USD / Fraction(price_usd) * 10**decimals)
        token_functions = self.token_contract(symbol).functions
        if is_wrapped:
            self.send(token_functions.deposit(), value_wei=whale_raw)
        else:
            self.send(token_functions.mint(self.whale.address, whale_raw))
        self.approve_protocol([symbol])
        self.refresh_feeds([symbol])
        return token

    def add_v2_pool(self, symbol_a: str, symbol_b: str, value_usd: int) -> LocalPool:
        """Create a pair named "v2 A/B" at current prices with this much USD in it."""
        token0, token1 = self._sorted_tokens(symbol_a, symbol_b)
        amounts_raw = [
            self._raw_for_usd(token.symbol, Fraction(value_usd, 2)) for token in (token0, token1)
        ]
        router = self.contract(self.addresses.v2_router, npm_artifact(V2_ROUTER_ARTIFACT))
        liquidity_arguments = (
            token0.address,
            token1.address,
            *amounts_raw,
            *amounts_raw,
            self.whale.address,
            FAR_FUTURE_S,
        )
        self.send(router.functions.addLiquidity(*liquidity_arguments), gas=5_000_000)
        factory = self.contract(self.addresses.v2_factory, npm_artifact(V2_FACTORY_ARTIFACT))
        pair_address = str(factory.functions.getPair(token0.address, token1.address).call())
        return self._register_pool(
            LocalPool(v2_pool_name(symbol_a, symbol_b), pair_address, 2, token0, token1, 3_000)
        )

    def add_v3_pool(
        self,
        symbol_a: str,
        symbol_b: str,
        fee_pips: int,
        price: Fraction | None = None,
        observation_count: int = OBSERVATION_COUNT,
    ) -> LocalPool:
        """Create an initialised pool without liquidity, at the current prices unless `price`
        (token1 per token0, base units) is given.

        A new pool stores only one price observation until its cardinality is increased.
        """
        token0, token1 = self._sorted_tokens(symbol_a, symbol_b)
        initial_price = self.pool_price(token0.symbol, token1.symbol) if price is None else price
        position_manager = self.contract(
            self.addresses.position_manager, npm_artifact(POSITION_MANAGER_ARTIFACT)
        )
        pair_and_fee = (token0.address, token1.address, fee_pips)
        self.send(
            position_manager.functions.createAndInitializePoolIfNecessary(
                *pair_and_fee, sqrt_price_x96(initial_price)
            ),
            gas=8_000_000,
        )
        pool_address = str(
            self.contract(self.addresses.v3_factory, npm_artifact(V3_FACTORY_ARTIFACT))
            .functions.getPool(*pair_and_fee)
            .call()
        )
        self.send(
            self.contract(
                pool_address, npm_artifact(V3_POOL_ARTIFACT)
            ).functions.increaseObservationCardinalityNext(observation_count),
            gas=5_000_000,
        )
        return self._register_pool(
            LocalPool(
                v3_pool_name(symbol_a, symbol_b, fee_pips),
                pool_address,
                3,
                token0,
                token1,
                fee_pips,
            )
        )

    def move_market(
        self,
        prices_usd: Mapping[str, Fraction | int | str],
        twap_follows: bool = True,
        feeds_follow: bool = True,
    ) -> None:
        """Set the USD prices of these tokens: every pool is arbitraged to them, and feeds and the
        30-minute TWAP follow.
        """
        new_prices_usd = {symbol: Fraction(price_usd) for symbol, price_usd in prices_usd.items()}
        for symbol, price_usd in new_prices_usd.items():
            if symbol not in self.tokens:
                raise ValueError(f"{symbol} is not a token of this chain")
            if price_usd <= 0:
                raise ValueError(f"price of {symbol}: {price_usd} is not positive")
        self.deployed_world = replace(
            self.deployed_world, prices_usd={**self.deployed_world.prices_usd, **new_prices_usd}
        )
        self.arbitrage(
            *(
                pool
                for pool in self.deployed_world.pool_by_name.values()
                if pool.token0.symbol in new_prices_usd or pool.token1.symbol in new_prices_usd
            )
        )
        if twap_follows:
            self.warp(TWAP_WINDOW_S + TWAP_MARGIN_S, refresh_feeds=False)
        if feeds_follow:
            # The TWAP window has passed for all feeds, so all of them get a round.
            self.refresh_feeds(self.feed_addresses if twap_follows else new_prices_usd)

    def swap(self, pool_name: str, symbol_in: str, amount_in_raw: int) -> int:
        """Swap the whale's tokens in one pool at any price, without changing feeds. Return the base
        units received. Raises ValueError for a token that the pool does not have.
        """
        local_pool = self.deployed_world.pool_by_name[pool_name]
        sold_token, bought_token = local_pool.sold_and_bought(symbol_in)
        balance_before = self.balance(bought_token.symbol, self.whale.address)
        if local_pool.version == 2:
            self.send(self._swap_v2(sold_token, bought_token, amount_in_raw))
        else:
            self.send(self._swap_v3(local_pool, sold_token, bought_token, amount_in_raw, 0))
        return self.balance(bought_token.symbol, self.whale.address) - balance_before

    def config_text(
        self,
        store_url: str = "sqlite:///trimtab.db",
        targets: Mapping[str, str] | None = None,
        router: str = "swap_router_02",
    ) -> str:
        """Return a complete trimtab.toml for this chain.

        `targets` by symbol replace those of the world; `router` is "swap_router_02" or
        "rebalancer".
        """
        target_by_symbol = targets or {
            token_spec.symbol: token_spec.target for token_spec in self.world.tokens
        }
        assets_text = "".join(
            ASSET_TEMPLATE.format(
                symbol=symbol,
                address=self.tokens[symbol].address,
                target=target,
                feed=self.feed_addresses[symbol],
            )
            for symbol, target in target_by_symbol.items()
        )
        return CONFIG_MARKER + CONFIG_TEMPLATE.format(
            chain_id=self.chain_id,
            at=self.addresses,
            kind=VenueKind,
            url=self.url or IN_PROCESS_URL,
            wallet=self.wallet.address,
            account=WALLET_INDEX,
            numeraire=self.world.numeraire,
            assets=assets_text,
            limits=LIMITS_TEXT,
            store_url=store_url,
            router=router,
        )

    def provide_liquidity(
        self, pool: LocalPool, value_usd: int, ranges: Sequence[LiquidityRange]
    ) -> None:
        """Provide `value_usd` in total over the ranges, as positions of the whale in the position
        manager.
        """
        position_manager = self.contract(
            self.addresses.position_manager, npm_artifact(POSITION_MANAGER_ARTIFACT)
        )
        price = self.pool_price(pool.token0.symbol, pool.token1.symbol)
        tick_spacing = SPACING_BY_FEE_PIPS[pool.fee_pips]
        mint_calls = []
        range_end_ticks = set()
        for liquidity_range in ranges:
            value_in_token1_raw = self._raw_for_usd(
                pool.token1.symbol, Fraction(value_usd * liquidity_range.share_bps, BPS)
            )
            position = position_amounts(
                price,
                *range_ticks(price, liquidity_range, tick_spacing),
                float(value_in_token1_raw),
            )
            ticks = (position.tick_lower, position.tick_upper)
            pair_and_fee = (pool.token0.address, pool.token1.address, pool.fee_pips)
            amounts_and_minimums = (position.amount0_raw, position.amount1_raw, 0, 0)
            mint_params = (
                *pair_and_fee,
                *ticks,
                *amounts_and_minimums,
                self.whale.address,
                FAR_FUTURE_S,
            )
            mint_calls.append(position_manager.encode_abi("mint", args=[mint_params]))
            range_end_ticks |= set(ticks)
        self.send(position_manager.functions.multicall(mint_calls))
        self._register_ticks(pool, range_end_ticks)

    def mint_positions(self, pool: LocalPool, positions: Sequence[tuple[int, int, int]]) -> None:
        """Mint exact liquidity (tick_lower, tick_upper, liquidity), owned by the PoolMinter, paid
        by the whale.
        """
        minter = self.contract(self.addresses.pool_minter, own_artifact("PoolMinter"))
        for start in range(0, len(positions), MINTS_PER_TX):
            lower_ticks, upper_ticks, liquidities = zip(
                *positions[start : start + MINTS_PER_TX], strict=True
            )
            self.send(minter.functions.mint(pool.address, lower_ticks, upper_ticks, liquidities))
        self._register_ticks(
            pool,
            {tick for tick_lower, tick_upper, _ in positions for tick in (tick_lower, tick_upper)},
        )

    def arbitrage(self, *pools: LocalPool) -> None:
        """Trade as the whale, in one transaction, until each pool's marginal price, fee excluded,
        is the current cross price.
        """
        symbols = {token.symbol for pool in pools for token in (pool.token0, pool.token1)}
        balance_by_symbol = self.balances(symbols, self.whale.address)
        pool_states = read_views(self.node, [self._state_call(pool) for pool in pools])
        swap_calls: list[bytes] = []
        for pool, pool_state in zip(pools, pool_states, strict=True):
            is_v2 = pool.version == 2
            swap_call = (
                self._v2_correction(pool, *pool_state[:2])
                if is_v2
                else self._v3_correction(pool, pool_state[0], balance_by_symbol)
            )
            swap_calls += [] if swap_call is None else [bytes.fromhex(call_data(swap_call)[2:])]
        if swap_calls:
            multicall = self._router.get_function_by_signature("multicall(bytes[])")
            self.send(multicall(swap_calls), gas=min(len(swap_calls) * TX_GAS, BLOCK_GAS))

    def _state_call(self, pool: LocalPool) -> Any:
        if pool.version == 2:
            return self.contract(
                pool.address, npm_artifact(V2_PAIR_ARTIFACT)
            ).functions.getReserves()
        return self.contract(pool.address, npm_artifact(V3_POOL_ARTIFACT)).functions.slot0()

    def _v2_correction(self, pool: LocalPool, reserve0_raw: int, reserve1_raw: int) -> Any:
        """Return the swap that moves a pair to the current cross price; None if there is none."""
        target_price = self.pool_price(pool.token0.symbol, pool.token1.symbol)
        sold0_raw = v2_input_to_reach(reserve0_raw, reserve1_raw, target_price)
        sold1_raw = v2_input_to_reach(reserve1_raw, reserve0_raw, 1 / target_price)
        # A pair rejects a trade whose output is zero.
        if sold0_raw > 0 and get_amount_out(sold0_raw, reserve0_raw, reserve1_raw) > 0:
            return self._swap_v2(pool.token0, pool.token1, sold0_raw)
        if sold1_raw > 0 and get_amount_out(sold1_raw, reserve1_raw, reserve0_raw) > 0:
            return self._swap_v2(pool.token1, pool.token0, sold1_raw)
        return None

    def _v3_correction(
        self, pool: LocalPool, current_sqrt_price_x96: int, balance_by_symbol: Mapping[str, int]
    ) -> Any:
        limit_sqrt_price_x96 = sqrt_price_x96(
            self.pool_price(pool.token0.symbol, pool.token1.symbol)
        )
        token_in = pool.token0
        token_out = pool.token1
        if limit_sqrt_price_x96 > current_sqrt_price_x96:
            token_in, token_out = token_out, token_in
        if current_sqrt_price_x96 == limit_sqrt_price_x96:
            return None
        return self._swap_v3(
            pool, token_in, token_out, balance_by_symbol[token_in.symbol], limit_sqrt_price_x96
        )

    def _swap_v2(self, token_in: Token, token_out: Token, amount_in_raw: int) -> Any:
        token_path = [token_in.address, token_out.address]
        swap_function = self._router.functions.swapExactTokensForTokens
        return swap_function(amount_in_raw, 0, token_path, self.whale.address)

    def _swap_v3(
        self,
        pool: LocalPool,
        token_in: Token,
        token_out: Token,
        amount_in_raw: int,
        limit_sqrt_price_x96: int,
    ) -> Any:
        """Return a swap of exact input up to a price limit; the rest stays with the whale."""
        path_fee_recipient = token_in.address, token_out.address, pool.fee_pips, self.whale.address
        return self._router.functions.exactInputSingle(
            (*path_fee_recipient, amount_in_raw, 0, limit_sqrt_price_x96)
        )

    @property
    def _router(self) -> Contract:
        return self.contract(self.addresses.swap_router_02, npm_artifact(SWAP_ROUTER_02_ARTIFACT))

    def _raw_for_usd(self, symbol: str, value_usd: Fraction) -> int:
        return int(
            value_usd / self.deployed_world.prices_usd[symbol] * 10 ** self.tokens[symbol].decimals
        )

    def _register_pool(self, pool: LocalPool) -> LocalPool:
        self.deployed_world = replace(
            self.deployed_world, pool_by_name={**self.deployed_world.pool_by_name, pool.name: pool}
        )
        return pool

    def _register_ticks(self, pool: LocalPool, new_ticks: Iterable[int]) -> None:
        ticks_by_pool = self.deployed_world.range_ends_by_pool
        self.deployed_world = replace(
            self.deployed_world,
            range_ends_by_pool={
                **ticks_by_pool,
                pool.name: ticks_by_pool.get(pool.name, frozenset()) | frozenset(new_ticks),
            },
        )

    def _sorted_tokens(self, symbol_a: str, symbol_b: str) -> tuple[Token, Token]:
        """Return both tokens in the order of their addresses, as the factories sort them."""
        token0, token1 = sorted(
            (self.tokens[symbol_a], self.tokens[symbol_b]), key=lambda token: int(token.address, 16)
        )
        return token0, token1
