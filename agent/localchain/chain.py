"""Running embedded chain: contracts, accounts, and methods that change them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

from eth_typing import HexStr
from eth_utils.address import to_checksum_address
from web3.contract.contract import Contract

from agent.amm.v2 import get_amount_out
from agent.artifacts import Artifact, npm_artifact, own_artifact
from agent.localchain.nodes import BLOCK_GAS, LocalNode, TesterNode, call_data, read_views
from agent.localchain.world import (
    TICK_SPACINGS,
    WALLET_INDEX,
    WHALE_INDEX,
    DevAccount,
    LiquidityRange,
    LocalWorld,
    TokenKind,
    V2Spec,
    V3Spec,
    dev_accounts,
    position_amounts,
    range_ticks,
    sqrt_price_x96,
    v2_input_to_reach,
)
from agent.units import BPS, UINT256_MAX, Token

if TYPE_CHECKING:
    from web3 import Web3

    from agent.chain.rpc import Transport
    from agent.localchain.perpetuals import LocalPerps


TX_GAS = 30_000_000
FEED_DECIMALS = 8
TWAP_WINDOW_S = 1_800
FAR_FUTURE_S = 2**63
WHALE_USD = 10**9
"""USD value of each token that the whale receives when it is deployed."""
OBSERVATIONS = 64
"""Price observations per V3 pool: enough for a TWAP of 30 minutes across many trades."""
MINTS_PER_TX = 40
TWAP_MARGIN_S = 60
BALANCE_OF = "0x70a08231"
"""Selector of balanceOf(address)."""
POSITION_MANAGER = "@uniswap/v3-periphery/artifacts/contracts/NonfungiblePositionManager.sol/NonfungiblePositionManager.json"
SWAP_ROUTER_02 = (
    "@uniswap/swap-router-contracts/artifacts/contracts/SwapRouter02.sol/SwapRouter02.json"
)
V2_FACTORY = "@uniswap/v2-core/build/UniswapV2Factory.json"
V2_PAIR = "@uniswap/v2-core/build/UniswapV2Pair.json"
V2_ROUTER = "@uniswap/v2-periphery/build/UniswapV2Router02.json"
V3_FACTORY = "@uniswap/v3-core/artifacts/contracts/UniswapV3Factory.sol/UniswapV3Factory.json"
V3_POOL = "@uniswap/v3-core/artifacts/contracts/UniswapV3Pool.sol/UniswapV3Pool.json"
_WETH_ARTIFACT = "@uniswap/v2-periphery/build/WETH9.json"


@dataclass(frozen=True, slots=True)
class ProtocolAddresses:
    """Addresses of the protocol contracts."""

    weth: str
    v2_factory: str
    v2_router: str
    v3_factory: str
    swap_router_02: str
    quoter_v2: str
    quoter_v1: str
    position_manager: str
    pool_minter: str
    rebalancer: str


@dataclass(frozen=True, slots=True)
class LocalPool:
    """A local pool. `fee_pips` is 3000 for V2; token0 and token1 are in contract order."""

    name: str
    address: str
    version: int
    token0: Token
    token1: Token
    fee_pips: int


@dataclass(frozen=True, slots=True)
class ChainContents:
    """Contents of the chain, by symbol or pool name; `ticks` are the ends of all positions."""

    tokens: Mapping[str, Token]
    kinds: Mapping[str, TokenKind]
    prices_usd: Mapping[str, Fraction]
    feeds: Mapping[str, str]
    pool_info: Mapping[str, LocalPool]
    ticks: Mapping[str, frozenset[int]]


@dataclass(frozen=True, slots=True)
class ChainSnapshot:
    """A saved state of the node with the contents of the chain."""

    node: str
    books: ChainContents = field(repr=False)


class ChainClock:
    """The agent's clock on an embedded chain: the time of the newest block. Sleeping mines one."""

    def __init__(self, node: LocalNode) -> None:
        self._node = node

    def now_s(self) -> int:
        """Return the time of the newest block in Unix seconds."""
        return self._node.now_s()

    def sleep(self, seconds: float) -> None:
        """Mine a block `seconds` later."""
        self._node.mine_at(self._node.now_s() + max(1, round(seconds)))


class LocalChain:
    """An embedded chain with all contracts deployed. The whale sends all changes, never the
    wallet.
    """

    def __init__(self, node: LocalNode, world: LocalWorld) -> None:
        self.node, self.world = node, world
        self.w3: Web3 = node.w3
        self.chain_id: int = self.w3.eth.chain_id
        self.accounts: tuple[DevAccount, ...] = dev_accounts()
        self.wallet, self.whale = self.accounts[WALLET_INDEX], self.accounts[WHALE_INDEX]
        self.clock = ChainClock(node)
        self.books = ChainContents({}, {}, {}, {}, {}, {})
        self._contracts: dict[tuple[str, int], tuple[Artifact, Contract]] = {}
        self.addresses: ProtocolAddresses  # set by deploy before the chain is returned
        self.perps: LocalPerps | None = None
        """Perpetual futures beside the tokens, if they are deployed."""

    # contents

    @property
    def url(self) -> str | None:
        """HTTP address of the node; None in process."""
        return self.node.url

    @cached_property
    def transport(self) -> Transport:
        """Transport of chain.rpc to this node, with the operator "local"."""
        if isinstance(self.node, TesterNode):
            from agent.chain.providers.eth_tester import EthTesterTransport

            return EthTesterTransport(self.node.provider, "local")
        from agent.chain.providers.endpoint import EndpointProvider

        return EndpointProvider(self.url or "", "local", 30)

    @property
    def tokens(self) -> Mapping[str, Token]:
        """Tokens by symbol."""
        return self.books.tokens

    @property
    def pools(self) -> dict[str, str]:
        """Pool addresses by name, such as "v3 WETH/USDC 500"."""
        return {name: info.address for name, info in self.books.pool_info.items()}

    @property
    def feeds(self) -> Mapping[str, str]:
        """USD price feeds by symbol."""
        return self.books.feeds

    def pool_price(self, token0: str, token1: str) -> Fraction:
        """Return base units of token1 per base unit of token0 at the current USD prices; tokens by
        symbol.
        """
        a, b, usd = self.tokens[token0], self.tokens[token1], self.books.prices_usd
        return usd[token0] / usd[token1] * Fraction(10) ** (b.decimals - a.decimals)

    def contract(self, address: str, artifact: Artifact) -> Contract:
        """Return a web3 contract at an address; cached, because building one takes milliseconds."""
        key = (to_checksum_address(address), id(artifact))
        if key not in self._contracts:
            self._contracts[key] = artifact, self.w3.eth.contract(address=key[0], abi=artifact.abi)
        return self._contracts[key][1]

    def token_contract(self, symbol: str) -> Contract:
        """Return the ERC-20 contract of a symbol."""
        kind = self.books.kinds[symbol]
        if kind is TokenKind.WRAPPED_NATIVE:
            artifact = npm_artifact(_WETH_ARTIFACT)
        else:
            artifact = own_artifact(kind.value)
        return self.contract(self.tokens[symbol].address, artifact)

    def balance(self, symbol: str, owner: str | None = None) -> int:
        """Return the balance of `owner` (default: the wallet) in base units."""
        return self.balances([symbol], owner)[symbol]

    def balances(
        self, symbols: Iterable[str] | None = None, owner: str | None = None
    ) -> dict[str, int]:
        """Return the balances of several tokens (default: all), read at once."""
        selected = list(self.tokens if symbols is None else symbols)
        owner = owner or self.wallet.address
        data = BALANCE_OF + owner.removeprefix("0x").lower().rjust(64, "0")
        calls = [
            (
                "eth_call",
                [{"from": owner, "to": self.tokens[symbol].address, "data": data}, "latest"],
            )
            for symbol in selected
        ]
        return {
            symbol: int(str(answer), 16)
            for symbol, answer in zip(selected, self.node.ask(calls), strict=True)
        }

    # transactions

    def send(
        self, call: Any, sender: str | None = None, value_wei: int = 0, gas: int = TX_GAS
    ) -> HexStr:
        """Send a bound contract function and return the hash of its mined transaction. Raises
        RuntimeError if it reverts.
        """
        sender = sender or self.whale.address
        fees = {"gas": gas, "maxFeePerGas": 100 * 10**9, "maxPriorityFeePerGas": 10**9}
        tx_hash, succeeded = self.node.transact(call, {"from": sender, "value": value_wei, **fees})
        if not succeeded:
            raise RuntimeError(
                f"{getattr(call, 'fn_name', 'deployment')} reverted on the local chain:"
                f" {self._revert_reason(call, sender, value_wei)}"
            )
        return tx_hash

    def _revert_reason(self, call: Any, sender: str, value_wei: int) -> str:
        try:
            call.call({"from": sender, "value": value_wei, "gas": TX_GAS})
        except Exception as error:  # each node raises errors of its own
            return str(error)
        return "the repeated call succeeds"

    def deploy(self, artifact: Artifact, *arguments: object, sender: str | None = None) -> str:
        """Deploy a contract and return its checksummed address."""
        factory = self.w3.eth.contract(abi=artifact.abi, bytecode=artifact.bytecode)
        tx_hash = self.send(factory.constructor(*arguments), sender)
        receipt = self.w3.eth.get_transaction_receipt(tx_hash)
        return str(to_checksum_address(str(receipt["contractAddress"])))

    def allow_whale(self, symbols: Iterable[str]) -> None:
        """Approve the protocol contracts for the whale's tokens."""
        at = self.addresses
        for symbol in symbols:
            for spender in (at.v2_router, at.swap_router_02, at.position_manager, at.pool_minter):
                self.send(self.token_contract(symbol).functions.approve(spender, UINT256_MAX))

    def set_balance(self, symbol: str, raw: int, owner: str | None = None) -> None:
        """Set the balance of the wallet (or `owner`) in base units, without changing its nonce. Only
        the wallet's wrapped native coin can be reduced.
        """
        self.set_balances({symbol: raw}, owner)

    def set_balances(self, wanted: Mapping[str, int], owner: str | None = None) -> None:
        """Set the balances of several tokens, by symbol."""
        held, owner = self.balances(wanted, owner), owner or self.wallet.address
        for symbol, raw in wanted.items():
            missing, token = raw - held[symbol], self.token_contract(symbol).functions
            wrapped = self.books.kinds[symbol] is TokenKind.WRAPPED_NATIVE
            if missing > 0:
                self.send(token.transfer(owner, missing) if wrapped else token.mint(owner, missing))
            elif missing < 0 and wrapped:
                self.send(token.transferFrom(owner, self.whale.address, -missing))
            elif missing < 0:
                self.send(token.burn(owner, -missing))

    def set_native(self, wei: int, owner: str | None = None) -> None:
        """Set the native balance of the wallet (or `owner`)."""
        self.node.set_native(owner or self.wallet.address, wei)

    # time

    def now_s(self) -> int:
        """Return the timestamp of the newest block."""
        return self.node.now_s()

    def mine(self, blocks: int = 1) -> None:
        """Mine empty blocks."""
        self.node.mine(blocks)

    def warp(self, seconds: int, refresh_feeds: bool = True) -> None:
        """Mine a block `seconds` later; feeds then get a new round at their current price."""
        self.node.mine_at(self.now_s() + seconds)
        if refresh_feeds:
            self.refresh_feeds()

    def refresh_feeds(self, symbols: Iterable[str] | None = None) -> None:
        """Write a complete round at the current price and time to these feeds (default: all), in
        one transaction.
        """
        selected, usd = list(self.feeds if symbols is None else symbols), self.books.prices_usd
        if not selected:
            return
        if self.perps is not None:
            for symbol in filter(self.perps.markets.__contains__, selected):
                self.perps.set_index(symbol, usd[symbol])
        answers = [round(usd[symbol] * 10**FEED_DECIMALS) for symbol in selected]
        push = self.feed_contract(selected[0]).functions.pushAll
        self.send(push([self.feeds[symbol] for symbol in selected], answers))

    def feed_contract(self, symbol: str) -> Contract:
        """Return the price feed of a token; any account may write its rounds."""
        return self.contract(self.feeds[symbol], own_artifact("PriceFeed"))

    def snapshot(self) -> ChainSnapshot:
        """Save chain and contents."""
        return ChainSnapshot(self.node.snapshot(), self.books)

    def revert(self, mark: ChainSnapshot) -> None:
        """Revert to a snapshot; each snapshot can be used once."""
        self.node.revert(mark.node)
        self.books = mark.books

    # the market: pools and positions at the current prices, and swaps to new ones

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
        wrapped = kind is TokenKind.WRAPPED_NATIVE
        address = (
            self.addresses.weth
            if wrapped
            else self.deploy(own_artifact(kind.value), symbol, symbol, decimals)
        )
        feed = self.deploy(own_artifact("PriceFeed"), f"{symbol} / USD", FEED_DECIMALS)
        token, books = Token(address, symbol, decimals), self.books
        self.books = replace(
            self.books,
            tokens={**books.tokens, symbol: token},
            kinds={**books.kinds, symbol: kind},
            prices_usd={**books.prices_usd, symbol: Fraction(price_usd)},
            feeds={**books.feeds, symbol: feed},
        )
        plenty = int(WHALE_USD / Fraction(price_usd) * 10**decimals)
        functions = self.token_contract(symbol).functions
        if wrapped:
            self.send(functions.deposit(), value_wei=plenty)
        else:
            self.send(functions.mint(self.whale.address, plenty))
        self.allow_whale([symbol])
        self.refresh_feeds([symbol])
        return token

    def add_v2_pool(self, token_a: str, token_b: str, value_usd: int) -> LocalPool:
        """Create a pair named "v2 A/B" at current prices with this much USD in it."""
        token0, token1 = self._pair(token_a, token_b)
        amounts = [
            self._raw_for_usd(token.symbol, Fraction(value_usd, 2)) for token in (token0, token1)
        ]
        router = self.contract(self.addresses.v2_router, npm_artifact(V2_ROUTER))
        order = (
            token0.address,
            token1.address,
            *amounts,
            *amounts,
            self.whale.address,
            FAR_FUTURE_S,
        )
        self.send(router.functions.addLiquidity(*order), gas=5_000_000)
        factory = self.contract(self.addresses.v2_factory, npm_artifact(V2_FACTORY))
        address = str(factory.functions.getPair(token0.address, token1.address).call())
        return self._register_pool(
            LocalPool(V2Spec(token_a, token_b, value_usd).name, address, 2, token0, token1, 3_000)
        )

    def add_v3_pool(
        self,
        token_a: str,
        token_b: str,
        fee_pips: int,
        price: Fraction | None = None,
        observations: int = OBSERVATIONS,
    ) -> LocalPool:
        """Create an initialised pool without liquidity, at the current prices unless `price`
        (token1 per token0, base units) is given.

        A new pool stores only one price observation until its cardinality is increased.
        """
        token0, token1 = self._pair(token_a, token_b)
        at = self.pool_price(token0.symbol, token1.symbol) if price is None else price
        manager = self.contract(self.addresses.position_manager, npm_artifact(POSITION_MANAGER))
        pair = (token0.address, token1.address, fee_pips)
        self.send(
            manager.functions.createAndInitializePoolIfNecessary(*pair, sqrt_price_x96(at)),
            gas=8_000_000,
        )
        address = str(
            self.contract(self.addresses.v3_factory, npm_artifact(V3_FACTORY))
            .functions.getPool(*pair)
            .call()
        )
        self.send(
            self.contract(
                address, npm_artifact(V3_POOL)
            ).functions.increaseObservationCardinalityNext(observations),
            gas=5_000_000,
        )
        return self._register_pool(
            LocalPool(
                V3Spec(token_a, token_b, fee_pips, 0, ()).name, address, 3, token0, token1, fee_pips
            )
        )

    def mint_position(self, pool: str, tick_lower: int, tick_upper: int, liquidity: int) -> None:
        """Mint exactly this liquidity between two ticks of the pool with this name, owned by the
        PoolMinter.
        """
        self.mint_positions(self.books.pool_info[pool], ((tick_lower, tick_upper, liquidity),))

    def move_market(
        self,
        prices_usd: Mapping[str, Fraction | int | str],
        twap_follows: bool = True,
        feeds_follow: bool = True,
    ) -> None:
        """Set the USD prices of these tokens: every pool is arbitraged to them, and feeds and the
        30-minute TWAP follow.
        """
        moved = {symbol: Fraction(price) for symbol, price in prices_usd.items()}
        for symbol, price in moved.items():
            if symbol not in self.tokens:
                raise ValueError(f"{symbol} is not a token of this chain")
            if price <= 0:
                raise ValueError(f"price of {symbol}: {price} is not positive")
        self.books = replace(self.books, prices_usd={**self.books.prices_usd, **moved})
        self.arbitrage(
            *(
                pool
                for pool in self.books.pool_info.values()
                if pool.token0.symbol in moved or pool.token1.symbol in moved
            )
        )
        if twap_follows:
            self.warp(TWAP_WINDOW_S + TWAP_MARGIN_S, refresh_feeds=False)
        if feeds_follow:
            # The TWAP window has passed for all feeds, so all of them get a round.
            self.refresh_feeds(self.feeds if twap_follows else moved)

    def swap(self, pool: str, token_in: str, amount_in_raw: int) -> int:
        """Swap the whale's tokens in one pool at any price, without changing feeds. Return the base
        units received.
        """
        info = self.books.pool_info[pool]
        token = info.token0 if info.token0.symbol == token_in else info.token1
        token1 = info.token1 if token is info.token0 else info.token0
        before = self.balance(token1.symbol, self.whale.address)
        if info.version == 2:
            self.send(self._swap_v2(token, token1, amount_in_raw))
        else:
            self.send(self._swap_v3(info, token, token1, amount_in_raw, 0))
        return self.balance(token1.symbol, self.whale.address) - before

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
        from agent.localchain.world import config_text

        return config_text(
            self,
            store_url,
            targets or {spec.symbol: spec.target for spec in self.world.tokens},
            router,
        )

    def provide_liquidity(
        self, pool: LocalPool, value_usd: int, ranges: Sequence[LiquidityRange]
    ) -> None:
        """Provide `value_usd` in total over the ranges, as positions of the whale in the position
        manager.
        """
        manager = self.contract(self.addresses.position_manager, npm_artifact(POSITION_MANAGER))
        price = self.pool_price(pool.token0.symbol, pool.token1.symbol)
        spacing = TICK_SPACINGS[pool.fee_pips]
        mints, ends = [], set()
        for part in ranges:
            value1_raw = self._raw_for_usd(
                pool.token1.symbol, Fraction(value_usd * part.share_bps, BPS)
            )
            position = position_amounts(
                price, *range_ticks(price, part, spacing), float(value1_raw)
            )
            ticks = (position.tick_lower, position.tick_upper)
            pair = (pool.token0.address, pool.token1.address, pool.fee_pips)
            amounts = (position.amount0_raw, position.amount1_raw, 0, 0)
            params = (*pair, *ticks, *amounts, self.whale.address, FAR_FUTURE_S)
            mints.append(manager.encode_abi("mint", args=[params]))
            ends |= set(ticks)
        self.send(manager.functions.multicall(mints))
        self._register_ticks(pool, ends)

    def mint_positions(self, pool: LocalPool, positions: Sequence[tuple[int, int, int]]) -> None:
        """Mint exact liquidity (tick_lower, tick_upper, liquidity), owned by the PoolMinter, paid
        by the whale.
        """
        minter = self.contract(self.addresses.pool_minter, own_artifact("PoolMinter"))
        for start in range(0, len(positions), MINTS_PER_TX):
            lowers, uppers, liquidities = zip(*positions[start : start + MINTS_PER_TX], strict=True)
            self.send(minter.functions.mint(pool.address, lowers, uppers, liquidities))
        self._register_ticks(pool, {end for lower, upper, _ in positions for end in (lower, upper)})

    def arbitrage(self, *pools: LocalPool) -> None:
        """Trade as the whale, in one transaction, until each pool's marginal price, fee excluded, is
        the current cross price.
        """
        tokens = {token.symbol for pool in pools for token in (pool.token0, pool.token1)}
        held = self.balances(tokens, self.whale.address)
        states = read_views(self.node, [self._state_call(pool) for pool in pools])
        swaps: list[bytes] = []
        for pool, state in zip(pools, states, strict=True):
            v2 = pool.version == 2
            swap = (
                self._correct_v2(pool, *state[:2]) if v2 else self._correct_v3(pool, state[0], held)
            )
            swaps += [] if swap is None else [bytes.fromhex(call_data(swap)[2:])]
        if swaps:
            multicall = self._router.get_function_by_signature("multicall(bytes[])")
            self.send(multicall(swaps), gas=min(len(swaps) * TX_GAS, BLOCK_GAS))

    def _state_call(self, pool: LocalPool) -> Any:
        if pool.version == 2:
            return self.contract(pool.address, npm_artifact(V2_PAIR)).functions.getReserves()
        return self.contract(pool.address, npm_artifact(V3_POOL)).functions.slot0()

    def _correct_v2(self, pool: LocalPool, reserve0: int, reserve1: int) -> Any:
        """Return the swap that moves a pair to the current cross price; None if there is none."""
        target = self.pool_price(pool.token0.symbol, pool.token1.symbol)
        sell0 = v2_input_to_reach(reserve0, reserve1, target)
        sell1 = v2_input_to_reach(reserve1, reserve0, 1 / target)
        # A pair rejects a trade whose output is zero.
        if sell0 > 0 and get_amount_out(sell0, reserve0, reserve1) > 0:
            return self._swap_v2(pool.token0, pool.token1, sell0)
        if sell1 > 0 and get_amount_out(sell1, reserve1, reserve0) > 0:
            return self._swap_v2(pool.token1, pool.token0, sell1)
        return None

    def _correct_v3(self, pool: LocalPool, now_x96: int, held: Mapping[str, int]) -> Any:
        limit_x96 = sqrt_price_x96(self.pool_price(pool.token0.symbol, pool.token1.symbol))
        given, token = pool.token0, pool.token1
        if limit_x96 > now_x96:
            given, token = token, given
        if now_x96 == limit_x96:
            return None
        return self._swap_v3(pool, given, token, held[given.symbol], limit_x96)

    def _swap_v2(self, given: Token, wanted: Token, amount_in_raw: int) -> Any:
        path = [given.address, wanted.address]
        swap = self._router.functions.swapExactTokensForTokens
        return swap(amount_in_raw, 0, path, self.whale.address)

    def _swap_v3(
        self, pool: LocalPool, given: Token, wanted: Token, amount_in_raw: int, limit_x96: int
    ) -> Any:
        """Return a swap of exact input up to a price limit; the rest stays with the whale."""
        route = given.address, wanted.address, pool.fee_pips, self.whale.address
        return self._router.functions.exactInputSingle((*route, amount_in_raw, 0, limit_x96))

    @property
    def _router(self) -> Contract:
        return self.contract(self.addresses.swap_router_02, npm_artifact(SWAP_ROUTER_02))

    def _raw_for_usd(self, symbol: str, usd: Fraction) -> int:
        return int(usd / self.books.prices_usd[symbol] * 10 ** self.tokens[symbol].decimals)

    def _register_pool(self, info: LocalPool) -> LocalPool:
        self.books = replace(self.books, pool_info={**self.books.pool_info, info.name: info})
        return info

    def _register_ticks(self, pool: LocalPool, ends: Iterable[int]) -> None:
        known = self.books.ticks
        self.books = replace(
            self.books,
            ticks={**known, pool.name: known.get(pool.name, frozenset()) | frozenset(ends)},
        )

    def _pair(self, token_a: str, token_b: str) -> tuple[Token, Token]:
        """Return both tokens in the order of their addresses, as the factories sort them."""
        first, second = sorted(
            (self.tokens[token_a], self.tokens[token_b]), key=lambda token: int(token.address, 16)
        )
        return first, second
